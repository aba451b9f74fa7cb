"""train.py from every kind of source to a folder that works where this package is not installed."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file

import tests.support
from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.atomic_write import alone
from modeling_fftp.audio_stream_fftp import read_audio
from modeling_fftp.configuration_fftp import BACKBONES
from modeling_fftp.training.arguments import FFTPTrainingArguments, ModelArguments
from modeling_fftp.training.command_line import parse_arguments
from modeling_fftp.training.data.clip_decoder import FACTS
from modeling_fftp.training.data.description import find_digest
from modeling_fftp.training.data.held_out import hold_out_fraction
from modeling_fftp.training.data.loading import Clips
from modeling_fftp.training.data.sources import load_splits
from modeling_fftp.training.data.splits import ROLES, find_splits
from modeling_fftp.training.model import build_model
from modeling_fftp.training.model_arguments import refuse_impossible
from modeling_fftp.training.pretraining.pretrain import pretrain
from modeling_fftp.training.probing.probe import probe
from modeling_fftp.training.resuming import Resumed
from modeling_fftp.training.run import choose_metric, run
from modeling_fftp.training.session import begin
from tests.support import ROOT, TINY, needs_compiler, run_training, wait_for_checkpoint

PARQUET_CARD = """---
dataset_info:
  features:
  - name: sound
    dtype: audio
  - name: kind
    dtype:
      class_label:
        names: {{0: {}, 1: {}, 2: {}}}
  - name: fold
    dtype: int32
---
"""


def clips_of(classes):
    """What a model must know of clips of one class each."""
    return Clips({}, classes, False, {}, {})


def test_audio_folder_is_learnt(trained):
    results = json.loads((trained / "validation_results.json").read_text())
    assert results["validation_accuracy"] >= 0.9
    config = json.loads((trained / "config.json").read_text())
    assert config["label2id"] == {"high": 0, "low": 1, "noise": 2}
    assert config["problem_type"] == "single_label_classification"
    assert config["max_length"] < 100


def test_statistics_are_those_of_the_training_audio(trained, clip_folder):
    extractor = FFTPFeatureExtractor.from_pretrained(trained)
    clips = [read_audio(path, 16000) for path in sorted((clip_folder / "train").rglob("*.wav"))]
    raw = FFTPFeatureExtractor(do_normalize=False)(clips, sampling_rate=16000, padding=False)["input_values"]
    cells = np.concatenate(raw).astype(np.float64)
    assert extractor.mean == pytest.approx(cells.mean(), abs=1e-3)
    assert extractor.std == pytest.approx(cells.std(), abs=1e-3)


def test_folder_holds_what_the_hub_needs(trained):
    names = {path.name for path in trained.iterdir()}
    assert {
        "config.json", "preprocessor_config.json", "model.safetensors", "configuration_fftp.py", "modeling_fftp.py",
        "layers_ast_fftp.py", "feature_extraction_fftp.py", "log_mel_fftp.py", "arguments.json", "trainer_state.json",
    } <= names  # fmt: skip


def test_folder_works_without_either_package(trained, clip_folder, run_without_package):
    sound, rate = soundfile.read(clip_folder / "validation" / "low" / "1.wav", dtype="float32", always_2d=True)
    assert rate == 16000
    clips = [sound[:, 0], sound[:2000, 0]]
    np.savez(trained.parent / "clips.npz", *clips)
    output = run_without_package(f"""
import json, numpy as np, torch
from transformers import (
    AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, AutoModelForAudioFrameClassification, pipeline
)
folder = {str(trained)!r}
clips = list(np.load({str(trained.parent / "clips.npz")!r}).values())
extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForAudioClassification.from_pretrained(folder, trust_remote_code=True)
AutoModel.from_pretrained(folder, trust_remote_code=True)
frames = AutoModelForAudioFrameClassification.from_pretrained(folder, trust_remote_code=True)
# By the model itself, before a pipeline loaded anything by the folder's name.
tag = pipeline("audio-tagging", model=model, feature_extractor=extractor)
tagged = tag(clips, batch_size=2)
tag = pipeline("audio-tagging", model=folder, trust_remote_code=True)
assert tag(clips, batch_size=2) == tagged
classify = pipeline("audio-classification", model=folder, trust_remote_code=True, top_k=None)
with torch.no_grad():
    features = extractor(clips, sampling_rate=16000, return_tensors="pt")
    logits, steps = model(**features).logits, frames(**features).logits.shape
    model.feature_extractor = extractor
    of_sound = model(torch.from_numpy(clips[1])[None]).logits
print(json.dumps({{
    "logits": logits.tolist(), "of_sound": of_sound.tolist(), "steps": steps, "tagged": tag(clips, batch_size=2),
    "batched": classify(clips, batch_size=2), "alone": classify(clips[1]),
}}))
""")
    answer = json.loads(output.splitlines()[-1])
    model = FFTPForAudioClassification.from_pretrained(trained)
    extractor = FFTPFeatureExtractor.from_pretrained(trained)
    with torch.no_grad():
        expected = model(**extractor(clips, sampling_rate=16000, return_tensors="pt")).logits
    torch.testing.assert_close(torch.tensor(answer["logits"]), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.tensor(answer["of_sound"]), expected[1:], atol=1e-5, rtol=0)
    assert answer["batched"][0][0]["label"] == "low"
    assert [tagged["labels"] for tagged in answer["tagged"]] == answer["batched"]
    assert answer["steps"][0] == len(clips)
    scores = expected.softmax(dim=-1)
    for clip, row in zip(answer["batched"], scores, strict=True):
        assert {item["label"]: pytest.approx(item["score"], abs=1e-5) for item in clip} == {
            model.config.id2label[index]: score for index, score in enumerate(row.tolist())
        }
    assert [item["score"] for item in answer["alone"]] == pytest.approx(
        [item["score"] for item in answer["batched"][1]], abs=1e-5
    )


@pytest.mark.parametrize(
    "path",
    [pytest.param(os.environ["PATH"], marks=needs_compiler, id="with a compiler"), pytest.param("", id="without")],
)
def test_mamba_folder_works_without_either_package(clip_folder, tmp_path, run_without_package, path):
    mamba = ["--backbone", "mamba"]
    run_training(tmp_path / "out", "--dataset_name", clip_folder, *mamba)
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    sound, _ = soundfile.read(clip_folder / "validation" / "low" / "1.wav", dtype="float32", always_2d=True)
    np.save(tmp_path / "clip.npy", sound[:, 0])
    output = run_without_package(
        f"""
import json, numpy as np
from transformers import pipeline
folders = [{str(tmp_path / "out")!r}, {str(tmp_path / "copy")!r}]
# The code of both folders is loaded before either model runs.
pipelines = [pipeline("audio-classification", model=folder, trust_remote_code=True) for folder in folders]
print(json.dumps([classify(np.load({str(tmp_path / "clip.npy")!r}), top_k=None) for classify in pipelines]))
""",
        PATH=path,
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    assert any((tmp_path / "cache").rglob("selective_scan_*.so")) == bool(path)
    first, second = json.loads(output.splitlines()[-1])
    assert first == second
    scores = {item["label"]: item["score"] for item in first}
    model = FFTPForAudioClassification.from_pretrained(tmp_path / "out")
    extractor = FFTPFeatureExtractor.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        expected = model(**extractor(sound[:, 0], sampling_rate=16000, return_tensors="pt")).logits.softmax(dim=-1)[0]
    assert scores == {name: pytest.approx(expected[i].item(), abs=1e-5) for name, i in model.config.label2id.items()}


def test_fine_tuning_takes_the_extractor_and_a_new_head(trained, clip_folder, tmp_path):
    lines = [f"{path},{'tone' if path.parent.name != 'noise' else 'hiss'}" for path in clip_folder.rglob("*.wav")]
    (tmp_path / "clips.csv").write_text("\n".join(["path,class", *lines]))
    run_training(tmp_path / "out", "--dataset_name", tmp_path / "clips.csv", "--model_name_or_path", trained)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "hiss", "1": "tone"}
    before, after = (
        json.loads((folder / "preprocessor_config.json").read_text()) for folder in (trained, tmp_path / "out")
    )
    assert (before["mean"], before["std"]) == (after["mean"], after["std"])
    old, new = (FFTPForAudioClassification.from_pretrained(folder) for folder in (trained, tmp_path / "out"))
    drift = (old.fftp.layernorm.weight - new.fftp.layernorm.weight).abs().max()
    assert 0 < drift < 0.1


@pytest.mark.parametrize(("names", "is_new"), [(["high", "low", "noise"], False), (["a", "b", "c"], True)])
def test_a_head_for_as_many_other_classes_starts_anew(trained, names, is_new):
    arguments = ModelArguments(model_name_or_path=str(trained))
    model, _ = build_model(arguments, clips_of(names), 1.0)
    old = FFTPForAudioClassification.from_pretrained(trained).classifier.dense
    assert torch.equal(model.classifier.dense.weight, old.weight) != is_new
    if is_new:
        assert model.classifier.dense.weight.std().item() == pytest.approx(model.config.initializer_range, rel=0.5)


@pytest.mark.parametrize(("layers", "expected"), [(None, ()), ([1], (1,))])
def test_a_checkpoint_merges_tokens_only_where_told(make_config, extractor, tmp_path, layers, expected):
    FFTPForAudioClassification(make_config()).save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    arguments = ModelArguments(model_name_or_path=str(tmp_path), token_merge_layers=layers)
    model, _ = build_model(arguments, clips_of(["high", "low"]), 1.0)
    assert tuple(model.config.token_merge_layers) == expected


@pytest.mark.parametrize(
    ("counts", "held_out"), [([5] * 20, 20), ([1, 2, 40], 5), ([2, 2], 2), ([50, 50], 10), ([1, 3], 1)]
)
def test_small_data_is_split_by_class(counts, held_out):
    labels = np.repeat(np.arange(len(counts)), counts)
    clips = Dataset.from_dict({"labels": labels, "number": np.arange(len(labels))})
    keep, hold = hold_out_fraction(clips, 0.1, seed=0)
    assert len(hold) == held_out
    assert sorted([*keep["number"], *hold["number"]]) == [*range(len(labels))]
    assert not {label for label, count in enumerate(counts) if count == 1} & {*hold["labels"]}
    assert min(counts) == 1 or {*hold["labels"]} == {*range(len(counts))}
    with pytest.raises(ValueError, match="expected two clips of one class to split"):
        hold_out_fraction(Dataset.from_dict({"labels": [0, 1]}), 0.1, seed=0)


def test_files_that_libsndfile_cannot_read_are_counted(clip_folder, tmp_path, caplog):
    shutil.copytree(clip_folder / "train", tmp_path / "clips")
    for name in ("phone.m4a", ".hidden"):
        (tmp_path / "clips" / "low" / name).write_bytes(b"")
    splits = load_splits(str(tmp_path / "clips"))
    assert len(splits["train"]) == 36
    assert "are passed over: {'.m4a': 1}" in caplog.text
    shutil.rmtree(tmp_path / "clips" / "high")
    for path in (tmp_path / "clips").rglob("*.wav"):
        path.unlink()
    with pytest.raises(ValueError, match=r"no sound files below .*found {'\.m4a': 1}"):
        load_splits(str(tmp_path / "clips"))


def test_csv_with_relative_paths(clip_folder, tmp_path):
    paths = sorted(clip_folder.rglob("*.wav"))
    lines = [f"{path.relative_to(clip_folder)},{path.parent.name}" for path in paths]
    (clip_folder / "clips.csv").write_text("\n".join(["file,label", *lines]))
    run_training(tmp_path, "--dataset_name", clip_folder / "clips.csv")
    (clip_folder / "clips.csv").unlink()
    assert json.loads((tmp_path / "config.json").read_text())["label2id"] == {"high": 0, "low": 1, "noise": 2}


def test_parquet_with_groups(clip_folder, tmp_path):
    paths = sorted((clip_folder / "train").rglob("*.wav"))
    names = sorted({path.parent.name for path in paths})
    rows = {
        "sound": [{"bytes": path.read_bytes(), "path": path.name} for path in paths],
        "kind": [names.index(path.parent.name) for path in paths],
        "fold": [index % 3 for index in range(len(paths))],
    }
    (tmp_path / "data" / "data").mkdir(parents=True)
    Dataset.from_dict(rows).to_parquet(tmp_path / "data" / "data" / "train-00000-of-00001.parquet")
    (tmp_path / "data" / "README.md").write_text(PARQUET_CARD.format(*names))
    source = ["--dataset_name", tmp_path / "data", "--validation_column", "fold"]
    run_training(tmp_path / "out", *source, "--validation_value", 1)
    splits = json.loads((tmp_path / "out" / "data_results.json").read_text())["splits"]
    assert {role: split["clips"] for role, split in splits.items()} == {"train": 24, "validation": 12}
    with pytest.raises(ValueError, match=r"fold='7' holds 0 of 36 clips.*'0'.*'1'.*'2'"):
        run_training(tmp_path / "other", *source, "--validation_value", 7)


def test_several_labels_per_clip(clip_folder, tmp_path):
    paths = sorted(clip_folder.rglob("*.wav"))
    tags = {"low": ["tone", "low"], "high": ["tone"], "noise": []}
    lines = [json.dumps({"audio": str(path), "labels": tags[path.parent.name]}) for path in paths]
    (tmp_path / "clips.jsonl").write_text("\n".join(lines))
    run_training(tmp_path / "out", "--dataset_name", tmp_path / "clips.jsonl", "--num_train_epochs", 10)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert config["label2id"] == {"low": 0, "tone": 1}
    assert json.loads((tmp_path / "out" / "validation_results.json").read_text())["validation_map"] > 0.5


def test_audioset_labels_and_class_names(clip_folder, tmp_path):
    paths = sorted(clip_folder.rglob("*.wav"))
    tags = {"low": '"/m/1, /m/2"', "high": "/m/2", "noise": "/m/3"}
    lines = [f"{path},{tags[path.parent.name]}" for path in paths]
    (tmp_path / "clips.csv").write_text("\n".join(["path,labels", *lines]))
    (tmp_path / "names.csv").write_text('index,mid,display_name\n0,/m/3,Hiss\n1,/m/1,"Low, deep"\n2,/m/2,Tone\n')
    source = ["--dataset_name", tmp_path / "clips.csv", "--label_separator", ","]
    run_training(tmp_path / "out", *source, "--class_names_file", tmp_path / "names.csv", "--max_train_samples", 16)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["label2id"] == {"Hiss": 0, "Low, deep": 1, "Tone": 2}
    assert config["problem_type"] == "multi_label_classification"
    (tmp_path / "names.csv").write_text("mid,display_name\n/m/3,Hiss\n")
    with pytest.raises(ValueError, match=r"names\.csv: expected .* index \(0, 1, \.\.\.\), id, display name"):
        run_training(tmp_path / "other", *source, "--class_names_file", tmp_path / "names.csv")


def test_results_per_class(trained):
    per_class = json.loads((trained / "validation_per_class.json").read_text())["per_class"]
    assert {name: values["positives"] for name, values in per_class.items()} == {"high": 4, "low": 4, "noise": 4}
    results = json.loads((trained / "validation_results.json").read_text())
    recalls = [values["recall"] for values in per_class.values()]
    assert np.mean(recalls) == pytest.approx(results["validation_accuracy"])


def test_broken_clips_are_left_out_and_named(clip_folder, tmp_path, caplog):
    data = shutil.copytree(clip_folder, tmp_path / "data")
    (data / "train" / "low" / "text.wav").write_text("no sound")
    soundfile.write(data / "validation" / "high" / "empty.wav", np.zeros(0), 16000)
    allow = ["--max_left_out", 0.1]
    run_training(tmp_path / "out", "--dataset_name", data, *allow)
    assert "train: 1 clips (2.7%) cannot be used" in caplog.text
    rows = list(csv.DictReader((tmp_path / "out" / "left_out_clips.csv").open()))
    assert [(row["split"], Path(row["source"]).name) for row in rows] == [
        ("train", "text.wav"), ("validation", "empty.wav"),
    ]  # fmt: skip
    assert "cannot decode" in rows[0]["problem"]
    assert "no samples" in rows[1]["problem"]
    with pytest.raises(ValueError, match=r"train: 1 clips .* cannot be used; .*left_out_clips\.csv.* At most 0\.0%"):
        run_training(tmp_path / "strict", "--dataset_name", data, "--max_left_out", 0)
    assert not (tmp_path / "strict" / "model.safetensors").exists()
    shutil.copy(data / "train" / "low" / "0.wav", data / "train" / "low" / "text.wav")
    (data / "validation" / "high" / "empty.wav").unlink()
    shutil.rmtree(tmp_path / "out" / "checkpoint-5")
    (tmp_path / "out" / "model.safetensors").unlink()
    run_training(tmp_path / "out", "--dataset_name", data, "--max_left_out", 0)
    assert not (tmp_path / "out" / "left_out_clips.csv").exists()


def test_mislabelled_clips_are_left_out(clip_folder, tmp_path):
    rows = [{"audio": str(path), "label": path.parent.name} for path in sorted(clip_folder.rglob("*.wav"))]
    for split, wrong in (("train", None), ("validation", "unheard")):
        changed = [{**row, "label": wrong} if index == 5 else row for index, row in enumerate(rows)]
        Dataset.from_list(changed).to_parquet(tmp_path / "data" / f"{split}.parquet")
    run_training(tmp_path / "out", "--dataset_name", tmp_path / "data")
    rows = list(csv.DictReader((tmp_path / "out" / "left_out_clips.csv").open()))
    assert [(row["split"], row["row"], row["problem"]) for row in rows] == [
        ("train", "5", "no label; if none of the classes is in such clips, --none_labels '' says so"),
        ("validation", "5", "label 'unheard' is not among the 3 classes"),
    ]


def test_features_from_other_places_train_the_same_model(clip_folder, tmp_path):
    plain = ["--dataset_name", clip_folder, "--mixup_probability", 0, "--roll_frames", 0, "--noise", 0]
    plain += ["--spec_mask_budget", 0]
    run_training(tmp_path / "sound", *plain)
    run_training(tmp_path / "features", *plain, "--cache_features", "true")
    run_training(tmp_path / "device", *plain, "--features_on_device", "true")
    models = [FFTPForAudioClassification.from_pretrained(tmp_path / name) for name in ("sound", "features", "device")]
    for parameters in zip(*(model.parameters() for model in models), strict=True):
        for other in parameters[1:]:
            torch.testing.assert_close(parameters[0], other, atol=1e-4, rtol=1e-3)
    with pytest.raises(SystemExit, match="--cache_features goes with --mixup_probability 0"):
        # Before any clip is decoded.
        run_training(tmp_path / "mixed", "--dataset_name", tmp_path / "nowhere", "--cache_features", "true")
    with pytest.raises(
        SystemExit, match=r"leaves nothing to crop; drop it, or let --max_seconds 0\.2 be at least 0\."
    ):
        run_training(tmp_path / "cut", *plain, "--cache_features", "true", "--max_seconds", 0.2)
    with pytest.raises(SystemExit, match="--cache_features leaves nothing to compute on the device"):
        run_training(tmp_path / "both", *plain, "--cache_features", "true", "--features_on_device", "true")


@pytest.mark.parametrize("result", [["--ema_decay", "0.9"], ["--average_last_epochs", "2"]], ids=" ".join)
def test_averaged_weights_and_the_other_options(clip_folder, tmp_path, result):
    options = ["--class_balanced", "true", "--label_smoothing_factor", 0.1, "--spec_augment_bins", 24]
    run_training(tmp_path, "--dataset_name", clip_folder, *result, *options, "--num_train_epochs", 2)
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    folder = Path(state["best_model_checkpoint"] or tmp_path / "checkpoint-10")
    averaged = load_file(folder / "averaged_weights.safetensors")
    last = load_file(folder / "model.safetensors")
    kept = load_file(tmp_path / "model.safetensors")
    # Calibration has changed the classifier since.
    encoder = [name for name in kept if not name.startswith("classifier.dense")]
    assert all(averaged[name].equal(kept[name]) for name in encoder)
    assert not all(last[name].equal(kept[name]) for name in encoder)
    assert json.loads((tmp_path / "arguments.json").read_text())["label_smoothing_factor"] == 0.1


def test_killed_and_resumed_is_as_if_nothing_had_happened(clip_folder, tmp_path):
    arguments = [*TINY, "--dataset_name", str(clip_folder), "--num_train_epochs", "12"]
    run([*arguments, "--output_dir", str(tmp_path / "whole")])
    broken = [*arguments, "--output_dir", str(tmp_path / "broken")]
    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), *broken], stderr=subprocess.DEVNULL)
    wait_for_checkpoint(tmp_path / "broken", process)
    process.kill()
    assert process.wait() == -9
    assert not (tmp_path / "broken" / "model.safetensors").exists()
    run([*broken, "--resume_from_checkpoint", "true"])
    whole, resumed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken"))
    assert whole == resumed


def test_an_interrupted_run_says_how_it_goes_on(clip_folder, tmp_path):
    words = [*TINY[: TINY.index("--disable_tqdm")], "--num_train_epochs", "50", "--dataset_name", clip_folder]
    output, command = tmp_path / "run", [sys.executable, ROOT / "train.py", *words, "--output_dir", tmp_path / "run"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for_checkpoint(output, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode
    assert f"--resume_from_checkpoint true goes on from {output}/checkpoint-" in errors
    # They are for terminals.
    assert "%|" not in errors


def test_a_run_goes_on_with_what_it_began_with_alone(clip_folder, tmp_path):
    output = tmp_path / "model"
    run_training(output, "--dataset_name", clip_folder)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    shutil.copytree(clip_folder, tmp_path / "others")
    for split in ("train", "validation", "test"):
        if (tmp_path / "others" / split).is_dir():
            (tmp_path / "others" / split / "low").rename(tmp_path / "others" / split / "zebra")
    again = ("--resume_from_checkpoint", "true", "--num_train_epochs", 2)
    with pytest.raises(
        ValueError, match=r"tells apart \['high', 'low', 'noise'\], the data \['high', 'noise', 'zebra'\]"
    ):
        run_training(output, "--dataset_name", tmp_path / "others", *again)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    for argument in (("--hidden_size", 96), ("--seed", 7), ("--learning_rate", 0.01), ("--label_separator", "o")):
        with pytest.raises(ValueError, match=f"{argument[0]} is {argument[1]}, and the resumed run has"):
            run_training(output, "--dataset_name", clip_folder, *again, *argument)
    with pytest.raises(ValueError, match="--dataloader_drop_last is True, and the resumed run has"):
        run_training(output, "--dataset_name", clip_folder, *again, "--dataloader_drop_last", "true")
    arguments = json.loads((output / "arguments.json").read_text())
    (output / "arguments.json").write_text(json.dumps(arguments | {"world_size": 2}))
    with pytest.raises(ValueError, match="the number of processes or GPUs is 1, and the resumed run has 2"):
        run_training(output, "--dataset_name", clip_folder, *again)
    (output / "arguments.json").write_text(json.dumps(arguments))
    checkpoint = next(output.glob("checkpoint-*"))
    state = (checkpoint / "trainer_state.json").read_text()
    (checkpoint / "trainer_state.json").write_text(state[:50])
    with pytest.raises(ValueError, match=r"checkpoint-\d+ has no whole trainer_state\.json: it was not written"):
        run_training(output, "--dataset_name", clip_folder, "--resume_from_checkpoint", checkpoint)
    (checkpoint / "trainer_state.json").write_text(state)
    (checkpoint / "scheduler.pt").unlink()
    with pytest.raises(ValueError, match=r"checkpoint-\d+ has no scheduler\.pt, as --save_only_model leaves it"):
        run_training(output, "--dataset_name", clip_folder, *again)
    with pytest.raises(ValueError, match="nowhere is not the folder of a checkpoint"):
        run_training(output, "--dataset_name", clip_folder, "--resume_from_checkpoint", "nowhere")


def test_workers_decide_the_order_within_an_epoch_of_streamed_clips(make_config, tmp_path):
    (tmp_path / "arguments.json").write_text('{"dataloader_num_workers": 0}')
    Resumed(tmp_path, make_config(), epoch=2.0).refuse_other_workers(4)
    Resumed(tmp_path, make_config(), epoch=1.5).refuse_other_workers(1)
    with pytest.raises(ValueError, match=r"_workers 4 would change the order .*; the resumed run has 0"):
        Resumed(tmp_path, make_config(), epoch=1.5).refuse_other_workers(4)


def test_a_run_goes_on_with_the_clips_that_it_began_with(clip_folder, tmp_path):
    clips, output = shutil.copytree(clip_folder / "train", tmp_path / "clips"), tmp_path / "model"
    run_training(output, "--dataset_name", clips)
    before = json.loads((output / "train_results.json").read_text())
    assert "A temperature of" in (output / "README.md").read_text()
    again = ("--dataset_name", clips, "--resume_from_checkpoint", "true", "--num_train_epochs", 2)
    run_training(output, *again, "--calibrate", "false")
    # What was measured of the weights before says nothing of these.
    assert not (output / "calibration_results.json").exists()
    assert "A temperature of" not in (output / "README.md").read_text()
    # What the last part took is not what all took.
    assert "train_runtime" in before
    assert json.loads((output / "train_results.json").read_text()) == {"epoch": 2.0}
    assert "2 epochs." in (output / "README.md").read_text()
    shutil.copy(next((clips / "low").iterdir()), clips / "low" / "another.wav")
    with pytest.raises(ValueError, match=r"split train is .*, and the resumed run has .*'clips': 32"):
        run_training(output, *again)


def launch(processes, *arguments):
    """Run train.py in several processes on the CPU; its log. accelerate starts several there only by way of MPI."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
    command += [str(ROOT / "train.py"), *arguments, "--use_cpu", "true"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_excluded_classes_are_neither_used_nor_counted(clip_folder, tmp_path):
    source = ["--dataset_name", clip_folder, "--max_left_out", 0]
    run_training(tmp_path / "out", *source, "--exclude_labels", "noise")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["label2id"] == {"high": 0, "low": 1}
    per_class = json.loads((tmp_path / "out" / "validation_per_class.json").read_text())["per_class"]
    assert sum(values["positives"] for values in per_class.values()) == 8
    with pytest.raises(ValueError, match=r"--exclude_labels 'nose' is not among the classes \['high'"):
        run_training(tmp_path / "other", *source, "--exclude_labels", "nose")


def test_best_checkpoint_is_that_of_the_metric(trained):
    state = json.loads((trained / "trainer_state.json").read_text())
    accuracies = [entry["eval_accuracy"] for entry in state["log_history"] if "eval_accuracy" in entry]
    assert state["best_metric"] == max(accuracies)
    # The last one is kept too, so that more epochs can follow.
    assert (trained / f"checkpoint-{state['global_step']}").is_dir()


def test_an_infinite_metric_does_not_end_a_training(clip_folder, tmp_path):
    """d' has no value where mAUC is 1; it grows with that, which chooses."""
    run_training(tmp_path, "--dataset_name", clip_folder, "--metric_for_best_model", "d_prime")
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert state["best_metric"] == max(entry["eval_mauc"] for entry in state["log_history"] if "eval_mauc" in entry)


def test_all_of_a_table_of_ones_own_is_measured(trained, clip_folder, tmp_path):
    paths = sorted((clip_folder / "train").rglob("*.wav"))
    (tmp_path / "mine.csv").write_text("\n".join(["path,class", *(f"{path},{path.parent.name}" for path in paths)]))
    words = ["--dataset_name", tmp_path / "mine.csv", "--model_name_or_path", trained, "--do_train", "false"]
    run_training(tmp_path / "all", *words)
    assert "| clips | 36 |" in (tmp_path / "all" / "data_report.md").read_text()
    assert (tmp_path / "all" / "test_results.json").exists()
    run_training(tmp_path / "share", *words, "--validation_fraction", 0.25)
    assert not (tmp_path / "share" / "test_results.json").exists()
    assert (tmp_path / "share" / "validation_results.json").exists()


@pytest.mark.parametrize("backbone", tests.support.BACKBONES)
def test_a_start_on_short_clips_is_served_in_the_windows_that_it_learned(make_config, extractor, tmp_path, backbone):
    torch.manual_seed(0)
    start = FFTPForAudioClassification(make_config(**tests.support.BACKBONES[backbone], max_length=64)).eval()
    torch.nn.init.normal_(start.fftp.embeddings.position_embeddings.weight)
    start.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    arguments, names = ModelArguments(model_name_or_path=str(tmp_path)), ["a", "b", "c", "d"]
    model, own_extractor = build_model(arguments, clips_of(names), max_seconds=2.0)
    assert model.config.max_length == own_extractor.max_length == 198
    features = torch.randn(2, 198, 128)
    # As the start would stretch its table over such clips.
    torch.testing.assert_close(model.eval().fftp(features)[0], start.fftp(features)[0], atol=1e-5, rtol=1e-5)
    # Of a longer table it reads the head.
    model, own_extractor = build_model(arguments, clips_of(names), max_seconds=0.5)
    assert model.config.max_length == own_extractor.max_length == 48
    torch.testing.assert_close(model.eval().fftp(features[:, :48])[0], start.fftp(features[:, :48])[0])


def test_crops_that_an_extractor_would_cut_are_refused(make_config, clip_folder, tmp_path):
    """To train on; a probe hears the beginning of a clip, as pipelines do."""
    start = tmp_path / "start"
    FFTPForAudioClassification(make_config(max_length=32)).save_pretrained(start)
    FFTPFeatureExtractor(max_length=32, padding="max_length", truncation=True).save_pretrained(start)
    words = ["--dataset_name", clip_folder, "--model_name_or_path", start, "--max_steps", 1]
    with pytest.raises(ValueError, match=r"frames, .* cuts to 32; expected --max_seconds 0\.32 or less"):
        run_training(tmp_path / "long", *words)
    run_training(tmp_path / "short", *words, "--max_seconds", 0.32)
    assert FFTPConfig.from_pretrained(tmp_path / "short").max_length == 32
    probe([str(clip_folder), "--model", str(start), "--output_dir", str(tmp_path / "probe")])
    assert FFTPConfig.from_pretrained(tmp_path / "probe").max_length == 32


def test_windows_are_no_longer_than_the_clips_to_learn_from(clip_folder, tmp_path):
    run_training(tmp_path, "--dataset_name", clip_folder, "--max_seconds", 4, "--max_steps", 1)
    assert FFTPConfig.from_pretrained(tmp_path).max_length < 80
    run_training(tmp_path / "crops", "--dataset_name", clip_folder, "--max_seconds", 0.3, "--max_steps", 1)
    assert FFTPConfig.from_pretrained(tmp_path / "crops").max_length == 28


def test_evaluation_of_a_checkpoint_for_other_classes_is_refused(trained, clip_folder, tmp_path):
    lines = [f"{path},{path.parent.name.upper()}" for path in clip_folder.rglob("*.wav")]
    (tmp_path / "clips.csv").write_text("\n".join(["path,class", *lines]))
    evaluate = ["--dataset_name", tmp_path / "clips.csv", "--do_train", "false"]
    with pytest.raises(ValueError, match=r"the data has the class 'HIGH'; the checkpoint tells apart \['high', 'low'"):
        run_training(tmp_path / "out", *evaluate, "--model_name_or_path", trained)
    with pytest.raises(SystemExit, match="name it with --model_name_or_path"):
        run_training(tmp_path / "out", *evaluate)


def test_two_processes_measure_what_one_does(trained, clip_folder, tmp_path):
    evaluate = ["--dataset_name", str(clip_folder), "--model_name_or_path", str(trained), "--do_train", "false"]
    evaluate += ["--per_device_eval_batch_size", "5", "--disable_tqdm", "true"]
    results = []
    run([*evaluate, "--output_dir", str(tmp_path / "1")])
    assert "(2 processes)" in launch("2", *evaluate, "--output_dir", str(tmp_path / "2"))
    for folder in (tmp_path / "1", tmp_path / "2"):
        metrics = json.loads((folder / "validation_results.json").read_text())
        results.append({name: metrics[f"validation_{name}"] for name in ("accuracy", "map", "mauc", "top5_accuracy")})
        assert (folder / "validation_per_class.json").exists()
    assert results[0] == pytest.approx(results[1])


def test_two_processes_train_one_model(clip_folder, tmp_path):
    arguments = [*TINY, "--dataset_name", str(clip_folder), "--output_dir", str(tmp_path / "out")]
    log = launch("2", *arguments, "--class_balanced", "true", "--ema_decay", "0.9")
    assert "effective batch 16 clips (2 processes)" in log
    assert FFTPForAudioClassification.from_pretrained(tmp_path / "out").num_labels == 3


def test_two_processes_train_for_several_strides_and_measure_them(clip_folder, tmp_path):
    arguments = [*TINY, "--dataset_name", str(clip_folder), "--output_dir", str(tmp_path / "out")]
    launch("2", *arguments, "--time_strides", "5", "10")
    rows = json.loads((tmp_path / "out" / "strides_results.json").read_text())
    assert [row["time_stride"] for row in rows] == [5, 10]
    evaluate = ["--dataset_name", str(clip_folder), "--model_name_or_path", str(tmp_path / "out")]
    # A stride that it was not trained for is measured too.
    evaluate += ["--do_train", "false", "--time_stride", "3", "--output_dir", str(tmp_path / "again")]
    launch("2", *evaluate, "--disable_tqdm", "true")
    assert (tmp_path / "again" / "validation_results.json").exists()


def test_two_processes_say_what_they_share(clip_folder, tmp_path):
    def train(name, config, *arguments):
        arguments = [*TINY, "--dataset_name", str(clip_folder), "--output_dir", str(tmp_path / name), *arguments]
        return launch("2", *arguments, "--accelerator_config", config)

    assert "effective batch 8 clips (2 processes)" in train("split", '{"split_batches": true}')
    with pytest.raises(AssertionError, match="time_strides: one process deals out the clips"):
        train("dealt", '{"dispatch_batches": true}', "--time_strides", "5", "10")


def test_data_results_count_what_was_trained_on(clip_folder, tmp_path):
    run_training(tmp_path, "--dataset_name", clip_folder / "train", "--max_train_samples", 10)
    splits = json.loads((tmp_path / "data_results.json").read_text())["splits"]
    assert splits["train"]["clips"] == 10
    # A tenth of 36 clips validates; none is longer than 0.8 s.
    assert splits["validation"]["clips"] == 4
    assert 0 < splits["train"]["hours"] < 10 * 0.8 / 3600


def test_a_fine_tuned_recipe_names_no_folder_of_this_machine(trained, clip_folder, tmp_path):
    run_training(tmp_path, "--dataset_name", clip_folder, "--model_name_or_path", trained)
    assert json.loads((tmp_path / "recipe.json").read_text())["model_name_or_path"] == trained.name
    assert str(trained) not in (tmp_path / "README.md").read_text()


def test_same_seed_same_weights(clip_folder, tmp_path):
    weights = []
    for name in ("first", "second"):
        run_training(tmp_path / name, "--dataset_name", clip_folder, "--seed", 3)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.parametrize("name", ["esc10", "fsdd"])
def test_real_recordings_of_other_rates_and_lengths(shared_dataset, tmp_path, name):
    recipe = ROOT / "hub_cards" / "fftp-ast-tiny-speech-commands-ar" / "recipe.json"
    small = [
        "--max_train_samples",
        "16",
        "--num_train_epochs",
        "1",
        "--disable_tqdm",
        "true",
        "--num_hidden_layers",
        "1",
    ]
    run([str(recipe), "--dataset_name", str(shared_dataset(name)), "--output_dir", str(tmp_path), *small])
    assert len(json.loads((tmp_path / "config.json").read_text())["id2label"]) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--dataset_name", "x", "--learing_rate", "1"],
            "unknown argument 'learing_rate' .* did you mean 'learning_rate'",
        ),
        ([], "--dataset_name is missing"),
        (["--dataset_name", "x", "--validation_column", "fold"], "--validation_value go together"),
        (["--dataset_name", "x", "--colored_noise_snr", "40", "10"], "expected two ratios in dB, the lower first"),
        (["--dataset_name", "x", "--max_seconds", "0"], r"--max_seconds 0.0 must lie in \[0.025, inf\)"),
        (["--dataset_name", "x", "--speed", "1.2"], r"--speed 1.2 must lie in \[0, 1\)"),
        (["--dataset_name", "x", "--ema_decay", "0"], r"--ema_decay 0.0 must lie in \(0, 1\)"),
        (["--dataset_name", "x", "--average_last_epochs", "0"], "--average_last_epochs 0 must lie in"),
        (["--dataset_name", "x", "--prediction_loss_only", "true"], "--prediction_loss_only True leaves nothing"),
        (["--dataset_name", "x", "--eval_do_concat_batches", "false"], "leaves nothing to measure"),
        (
            ["--dataset_name", "x", "--eval_delay", "25", "--num_train_epochs", "20"],
            "--eval_delay 25 is beyond --num_train_epochs 20",
        ),
        (["--dataset_name", ""], "--dataset_name is missing"),
        (["--dataset_name", "x", "--hub_model_id", "bad id!!"], "--hub_model_id bad id!!: Repo id must"),
        (["--dataset_name", "x", "--num_train_epochs", "0"], r"--num_train_epochs 0.0 must lie in \(0, inf\)"),
        (["--dataset_name", "x", "--learning_rate", "nan"], r"--learning_rate nan must lie in \[0, inf\)"),
        (["--dataset_name", "x", "--per_device_eval_batch_size", "0"], "--per_device_eval_batch_size 0 must lie in"),
        (["--dataset_name", "x", "--label_names", "y"], "the labels of every batch are called 'labels'"),
        (["--dataset_name", "x", "--bf16_full_eval", "true"], "--bf16_full_eval would round the weights"),
        (["--dataset_name", "x", "--fp16_full_eval", "true"], "--fp16_full_eval would round the weights"),
        (["--dataset_name", "x", "--ema_decay", "0.9", "--average_last_epochs", "2"], "are two averages"),
        (["--dataset_name", "x", "--average_last_epochs", "2", "--save_strategy", "steps"], "would miss its end"),
        (["--dataset_name", "x", "--class_balanced", "true", "--none_labels", "y"], "of --none_labels have none"),
        (
            ["--dataset_name", "x", "--streaming", "true", "--train_sampling_strategy", "sequential"],
            "in its own order and keeps none",
        ),
        (["--dataset_name", "x", "--metric_for_best_model", "acuracy"], "expected one of loss, map, .* accuracy"),
        (["--dataset_name", "x", "--dataloader_persistent_workers", "true"], "needs --dataloader_num_workers above 0"),
        (["--dataset_name", "x", "--ema_decay", "0.9", "--fsdp", "full_shard"], "--ema_decay needs whole weights"),
        (
            ["--dataset_name", "x", "--output_dir", "my model", "--push_to_hub", "true"],
            "--hub_model_id my model: Repo id must",
        ),
    ],
)
def test_misspelt_arguments(tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run(["--output_dir", str(tmp_path), *arguments])


def test_where_the_result_goes_must_be_said():
    with pytest.raises(SystemExit, match="--output_dir is missing"):
        run(["--dataset_name", "x"])
    # As of a variable that is not set.
    with pytest.raises(SystemExit, match="--output_dir is empty"):
        run(["--dataset_name", "x", "--output_dir", ""])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hidden_size", "32"], "hidden_size=32 is not a multiple of num_attention_heads=3"),
        (["--time_strides", "5", "20", "--time_stride", "10"], "leave out the model's own stride, 10"),
        (["--model_name_or_path", "MODEL", "--hidden_size", "96"], "--hidden_size 96 cannot apply"),
        (["--teacher", "DATA"], "DATA"),
        (["--resume_from_checkpoint", "true"], "no whole checkpoint"),
        (["--attn_implementation", "foo"], "foo"),
        (["--lr_scheduler_kwargs", '{"foo": 1}'], "Trainer cannot be made: .*unexpected keyword argument 'foo'"),
        (["--report_to", "foo"], "Trainer cannot be made: foo is not supported"),
    ],
)
def test_what_cannot_be_trained_is_said_before_sound_is_read(
    trained, clip_folder, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.setattr("modeling_fftp.training.run.load_clips", None)
    places = {"MODEL": str(trained), "DATA": str(clip_folder)}
    arguments = [places.get(word, word) for word in arguments]
    with pytest.raises((ValueError, OSError, StrictDataclassError), match=places.get(message, message)):
        run_training(tmp_path / "model", "--dataset_name", clip_folder, *arguments)
    assert not (tmp_path / "model").exists()


def test_a_teacher_of_other_classes_is_refused_before_sound_is_read(trained, clip_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_fftp.training.data.loading.decode_splits", None)
    for split in clip_folder.iterdir():
        shutil.copytree(split / "low", tmp_path / "others" / split.name / "zebra")
        shutil.copytree(split / "high", tmp_path / "others" / split.name / "high")
    with pytest.raises(ValueError, match="does not know 1 of 2 classes, such as 'zebra'"):
        run_training(tmp_path / "model", "--dataset_name", tmp_path / "others", "--teacher", trained)


def test_a_metric_of_one_class_needs_one_class(clip_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_fftp.training.run.load_clips", None)
    table = tmp_path / "clips.csv"
    files = sorted((clip_folder / "train").rglob("*.wav"))
    table.write_text("path,labels\n" + "".join(f'{file},"{file.parent.name},loud"\n' for file in files))
    options = ("--label_separator", ",", "--metric_for_best_model", "accuracy")
    with pytest.raises(ValueError, match="--metric_for_best_model accuracy is for clips with one class each"):
        run_training(tmp_path / "model", "--dataset_name", table, *options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--patch_size", "128", "4"], r"--patch_size \(128, 4\) cannot apply"),
        (["--state_size", "4"], "--state_size 4 cannot apply"),
    ],
)
def test_another_model_is_not_measured(trained, clip_folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr("modeling_fftp.training.run.load_clips", None)
    source = ["--dataset_name", clip_folder, "--do_train", "false", "--model_name_or_path", trained]
    with pytest.raises(ValueError, match=message):
        run_training(tmp_path / "out", *source, *arguments)


def test_clips_without_a_class_cannot_be_balanced(clip_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_fftp.training.run.build_model", None)
    labels = {"low": ["a"], "high": ["b"], "noise": []}
    files = sorted(clip_folder.rglob("*.wav"))
    lines = [json.dumps({"audio": str(file), "labels": labels[file.parent.name]}) for file in files]
    (tmp_path / "clips.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="clips have no class"):
        run_training(tmp_path / "out", "--dataset_name", tmp_path / "clips.jsonl", "--class_balanced", "true")


def test_a_recipe_that_balances_classes_can_be_measured_with(trained, clip_folder, tmp_path):
    """An evaluation reads no clips to train on."""
    evaluate = ("--do_train", "false", "--model_name_or_path", trained, "--class_balanced", "true")
    run_training(tmp_path / "out", "--dataset_name", clip_folder, *evaluate)
    assert (tmp_path / "out" / "validation_results.json").exists()


def test_a_recipe_is_read_as_a_command_line_is(tmp_path):
    recipe = tmp_path / "recipe.json"

    def parse(**values):
        recipe.write_text(json.dumps(values))
        return parse_arguments([str(recipe), "--dataset_name", "x", "--output_dir", "y"])

    model, data, _, _, training = parse(
        time_strides=5, patch_size=16, exclude_labels="a", validation_value=4, validation_column="fold",
        eval_time_strides=[2, 4], load_best_model_at_end=False, label_separator=None,
        lr_scheduler_kwargs={"num_cycles": 0.5},
    )  # fmt: skip
    assert (model.time_strides, model.patch_size, data.exclude_labels) == ([5], [16, 16], ["a"])
    assert (data.validation_value, training.eval_time_strides, training.load_best_model_at_end) == ("4", [2, 4], False)
    assert training.lr_scheduler_kwargs == {"num_cycles": 0.5}
    for values in ({"max_train_samples": 10.5}, {"hidden_size": "wide"}, {"mixup_probability": [0.5, 0.6]}):
        with pytest.raises(SystemExit):
            parse(**values)


def test_a_trained_folder_is_not_overwritten(trained, clip_folder):
    before = (trained / "model.safetensors").read_bytes()
    with pytest.raises(SystemExit, match="holds a model already"):
        run_training(trained, "--dataset_name", clip_folder)
    assert (trained / "model.safetensors").read_bytes() == before


def test_a_run_goes_on_elsewhere_in_a_new_folder_alone(trained, clip_folder, tmp_path):
    """What is in another stays what it is, and so does what an evaluation is to lie beside."""
    (tmp_path / "checkpoint-10").mkdir()
    with pytest.raises(SystemExit, match="holds a model already"):
        run_training(trained, "--dataset_name", clip_folder, "--resume_from_checkpoint", tmp_path / "checkpoint-10")
    evaluate = ("--do_train", "false", "--model_name_or_path", trained, "--resume_from_checkpoint", "true")
    with pytest.raises(SystemExit, match="holds a model already"):
        run_training(trained, "--dataset_name", clip_folder, *evaluate)


def test_a_folder_below_one_that_is_not_ours_is_locked_inside(tmp_path, monkeypatch):
    (tmp_path / "mounted").mkdir()
    # For root, as whom tests may run, all folders are writable.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with begin(FFTPTrainingArguments(str(tmp_path / "mounted"), report_to="none")):
        assert (tmp_path / "mounted" / ".training.lock").exists()
    assert not [*(tmp_path / "mounted").iterdir()]


@pytest.mark.parametrize("command", [run, pretrain, probe])
def test_two_trainings_do_not_write_to_one_folder(trained, clip_folder, tmp_path, command):
    data = [str(clip_folder)] if command is not run else ["--dataset_name", str(clip_folder)]
    words = [*data, *(["--model", str(trained)] if command is probe else []), "--output_dir", f"{tmp_path / 'new'}/"]
    with alone(tmp_path / "new"), pytest.raises(FileExistsError, match="new is being written by another run"):
        command(words)
    assert [*tmp_path.iterdir()] == []


def test_a_training_that_did_not_end_is_not_mixed_with_another(clip_folder, tmp_path):
    (tmp_path / "checkpoint-10").mkdir()
    (tmp_path / "checkpoint-10" / "trainer_state.json").write_text("{}")
    with pytest.raises(SystemExit, match="holds checkpoints of a training that did not end"):
        run_training(tmp_path, "--dataset_name", clip_folder)


def test_a_half_written_checkpoint_does_not_keep_a_training_from_beginning_anew(clip_folder, tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "optimizer.pt").write_bytes(b"half")
    run_training(tmp_path, "--dataset_name", clip_folder)
    assert (tmp_path / "model.safetensors").is_file()


def test_an_evaluation_does_not_stand_beside_that_of_other_data(trained, clip_folder, tmp_path):
    for name in ("test_results.json", "all_results.json"):
        (tmp_path / name).write_text('{"test_accuracy": 1.0}')
    evaluate = ["--model_name_or_path", str(trained), "--do_train", "false", "--disable_tqdm", "true"]
    run([*evaluate, "--dataset_name", str(clip_folder), "--output_dir", str(tmp_path)])
    assert not (tmp_path / "test_results.json").exists()
    assert "test_accuracy" not in json.loads((tmp_path / "all_results.json").read_text())


def test_a_run_is_resumed_with_the_clips_and_labels_it_began_with(make_config, tmp_path):
    def describe(labels, lengths=(800, 900)):
        split = Dataset.from_dict({"audio": [[0.0]] * len(labels), "labels": labels})
        return {"splits": {"train": {"clips": 2, "hours": 1.0, "digest": find_digest(split, lengths)}}}

    resumed = Resumed(tmp_path, make_config(), 2.0)
    (tmp_path / "data_results.json").write_text(json.dumps(describe([0, 1])))
    resumed.refuse_other_data(describe([0, 1]))
    for other in (describe([1, 0]), describe([0, 1], (900, 800))):
        with pytest.raises(ValueError, match="the clips of split train or their labels have changed"):
            resumed.refuse_other_data(other)
    # As runs of before this was kept.
    (tmp_path / "data_results.json").write_text('{"splits": {"train": {"clips": 2, "hours": 1.0}}}')
    resumed.refuse_other_data(describe([1, 0]))


def test_a_run_is_not_resumed_to_end_before_it_stands(make_config, tmp_path):
    words = ["--dataset_name", "x", "--output_dir", str(tmp_path), "--num_train_epochs"]
    resumed = Resumed(tmp_path, make_config(), 2.0)
    resumed.refuse_fewer_epochs(parse_arguments([*words, "2"])[-1])
    # Half an epoch of three steps is two.
    Resumed(tmp_path, make_config(), 1.67).refuse_fewer_epochs(parse_arguments([*words, "1.5"])[-1])
    with pytest.raises(ValueError, match="--num_train_epochs 1: the resumed run has trained for 2"):
        resumed.refuse_fewer_epochs(parse_arguments([*words, "1"])[-1])


OTHER_VALUES = {
    "mamba_variant": ("fo-fo", "bi-bi"), "state_size": (4, 8), "expand": (1, 2), "num_attention_heads": (1, 2),
    "attention_probs_dropout_prob": (0.1, 0.5), "intermediate_size": (32, 48), "layer_scale_init_value": (0.5, 2.0),
}  # fmt: skip


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", OTHER_VALUES)
def test_what_a_backbone_does_not_read_is_said(name, backbone, caplog):
    answers = []
    for value in OTHER_VALUES[name]:
        size = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        config = FFTPConfig(**size | {"backbone": backbone, "max_length": 60, name: value})
        torch.manual_seed(0)
        model = FFTPForAudioClassification(config).train()
        answers.append(model(torch.randn(1, 60, 128)).logits)
    is_read = not torch.equal(*answers)
    refuse_impossible(ModelArguments(backbone=backbone, **{name: OTHER_VALUES[name][0]}))
    assert (f"Without effect on the backbone {backbone}: --{name}" in caplog.text) == (not is_read)


def test_square_patches_may_take_the_place_of_full_ones(make_config, extractor, tmp_path):
    FFTPForAudioClassification(make_config()).save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    refuse_impossible(ModelArguments(model_name_or_path=str(tmp_path), patch_size=[16]))


@pytest.mark.parametrize(("metric", "mode"), [("score", "max"), ("loss", "min")])
def test_a_schedule_that_follows_a_metric_knows_which_way_is_better(tmp_path, metric, mode):
    words = ["--dataset_name", "x", "--output_dir", str(tmp_path), "--lr_scheduler_type", "reduce_lr_on_plateau"]
    training = parse_arguments([*words, "--metric_for_best_model", metric])[-1]
    choose_metric(training, Clips({}, ["a", "b"], False, {}, {}))
    assert training.lr_scheduler_kwargs["mode"] == mode


def test_recipes_of_other_encodings(tmp_path):
    recipe, words = tmp_path / "recipe.json", ["--dataset_name", "x", "--output_dir", "y"]
    recipe.write_text('{"hidden_size": 96}', encoding="utf-8-sig")
    assert parse_arguments([str(recipe), *words])[0].hidden_size == 96
    recipe.write_text('{"label_column_name": "Vögel"}', encoding="latin-1")
    with pytest.raises(SystemExit, match=r"recipe\.json is not valid JSON"):
        parse_arguments([str(recipe), *words])


def test_misspelt_recipe_keys(tmp_path):
    (tmp_path / "recipe.json").write_text('{"spec_mask_bugdet": 0.1}')
    with pytest.raises(SystemExit, match=r"'spec_mask_bugdet' in .*recipe\.json; did you mean 'spec_mask_budget'"):
        run([str(tmp_path / "recipe.json"), "--dataset_name", "x", "--output_dir", str(tmp_path)])


GEOMETRY = {"stride1": ([128, 10], 1), "stride5": ([128, 10], 5), "stride10": ([128, 50], 10)}
SQUARE = {"ast": ([16, 16], 10), "mamba": ([16, 16], 16)}


def test_every_recipe_is_valid_and_what_its_name_says():
    recipes = sorted((ROOT / "hub_cards").glob("*/recipe.json"))
    base = [recipe for recipe in recipes if "-base-" in recipe.parent.name]
    assert len(base) == 2 * 2 * 4 * 2
    for recipe in recipes:
        model, data, augmentation, *_ = parse_arguments([str(recipe), "--dataset_name", "x", "--output_dir", "y"])
        config = FFTPConfig(max_length=998, **model.given)
        name = recipe.parent.name
        assert config.backbone in name
        for geometry in {*name.split("-")} & {*GEOMETRY, "square"}:
            expected = SQUARE[config.backbone] if geometry == "square" else GEOMETRY[geometry]
            assert ([*config.patch_size], config.time_stride) == expected
        if recipe in base:
            assert bool(augmentation.spec_mask_budget) == name.endswith("-specmask")
            assert bool(augmentation.spec_augment_bins) != name.endswith("-specmask")
            assert (data.max_seconds == 10.0) == ("audioset" in name)
            wanted = {role: getattr(data, f"{role}_split_name") for role in ROLES}
            # AudioSet has two splits on the Hub.
            assert find_splits(["train", "test"] + ["validation"] * ("audioset" not in name), wanted)["validation"]


def test_missing_columns_are_named(clip_folder, tmp_path):
    with pytest.raises(ValueError, match=r"no audio column 'sound'.*'audio'"):
        run_training(tmp_path, "--dataset_name", clip_folder, "--audio_column_name", "sound")


def test_missing_splits_are_named(clip_folder, tmp_path):
    with pytest.raises(ValueError, match=r"no split 'training' for train; the data has \['train', 'validation'\]"):
        run_training(tmp_path, "--dataset_name", clip_folder, "--train_split_name", "training")


def test_checkpoints_whose_extractor_is_for_another_rate_are_refused(trained, clip_folder, tmp_path):
    FFTPForAudioClassification.from_pretrained(trained).save_pretrained(tmp_path / "8000")
    FFTPFeatureExtractor(sampling_rate=8000).save_pretrained(tmp_path / "8000")
    with pytest.raises(ValueError, match=r"8000 Hz.*16000 Hz"):
        run_training(tmp_path, "--dataset_name", clip_folder, "--model_name_or_path", tmp_path / "8000")


def test_help_needs_no_data(capsys):
    with pytest.raises(SystemExit, match="0"):
        run(["--help"])
    assert "--spec_mask_budget" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(5))
def test_clips_with_several_labels_that_validate_have_all_of_them(seed):
    """An hour among short recordings, and a label that two of them have."""
    labels = np.zeros((12, 3), dtype=np.float32)
    labels[:, 0], labels[[2, 7], 1], labels[[3, 4, 5], 2] = 1.0, 1.0, 1.0
    seconds = np.full(12, 60.0)
    seconds[9] = 3600.0
    facts = [{"seconds": value} for value in seconds]
    clips = Dataset.from_dict({"labels": labels, FACTS: facts, "row": [*range(12)]})
    keep, hold = hold_out_fraction(clips, 0.1, seed)
    assert sorted([*keep["row"], *hold["row"]]) == [*range(12)]
    assert np.asarray(keep["labels"][:]).any(axis=0).all()
    assert np.asarray(hold["labels"][:]).any(axis=0).all()
    # A tenth of the sound is some 400 s, and not the hour.
    assert 120 <= seconds[hold["row"][:]].sum() <= 600
    assert keep["row"][:] == hold_out_fraction(clips, 0.1, seed)[0]["row"][:]
