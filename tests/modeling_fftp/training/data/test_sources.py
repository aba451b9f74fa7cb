"""Data as people have it: folders, tables and saved data sets arrive as they were written, or are refused by name."""

import json
import os
import shutil
import unicodedata

import numpy as np
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, Value

from modeling_fftp.serving.tables import find_writer
from modeling_fftp.training.data.sources import Columns, find_column, is_local, load_splits, public_name
from modeling_fftp.training.data.splits import find_splits
from modeling_fftp.training.data.tables import read_table

WANTED = {"train": "train", "validation": "validation", "test": "test"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A sound file."""
    path = tmp_path_factory.mktemp("sound") / "clip.wav"
    soundfile.write(path, np.sin(np.arange(1600) / 10), 16000)
    return path


@pytest.fixture
def make_folder(clip, tmp_path):
    """Makes files of sound at paths below a folder, and of text where it is given."""

    def make(*paths, **texts):
        root = tmp_path / "data"
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, root / path)
        for name, text in texts.items():
            stem, _, suffix = name.rpartition("_")
            (root / f"{stem}.{suffix}").write_text(text, encoding="utf-8")
        return root

    return make


def labels(splits):
    return {name: split["label"][:] for name, split in splits.items()}


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (("train", "validation", "test"), ("train", "validation", "test")),
        (("Train", "Test"), ("train", "test")),
        (("training", "testing"), ("train", "test")),
        (("TRAIN", "val"), ("train", "validation")),
        (("train", "valid", "eval"), ("train", "validation", "test")),
        (("train", "dev", "evaluation"), ("train", "validation", "test")),
        (("train", "validate", "evaluate"), ("train", "validation", "test")),
    ],
)
def test_folders_of_splits_by_any_name(make_folder, names, roles):
    splits = load_splits(str(make_folder(*(f"{name}/{label}/1.wav" for name in names for label in ("dog", "cat")))))
    assert labels(splits) == {name: ["cat", "dog"] for name in names}
    assert find_splits(splits, WANTED) == dict(zip(roles, names, strict=True))


def test_splits_are_found_by_the_name_that_is_asked_for(caplog):
    assert find_splits(["train", "dev"], WANTED | {"validation": "dev"}) == {"train": "train", "validation": "dev"}
    assert find_splits(["train", "fold1"], WANTED | {"validation": "fold1"}) == {
        "train": "train",
        "validation": "fold1",
    }
    assert find_splits(["train", "validation", "val"], WANTED) == {"train": "train", "validation": "validation"}
    assert "Splits that are not used: val" in caplog.text
    # What is asked for is not taken for something else too.
    assert find_splits(["train", "val", "dev"], WANTED | {"test": "dev"}) == {
        "train": "train", "validation": "val", "test": "dev",
    }  # fmt: skip
    # Nor tested, by its default name.
    assert find_splits(["train", "test"], WANTED | {"validation": "test"}) == {"train": "train", "validation": "test"}
    with pytest.raises(ValueError, match=r"'val', 'dev'\] could all be for validation; .*--validation_split_name"):
        find_splits(["train", "val", "dev"], WANTED)
    with pytest.raises(ValueError, match=r"no split 'vall' for validation; the data has \['train', 'val'\]"):
        find_splits(["train", "val"], WANTED | {"validation": "vall"})


def test_a_class_with_the_name_of_a_split(make_folder):
    classes = ("airplane", "dog", "train", "valve")
    assert labels(load_splits(str(make_folder(*(f"{name}/1.wav" for name in classes))))) == {"train": [*classes]}


def test_classes_beside_splits_are_refused(make_folder):
    with pytest.raises(ValueError, match=r"folders train, which look like splits .* beside dog; expected"):
        load_splits(str(make_folder("train/cat/1.wav", "dog/1.wav")))


@pytest.mark.parametrize(
    "names",
    [("train", "test"), ("FSD50K.dev_audio", "FSD50K.eval_audio"), ("audio_test", "audio_train"), ("fold1", "fold2")],
)
def test_splits_without_classes_are_refused(make_folder, names):
    with pytest.raises(ValueError, match=rf"{names[0]}, .*which look like splits or folds without classes in them"):
        load_splits(str(make_folder(*(f"{name}/1.wav" for name in sorted(names)))))


def test_splits_in_every_class_folder(make_folder, caplog):
    root = make_folder("fan/train/1.wav", "fan/test/2.wav", "pump/train/3.wav", "pump/test/4.wav")
    assert labels(load_splits(str(root))) == {"test": ["fan", "pump"], "train": ["fan", "pump"]}
    # A kind of vehicle, beside others.
    make_folder("pump/hand/5.wav")
    assert labels(load_splits(str(root))) == {"train": ["fan", "fan", "pump", "pump", "pump"]}
    assert "Folders test, train in some classes are not taken for splits" in caplog.text


def test_a_class_below_the_only_split_is_no_split(make_folder):
    root = make_folder("train/dog/1.wav", "train/train/2.wav")
    assert labels(load_splits(str(root))) == {"train": ["dog", "train"]}


def test_the_folder_of_speech_commands(make_folder, caplog):
    root = make_folder(
        "yes/1.wav", "yes/2.wav", "no/1.wav", "no/2.wav", "no/3.wav", "_background_noise_/hum.wav",
        validation_list_txt="yes/1.wav\n", testing_list_txt="yes/2.wav\nno/2.wav\n",
    )  # fmt: skip
    expected = {"train": ["no", "no"], "test": ["no", "yes"], "validation": ["yes"]}
    assert labels(load_splits(str(root))) == expected
    assert "folders without clips are no classes: _background_noise_" in caplog.text
    (root / "testing_list.txt").unlink()
    (root / "validation_list.txt").unlink()
    assert labels(load_splits(str(root))) == {"train": ["no", "no", "no", "yes", "yes"]}


def test_lists_of_speech_commands_beside_the_folder(make_folder, caplog):
    """As Kaggle has them; and written with blanks, in another of Unicode's forms, and with a clip that is gone."""
    root = make_folder(
        "audio/yes/1.wav", "audio/no/1.wav", "audio/no/2.wav", f"audio/{unicodedata.normalize('NFD', 'hündin')}/1.wav",
        validation_list_txt="yes/1.wav \nhündin/1.wav\n", testing_list_txt="no/2.wav\nno/9.wav\n",
    )  # fmt: skip
    found = {name: len(split) for name, split in load_splits(str(root / "audio")).items()}
    assert found == {"train": 1, "test": 1, "validation": 2}
    assert "testing_list.txt names 1 clips that are not there: no/9.wav" in caplog.text


def test_lists_of_other_data_beside_the_folder_divide_nothing(make_folder):
    root = make_folder("audio/fan/train/1.wav", "audio/fan/test/2.wav", validation_list_txt="yes/1.wav\n")
    assert {*load_splits(str(root / "audio"))} == {"train", "test"}


def test_a_table_that_lists_less_sound_than_lies_beside_it(make_folder, caplog):
    root = make_folder("dog/1.wav", "dog/2.wav", "cat/1.wav", checked_csv="file,label\ndog/1.wav,dog\ncat/1.wav,cat\n")
    assert labels(load_splits(str(root))) == {"train": ["dog", "cat"]}
    assert "holds 3 sound files, and its tables list 2" in caplog.text


@pytest.mark.parametrize(
    ("header", "name", "message"),
    [
        ("split", "training_set", "'split' holds training_set, which are no names of splits"),
        ("subset", "test", "'subset' names splits and is not called 'split'"),
    ],
)
def test_columns_that_look_like_splits_are_named(make_folder, caplog, header, name, message):
    root = make_folder("1.wav", t_csv=f"path,label,{header}\n1.wav,a,{name}\n")
    assert [*load_splits(str(root / "t.csv"))] == ["train"]
    assert message in caplog.text


def test_archives_are_named(make_folder):
    root = make_folder("a.wav")
    (root / "clips.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"found {'\.tar': 1}, .*Archives are not unpacked"):
        load_splits(str(root))


def test_what_archives_and_notebooks_leave_behind_is_no_class(make_folder, caplog):
    root = make_folder(
        "dog/1.wav", "dog/a/2.wav", "cat/1.wav", "cat/.3.wav", "__MACOSX/dog/._1.wav", ".ipynb_checkpoints/1.wav",
        "dog/.ipynb_checkpoints/1.wav", "stray.wav",
    )  # fmt: skip
    (root / "empty").mkdir()
    assert labels(load_splits(str(root))) == {"train": ["cat", "dog", "dog"]}
    assert "1 sound files that lie in no class folder are passed over" in caplog.text
    assert "folders without clips are no classes: empty" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="bytes in file names")
def test_names_that_are_not_unicode_are_left_out_by_name(make_folder):
    root = make_folder("dog/1.wav", "cat/1.wav")
    shutil.copy(root / "dog" / "1.wav", os.fsencode(root / "dog") + b"/caf\xe9.wav")
    split = load_splits(str(root))["train"]
    problems = {row["audio"].rpartition("/")[2]: row["__problem__"] for row in split}
    assert problems.pop(r"caf\xe9.wav").endswith("not UTF-8; rename it")
    assert problems == {"1.wav": None}


def test_links_are_followed_but_not_in_circles(make_folder, tmp_path):
    root, elsewhere = make_folder("dog/1.wav", "cat/1.wav"), tmp_path / "elsewhere"
    shutil.copytree(root / "dog", elsewhere / "owls")
    (root / "dog" / "more").symlink_to(elsewhere / "owls")
    (root / "owl").symlink_to(elsewhere, target_is_directory=True)
    (root / "dog" / "circle").symlink_to(root / "dog")
    assert labels(load_splits(str(root)))["train"].count("dog") == 2


METADATA = "file_name,label,fold\na.wav,None,1\nb/c.wav,01,2\n"


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_metadata_of_an_audio_folder(make_folder, suffix, caplog):
    rows = [{"file_name": "a.wav", "label": "None", "fold": "1"}, {"file_name": "b/c.wav", "label": "01", "fold": "2"}]
    text = METADATA if suffix == "csv" else "\n".join(map(json.dumps, rows))
    root = make_folder("a.wav", "b/c.wav", "b/unlisted.wav", **{f"metadata_{suffix}": text})
    split = load_splits(str(root))["train"]
    assert split["label"][:] == ["None", "01"]
    assert split["fold"][:] == ["1", "2"]
    assert split["audio"][:] == [str(root / "a.wav"), str(root / "b/c.wav")]
    assert "1 sound files that it does not list are passed over" in caplog.text


def test_metadata_of_several_splits(make_folder):
    table = "file_name,label\ntrain/a.wav,x\ndata/test/b.wav,y\n"
    root = make_folder("train/a.wav", "data/test/b.wav", metadata_csv=table)
    assert labels(load_splits(str(root))) == {"train": ["x"], "test": ["y"]}
    (root / "metadata.csv").unlink()
    for split, name in (("train", "a"), ("data/test", "b")):
        (root / split / "metadata.csv").write_text(f"file_name,label\n{name}.wav,{name}\n")
    shutil.move(root / "data" / "test", root / "val")
    shutil.rmtree(root / "data")
    splits = load_splits(str(root))
    assert labels(splits) == {"train": ["a"], "val": ["b"]}
    assert splits["val"]["audio"][:] == [str(root / "val" / "b.wav")]
    (root / "val" / "metadata.csv").write_text("name,label\nb.wav,b\n")
    with pytest.raises(ValueError, match=r"metadata\.csv has the columns \['name', 'label'\]; expected 'file_name'"):
        load_splits(str(root))


TABLES = {
    "csv": 'path,label\na.wav,None\nb.wav,\nc.wav,01\n d.wav , dog\n"e, f.wav",null\n',
    "CSV": "path;label\r\na.wav;None\r\nb.wav;\r\nc.wav;01\r\nd.wav;dog\r\ne, f.wav;null\r\n",
    "tsv": "path\tlabel\na.wav\tNone\nb.wav\t\nc.wav\t01\nd.wav\tdog\ne, f.wav\tnull\n",
    "json": json.dumps({"data": [
        {"path": "a.wav", "label": "None"}, {"path": "b.wav"}, {"path": "c.wav", "label": "01"},
        {"path": "d.wav", "label": "dog"}, {"path": "e, f.wav", "label": "null"},
    ]}),
}  # fmt: skip
TABLES["jsonl"] = "\n".join(map(json.dumps, json.loads(TABLES["json"])["data"]))


@pytest.mark.parametrize("suffix", TABLES)
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_cells_arrive_as_they_were_written(tmp_path, suffix, mark):
    path = tmp_path / f"clips.{suffix}"
    path.write_text(mark + TABLES[suffix], encoding="utf-8", newline="")
    table = load_splits(str(path))["train"]
    assert table["label"][:] == ["None", None, "01", "dog", "null"]
    assert table["path"][:] == ["a.wav", "b.wav", "c.wav", "d.wav", "e, f.wav"]


@pytest.mark.parametrize(
    "text",
    [
        'path,label,,\na.wav,"dog,cat",,\nb.wav,,,\n,,,\n',
        'path,label\na.wav,"dog,cat",,\nb.wav,\n',
        '# made by hand\n# in 2020\n\npath,label\na.wav,"dog,cat"\nb.wav,\n',
        '# Segments csv created\r\n# num_ytids=2, num_segs=2\r\n# path, label\r\na.wav, "dog,cat"\r\nb.wav,\r\n',
        "#path;label\na.wav;dog,cat\nb.wav;\n",
    ],
    ids=["Excel", "Excel without names", "comments", "AudioSet", "a mark in the header"],
)
def test_what_stands_around_a_table_is_passed_over(tmp_path, text):
    (tmp_path / "clips.csv").write_text(text, newline="")
    table = read_table(tmp_path / "clips.csv")
    assert table.to_dict() == {"path": ["a.wav", "b.wav"], "label": ["dog,cat", None]}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("#,path,scientific name\n1,a.wav,dog\n", ["#", "path", "scientific name"]),
        ("#\tBegin Time (s)\n1\t0.5\n", ["#", "Begin Time (s)"]),
        (",path,label\n1,a.wav,dog\n", ["", "path", "label"]),
        ("path,label,\na.wav,dog,said by Ann\n", ["path", "label", ""]),
    ],
)
def test_columns_of_odd_names_stay(tmp_path, text, names):
    (tmp_path / "clips.csv").write_text(text)
    assert read_table(tmp_path / "clips.csv").column_names == names


def test_a_line_below_comments_is_counted_with_them(tmp_path):
    (tmp_path / "clips.csv").write_text("# one\n# two\npath,label\na.wav,dog,cat\n")
    with pytest.raises(ValueError, match=r"clips\.csv, line 4: 3 cells; the header has 2"):
        read_table(tmp_path / "clips.csv")


def test_names_without_folders_are_found_below(make_folder, caplog):
    """UrbanSound8K's table says in one column which file it is, and in another in which folder."""
    decomposed = unicodedata.normalize("NFD", "hündin")
    root = make_folder("audio/fold1/1.wav", "audio/fold2/2.wav", f"audio/fold2/{decomposed}.wav", "meta/none.txt")
    (root / "meta" / "t.csv").write_text("name,class\n1.wav,a\n2,b\nhündin.wav,b\n3.wav,b\n", encoding="utf-8")
    columns = Columns(audio="name")
    with caplog.at_level("INFO"):
        table = load_splits(str(root / "meta" / "t.csv"), data_dir="../audio", columns=columns)["train"]
    assert table["name"][:] == ["fold1/1.wav", "fold2/2.wav", f"fold2/{decomposed}.wav", "3.wav"]
    assert "Names without their folders: 3 of 4 recordings found below" in caplog.text
    assert load_splits(str(root / "meta" / "t.csv"), columns=columns)["train"]["name"][0] == "1.wav"


def test_names_with_some_of_their_folders_are_found_below(make_folder):
    """BirdCLEF's table lies beside the folder that its names begin below."""
    root = make_folder("train_audio/crow/1.ogg", "train_audio/owl/1.ogg", "test/1.ogg")
    (root / "t.csv").write_text("filename,primary_label\ncrow/1.ogg,crow\nowl\\1.ogg,owl\n")
    table = load_splits(str(root / "t.csv"), columns=Columns(label="primary_label"))["train"]
    assert table["filename"][:] == ["train_audio/crow/1.ogg", "train_audio/owl/1.ogg"]


def test_names_without_folders_that_could_be_several_are_refused(make_folder):
    root = make_folder("north/1.wav", "south/1.wav", t_csv="path,label\n1.wav,a\n")
    with pytest.raises(ValueError, match=r"names '1\.wav' without its folder, and north/1\.wav and south/1\.wav in"):
        load_splits(str(root))


@pytest.mark.parametrize("names", [("1.wav", "2.wav"), ("south/1.wav", "2.wav")], ids=["in the folder", "paths"])
def test_names_are_not_sought_where_others_say_where_they_lie(make_folder, names):
    root = make_folder("1.wav", "north/2.wav", t_csv="path,label\n" + "".join(f"{name},a\n" for name in names))
    assert load_splits(str(root))["train"]["path"][:] == [*names]


def test_an_empty_cell_changes_no_other(tmp_path):
    (tmp_path / "clips.csv").write_text("path,label\na.wav,0\nb.wav,1\nc.wav,\n")
    assert read_table(tmp_path / "clips.csv")["label"][:] == ["0", "1", None]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "path,label\na.wav,dog,1\n", r"a\.csv, line 2: 3 cells; the header has 2"),
        ("a.csv", 'path,label\na.wav,"dog\n', r"a\.csv, line 2: unexpected end of data"),
        ("a.csv", "path,path\na.wav,dog\n", r"a\.csv: the header has the columns \['path', 'path'\]"),
        ("a.csv", "path,label\n", r"a\.csv holds no rows"),
        ("a.json", "[1, 2]", r"a\.json holds no list of objects"),
        ("a.json", '{"a": 1}', r"a\.json holds an object of a; expected a list of objects"),
        ("a.jsonl", '{"label": 1}\n{"label": 2', r"a\.jsonl, line 2 is not valid JSON"),
        (
            "a.json",
            '{"label": 1}\n{"label": 2}',
            r"Extra data.*\. Call a file \.jsonl that has an object in each line",
        ),
        (
            "a.jsonl",
            '{"label": 1}\n{"label": "dog"}',
            r"a\.jsonl: column 'label' holds 1 and 'dog'; expected one type",
        ),
        ("a.jsonl", '{"label": [1]}\n{"label": ["dog"]}', r"column 'label' holds 1 and 'dog'; expected one type"),
        ("a.jsonl", '{"label": "dog"}\n{"label": ["dog"]}', r"column 'label' holds 'dog' and \['dog'\]"),
        ("a.txt", "a.wav dog", r"a\.txt is not a table of paths and labels"),
    ],
)
def test_broken_tables_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_splits(str(tmp_path / name))


def test_broken_parquet_files_are_named(tmp_path):
    path = tmp_path / "clips.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"clips\.parquet is not a parquet file"):
        load_splits(str(path))
    with pytest.raises(ValueError, match=r"clips\.parquet is not a parquet file"):
        load_splits(str(tmp_path))
    Dataset.from_dict({"path": ["a.wav"], "label": ["dog"]}).select([]).to_parquet(path)
    with pytest.raises(ValueError, match=r"clips\.parquet holds no rows, of the columns \['path', 'label'\]"):
        load_splits(str(path))


def test_tables_in_other_encodings_are_named(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"path,label\ncaf\xe9.wav,dog\n")
    with pytest.raises(ValueError, match=r"a\.csv is not UTF-8: byte 14 is 0xe9"):
        load_splits(str(tmp_path / "a.csv"))


def test_a_column_divides_a_table(tmp_path):
    (tmp_path / "a.csv").write_text("path,label,split\na.wav,x,train\nb.wav,y,Val\nc.wav,y,train\n")
    assert labels(load_splits(str(tmp_path / "a.csv"))) == {"train": ["x", "y"], "Val": ["y"]}
    (tmp_path / "a.csv").write_text("path,label,split\na.wav,x,1\nb.wav,y,2\n")
    assert labels(load_splits(str(tmp_path / "a.csv"))) == {"train": ["x", "y"]}


@pytest.mark.parametrize("kind", ["metadata", "table of a split", "parquet", "saved"])
def test_a_column_divides_what_is_one_split(make_folder, tmp_path, kind):
    rows = {"file_name": ["a.wav", "b.wav"], "label": ["x", "y"], "split": ["train", "test"]}
    root = make_folder("a.wav", "b.wav") if kind == "metadata" else tmp_path / "data"
    if kind == "metadata":
        (root / "metadata.csv").write_text("file_name,label,split\na.wav,x,train\nb.wav,y,test\n")
    elif kind == "saved":
        DatasetDict({"train": Dataset.from_dict(rows)}).save_to_disk(root)
    else:
        root.mkdir()
        Dataset.from_dict(rows).to_parquet(root / f"{'clips' if kind == 'parquet' else 'train_clips'}.parquet")
    assert labels(load_splits(str(root))) == {"train": ["x"], "test": ["y"]}


def test_a_column_of_classes_divides_too(tmp_path):
    features = Features(
        {"path": Value("string"), "label": Value("string"), "split": ClassLabel(names=["val", "train"])}
    )
    rows = {"path": ["a.wav", "b.wav"], "label": ["x", "y"], "split": [1, 0]}
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    assert labels(load_splits(str(tmp_path / "saved"))) == {"train": ["x"], "val": ["y"]}


def test_parquet_files_without_labels_do_not_stop_class_folders(make_folder, caplog):
    root = make_folder("dog/1.wav", "cat/1.wav")
    Dataset.from_dict({"file": ["dog/1.wav"], "embedding": [[0.0]]}).to_parquet(root / "vectors.parquet")
    assert labels(load_splits(str(root))) == {"train": ["cat", "dog"]}
    assert "Parquet files without labels or with predicted ones are passed over: vectors.parquet" in caplog.text


def test_the_log_names_the_table_that_labels_come_from(make_folder, caplog):
    caplog.set_level("INFO")
    root = make_folder("dog/1.wav", "cat/1.wav", tags_csv="file,label\ndog/1.wav,x\ncat/1.wav,y\n")
    assert labels(load_splits(str(root))) == {"train": ["x", "y"]}
    assert "Labels come from tags.csv" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        'path\tsentence\tlabel\na.wav\t"No"\tx\nb.wav\t"Oh no, he said\ty\nc.wav\t5" of rain"\tz\n',
        'path\tsentence\tlabel\na.wav\tNo\tx\nb.wav\t"Oh no\ty\nc.wav\tYes\tz\n',
    ],
)
def test_quotes_between_tabs_swallow_no_rows(tmp_path, text):
    (tmp_path / "a.tsv").write_text(text)
    assert read_table(tmp_path / "a.tsv")["label"][:] == ["x", "y", "z"]


def test_line_breaks_that_are_quoted_between_tabs(tmp_path):
    (tmp_path / "a.tsv").write_text('path\tsentence\tlabel\na.wav\t"Oh\nno"\tx\n')
    assert read_table(tmp_path / "a.tsv")["sentence"][:] == ["Oh\nno"]


def test_of_several_columns_of_sound_the_usual_name_counts():
    clips = Dataset.from_dict({"noisy": [], "audio": []}, features=Features({"noisy": Audio(), "audio": Audio()}))
    assert find_column(clips, "audio") == "audio"


def test_a_missing_column_names_the_option():
    with pytest.raises(
        ValueError, match=r"no label column found; the data has \['path'\]\. --label_column_name names"
    ):
        find_column(Dataset.from_dict({"path": ["a.wav"]}), "label")


def test_a_folder_of_tables(tmp_path, caplog):
    for name, label in (("esc_train_data", "x"), ("esc_val_data", "y")):
        (tmp_path / f"{name}.csv").write_text(f"path,label\na.wav,{label}\n")
    (tmp_path / "names.csv").write_text("index,mid,display_name\n0,x,X\n")
    assert labels(load_splits(str(tmp_path))) == {"train": ["x"], "validation": ["y"]}
    assert "tables that list no sound with labels are passed over: names.csv" in caplog.text
    (tmp_path / "esc_val_data.csv").rename(tmp_path / "other.csv")
    with pytest.raises(ValueError, match=r"esc_train_data\.csv', 'other\.csv'\]; expected one, or one per split"):
        load_splits(str(tmp_path))
    (tmp_path / "esc_train_data.csv").unlink()
    assert labels(load_splits(str(tmp_path))) == {"train": ["y"]}
    (tmp_path / "other.csv").write_text("clip,sound\na.wav,dog\n")
    with pytest.raises(ValueError, match=r"no sound, and tables .*'clip', 'sound'.* --audio_column_name"):
        load_splits(str(tmp_path))


@pytest.mark.parametrize("has_splits", [True, False])
def test_what_save_to_disk_leaves(tmp_path, has_splits):
    clips = Dataset.from_dict({"path": ["a.wav"], "label": ["x"]})
    (DatasetDict({"train": clips, "dev": clips}) if has_splits else clips).save_to_disk(tmp_path / "saved")
    assert labels(load_splits(str(tmp_path / "saved"))) == {"train": ["x"]} | ({"dev": ["x"]} if has_splits else {})


@pytest.mark.parametrize("source", ["../nowhere/clips", "nowhere/data/clips", "clips.csv", "/nowhere"])
def test_paths_where_nothing_is_are_not_asked_of_the_hub(source):
    with pytest.raises(FileNotFoundError, match="neither a folder or a file here nor a Hub id"):
        load_splits(source)


def test_rows_of_no_split_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("path,label,Split\na.wav,x,train\nb.wav,y,unlabeled\n")
    with pytest.raises(ValueError, match=r"of the splits \['train'\], others of \['unlabeled'\]"):
        load_splits(str(tmp_path / "a.csv"))


def test_files_that_are_no_tables_do_not_stop_class_folders(make_folder, caplog):
    root = make_folder("dog/1.wav", "cat/1.wav", config_json='{"a": 1}', classes_json='["cat"]', empty_csv="loss\n")
    (root / "notes.csv").write_bytes(b"caf\xe9")
    Dataset.from_dict({"f": [1.0]}).to_parquet(root / "features.parquet")
    assert labels(load_splits(str(root))) == {"train": ["cat", "dog"]}
    assert "tables that list no sound with labels are passed over" in caplog.text


def test_annotations_that_are_not_read_are_named_where_folders_become_classes(make_folder, caplog):
    root = make_folder("Site A/rec.1.wav", "Site B/rec.2.wav", "Site B/other.wav")
    (root / "Site A" / "rec.1.BirdNET.results.csv").write_text("Start (s),End (s),Common name\n0,3,Dog\n")
    (root / "Site B" / "rec.2.TextGrid").touch()
    (root / "Site B" / "notes.txt").touch()
    assert labels(load_splits(str(root))) == {"train": ["Site A", "Site B", "Site B"]}
    assert "2 files called after recordings, such as rec.1.BirdNET.results.csv, are not read" in caplog.text
    assert "The folders are taken for classes: Site A, Site B" in caplog.text


def test_folders_in_those_taken_for_classes_are_named(make_folder, caplog):
    root = make_folder("Site A/hen/1.wav", "Site A/owl/2.wav", "Site B/hen/3.wav", "Site B/tit/4.wav")
    assert labels(load_splits(str(root))) == {"train": ["Site A", "Site A", "Site B", "Site B"]}
    assert "directly in it: Site A, Site B. Folders in these are none: hen, owl, tit;" in caplog.text


@pytest.mark.parametrize("rows", ["events", "files"])
@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_what_was_heard_does_not_become_labels(make_folder, caplog, form, rows):
    root = make_folder("dog/1.wav", "cat/1.wav")
    heard = {"label": "cow", "score": 0.9}
    answer = {"file": str(root / "dog/1.wav"), "duration": 0.1, "labels": [heard], "timeline": [], "windows": []}
    answer["timeline"] = [heard | {"start": 0.0, "end": 0.1}]
    find_writer(form, rows, ["cow"], 16000, [])([answer], root / f"tags.{form}")
    assert labels(load_splits(str(root))) == {"train": ["cat", "dog"]}
    assert f"passed over: tags.{form}" in caplog.text
    # Whoever names the table means it.
    assert load_splits(str(root / f"tags.{form}"))["train"]["file"][:] == [answer["file"]]


@pytest.mark.parametrize("line", [b"b.wav,y,z", b'b.wav,"y', b"caf\xe9.wav,y"])
def test_a_table_that_lists_sound_and_cannot_be_read_is_not_passed_over(tmp_path, line):
    (tmp_path / "train.csv").write_text("path,label\na.wav,x\n")
    (tmp_path / "validation.csv").write_bytes(b"path,label\na.wav,x\n" + line + b"\n")
    with pytest.raises(ValueError, match=r"validation\.csv(, line 3| is not UTF-8)"):
        load_splits(str(tmp_path))


def test_a_row_without_a_file_below_the_only_split(make_folder):
    root = make_folder("train/a.wav")
    (root / "train" / "metadata.csv").write_text("file_name,species\na.wav,wren\n,owl\n")
    assert load_splits(str(root))["train"]["species"] == ["wren", "owl"]


def test_metadata_in_parquet_below_a_split(make_folder):
    root = make_folder("train/a.wav", "val/b.wav")
    for split, name in (("train", "a"), ("val", "b")):
        Dataset.from_dict({"file_name": [f"{name}.wav"], "label": [name]}).to_parquet(
            root / split / "metadata.parquet"
        )
    assert labels(load_splits(str(root))) == {"train": ["a"], "val": ["b"]}


def test_a_lone_table_of_a_split_is_that_split(tmp_path):
    (tmp_path / "test.csv").write_text("path,label\na.wav,x\n")
    assert labels(load_splits(str(tmp_path))) == {"test": ["x"]}


def test_what_excel_calls_unicode_text(tmp_path):
    (tmp_path / "a.tsv").write_text("path\tlabel\na.wav\tcaf\u00e9\n", encoding="utf-16")
    assert labels(load_splits(str(tmp_path / "a.tsv"))) == {"train": ["caf\u00e9"]}


def test_numbers_beyond_all_columns_are_named(tmp_path):
    (tmp_path / "a.json").write_text('[{"path": "a.wav", "label": 123456789012345678901}]')
    with pytest.raises(ValueError, match=r"a\.json holds what no column can"):
        load_splits(str(tmp_path / "a.json"))


def test_names_of_folders_say_nothing_of_the_machine(tmp_path, monkeypatch):
    (tmp_path / "sounds").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [public_name(source) for source in ("~/sounds", str(tmp_path / "sounds"))] == ["sounds"] * 2
    assert public_name("user/sounds") == "user/sounds"
    assert is_local("~/sounds")
    assert not is_local("user/sounds")
