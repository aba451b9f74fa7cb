"""Clips that are read and decoded when they are needed: each once an epoch, wherever a run is cut or shared."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import transformers
from datasets import ClassLabel, Dataset, Features, List, Value
from packaging.version import Version
from safetensors.numpy import load_file

from modeling_fftp.training.arguments import DataArguments, FFTPTrainingArguments
from modeling_fftp.training.data.folders import PROBLEM
from modeling_fftp.training.data.parquet_rows import ParquetRows
from modeling_fftp.training.data.parquet_splits import open_splits
from modeling_fftp.training.data.plan import build_decoder, plan_data
from modeling_fftp.training.data.row_group_sampler import RowGroupSampler
from modeling_fftp.training.data.streaming import read_clips, stream_clips
from modeling_fftp.training.inspect import inspect
from modeling_fftp.training.run import run
from tests.support import ROOT, TINY, run_training

SCRIPT = Path(__file__).with_name("streamed_training.py")


def stream(arguments, training):
    return stream_clips(plan_data(replace(arguments, streaming=True), training), arguments, training)


@pytest.fixture(scope="module")
def shards(clip_folder, tmp_path_factory):
    """The clips of the audio folder as parquet files: three of training in row groups of four, one of validation."""
    folder = tmp_path_factory.mktemp("shards")
    for split, count in (("train", 3), ("validation", 1)):
        paths = sorted((clip_folder / split).rglob("*.wav"))
        for number in range(count):
            part = paths[number::count]
            rows = {
                "audio": [{"bytes": path.read_bytes(), "path": path.name} for path in part],
                "label": [path.parent.name for path in part],
            }
            name = f"{split}-{number:05}-of-{count:05}.parquet"
            Dataset.from_dict(rows).to_parquet(folder / name, batch_size=4)
    return folder


def test_rows_are_those_of_the_files(shards):
    files = sorted(map(str, shards.glob("train*.parquet")))
    rows, expected = ParquetRows(files), Dataset.from_parquet(files)
    assert len(rows) == len(expected) == 36
    assert [len(group) for group in rows.groups] == [4] * 9
    assert rows.features == expected.features
    assert rows["label"] == expected["label"][:]
    for number in np.random.default_rng(0).permutation(36).tolist():
        assert rows[number] == expected[number]
    with pytest.raises(IndexError, match="row 36 of 36"):
        rows[36]


def test_few_row_groups_are_in_memory(shards, monkeypatch):
    monkeypatch.setattr("modeling_fftp.training.data.parquet_rows.MEMORY_BYTES", 2**18)
    rows = ParquetRows(sorted(map(str, shards.glob("train*.parquet"))))
    assert 1 <= rows.groups_in_memory < 9
    for number in range(36):
        assert rows[number]["label"]
        assert len(rows._read) <= rows.groups_in_memory
    assert not ParquetRows.__getstate__(rows)["_read"]


def test_what_is_measured_is_measured_once(shards, tmp_path):
    """In training another clip takes the place of a batch of which none can be decoded."""
    arguments = DataArguments(dataset_name=str(shards), streaming=True)
    clips = stream(arguments, FFTPTrainingArguments(str(tmp_path), report_to="none")).splits
    for role in ("train", "validation"):
        clips[role].largest_share = 1.0
    clips["train"].examine = clips["validation"].examine = lambda place: (
        {PROBLEM: "broken"} if place == 0 else {PROBLEM: None, "audio": place, "labels": 0}
    )
    assert clips["train"].__getitems__([0]) == [{"audio": 1, "labels": 0}]
    with pytest.raises(ValueError, match="none of the 1 clips of a batch to measure on can be decoded"):
        clips["validation"].__getitems__([0])
    assert clips["validation"].__getitems__([0, 1]) == [{"audio": 1, "labels": 0}]
    clips["train"].examine = lambda place: {PROBLEM: "broken"}
    with pytest.raises(ValueError, match=f"none of the {len(clips['train'])} clips can be decoded"):
        clips["train"].__getitems__([0])


def test_large_row_groups_are_named(shards, monkeypatch, caplog):
    monkeypatch.setattr("modeling_fftp.training.data.parquet_rows.MEMORY_BYTES", 1)
    assert ParquetRows([str(shards / "train-00000-of-00003.parquet")]).groups_in_memory == 1
    assert "every process that reads holds one; to_parquet(batch_size=...)" in caplog.text


def test_files_of_other_columns_are_refused(shards, tmp_path):
    Dataset.from_dict({"sound": ["a"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"other\.parquet has the columns {'sound'.*; .* has {'audio'"):
        ParquetRows([str(shards / "train-00000-of-00003.parquet"), str(tmp_path / "other.parquet")])


def test_a_column_that_would_divide_the_clips_is_named(shards, tmp_path):
    rows = Dataset.from_parquet(str(shards / "train-00000-of-00003.parquet"))
    rows = rows.add_column("split", ["train"] * (len(rows) - 2) + ["val", "test"])
    rows.to_parquet(tmp_path / "clips.parquet")
    with pytest.raises(
        ValueError, match=r"'split' divides the data into \['test', 'train', 'validation'\], which --stream"
    ):
        open_splits(str(tmp_path))


GROUPS = [range(start, min(start + 12, 100)) for start in range(0, 100, 12)]


@pytest.mark.parametrize("streams", [1, 2, 4, 20])
def test_every_clip_comes_once_an_epoch(streams):
    sampler = RowGroupSampler(GROUPS, batch_size=5, streams=streams, groups_in_memory=2, seed=3)
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        epochs.append([*sampler])
        assert sorted(epochs[-1]) == [*range(100)]
    assert len(sampler) == 100
    assert epochs[0] == epochs[2] != epochs[1]
    # Neighbours are shuffled apart.
    assert np.abs(np.diff(epochs[0])).mean() > 3


def test_a_worker_reads_its_own_row_groups():
    groups, streams, batch_size = [range(10 * group, 10 * group + 10) for group in range(16)], 4, 5
    order = iter(RowGroupSampler(groups, batch_size, streams, groups_in_memory=2))
    read = [set() for _ in range(streams)]
    for batch in range(160 // batch_size):
        read[batch % streams] |= {place // 10 for place in islice(order, batch_size)}
    assert [len(groups) for groups in read] == [4] * 4
    assert set.union(*read) == {*range(16)}


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_trains_and_keeps_no_sound(shards, tmp_path, monkeypatch, workers):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    options = ["--num_train_epochs", 20, "--learning_rate", "2e-3", "--dataloader_num_workers", workers]
    run_training(tmp_path / "out", "--dataset_name", shards, "--streaming", "true", *options)
    results = json.loads((tmp_path / "out" / "validation_results.json").read_text())
    assert results["validation_accuracy"] > 0.9
    assert not [*(tmp_path / "cache").rglob("*.arrow")]
    card = (tmp_path / "out" / "README.md").read_text() if (tmp_path / "out" / "README.md").exists() else ""
    assert "nan" not in card
    assert json.loads((tmp_path / "out" / "data_results.json").read_text())["splits"]["train"]["clips"] == 36
    assert "| clips | 36 | 12 |" in (tmp_path / "out" / "data_report.md").read_text()


def test_an_inspection_looks_at_some_clips(shards, monkeypatch):
    monkeypatch.setattr("modeling_fftp.training.data.streamed_clips.SAMPLED_CLIPS", 18)
    report = inspect([str(shards), "--streaming", "true"])
    assert "| clips | 36 | 12 |" in report
    assert "| clips looked at | 18 | 12 |" in report
    assert "| noise | 12 | 4 |" in report


def test_folders_of_files_are_streamed_too(clip_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    run_training(tmp_path / "out", "--dataset_name", clip_folder, "--streaming", "true")
    assert not [*(tmp_path / "cache").rglob("*.arrow")]


def test_without_a_validation_split_some_clips_are_held_out(shards, tmp_path):
    (tmp_path / "data").mkdir()
    for shard in shards.glob("train*"):
        shutil.copy(shard, tmp_path / "data")
    training = FFTPTrainingArguments(output_dir=str(tmp_path / "out"), report_to="none")
    clips = stream(DataArguments(dataset_name=str(tmp_path / "data"), max_train_samples=20), training)
    train, validation = (clips.splits[role] for role in ("train", "validation"))
    assert (len(train), len(validation)) == (20, 4)
    assert not {*train.rows} & {*validation.rows}
    assert {*np.bincount(validation.labels)} <= {1, 2}


@pytest.mark.parametrize("seed", range(4))
def test_those_clips_are_looked_at_that_train(shards, tmp_path, monkeypatch, seed):
    """Not others, of which few may be among them."""
    monkeypatch.setattr("modeling_fftp.training.data.streamed_clips.SAMPLED_CLIPS", 3)
    monkeypatch.setattr("modeling_fftp.training.data.streamed_clips.SAMPLED_PLACES", 3)
    training = FFTPTrainingArguments(output_dir=str(tmp_path), report_to="none", seed=seed)
    clips = stream(DataArguments(dataset_name=str(shards), max_train_samples=4), training)
    assert len(clips.sample("train")) == len(clips.lengths["train"]) == 3


def test_what_cannot_be_used_is_left_out_by_name(clip_folder, tmp_path):
    paths = sorted((clip_folder / "train").rglob("*.wav"))
    rows = {
        "audio": [{"bytes": path.read_bytes(), "path": path.name} for path in paths] + [None] * 2,
        "label": [path.parent.name for path in paths] + [None, "low"],
    }
    rows["audio"][5]["bytes"] = b"no sound"
    Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet", batch_size=4)
    source = ["--dataset_name", tmp_path, "--streaming", "true"]
    run_training(tmp_path / "out", *source, "--max_left_out", 0.1)
    left_out = [*csv.DictReader((tmp_path / "out" / "left_out_clips.csv").open())]
    assert [row["row"] for row in left_out] == ["36", "5", "37"]
    report = (tmp_path / "out" / "data_report.md").read_text()
    assert f"train: left out, since cannot decode: Format not recognised: {paths[5].name}" in report


def test_shares_are_those_of_what_was_read_and_looked_at(clip_folder, tmp_path, monkeypatch):
    paths = sorted((clip_folder / "train").rglob("*.wav"))
    rows = {"audio": [*map(str, paths)] * 10, "label": [path.parent.name for path in paths] * 10}
    rows["label"][0] = None
    training = FFTPTrainingArguments(output_dir=str(tmp_path / "out"), report_to="none")
    Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
    # One label in 360 is missing, however few clips train.
    stream(DataArguments(dataset_name=str(tmp_path), max_train_samples=10, max_left_out=0.01), training)
    # All sound is missing, though few clips are looked at.
    monkeypatch.setattr("modeling_fftp.training.data.streamed_clips.SAMPLED_CLIPS", 16)
    rows["audio"] = [path if index % 2 else f"nowhere/{index}.wav" for index, path in enumerate(rows["audio"])]
    Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"train: \d+ clips \([3-6]\d\.\d%\) cannot be used"):
        stream(DataArguments(dataset_name=str(tmp_path), max_left_out=0.2), training)


def test_what_turns_out_to_be_unusable_is_named(clip_folder, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("modeling_fftp.training.data.streamed_clips.SAMPLED_CLIPS", 8)
    paths = sorted((clip_folder / "train").rglob("*.wav"))
    rows = {"audio": [*map(str, paths)], "label": [path.parent.name for path in paths]}
    rows["audio"][5] = rows["audio"][6] = "nowhere.wav"
    Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
    source = ParquetRows([str(tmp_path / "train.parquet")])
    decoder = build_decoder(DataArguments(dataset_name=str(tmp_path)), source)
    clips, left_out = read_clips(source, decoder, largest_share=0.05)
    assert not left_out
    assert len(clips.__getitems__([3, 4, 5])) == 2
    assert "A clip is left out: row 5: " in caplog.text
    assert "nowhere.wav: cannot decode: No such file" in caplog.text
    # Not a batch of nothing.
    assert clips.__getitems__([6])[0]["labels"] == clips.labels[7]
    # 2 of 5 may be chance, where one in 20 is allowed; 3 of 6 are not.
    with pytest.raises(ValueError, match=r"3 of 6 clips cannot be used, the last since row 5: .* At most 5\.0%"):
        clips.__getitems__([5, 7])
    clips.largest_share, clips.unusable = 0.0, 0
    with pytest.raises(ValueError, match="1 of 7 clips"):
        clips.__getitems__([5, 7])
    # In long trainings chance counts less.
    clips.largest_share, clips.unusable, clips.seen = 0.05, 60, 1000
    assert len(clips.__getitems__([5, 7])) == 1
    clips.unusable = 80
    with pytest.raises(ValueError, match="81 of 1003 clips"):
        clips.__getitems__([5, 7])
    usable, problems = clips.look(at_all=True)
    assert [problem["row"] for problem in problems] == [5, 6]
    assert len(usable) == len(usable.sample) == 34
    with pytest.raises(ValueError, match=r"row 5: .*nowhere\.wav"):
        clips[5]


def test_several_labels_are_kept_as_bits(clip_folder, tmp_path):
    paths = sorted((clip_folder / "train").rglob("*.wav"))
    names = [f"class {number}" for number in range(11)]
    labels = [[number % 11, (number + 3) % 11] for number in range(len(paths))]
    features = Features({"audio": Value("string"), "labels": List(ClassLabel(names=names))})
    rows = {"audio": [*map(str, paths)], "labels": labels}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet", batch_size=5)
    training = FFTPTrainingArguments(output_dir=str(tmp_path / "out"), report_to="none")
    clips = stream(DataArguments(dataset_name=str(tmp_path)), training)
    train = clips.splits["train"]
    assert train.labels.sum(axis=1).tolist() == [2] * len(train)
    for place in (0, 7, len(train) - 1):
        assert np.flatnonzero(train[place]["labels"]).tolist() == sorted(labels[train.rows[place]])


def test_a_killed_run_goes_on_where_it_was(shards, tmp_path):
    arguments = [*TINY, "--dataset_name", str(shards), "--streaming", "true", "--save_strategy", "steps"]
    arguments += ["--save_steps", "1", "--eval_strategy", "no", "--load_best_model_at_end", "false"]
    arguments += ["--num_train_epochs", "6", "--save_total_limit", "100"]
    # Trainer restores random numbers after it took the first batch; it is the clips that must be the same.
    arguments += ["--mixup_probability", "0", "--roll_frames", "0", "--noise", "0", "--spec_mask_budget", "0"]
    run([*arguments, "--output_dir", str(tmp_path / "whole")])
    broken = [*arguments, "--output_dir", str(tmp_path / "broken")]
    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), *broken], stderr=subprocess.DEVNULL)
    # In the middle of an epoch of five batches; what is there once the next one begins is whole.
    while not (tmp_path / "broken" / "checkpoint-9").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    run([*broken, "--resume_from_checkpoint", str(tmp_path / "broken" / "checkpoint-8")])
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_share_the_clips(shards, tmp_path, workers):
    first, second = (log["whole"] for log in train_in_two_processes(tmp_path, shards, workers))
    assert [len(first), len(second)] == [36, 36]
    for epoch in (slice(0, 18), slice(18, 36)):
        assert len({*map(tuple, first[epoch] + second[epoch])}) == 36
    assert first[:18] != first[18:]


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.23"),
    reason="older ones, as 5.12, do not load an optimizer in several processes on a CPU",
)
@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_go_on_with_the_next_clips(shards, tmp_path, workers):
    """From the second step of the second epoch on."""
    for log in train_in_two_processes(tmp_path, shards, workers, "checkpoint-8"):
        assert log["checkpoint-8"] == log["whole"][24:]


def train_in_two_processes(*words):
    """What each of two processes logs."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT)]
    done = subprocess.run(
        [*command, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((words[0] / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize(
    "option",
    [["--cache_features", "true"], ["--class_balanced", "true"], ["--train_sampling_strategy", "group_by_length"]],
)
def test_what_needs_all_clips_is_refused(shards, tmp_path, option):
    with pytest.raises(SystemExit, match="--streaming reads clips in its own order"):
        run_training(tmp_path, "--dataset_name", shards, "--streaming", "true", *option)
