"""Clips that would be lost, or learned as another class, without a word: they are read as they are meant, or named."""

import json
import os
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
from datasets import ClassLabel, Dataset, Features, Value

from modeling_fftp.training.command_line import find_recipe, parse_arguments
from modeling_fftp.training.data.annotations import read_annotations
from modeling_fftp.training.data.arguments import DataArguments
from modeling_fftp.training.data.held_out import hold_out_group
from modeling_fftp.training.data.labels import LabelColumn
from modeling_fftp.training.data.parquet_rows import ParquetRows
from modeling_fftp.training.data.parquet_splits import open_splits
from modeling_fftp.training.data.plan import build_decoder, decoders_of, find_roles
from modeling_fftp.training.data.sources import Columns, load_splits
from modeling_fftp.training.data.streamed_clips import StreamedClips
from modeling_fftp.training.data.unlabelled import SoundArguments, assign_roles, find_recordings
from modeling_fftp.training.inspect import inspect

FOLDS = Features({"path": Value("string"), "label": Value("string"), "fold": ClassLabel(names=["1", "2", "3"])})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


def write_sound(folder, *paths):
    """A tone of 0.2 s at each path."""
    for number, path in enumerate(paths):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        tone = np.sin(np.arange(3200) / (10 + number))
        soundfile.write(os.fsencode(file), tone, 16000, format="WAV")


def write_rows(path, names, labels):
    """A parquet file whose classes have names of their own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    features = Features({"path": Value("string"), "label": ClassLabel(names=names)})
    Dataset.from_dict({"path": ["a.wav"] * len(labels), "label": labels}, features=features).to_parquet(path)


def test_indices_of_other_names_beside_sound_are_refused(folder):
    write_sound(folder, "a.wav")
    write_rows(folder / "train.parquet", ["bird", "cat", "dog"], [0, 2])
    write_rows(folder / "test.parquet", ["cat", "dog"], [0, 1])
    with pytest.raises(ValueError, match=r"train\.parquet has the columns .*bird.*; .*test\.parquet has"):
        load_splits(str(folder))


@pytest.mark.parametrize("opened", [load_splits, open_splits])
def test_parquet_files_whose_names_say_nothing_beside_others(folder, opened):
    for name in ("train", "test", "more"):
        write_rows(folder / f"{name}.parquet", ["cat", "dog"], [0, 1])
    card = folder / "README.md"
    for text in ("", "# My sounds\n"):
        card.write_text(text)
        with pytest.raises(ValueError, match=r"more\.parquet would not be read"):
            opened(str(folder))
    card.write_text("---\nconfigs:\n- config_name: default\n  data_files: train.parquet\n---\n")
    assert [*opened(str(folder))] == ["train"]
    card.unlink()
    (folder / "more.parquet").unlink()
    assert [*opened(str(folder))] == ["train", "test"]


def test_an_index_beyond_the_names_is_no_class():
    column = LabelColumn(["cat", "dog"], index_names=["cat", "dog"])
    assert column.read(1) == ["dog"]
    with pytest.raises(ValueError, match="label 2: expected an index below 2, the number of classes"):
        column.read(2)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("validation.jsonl", b'{"path": "a.wav", "label": "x"}\n{"path": "b.wav", "label": '),
        ("validation.jsonl", b'{"path": "a.wav", "label": "1"}\n{"path": "b.wav", "label": 1}\n'),
        ("validation.csv", "path,label\na.wav,x,y\n".encode("utf-16")),
        # One quote too many hides no name behind it.
        ("validation.jsonl", b'{"path": "a"b.wav", "label": "x"}\n'),
        # Not looked through to the end from each of its quotes.
        pytest.param("validation.jsonl", b'{"path": "a.wav", "label": "' + b'\\"' * 100_000, id="no end"),
    ],
)
def test_a_broken_table_of_a_split_is_not_passed_over(folder, name, data):
    folder.mkdir()
    (folder / "train.csv").write_text("path,label\na.wav,x\n")
    (folder / name).write_bytes(data)
    with pytest.raises(ValueError, match=name):
        load_splits(str(folder))


def test_the_log_says_why_a_table_cannot_be_read(folder, caplog):
    write_sound(folder, "cat/1.wav", "dog/1.wav")
    (folder / "notes.json").write_text("{")
    load_splits(str(folder))
    assert "notes.json (" in caplog.text
    assert "is not valid JSON" in caplog.text
    infos = {"default": {"features": {"audio": {"_type": "Audio"}, "label": {"names": ["cat", "dog"]}}}}
    (folder / "dataset_infos.json").write_text(json.dumps(infos))
    assert load_splits(str(folder))["train"]["label"][:] == ["cat", "dog"]


def test_a_group_is_held_out_by_its_name(tmp_path):
    clips = Dataset.from_dict({"path": ["a", "b", "c"], "label": ["x"] * 3, "fold": [0, 1, 2]}, features=FOLDS)
    clips.to_parquet(tmp_path / "clips.parquet")
    rows = ParquetRows([str(tmp_path / "clips.parquet")])
    for source in (clips, StreamedClips(rows, None, np.arange(3), np.zeros(3, dtype=int))):
        train, validation = hold_out_group(source, "fold", "2")
        assert (train["path"][:], validation["path"][:]) == (["a", "c"], ["b"])
    arguments = SoundArguments("x", validation_column="fold", validation_value="2")
    divided = assign_roles([(None, clips)], arguments, 0)
    assert {role: rows["path"][:] for role, rows in divided} == {"train": ["a", "c"], "validation": ["b"]}
    with pytest.raises(ValueError, match=r"the groups are \['1', '2', '3'\]"):
        hold_out_group(clips, "fold", "0")


@pytest.mark.parametrize("names", [("train", "Train"), ("train", "training"), ("test", "TEST")])
def test_splits_that_mean_the_same_are_refused(folder, names):
    folder.mkdir()
    (folder / "clips.csv").write_text(f"path,label,split\na.wav,x,{names[0]}\nb.wav,y,{names[1]}\n")
    with pytest.raises(ValueError, match=f"of the split '{names[0]}', others of '{names[1]}'; expected one name"):
        load_splits(str(folder / "clips.csv"))


@pytest.mark.parametrize("streaming", [False, True])
def test_nothing_is_written_beside_what_save_to_disk_left(folder, tmp_path, monkeypatch, streaming):
    write_sound(tmp_path, *(f"{name}.wav" for name in "abcdefgh"))
    rows = {
        "audio": [{"bytes": (tmp_path / f"{name}.wav").read_bytes(), "path": None} for name in "abcdefgh"],
        "label": ["x", "y"] * 4,
    }
    Dataset.from_dict(rows).save_to_disk(folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    before = sorted(folder.iterdir())
    inspect([str(folder), "--streaming", str(streaming)])
    assert sorted(folder.iterdir()) == before
    assert streaming or [*(tmp_path / "cache" / "fftp").glob("*.arrow")]


def test_one_parquet_file_is_streamed_without_a_copy(tmp_path):
    write_rows(tmp_path / "clips.parquet", ["cat", "dog"], [0, 1])
    assert isinstance(open_splits(str(tmp_path / "clips.parquet"))["train"], ParquetRows)
    # What a column divides, by names or by classes, is copied and divided.
    for name, kind, values in (
        ("a", Value("string"), ["train", "test"]),
        ("b", ClassLabel(names=["train", "test"]), [0, 1]),
    ):
        features = Features({"path": Value("string"), "label": Value("string"), "split": kind})
        rows = {"path": ["x.wav", "y.wav"], "label": ["x", "y"], "split": values}
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{name}.parquet")
        assert [*open_splits(str(tmp_path / f"{name}.parquet"))] == ["train", "test"]


def test_columns_of_sound_by_another_name(folder):
    write_sound(folder, "a.wav", "b.wav")
    (folder / "events.csv").write_text("recording,onset,offset,label\na.wav,0,0.1,x\na.wav,0.1,0.2,y\n")
    rows = load_splits(str(folder / "events.csv"), columns=Columns(audio="recording"))["train"]
    assert [event["label"] for event in rows["events"][0]] == ["x", "y"]
    # A recording of two events is one.
    arguments = SoundArguments(str(folder / "events.csv"), audio_column_name="recording")
    assert [len(recordings) for _, recordings in find_recordings(arguments)] == [1]
    (folder / "events.csv").unlink()
    (folder / "clips.csv").write_text("clip,genre\na.wav,x\nb.wav,y\n")
    assert load_splits(str(folder), columns=Columns("genre", "clip"))["train"]["genre"] == ["x", "y"]


def test_a_folder_in_a_folder_of_sound(folder):
    write_sound(folder, "big/cat/1.wav", "big/dog/1.wav", "small/cat/2.wav", "small/dog/2.wav")
    assert load_splits(str(folder), data_dir="small")["train"]["label"][:] == ["cat", "dog"]
    (folder / "small" / "clips.csv").write_text("path,label\ncat/2.wav,a\ndog/2.wav,b\n")
    assert load_splits(str(folder), data_dir="small")["train"]["label"][:] == ["a", "b"]
    ((_, recordings),) = find_recordings(SoundArguments(str(folder), dataset_data_dir="small"))
    assert sorted(Path(path).name for path in recordings["audio"]) == ["2.wav", "2.wav"]
    for load in (
        lambda: load_splits(str(folder), data_dir="tiny"),
        lambda: find_recordings(SoundArguments(str(folder), dataset_data_dir="tiny")),
    ):
        with pytest.raises(FileNotFoundError, match="holds no folder tiny, which --dataset_data_dir names"):
            load()


def test_names_that_are_not_utf8(folder, caplog):
    odd = os.fsdecode(b"caf\xe9")
    write_sound(folder, "a.wav", f"{odd}.wav")
    ((_, recordings),) = find_recordings(SoundArguments(str(folder)))
    assert [Path(path).name for path in recordings["audio"]] == ["a.wav"]
    assert r"caf\xe9.wav is passed over: the name of the file" in caplog.text
    (folder / f"{odd}.txt").write_text("0.0\t0.1\tx\n")
    with pytest.raises(ValueError, match=r"caf\\xe9\.wav: the name of the file or of its folder is not UTF-8"):
        read_annotations(folder)


def test_a_recipe_names_no_folder_of_this_machine(tmp_path):
    words = ["--dataset_name", "x", "--output_dir", "y", "--dataset_data_dir"]
    assert "dataset_data_dir" not in find_recipe(parse_arguments([*words, str(tmp_path / "audio")]))
    assert find_recipe(parse_arguments([*words, "inner/audio"]))["dataset_data_dir"] == "inner/audio"


def test_a_group_needs_clips_to_train_on(folder):
    folder.mkdir()
    (folder / "test.csv").write_text("path,label,fold\na.wav,x,1\nb.wav,y,2\n")
    arguments = DataArguments(str(folder), validation_column="fold", validation_value="1")
    with pytest.raises(ValueError, match=r"fold divides the clips to train on; the data has \['test'\]"):
        find_roles(arguments, ["validation", "test", "train"], load_splits)


def test_clips_without_a_label_can_be_excluded(folder):
    write_sound(folder, *(f"{name}.wav" for name in "abcde"))
    rows = "".join(f"{name}.wav,{label}\n" for name, label in zip("abcde", ("x", "y", "x", "y", ""), strict=True))
    (folder / "clips.csv").write_text(f"path,label\n{rows}")
    assert "| left out | 0 |" in inspect([str(folder), "--exclude_labels", ""])


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_rows_of_one_clip_that_contradict_each_other_are_refused(folder, split):
    write_sound(folder, "a.wav", "b.wav")
    for name in ("train", "validation", "test"):
        more = "a.wav,y\n" if name == split else ""
        (folder / f"{name}.csv").write_text(f"path,label\na.wav,x\nb.wav,y\n{more}")
    with pytest.raises(ValueError, match=r"a\.wav has rows with the labels 'x' and 'y', .* --label_separator"):
        inspect([str(folder)])


def test_rows_of_one_clip_that_agree_are_named(folder, caplog):
    write_sound(folder, "a.wav", "b.wav")
    table = folder / "clips.csv"
    table.write_text("path,label,start_time_seconds,endtime\na.wav,x,0,1\n./a.wav,x,1,2\nb.wav,y,0,1\n")
    inspect([str(table)])
    assert "1 clips have several rows, and each is heard as a whole: a.wav" in caplog.text
    assert "The columns ['start_time_seconds', 'endtime'] are not read" in caplog.text
    table.write_text("path,label\na.wav,x\n./a.wav,y\nb.wav,y\n")
    with pytest.raises(ValueError, match=r"a\.wav has rows with the labels 'x' and 'y'"):
        inspect([str(table)])


def test_a_folder_can_be_the_group_that_validates(folder):
    paths = [
        f"{label}/{site}/{number}.wav" for label in ("owl", "wren") for site in ("Site A", "Site B") for number in "12"
    ]
    write_sound(folder, *paths)
    arguments = DataArguments(str(folder), validation_column="folder", validation_value="Site B")
    splits, _ = find_roles(arguments, ["train"], load_splits)
    train, validation = hold_out_group(splits["train"], "folder", "Site B")
    assert {Path(path).parent.name for path in validation["audio"]} == {"Site B"}
    assert {Path(path).parent.name for path in train["audio"]} == {"Site A"}
    # Also where there are no labels.
    roles = assign_roles(find_recordings(arguments), arguments, 0)
    assert [(role, len(part)) for role, part in roles] == [("train", 4), ("validation", 4)]
    (folder / "owl.csv").write_text("path,label,folder\nowl/Site A/1.wav,owl,x\nowl/Site A/2.wav,wren,y\n")
    splits, _ = find_roles(replace(arguments, dataset_name=str(folder / "owl.csv")), ["train"], load_splits)
    assert splits["train"]["folder"][:] == ["x", "y"]


def test_recordings_that_an_excluded_class_takes_along_are_counted(folder, caplog):
    write_sound(folder, "a.wav", "b.wav")
    rows = ("a.wav,0,0.1,x", "a.wav,0.1,0.2,y", "b.wav,0,0.1,y", "b.wav,0.1,0.2,z")
    (folder / "events.csv").write_text("\n".join(("path,onset,offset,label", *rows)))
    inspect([str(folder), "--task", "frames", "--exclude_labels", "x"])
    assert "1 of 2 clips hold a class of --exclude_labels; their other events are lost" in caplog.text


def test_events_in_one_split_and_names_in_another(folder):
    folder.mkdir()
    events = [{"onset": 0.0, "offset": 0.1, "label": "x"}]
    for split, labels in (("train", events), ("validation", ["x"])):
        (folder / f"{split}.jsonl").write_text(json.dumps({"path": "a.wav", "labels": labels}) + "\n")
    arguments = DataArguments(str(folder), task="frames")
    splits, _ = find_roles(arguments, ["train"], load_splits)
    decoder = build_decoder(arguments, splits["train"])
    with pytest.raises(ValueError, match="the labels of the validation split have no times; --task frames needs them"):
        decoders_of(splits, decoder)


def test_names_of_files_that_are_numbers(folder):
    write_sound(folder, "1.wav")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": 1, "label": "x"}) + "\n")
    with pytest.raises(ValueError, match=r"metadata\.jsonl: 'file_name' is 1; expected the path of a sound file"):
        load_splits(str(folder))


def test_sound_beside_the_folders_of_splits_is_counted(folder, caplog):
    write_sound(folder, "train/cat/1.wav", "train/dog/1.wav", "test/cat/1.wav", "test/dog/1.wav", "stray.wav")
    load_splits(str(folder))
    assert "1 sound files beside the folders of splits are passed over" in caplog.text


def test_lists_of_splits_that_were_written_on_windows(folder, caplog):
    write_sound(folder, "cat/1.wav", "cat/2.wav", "dog/1.wav")
    (folder / "testing_list.txt").write_text("cat\\1.wav\n")
    (folder / "validation_list.txt").write_text("cat/9.wav\n")
    splits = load_splits(str(folder))
    assert {name: len(split) for name, split in splits.items()} == {"test": 1, "train": 2}
    assert "validation_list.txt names 1 clips that are not there: cat/9.wav" in caplog.text
