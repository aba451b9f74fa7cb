"""Events with onset and offset: read from tables and columns, and heard where their times say after every change."""

import numpy as np
import pytest
import soundfile
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from feature_extraction import SpecMaskDataCollator
from feature_extraction.events import crop_events, has_times, read_events, roll_events
from feature_extraction.spectrogram_augmentation import TimeRoll
from feature_extraction.waveform_augmentation import Mixup, RandomCrop, SpeedPerturb
from modeling_fftp.training.data.arguments import DataArguments
from modeling_fftp.training.data.event_tables import group_events
from modeling_fftp.training.data.held_out import hold_out
from modeling_fftp.training.data.labels import read_labels
from modeling_fftp.training.data.sources import Columns, load_splits
from modeling_fftp.training.data.strong_labels import count_events, cut_windows, keep_measurable
from modeling_fftp.training.inspect import inspect
from modeling_fftp.training.step_labels import EventLabels, StepLabels

RATE = 16000
EVENTS = [(0.5, 0.9, "LABEL_0"), (1.6, 1.9, "LABEL_1"), (2.4, 3.2, "LABEL_0")]
BLOCK = 80


def make_recording(events=EVENTS, seconds=4.0):
    """Silence, with noise where the events are."""
    sound = np.zeros(int(seconds * RATE), np.float32)
    for onset, offset, _ in events:
        place = slice(round(onset * RATE), round(offset * RATE))
        sound[place] = np.random.default_rng(0).uniform(-0.5, 0.5, place.stop - place.start)
    return sound


def heard(samples):
    """Stretches of noise, to 5 ms, in seconds."""
    loud = np.abs(samples[: len(samples) // BLOCK * BLOCK]).reshape(-1, BLOCK).max(axis=1) > 0.2
    edges = np.flatnonzero(np.diff(loud.astype(int), prepend=0, append=0)) * BLOCK / RATE
    return edges.reshape(-1, 2)


def times(events):
    return np.array([event[:2] for event in events if event[1] - event[0] > BLOCK / RATE]).reshape(-1, 2)


@pytest.mark.parametrize("seed", range(5))
def test_events_move_with_the_sound(seed):
    generator = torch.Generator().manual_seed(seed)
    waveforms, events = [torch.from_numpy(make_recording())] * 3, [read_events(EVENTS)] * 3
    for transform in (SpeedPerturb(0.3), RandomCrop(2 * RATE)):
        parameters = transform.draw([len(wave) for wave in waveforms], generator)
        waveforms, events = transform.apply(waveforms, parameters), transform.move(events, parameters, RATE)
        for wave, clip in zip(waveforms, events, strict=True):
            np.testing.assert_allclose(heard(wave.numpy()), times(clip), atol=0.012)


def test_windows_have_the_events_in_them():
    windows = [*cut_windows(make_recording(), EVENTS, 1.5, 1.0, RATE)]
    assert len(windows) == 4
    for window in windows:
        np.testing.assert_allclose(heard(window["audio"]), times(window["labels"]), atol=0.006)
    assert windows[-1]["labels"] == [(0.0, pytest.approx(0.7), "LABEL_0")]


def test_a_cropped_event_is_cut_at_the_edges():
    assert crop_events([(0.5, 1.5, 0), (2.0, 3.0, 1), (0.0, 1.0, 2)], 1.0, 2.0) == [(0.0, 0.5, 0)]


def test_a_collator_labels_the_steps_that_are_heard(make_config, extractor):
    config = make_config(problem_type="multi_label_classification")
    clips = [
        {
            "audio": make_recording(),
            "labels": [dict(zip(("onset", "offset", "label"), e, strict=True)) for e in EVENTS],
        }
    ]
    collator = SpecMaskDataCollator(
        extractor, step_labels=EventLabels(config), speed=SpeedPerturb(0.3), crop=RandomCrop(3 * RATE),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    for collate in [collator] + [collator.augment] * 4:
        batch = collate(clips)
        frames = batch["input_values"][0].mean(dim=1)
        # The frames in the middle of each step's patch.
        steps = frames[config.patch_size[1] // 2 :: config.time_stride][: batch["labels"].shape[1]]
        is_loud, is_labelled = steps > frames.mean(), batch["labels"][0].amax(dim=1) == 1
        # Steps at the edges may go either way.
        assert (is_loud != is_labelled).sum() <= 2 * len(EVENTS)
        assert is_labelled.sum() > 10
    with pytest.raises(ValueError, match="labels per step cannot follow speed, crop and mixup; EventLabels can"):
        SpecMaskDataCollator(extractor, step_labels=StepLabels(config), crop=RandomCrop(100))


def test_events_follow_what_rolls_and_what_mixes(make_config, extractor):
    config = make_config(problem_type="multi_label_classification")
    # Each clip has one loud stretch, at another time.
    places = [(0.2, 0.6), (1.0, 1.3), (2.0, 2.5), (2.6, 3.0)]
    clips = [{"audio": make_recording([(*place, 0)], 3.0), "labels": [(*place, 0)]} for place in places]
    for setting, most in (({"transforms": [TimeRoll(120)]}, 1), ({"mixup": Mixup(probability=1.0)}, 2)):
        collator = SpecMaskDataCollator(
            extractor, step_labels=EventLabels(config), generator=torch.Generator().manual_seed(1), **setting
        )
        batch = collator.augment(clips)
        changed = 0
        for values, labels, clip in zip(
            batch["input_values"], batch["labels"], collator(clips)["labels"], strict=True
        ):
            frames = values.mean(dim=1)
            steps = frames[config.patch_size[1] // 2 :: config.time_stride][: len(labels)]
            is_loud, is_labelled = steps > frames.mean(), labels[:, 0] == 1
            assert (is_loud != is_labelled).sum() <= 4 * most
            changed += not torch.equal(labels, clip)
        assert changed >= 2


def test_an_event_that_rolls_over_the_end_is_in_two_parts():
    assert roll_events([(0.5, 0.9, "a")], 0.25, 1.0) == [(0.0, pytest.approx(0.15), "a"), (0.75, 1.0, "a")]
    assert roll_events([(0.5, 0.9, "a")], -0.5, 1.0) == [(0.0, pytest.approx(0.4), "a")]
    assert roll_events([(0.0, 1.0, "a")], 0.0, 1.0) == [(0.0, 1.0, "a")]


def test_an_event_lies_within_its_clip():
    assert count_events([(9.5, 10.05, "a")], 10.0) == {"events": 1, "untimed": 0}
    with pytest.raises(ValueError, match=r"begins after its clip, which is 10.00 s long"):
        count_events([(10.02, 10.08, "a")], 10.0)
    with pytest.raises(ValueError, match=r"ends after its clip, which is 10.00 s long"):
        count_events([(9.0, 10.2, "a")], 10.0)


def test_tables_of_clips_without_events_and_of_events_are_one():
    events = {"filename": ["a.wav", "./a.wav"], "onset": [0.1, 0.5], "offset": [0.2, 0.6], "event_label": ["x", "y"]}
    silent = {"filename": ["b.wav"], "onset": [None], "offset": [None], "event_label": [None]}
    tables = {"strong.tsv": Dataset.from_dict(events), "background.tsv": Dataset.from_dict(silent)}
    grouped = group_events(tables, ["filename", "filename"])
    assert grouped["filename"] == ["a.wav", "b.wav"]
    assert [[event["label"] for event in clip] for clip in grouped["events"]] == [["x", "y"], []]
    wrong = {"filename": ["c.wav"], "onset": [0.1], "offset": [0.2], "event_label": [0.5]}
    with pytest.raises(ValueError, match=r"^wrong\.tsv: "):
        group_events({"wrong.tsv": Dataset.from_dict(wrong)}, ["filename"])


def test_an_event_that_ends_with_its_sound_does_not_begin_it():
    """The last samples of a clip are in no frame of their own, and rolling goes around the frames."""
    assert roll_events([(3.5, 4.0, "a")], 0.0, 3.98) == [(3.5, 3.98, "a")]
    rolled = roll_events([(3.5, 4.0, "a")], 0.1, 3.98)
    assert rolled == [(0.0, pytest.approx(0.1), "a"), (pytest.approx(3.6), 3.98, "a")]


def test_what_can_hardly_be_heard_of_an_event_is_cut_off():
    assert crop_events([(0.5, 1.001, "long"), (0.99, 1.01, "short")], 1.0, 2.0) == [
        (0.0, pytest.approx(0.01), "short")
    ]
    assert crop_events([(0.5, 1.03, "long")], 1.0, 2.0) == [(0.0, pytest.approx(0.03), "long")]


@pytest.mark.parametrize(
    "events",
    [
        [(0.5, 0.9, "a"), (1.0, 2.0, "b")],
        [{"onset": 0.5, "offset": 0.9, "label": "a"}, {"onset": 1, "offset": 2, "label": "b"}],
        {"onset": [0.5, 1.0], "offset": [0.9, 2.0], "label": ["a", "b"]},
    ],
    ids=["tuples", "objects", "lists"],
)
def test_forms_of_events(events):
    assert read_events(events) == [(0.5, 0.9, "a"), (1.0, 2.0, "b")]


@pytest.mark.parametrize("event", [(None, None, "a"), {"onset": float("nan"), "offset": None, "label": "a"}])
def test_an_event_without_times_stays_with_its_clip(event):
    clip = read_events([event, (0.5, 0.9, "b")])
    crop, speed, mixup = RandomCrop(RATE), SpeedPerturb(), Mixup(probability=1.0)
    everything = torch.tensor([1, 0]), torch.tensor([0.5, 1.0])
    for moved in (
        crop_events(clip, 1.0, 2.0),
        roll_events(clip, 0.7, 1.0)[::-1],
        crop.move([clip], [RATE], RATE)[0],
        speed.move([clip], [1.1], RATE)[0],
        mixup.move([[], clip], [0.3, 1.0], *everything)[0],
        next(cut_windows(make_recording(), clip, 0.4, 0.4, RATE))["labels"],
    ):
        first = moved[0]
        assert not has_times(first)
        assert first[2] == "a"
        assert all(map(has_times, moved[1:]))


@pytest.mark.parametrize(
    "event",
    [
        (0.5, 0.5, "a"),
        (-1, 0.5, "a"),
        (0.5, None, "a"),
        (0.5, 1.0, None),
        (0.5, float("nan"), "a"),
        3,
        {"onset": 1},
        ("0.5", "0.9", "a"),
        None,
    ],
)
def test_what_is_no_event_is_named(event):
    with pytest.raises(ValueError, match=r"event .*: expected .*onset"):
        read_events([event])
    for events in (None, "dog", 3):
        with pytest.raises(ValueError, match="expected a list of them, or an object of lists"):
            read_events(events)
    with pytest.raises(ValueError, match="expected lists of onsets, offsets and labels"):
        read_events({"onset": None, "offset": None, "label": None})


TSV = """filename\tonset\toffset\tevent_label
a.wav\t0.5\t0.9\tNone
b.wav\t\t\t
a.wav\t1.6\t1.9\tdog
"""


def test_tables_of_events(tmp_path, capsys):
    """As DCASE has them: a row per event, and one without an event for a clip that has none."""
    (tmp_path / "strong.tsv").write_text(TSV)
    split = load_splits(str(tmp_path / "strong.tsv"))["train"]
    assert split["filename"][:] == ["a.wav", "b.wav"]
    assert [read_events(events) for events in split["events"]] == [[(0.5, 0.9, "None"), (1.6, 1.9, "dog")], []]
    kind = read_labels(split, "events")
    assert (kind.classes, kind.is_multi_label) == (["None", "dog"], True)
    assert [kind.read(events) for events in split["events"]] == [["None", "dog"], []]
    # A name that only --label_column_name knows.
    (tmp_path / "kinds.tsv").write_text(TSV.replace("event_label", "kind"))
    named = load_splits(str(tmp_path / "kinds.tsv"), columns=Columns("kind"))["train"]
    assert named.column_names == ["filename", "kind"]
    assert named["kind"][:] == split["events"][:]
    for name in ("a.wav", "b.wav"):
        (tmp_path / "audio").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "audio" / name, make_recording(), RATE)
    report = inspect([str(tmp_path / "strong.tsv"), "--dataset_data_dir", "audio"])
    by_name = ["--dataset_data_dir", "audio", "--label_column_name", "kind"]
    assert inspect([str(tmp_path / "kinds.tsv"), *by_name]) == report.replace("strong.tsv", "kinds.tsv")
    assert "| clips | 2 |" in report
    assert "| events | 2 |" in report
    assert "without times" not in report
    assert "| None | 1 |" in report
    (tmp_path / "weak.tsv").write_text(TSV + "b.wav\t\t\tdog\n")
    report = inspect([str(tmp_path / "weak.tsv"), "--dataset_data_dir", "audio", "--task", "frames"])
    assert "| events without times | 1 |" in report
    with pytest.raises(SystemExit):
        inspect([str(tmp_path / "weak.tsv"), "--task", "frame"])
    assert "argument --task: invalid choice: 'frame' (choose from" in capsys.readouterr().err
    with pytest.raises(ValueError, match="task='frame' is unknown; expected one of clips, frames"):
        DataArguments(task="frame")
    soundfile.write(tmp_path / "audio" / "a.wav", make_recording()[: int(1.7 * RATE)], RATE)
    report = inspect([str(tmp_path / "strong.tsv"), "--dataset_data_dir", "audio"])
    assert "left out, since event (1.6, 1.9, 'dog') ends after its clip, which is 1.70 s long: audio/a.wav" in report


def test_rows_without_times_are_events_that_sound_somewhere(tmp_path):
    (tmp_path / "weak.tsv").write_text(TSV + "b.wav\t\t\tdog\nb.wav\t0.5\t0.9\tNone\n")
    split = load_splits(str(tmp_path / "weak.tsv"))["train"]
    events = read_events(split[1]["events"])
    assert [has_times(event) for event in events] == [True, False]
    assert [label for *_, label in events] == ["None", "dog"]
    assert keep_measurable(split, "validation")["filename"][:] == ["a.wav"]
    with pytest.raises(ValueError, match="validation: no clip has events that all have times"):
        keep_measurable(split.select([1]), "validation")
    (tmp_path / "weak.tsv").write_text(TSV + "a.wav\t\t\tcat\n")
    with pytest.raises(ValueError, match="no clip has events that all have times"):
        # A clip without events says nothing of what a model finds.
        keep_measurable(load_splits(str(tmp_path / "weak.tsv"))["train"], "validation")


def test_weak_and_strong_tables_make_one_split(tmp_path):
    """As DCASE has them: a table of events, and one of clips with several labels between commas."""
    (tmp_path / "strong.tsv").write_text(TSV)
    (tmp_path / "weak.tsv").write_text("file\tevent_labels\na.wav\tdog,cat\nc.wav\tcat, dog\nd.wav\t\n")
    (split,) = load_splits(str(tmp_path)).values()
    events = dict(zip(split["filename"], map(read_events, split["events"]), strict=True))
    assert [*events] == ["a.wav", "b.wav", "c.wav", "d.wav"]
    # What has times somewhere needs no mention without.
    assert [label for *_, label in events["a.wav"]] == ["None", "dog", "cat"]
    assert [has_times(event) for event in events["a.wav"]] == [True, True, False]
    assert [label for *_, label in events["c.wav"]] == ["cat", "dog"]
    assert not any(map(has_times, events["c.wav"]))
    assert events["b.wav"] == events["d.wav"] == []
    (tmp_path / "strong.tsv").rename(tmp_path / "train_strong.tsv")
    (tmp_path / "weak.tsv").rename(tmp_path / "train_weak.tsv")
    (tmp_path / "validation.tsv").write_text(TSV)
    splits = load_splits(str(tmp_path))
    assert {role: len(split) for role, split in splits.items()} == {"train": 4, "validation": 2}
    events = [[{"onset": 0.1, "offset": 0.2, "label": "dog"}, {"onset": None, "offset": None, "label": "cat"}]]
    Dataset.from_dict({"path": ["e.wav"], "events": events}).to_json(tmp_path / "test.jsonl")
    (split,) = (split for role, split in load_splits(str(tmp_path)).items() if role == "test")
    assert [has_times(event) for event in read_events(split[0]["events"])] == [True, False]
    (tmp_path / "more.tsv").write_text(TSV)
    with pytest.raises(ValueError, match="expected one, or one per split with train, validation or test in its name"):
        load_splits(str(tmp_path))


def test_columns_of_several_tables_that_do_not_agree_are_named(tmp_path, caplog):
    head, row = "filename\tonset\toffset\tevent_label", "a.wav\t0\t1\tdog"
    (tmp_path / "strong.tsv").write_text(f"{head}\tfold\n{row}\t1\n")
    (tmp_path / "weak.tsv").write_text("filename\tevent_labels\nb.wav\tcat\n")
    (split,) = load_splits(str(tmp_path)).values()
    assert (split["filename"][:], split.column_names) == (["a.wav", "b.wav"], ["filename", "events"])
    assert "Columns that some of the tables lack are left behind: 'fold'" in caplog.text
    # A column of splits is no such thing: clips that validate would train.
    (tmp_path / "strong.tsv").write_text(f"{head}\tSplit\n{row}\tvalidation\n")
    with pytest.raises(ValueError, match=r"belong together, and some lack the column 'Split'"):
        load_splits(str(tmp_path))
    (tmp_path / "weak.tsv").unlink()
    (tmp_path / "strong.tsv").write_text(f"{head}\tsplit\n{row}\ttrain\n{row}\ttest\n")
    with pytest.raises(ValueError, match=r"a\.wav are of the splits \['test', 'train'\]; expected one split"):
        load_splits(str(tmp_path))


def test_rows_with_sound_in_them_are_clips_whatever_their_columns(tmp_path):
    soundfile.write(tmp_path / "a.wav", make_recording(), RATE)
    sound = {"bytes": (tmp_path / "a.wav").read_bytes(), "path": "a.wav"}
    (tmp_path / "a.wav").unlink()
    for part in (0, 1):
        clip = {"audio": [sound], "onset": [0.1], "offset": [0.3], "label": ["dog"]}
        Dataset.from_dict(clip).to_parquet(tmp_path / f"train-{part}.parquet")
    split = load_splits(str(tmp_path))["train"]
    assert split["label"][:] == ["dog", "dog"]


def test_a_split_without_labels_stays_beside_rows_of_events(tmp_path):
    rows = {"filename": ["a.wav", "a.wav"], "onset": [0.1, 0.5], "offset": [0.3, 0.9], "label": ["dog", "cat"]}
    saved = DatasetDict({"train": Dataset.from_dict(rows), "test": Dataset.from_dict({"filename": ["b.wav"]})})
    saved.save_to_disk(tmp_path / "saved")
    splits = load_splits(str(tmp_path / "saved"))
    assert len(splits["train"]) == 1
    assert splits["test"].column_names == ["filename"]


@pytest.mark.parametrize("form", ["metadata", "parquet beside sound", "parquet alone"])
def test_rows_of_events_are_grouped_wherever_they_stand(tmp_path, form):
    soundfile.write(tmp_path / "a.wav", make_recording(), RATE)
    table = Dataset.from_dict(
        {"filename": ["a.wav", "a.wav"], "onset": [0.1, 0.5], "offset": [0.3, 0.9], "event_label": ["dog", "cat"]}
    )
    if form == "metadata":
        table.rename_column("filename", "file_name").to_csv(tmp_path / "metadata.csv")
    else:
        table.to_parquet(tmp_path / "train_strong.parquet")
        if form == "parquet alone":
            weak = Dataset.from_dict({"filename": ["b.wav"], "event_labels": ["cat,dog"]})
            weak.to_parquet(tmp_path / "train_weak.parquet")
            (tmp_path / "a.wav").unlink()
    split = load_splits(str(tmp_path))["train"]
    assert [label for *_, label in read_events(split[0]["events"])] == ["dog", "cat"]
    assert len(split) == (2 if form == "parquet alone" else 1)


@pytest.mark.parametrize("absent", ["NaN", "NA", "nan"])
def test_rows_without_an_event_as_pandas_and_r_write_them(tmp_path, absent):
    rows = f"b.wav\t{absent}\t{absent}\t{absent}\nc.wav\t{absent}\t{absent}\tdog\n"
    (tmp_path / "strong.tsv").write_text(TSV + rows)
    split = load_splits(str(tmp_path / "strong.tsv"))["train"]
    assert read_labels(split, "events").classes == ["None", "dog"]
    assert split["events"][1] == []
    assert [has_times(event) for event in read_events(split["events"][2])] == [False]


def test_clips_that_validate_are_drawn_from_those_with_times():
    events = [
        [{"onset": None if row % 6 else 0.5, "offset": None if row % 6 else 0.9, "label": "dog"}] for row in range(60)
    ]
    clips = Dataset.from_dict({"events": events, "labels": [[1.0, 0.0]] * 60, "row": [*range(60)]})
    held_out = hold_out({"train": clips}, DataArguments(task="frames", validation_fraction=0.3), seed=0)
    assert len(held_out["validation"]) == 3
    assert all(row % 6 == 0 for row in held_out["validation"]["row"])
    assert sorted([*held_out["train"]["row"], *held_out["validation"]["row"]]) == [*range(60)]
    with pytest.raises(ValueError, match="1 clip to draw from; expected two"):
        hold_out({"train": clips.select(range(6))}, DataArguments(task="frames"), seed=0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.wav\tx\t0.9\tdog", "time 'x': expected seconds, or an empty cell$"),
        ("a.wav\t0,5\t0.9\tdog", r"time '0,5': expected seconds, .*commas for points\? `pandas.read_csv\("),
        ("a.wav\t2\t1\tdog", "0 <= onset < offset"),
    ],
)
def test_rows_that_are_no_events_are_named(tmp_path, row, message):
    (tmp_path / "strong.tsv").write_text(TSV + row + "\n")
    with pytest.raises(ValueError, match=rf"strong\.tsv, row 4 \(a\.wav\): .*{message}"):
        load_splits(str(tmp_path / "strong.tsv"))


def test_several_rows_that_are_no_events_are_named_at_once(tmp_path):
    (tmp_path / "strong.tsv").write_text(TSV + "b.wav\t2\t2\tdog\n" * 7)
    with pytest.raises(ValueError, match=r"row 4 \(b\.wav\): event .*; 6 more rows .*: .*row 9 \(b\.wav\), \.\.\.$"):
        load_splits(str(tmp_path / "strong.tsv"))


@pytest.mark.parametrize(
    "events",
    [
        [[{"onset": 0.1, "offset": 0.2, "label": 3}], []],
        [{"onset": [0.1], "offset": [0.2], "label": [3]}, {"onset": [], "offset": [], "label": []}],
        [[{"label": 3}], []],
    ],
    ids=["objects", "object of lists", "labels alone"],
)
def test_columns_of_events_keep_their_classes(events):
    kind = read_labels(Dataset.from_dict({"events": events}), "events")
    assert (kind.classes, kind.has_events, kind.is_multi_label) == (["3"], True, True)
    assert [kind.read(clip) for clip in events] == [["3"], []]


def test_objects_with_other_times_are_no_events_without():
    events = Dataset.from_dict({"events": [[{"start": 0.1, "end": 0.2, "label": "dog"}]]})
    with pytest.raises(ValueError, match="expected names, indices, or lists of either"):
        read_labels(events, "events")


def test_recorded_song(shared_dataset):
    report = inspect([str(shared_dataset("finch_song"))])
    assert "| clips | 81 | 27 |" in report
    assert "| left out | 0 | 0 |" in report


def test_columns_of_clips_stay_and_names_of_classes_too(tmp_path, caplog):
    table = "filename\tonset\toffset\tevent_label\tsplit\tfold\tnote\n"
    rows = ["a.wav\t0\t1\tdog\ttrain\t1\tx", "a.wav\t1\t2\tcat\ttrain\t1\ty", "b.wav\t0\t1\tdog\ttest\t2\tx"]
    (tmp_path / "strong.tsv").write_text(table + "\n".join(rows))
    splits = load_splits(str(tmp_path / "strong.tsv"))
    assert {name: split["filename"][:] for name, split in splits.items()} == {"train": ["a.wav"], "test": ["b.wav"]}
    assert splits["train"]["fold"][:] == ["1"]
    assert "Columns that differ between the events of a clip are left behind: 'note'" in caplog.text
    events = {"filename": ["a.wav"], "onset": [0.0], "offset": [1.0], "label": [1]}
    kinds = {"filename": Value("string"), "onset": Value("float64"), "offset": Value("float64")}
    kinds["label"] = ClassLabel(names=["cat", "dog"])
    Dataset.from_dict(events, features=Features(kinds)).to_parquet(tmp_path / "strong.parquet")
    split = load_splits(str(tmp_path / "strong.parquet"))["train"]
    assert read_labels(split, "events").classes == ["dog"]


def test_labels_of_events_that_are_none_or_several_are_named():
    events = [[{"onset": 0.5, "offset": 0.9, "label": label} for label in labels] for labels in (["a,b"], ["a", None])]
    clips = Dataset.from_dict({"events": events})
    kind = read_labels(clips, "events")
    assert kind.classes == ["a", "a,b"]
    with pytest.raises(ValueError, match=r"event \(0\.5, 0\.9, None\): expected .*a label"):
        kind.read(clips[1]["events"])
    with pytest.raises(ValueError, match="give each event a row with one label"):
        read_labels(clips, "events", ",")
