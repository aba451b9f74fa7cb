"""Selection tables of Raven and label tracks of Audacity beside recordings are events, or are refused by name."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from modeling_fftp.serving.tables import write_audacity, write_raven
from modeling_fftp.training.data.sources import Columns, load_splits

HEADER = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"
FILES = "Selection\tBegin Time (s)\tEnd Time (s)\tBegin Path\tFile Offset (s)\tSpecies"


def selection(number, begin, end, *more, view="Spectrogram 1"):
    return "\t".join([str(number), view, "1", str(begin), str(end), "100.0", "8000.0", *more])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def write(folder):
    """Writes texts, lists of their lines, and sound, at paths below the folder."""

    def write(*sounds, **texts):
        for path in (folder / sound for sound in sounds):
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.zeros(800), 16000, format=path.suffix[1:].upper())
        for name, lines in texts.items():
            path = folder / f"{name}.txt".replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    return write


def events(folder, column="events", split="train", **options):
    """The events by their recordings."""
    rows = load_splits(str(folder), **options)[split]
    found = {row["audio"].removeprefix(f"{folder}/"): row[column] for row in rows}
    return {path: [(event["onset"], event["offset"], event["label"]) for event in row] for path, row in found.items()}


def test_selection_tables(folder, write, caplog):
    write("a/rec.1.wav", "a/quiet.WAV", "b/rec.1.flac", "b/unheard.wav")
    write(**{
        # Each selection in both views.
        "a__rec.1.Table.1.selections": [
            HEADER + "\tAnnotation",
            selection(1, 0.5, 1.25, "wren", view="Waveform 1"),
            selection(1, 0.5, 1.25, "wren"),
            selection(2, 3, 4, "great tit", view="Waveform 1"),
            selection(2, 3, 4, "great tit"),
        ],
        "a__rec.1.Table.2.selections": [HEADER + "\tSpecies", selection(1, 2, 2.5, "wren")],
        "a__QUIET.Table.1.selections": [HEADER],
        "b__rec.1.selections": [HEADER + "\tLabel", selection(1, 0, 1, "owl")],
        "b__lost.Table.1.selections": [HEADER + "\tLabel", selection(1, 0, 1, "owl")],
    })  # fmt: skip
    assert events(folder) == {
        "a/quiet.WAV": [],
        "a/rec.1.wav": [(0.5, 1.25, "wren"), (3.0, 4.0, "great tit"), (2.0, 2.5, "wren")],
        "b/rec.1.flac": [(0.0, 1.0, "owl")],
    }
    assert (
        "1 annotations of no recording are passed over; call each after its recording: lost.Table.1.selections.txt"
        in caplog.text
    )
    assert "1 recordings without annotations are passed over: unheard.wav" in caplog.text


def test_a_table_of_several_recordings(folder, write):
    write("sound/one.wav", "sound/two.flac")
    rows = [
        "1\t10.5\t11\tL:\\birds\\one.wav\t0.5\twren",
        "2\t70\t72\t/old/two.wav\t10\towl",
        "3\t80\t81\tgone.wav\t2\towl",
    ]
    write(tables__all=[FILES, *rows])
    assert events(folder) == {
        "sound/one.wav": [(0.5, 1.0, "wren")],
        "sound/two.flac": [(10.0, 12.0, "owl")],
        # So that what is left out is named.
        "tables/gone.wav": [(2.0, 3.0, "owl")],
    }
    write(tables__all=[FILES.replace("File Offset (s)", "Site"), *rows])
    with pytest.raises(ValueError, match=r"all\.txt is of several recordings, and no column 'File offset \(s\)'"):
        load_splits(str(folder))


def test_a_table_that_is_called_after_another_recording_counts_from_that(folder, write):
    write("one.wav", "two.wav")
    table = [HEADER + "\tBegin File\tLabel", selection(1, 7, 8, "two.wav", "wren")]
    write(two=table)
    assert events(folder) == {"two.wav": [(7.0, 8.0, "wren")]}
    (folder / "two.txt").rename(folder / "one.txt")
    with pytest.raises(ValueError, match=r"one\.txt is of several recordings.*They are .*one\.wav.*two\.wav"):
        load_splits(str(folder))


def test_recordings_of_other_sites_that_are_called_alike(folder, write, caplog):
    """One recording of site A is missing, and site B has one of its name."""
    write("a/1.wav", "b/2.wav", "sound/c/3.wav", "sound/d/4.wav")
    write(a__1=["1\t2\twren"], a__2=["1\t2\towl"], labels__c__3=["1\t2\twren"], labels__c__4=["1\t2\towl"])
    assert events(folder) == {"a/1.wav": [(1.0, 2.0, "wren")], "sound/c/3.wav": [(1.0, 2.0, "wren")]}
    assert "2 annotations of no recording are passed over; call each after its recording: 2.txt, 4.txt" in caplog.text


def test_recordings_of_other_sites_that_a_table_names(folder, write):
    write("top.wav", "b/1.wav", "b/2.wav", "c/bare.wav")
    rows = [
        "1\t1\t2\tD:\\rec\\A\\1.wav\t1\twren",
        "2\t1\t2\tD:\\rec\\B\\2.wav\t1\tjay",
        "3\t1\t2\tD:\\rec\\top.wav\t1\towl",
        "4\t1\t2\tbare.wav\t1\town",
    ]
    write(all=[FILES, *rows])
    found = events(folder)
    assert found.pop("D:/rec/A/1.wav") == [(1.0, 2.0, "wren")]
    assert found == {"b/2.wav": [(1.0, 2.0, "jay")], "top.wav": [(1.0, 2.0, "owl")], "c/bare.wav": [(1.0, 2.0, "own")]}


def test_two_names_of_one_recording(folder, write):
    """From two disks, of which one has another folder above."""
    write("b/1.wav")
    rows = ["1\t1\t2\tE:\\old\\A\\1.wav\t1\twren", "2\t1\t2\tD:\\rec\\B\\1.wav\t1\tjay"]
    write(all=[FILES, *rows])
    assert events(folder)["b/1.wav"] == [(1.0, 2.0, "jay")]


def test_selections_of_one_number_and_time_with_other_labels(folder, write):
    write("rec.wav", rec=[HEADER + "\tLabel", selection(1, 0, 3, "wren"), selection(1, 0, 3, "robin")])
    assert events(folder) == {"rec.wav": [(0.0, 3.0, "wren"), (0.0, 3.0, "robin")]}


def test_annotations_that_are_not_read_are_named(folder, write, caplog):
    write("a/rec.wav", "b/rec.wav")
    write(**{"a__Label Track": ["1\t2\twren"], "b__Label Track": ["1\t2\twren"]})
    assert {*load_splits(str(folder))["train"]["label"]} == {"a", "b"}
    assert "2 annotations of no recording are passed over; call each after its recording: Label Track" in caplog.text
    write("c/one.wav", "c/two.wav", c__one=["1 2 wren"], c__two=["1\t2\twren\t"])
    (folder / "a" / "rec.txt").write_bytes("1\t2\tM\u00f6we\n".encode("cp1252"))
    assert events(folder) == {"c/two.wav": [(1.0, 2.0, "wren")]}
    unread = "2 files called after recordings are no annotations that can be read: rec.txt, one.txt"
    assert unread in caplog.text


def test_label_tracks(folder, write):
    write("train/a.wav", "train/b.wav", "val/c.wav")
    write(train__a=["0.250000\t1.500000\tdog", "\\\t-1.000000\t6334.588867", "2.000000\t3.000000\t7"], train__b=[])
    write(val__c=["0.000000\t0.040000\tdog"])
    assert events(folder) == {"train/a.wav": [(0.25, 1.5, "dog"), (2.0, 3.0, "7")], "train/b.wav": []}
    assert events(folder, split="val") == {"val/c.wav": [(0.0, 0.04, "dog")]}


@pytest.mark.parametrize("form", ["audacity", "raven"])
def test_what_tagging_wrote_is_read(folder, write, form):
    write("rec.wav")
    timeline = [{"start": 0.5, "end": 1.25, "label": "dog", "score": 0.7}]
    if form == "audacity":
        write_audacity({"timeline": timeline}, folder / "rec.wav")
    else:
        write_raven({"timeline": timeline}, folder / "rec.wav", 16000)
    assert events(folder) == {"rec.wav": [(0.5, 1.25, "dog")]}


def test_tables_of_one_recording_are_named(folder, write, caplog):
    """What a model wrote, beside what somebody heard."""
    write("a/rec.wav", "a/alone.wav")
    write(a__rec=["1\t2\towl"], a__alone=["1\t2\towl"], tags__rec=["3\t4\tcat"])
    assert events(folder)["a/rec.wav"] == [(1.0, 2.0, "owl"), (3.0, 4.0, "cat")]
    assert (
        "1 recordings have events of several annotations, which are joined: a/rec.txt and tags/rec.txt" in caplog.text
    )


def test_a_named_column_of_labels(folder, write):
    table = [HEADER + "\tSpecies\tCall", selection(1, 0, 1, "wren", "alarm")]
    write("rec.wav", rec=table)
    assert events(folder) == {"rec.wav": [(0.0, 1.0, "wren")]}
    assert events(folder, "Call", columns=Columns("Call")) == {"rec.wav": [(0.0, 1.0, "alarm")]}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEADER, selection(1, 0, 1)], r"none of \['label', .*--label_column_name"),
        ([HEADER + "\tCommon Name\tSpecies Code", selection(1, 0, 1, "a", "b")], r"\['common name', 'species code'\]"),
        ([HEADER + "\tLabel", selection(1, "0,5", "1,5", "a")], "selection 1: time '0,5': .*commas"),
        ([HEADER + "\tLabel", selection(1, 1, 0, "a")], r"rec\.txt, event 1: .*expected 0 <= onset < offset"),
        ([HEADER + "\tLabel", selection(1, 0, 1), selection(2, 0, 1, "a")], r"rec\.txt, event 1: it has no label"),
        ([HEADER + "\tLabel", selection(1, 0, 1, ""), selection(2, 1, 2, " ")], r"rec\.txt, event 1: it has no label"),
        (["0\t1\ta", "1\t2\t"], r"rec\.txt, event 2: it has no label"),
        ([HEADER + "\tLabel", selection(1, "", 1, "a")], r"rec\.txt, event 1: .*expected 0 <= onset < offset"),
        (["0.5\t0.5\tpoint"], r"rec\.txt, event 1: .*expected 0 <= onset < offset"),
    ],
)
def test_annotations_that_cannot_be_read_are_named(folder, write, lines, message):
    write("rec.wav", rec=lines)
    with pytest.raises(ValueError, match=message):
        load_splits(str(folder))


def test_recordings_of_one_name_are_named(folder, write):
    write("a/rec.wav", "b/rec.wav", tables__rec=["0\t1\tdog"])
    with pytest.raises(ValueError, match=r"tables/rec\.txt could be of .*a/rec\.wav, .*b/rec\.wav"):
        load_splits(str(folder))


def test_recordings_of_one_name_are_told_apart_by_their_folders(folder, write):
    """Recorders call their files alike at every site; corrected tags lie in folders like those of the recordings."""
    write("Site A/rec.wav", "Site B/rec.wav")
    write(**{"tables__Site A__rec": ["0\t1\towl"], "tables__Site B__rec": ["2\t3\tcat"]})
    assert events(folder) == {"Site A/rec.wav": [(0.0, 1.0, "owl")], "Site B/rec.wav": [(2.0, 3.0, "cat")]}


@pytest.mark.parametrize("place", ["", "Site A__"])
def test_paths_in_a_table_count_with_their_folders(folder, write, place):
    sites = enumerate(("Site A", "Site B"), start=1)
    rows = [f"{number}\t{number}\t{number + 1}\tD:\\Birds\\{site}\\rec.WAV\t{number}\towl" for number, site in sites]
    write("Site A/rec.wav", "Site B/rec.wav", **{f"{place}all": [FILES, *rows]})
    assert events(folder) == {"Site A/rec.wav": [(1.0, 2.0, "owl")], "Site B/rec.wav": [(2.0, 3.0, "owl")]}
    # What is of a site that is not there is not that of another.
    (folder / "Site A" / "rec.wav").unlink()
    found = load_splits(str(folder))["train"]
    assert [Path(path).is_file() for path in found["audio"]] == [False, True]
    assert [[event["onset"] for event in clip] for clip in found["events"]] == [[1.0], [2.0]]


def test_other_texts_do_not_stop_class_folders(folder, write):
    write("dog/1.wav", "cat/1.wav", "cat/2.wav", "train/1.wav")
    # A transcript, nothing, and a track of pitch.
    write(dog__1=["he said\tnothing"], cat__1=[], cat__2=["0.01\t0.02\t220.5"], notes__1=["0.5\t1\t"])
    (folder / "cat" / "README.txt").write_bytes("déjà vu".encode("latin-1"))
    assert sorted(load_splits(str(folder))["train"]["label"]) == ["cat", "cat", "dog", "train"]


def test_digits_are_labels(folder, write):
    """Of spoken digits, or of calls and individuals that have numbers."""
    write("site/a.wav", "site/b.wav", site__a=["0.5\t0.9\t3", "1\t1.5\t10"], site__b=["0\t0.25\t3"])
    assert events(folder) == {
        "site/a.wav": [(0.5, 0.9, "3"), (1.0, 1.5, "10")],
        "site/b.wav": [(0.0, 0.25, "3")],
    }


def test_whole_numbers_among_measurements_are_none(folder, write):
    """Programs write 0 where a voice has no pitch."""
    write("dog/1.wav", "cat/1.wav", cat__1=["0.00\t0.01\t220.5", "0.01\t0.02\t0", "0.02\t0.03\t221"])
    assert sorted(load_splits(str(folder))["train"]["label"]) == ["cat", "dog"]


def test_what_other_programs_write(folder, write):
    """R quotes cells, BirdNET adds scores and a table of all, people join tables and write quotes of their own."""
    write("a.wav", "b.wav", "c.wav", "d.wav", "e.wav")
    rows = [("1", "0", "1", "a.wav", '"song'), ("1", "0", "1", "b.wav", "owl"), ("2", "2", "3", "b.wav", 'x"y')]
    joined = [
        "\t".join([number, "Spectrogram 1", *times, name, times[0], label]) for number, *times, name, label in rows
    ]
    columns = "Selection\tView\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tSpecies"
    write(all=[columns, *joined], c=["0.0\t3.0\tParus major, Great Tit\t0.9123"])
    quoted = [f'"{name}"' for name in (HEADER + "\tSpecies").split("\t")]
    write(**{"d.BirdNET.selection.table": ["\t".join(quoted), selection(1, 0, 1, '"wren"')]})
    # The same event again, the label in one of two views, and notes.
    write(**{"d.Table.1.selections": [HEADER + "\tSpecies", selection(1, 0, 1, "wren")], "e.notes": []})
    views = [selection(1, 0, 1, "", view="Waveform 1"), selection(1, 0, 1, "wren")]
    write(**{"e.Table.1.selections": [HEADER + "\tSpecies", *views], "e.1": ["5\t6\tdog"]})
    (folder / "gone.txt").symlink_to(folder / "nowhere.txt")
    assert events(folder) == {
        "a.wav": [(0.0, 1.0, '"song')],
        "b.wav": [(0.0, 1.0, "owl"), (2.0, 3.0, 'x"y')],
        "c.wav": [(0.0, 3.0, "Parus major, Great Tit")],
        "d.wav": [(0.0, 1.0, "wren")],
        "e.wav": [(0.0, 1.0, "wren")],
    }


def test_annotations_beside_the_folders_of_splits(folder, write):
    write("train/a.wav", "val/b.wav", tables__a=["0\t1\tdog"], tables__b=["0\t1\tcat"])
    assert [*load_splits(str(folder))] == ["train", "val"]


def test_columns_of_numbers_are_no_annotations(folder, write):
    write(
        "COPD/1.wav", "Healthy/1.wav", COPD__1=["0.036\t0.579\t0\t0", "0.579\t2.45\t1\t0"], Healthy__1=["x" * 200_000]
    )
    assert load_splits(str(folder))["train"]["label"][:] == ["COPD", "Healthy"]


def test_numbers_with_exponents_are_times(folder, write):
    write("a.wav", **{"a": ["1e-05\t0.4\tsong", "5E-1\t1.5e+0\tcall"]})
    assert events(folder) == {"a.wav": [(1e-05, 0.4, "song"), (0.5, 1.5, "call")]}


def test_an_odd_line_of_a_label_track_is_named(folder, write):
    write("a.wav", "b.wav", **{"a": ["0\t1\tsong", "2\t3\tcall"], "b": ["0\t1\tsong", "1\t2\tcall", "3\t4\tone\ttwo"]})
    with pytest.raises(ValueError, match=r"b\.txt, line 3: '3\\t4\\tone\\ttwo': expected onset, offset, label"):
        load_splits(str(folder))
    # Nothing but a text with some numbers.
    write(**{"b": ["0\t1\tsong", "once upon", "a time"]})
    assert events(folder) == {"a.wav": [(0.0, 1.0, "song"), (2.0, 3.0, "call")]}
