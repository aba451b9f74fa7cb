"""`fftp pretrain` on any folder of sound, to a folder that a training starts from."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, TrainingArguments

from feature_extraction.randomness import batch_seeds, seeded
from feature_extraction.spectrogram_augmentation import RandomGain
from modeling_fftp.cli import app
from modeling_fftp.hub.push import files_to_push
from modeling_fftp.training.data.unlabelled import (
    Pieces,
    SoundArguments,
    assign_roles,
    find_recordings,
    load_pieces,
    read_sound,
)
from modeling_fftp.training.pretraining.masked_patches import MaskedPatchCollator
from modeling_fftp.training.pretraining.pretrain import pretrain
from modeling_fftp.training.run import run
from tests.support import ROOT, TINY

SMALL = [*TINY, "--decoder_hidden_size", "48", "--time_stride", "10"]


@pytest.fixture
def recordings(clip_folder, tmp_path):
    """Sound at any depth without classes: short and long, a broken file, a silent one, and what is no sound."""
    folder = tmp_path / "recordings"
    (folder / "2024" / "june").mkdir(parents=True)
    for index, file in enumerate(sorted(clip_folder.glob("train/*/*.wav"))):
        shutil.copy(file, folder / ("2024/june" if index % 2 else ".") / f"{index}.wav")
    soundfile.write(folder / "long.flac", 0.1 * np.random.default_rng(0).normal(size=16000 * 5), 16000)
    soundfile.write(folder / "silent.wav", np.zeros(16000), 16000)
    (folder / "broken.wav").write_bytes(b"RIFF, but nothing else")
    (folder / "notes.txt").write_text("nothing to hear")
    return folder


def train(data, output, *options):
    pretrain([str(data), *SMALL, "--output_dir", str(output), *map(str, options)])


def load(arguments: SoundArguments, piece_seconds, output) -> Pieces:
    return load_pieces(arguments, piece_seconds, TrainingArguments(str(output), seed=0))


def test_any_sound_becomes_a_start(recordings, clip_folder, tmp_path):
    output = tmp_path / "pretrained"
    train(recordings, output, "--max_seconds", 1, "--max_left_out", 0.1, "--num_train_epochs", 3)
    state = json.loads((output / "trainer_state.json").read_text())["log_history"]
    losses = [entry["eval_loss"] for entry in state if "eval_loss" in entry]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    left_out = (output / "left_out_clips.csv").read_text()
    assert "broken.wav" in left_out
    assert "silent.wav,silence" in left_out
    data = json.loads((output / "data_results.json").read_text())
    # 36 clips, and 5 s in three pieces.
    assert sum(split["pieces"] for split in data["splits"].values()) == 39
    card = (output / "README.md").read_text()
    assert "fftp train --model_name_or_path pretrained" in card
    assert all((output / name).stat().st_size > 5000 for name in ("reconstruction.png", "training.png"))

    run([*TINY, "--dataset_name", str(clip_folder), "--output_dir", str(tmp_path / "tuned"),
         "--model_name_or_path", str(output), "--time_stride", "10", "--learning_rate", "1e-9"])  # fmt: skip
    before, after = (load_file(folder / "model.safetensors") for folder in (output, tmp_path / "tuned"))
    name = "fftp.layers.1.mlp.fc1.weight"
    torch.testing.assert_close(before[name], after[name], atol=1e-6, rtol=0)
    assert not any(name.startswith("decoder.") for name in after)
    card = (tmp_path / "tuned" / "README.md").read_text()
    assert "Fine-tuned from `pretrained`" in card


def test_the_same_seed_gives_the_same_weights_and_resuming_too(clip_folder, tmp_path):
    options = ("--num_train_epochs", 2, "--max_seconds", 0.5)
    for name in ("first", "second"):
        train(clip_folder, tmp_path / name, *options, "--save_total_limit", 5)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert all(first[name].equal(second[name]) for name in first)
    # As if the run had been killed after its first epoch.
    last = sorted((tmp_path / "second").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))[-1]
    shutil.rmtree(last)
    train(clip_folder, tmp_path / "second", *options, "--resume_from_checkpoint", "true")
    resumed = load_file(tmp_path / "second" / "model.safetensors")
    assert all(first[name].equal(resumed[name]) for name in first)
    with pytest.raises(ValueError, match=r"decoder_hidden_size is 96, and the resumed run has .*; choose another"):
        train(
            clip_folder, tmp_path / "second", *options, "--resume_from_checkpoint", "true", "--decoder_hidden_size", 96
        )
    # Also where no recipe tells.
    (tmp_path / "second" / "recipe.json").unlink()
    with pytest.raises(ValueError, match=r"mask_ratio is 0.5, and the resumed run has 0.75"):
        train(clip_folder, tmp_path / "second", *options, "--resume_from_checkpoint", "true", "--mask_ratio", 0.5)


def test_pretraining_goes_on_from_other_weights(clip_folder, trained, tmp_path):
    train(clip_folder, tmp_path / "more", "--model_name_or_path", trained, "--learning_rate", "1e-9")
    before, after = load_file(trained / "model.safetensors"), load_file(tmp_path / "more" / "model.safetensors")
    name = "fftp.layers.0.attention.q_proj.weight"
    torch.testing.assert_close(before[name], after[name], atol=1e-6, rtol=0)
    assert json.loads((tmp_path / "more" / "config.json").read_text())["time_stride"] == 10


@pytest.mark.parametrize("options", [(), ("--decoder_num_hidden_layers", 1)])
def test_pretraining_goes_on_with_its_decoder(clip_folder, tmp_path, options):
    train(clip_folder, tmp_path / "first")
    more = ("--model_name_or_path", tmp_path / "first", "--learning_rate", "1e-9", *options)
    train(clip_folder, tmp_path / "more", *more)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "more"))
    change = (before["decoder.head.weight"] - after["decoder.head.weight"]).abs().max()
    assert (change < 1e-6) == (not options)


def test_positions_have_the_length_of_the_new_crops(clip_folder, tmp_path):
    train(clip_folder, tmp_path / "short", "--max_seconds", 0.3)
    again = ["--model_name_or_path", tmp_path / "short", "--max_seconds", 0.6, "--learning_rate", 0]
    train(clip_folder, tmp_path / "long", *again)
    short, long = (load_file(tmp_path / name / "model.safetensors") for name in ("short", "long"))
    for name in ("fftp.embeddings.position_embeddings.weight", "decoder.position_embeddings.weight"):
        assert len(long[name]) > 1.5 * len(short[name])
        # From end to end what it was, only longer.
        torch.testing.assert_close(long[name][[0, -1]], short[name][[0, -1]])
    # The decoder goes on.
    assert long["decoder.head.weight"].equal(short["decoder.head.weight"])
    assert json.loads((tmp_path / "long" / "preprocessor_config.json").read_text())["max_length"] == 58


def test_what_does_not_mask_padding_is_made_to(clip_folder, tmp_path):
    """An AST keeps its padding where it is used as it is; here that would be learned."""
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
    ASTForAudioClassification(ASTConfig(**sizes, max_length=100)).save_pretrained(tmp_path / "ast")
    ASTFeatureExtractor(max_length=100).save_pretrained(tmp_path / "ast")
    pretrain(
        [str(clip_folder), "--output_dir", str(tmp_path / "out"), "--model_name_or_path", str(tmp_path / "ast"),
         "--num_train_epochs", "1", "--decoder_hidden_size", "48", "--hidden_dropout_prob", "0.2"]
    )  # fmt: skip
    extractor = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert (extractor["return_attention_mask"], extractor["padding"]) == (True, "longest")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["hidden_dropout_prob"] == 0.2


def test_pieces_that_are_too_short_are_counted_or_refused(tmp_path, caplog):
    """A patch is 100 ms: of 50 ms none can be hidden, and no picture shows it."""
    rng = np.random.default_rng(0)
    for index in range(20):
        soundfile.write(tmp_path / f"{index:02}.wav", 0.1 * rng.normal(size=800 if index < 12 else 8000), 16000)
    soundfile.write(tmp_path / "tiny.wav", 0.1 * rng.normal(size=100), 16000)
    train(tmp_path, tmp_path / "out", "--validation_fraction", 0.3)
    assert "pieces are too short for a patch to be hidden" in caplog.text
    assert "100 samples: shorter than one frame" in (tmp_path / "out" / "left_out_clips.csv").read_text()
    assert (tmp_path / "out" / "README.md").exists()
    with pytest.raises(ValueError, match=r"(\d+) of \1 pieces are too short .* one patch is 10 frames"):
        train(tmp_path, tmp_path / "none", "--validation_fraction", 0, "--max_seconds", 0.05)


def test_a_pretraining_that_diverges_is_no_success(clip_folder, tmp_path):
    with pytest.raises(ValueError, match="NaN or infinite"):
        train(clip_folder, tmp_path / "out", "--learning_rate", "1e9", "--num_train_epochs", 3)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_the_best_epoch_and_averages_are_those_of_the_loss(clip_folder, tmp_path):
    train(clip_folder, tmp_path / "best", "--load_best_model_at_end", "true", "--num_train_epochs", 2)
    train(clip_folder, tmp_path / "mean", "--average_last_epochs", 2, "--layer_decay", 0.5, "--num_train_epochs", 2)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("best", "mean"))
    assert not first["decoder.head.weight"].equal(second["decoder.head.weight"])


def test_validation_sound_is_measured_on_and_test_sound_is_left_alone(clip_folder, tmp_path, caplog):
    folder = shutil.copytree(clip_folder, tmp_path / "data")
    (folder / "validation").rename(folder / "Test")
    pieces = load(SoundArguments(str(folder), validation_fraction=0.25), 20, tmp_path)
    assert {role: len(split) for role, split in pieces.splits.items()} == {"train": 27, "validation": 9}
    assert "12 recordings of test splits are not used" in caplog.text
    # As LibriSpeech writes it.
    (folder / "Test").rename(folder / "test-clean")
    assert sum(len(recordings) for _, recordings in find_recordings(SoundArguments(str(folder)))) == 36
    pieces = load(SoundArguments(str(clip_folder)), 20, tmp_path)
    assert {role: len(split) for role, split in pieces.splits.items()} == {"train": 36, "validation": 12}
    # Parts of a few recordings add up.
    held_out = assign_roles([(None, Dataset.from_dict({"audio": ["x"] * 9}))] * 50, SoundArguments("x"), 0)
    assert sum(len(table) for role, table in held_out if role == "validation") == 22
    no_share = load(SoundArguments(str(folder), validation_fraction=0.0), 20, tmp_path)
    assert {*no_share.splits} == {"train"}


def test_data_sets_lie_side_by_side(clip_folder, tmp_path):
    """Parquet files of two data sets, one with folds, one in a hidden place, and loose files."""
    files = [str(file) for file in sorted(clip_folder.glob("train/*/*.wav"))]
    first = Dataset.from_dict({"audio": files[:20], "fold": [1, 2] * 10}).cast_column("audio", Audio())
    second = Dataset.from_dict({"sound": files[20:30], "other": ["x"] * 10}).cast_column("sound", Audio())
    for name, data in (("first", first), ("second", second)):
        (tmp_path / "data" / name).mkdir(parents=True)
        data.to_parquet(tmp_path / "data" / name / "train-0.parquet")
    Dataset.from_dict({"text": ["no sound"]}).to_parquet(tmp_path / "data" / "words.parquet")
    arguments = SoundArguments(str(tmp_path / "data"), validation_column="fold", validation_value="2")
    pieces = load(arguments, 20, tmp_path)
    assert {role: len(split) for role, split in pieces.splits.items()} == {"train": 20, "validation": 10}
    table = Dataset.from_dict({"audio": ["x"] * 4, "fold": [1, 2, 1, 2]})
    held_out = assign_roles([("train", table), ("validation", table)], arguments, 0)
    assert [(role, table["fold"][:]) for role, table in held_out] == [
        ("train", [1, 1]), ("validation", [2, 2]), ("validation", [1, 2, 1, 2]),
    ]  # fmt: skip
    arguments = SoundArguments(str(tmp_path / "data"), validation_column="fold", validation_value="7")
    with pytest.raises(ValueError, match="no recording has fold='7'"):
        load(arguments, 20, tmp_path)


def test_changed_files_are_decoded_anew(tmp_path):
    for seconds in (1, 2):
        soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).normal(size=16000 * seconds), 16000)
        pieces = load(SoundArguments(str(tmp_path)), 20, tmp_path)
        assert pieces.lengths["train"] == [16000 * seconds]


def test_what_holds_no_sound_is_refused(recordings, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no sound in .*empty"):
        train(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ValueError, match=r"all: 2 clips .* cannot be used.* At most 1.0% may be left out"):
        train(recordings, tmp_path / "out", "--max_left_out", 0.01)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(tmp_path / "nowhere.csv", tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_decoder_that_cannot_be_is_refused_before_sound_is_read(trained, tmp_path):
    options = ("--model_name_or_path", trained, "--decoder_num_attention_heads", 5)
    with pytest.raises(StrictDataclassError, match="decoder_hidden_size=48 is not a multiple"):
        train(tmp_path / "nowhere", tmp_path / "out", *options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output_dir", "x"], "DATA is missing"),
        (["data", "--output_dir", "x", "--mask_ration", "0.5"], "did you mean 'mask_ratio'"),
        (["data", "--output_dir", "x", "--validation_column", "fold"], "go together"),
        (["data", "--output_dir", "x", "--max_seconds", "0"], r"max_seconds 0.0 must lie in \[0.025, inf\)"),
        (["data", "--output_dir", "x", "--validation_fraction", "1"], "must lie in"),
        (["data", "--output_dir", "x", "--do_train", "false"], "--do_train is for training with labels"),
        (["data", "--output_dir", "x", "--class_balanced", "true"], "--class_balanced is for training with labels"),
        (["data", "--output_dir", "x", "--push_to_hub", "true"], "`fftp push x USER/NAME`"),
        (
            ["data", "--output_dir", "x", "--metric_for_best_model", "accuracy"],
            "the loss, of which the lowest is best",
        ),
        (["data", "--output_dir", "x", "--greater_is_better", "true"], "the loss, of which the lowest is best"),
        (["data", "--output_dir", "x", "--ema_decay", "0.9", "--average_last_epochs", "2"], "are two averages"),
        (
            ["data", "--output_dir", "x", "--load_best_model_at_end", "true", "--eval_delay", "200"],
            "--eval_delay 200 is beyond",
        ),
    ],
)
def test_wrong_words_are_refused_at_once(words, message):
    with pytest.raises(SystemExit, match=message):
        pretrain(words)


def test_two_processes_pretrain_one_model(clip_folder, tmp_path):
    words = [str(clip_folder), *SMALL, "--output_dir", str(tmp_path / "out"), "--use_cpu", "true"]
    command = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "modeling_fftp",
        "pretrain",
        *words,
    ]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "effective batch 16 clips (2 processes)" in done.stderr
    assert (tmp_path / "out" / "reconstruction.png").exists()


def test_a_card_is_written_anew_and_goes_to_the_hub(clip_folder, tmp_path):
    train(clip_folder, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    (tmp_path / "out" / "README.md").unlink()
    app(["card", str(tmp_path / "out")], standalone_mode=False)
    assert (tmp_path / "out" / "README.md").read_text() == card
    assert {"reconstruction.png", "pretraining_fftp.py"} <= {path.name for path in files_to_push(tmp_path / "out")}
    app(["card", str(tmp_path / "out"), "--repo_id", "user/start"], standalone_mode=False)
    assert "--model_name_or_path user/start " in (tmp_path / "out" / "README.md").read_text()


def test_a_pretraining_goes_on_in_as_many_processes(clip_folder, tmp_path):
    train(clip_folder, tmp_path, "--num_train_epochs", 2)
    arguments = json.loads((tmp_path / "arguments.json").read_text())
    assert (arguments["world_size"], arguments["mask_ratio"]) == (1, None)
    (tmp_path / "arguments.json").write_text(json.dumps(arguments | {"world_size": 2}))
    with pytest.raises(ValueError, match="the number of processes or GPUs is 1, and the resumed run has 2"):
        train(clip_folder, tmp_path, "--num_train_epochs", 2, "--resume_from_checkpoint", "true")


def test_a_recording_of_just_the_longest_length_is_one_piece(tmp_path):
    # In floats 2.01 * 16000 is a little less than 32160.
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(size=32160) * 0.1, 16000)
    pieces = load(SoundArguments(str(tmp_path), validation_fraction=0), 2.01, tmp_path)
    assert [len(sound) for sound in pieces.splits["train"]["audio"]] == [32160]


def test_recordings_are_counted_and_not_their_pieces(tmp_path, monkeypatch):
    # As a launcher of before may leave it behind; this process is alone.
    monkeypatch.setenv("RANK", "1")
    folder = tmp_path / "sound"
    folder.mkdir()
    (folder / "broken.wav").write_text("nothing")
    soundfile.write(folder / "long.wav", np.random.default_rng(0).normal(size=16000 * 20) * 0.1, 16000)
    arguments = SoundArguments(str(folder), validation_fraction=0, max_left_out=0.4)
    with pytest.raises(ValueError, match=r"1 clips \(50\.0%\) cannot be used"):
        load(arguments, 1.0, tmp_path / "out")
    assert (tmp_path / "out" / "left_out_clips.csv").read_text().splitlines()[1].startswith("all,0,")
    arguments.max_left_out = 0.5
    assert len(load(arguments, 1.0, tmp_path / "out").splits["train"]) == 20


def test_a_recording_without_a_name_is_named_by_its_row_in_the_data(tmp_path):
    rng, sounds = np.random.default_rng(0), []
    for _ in range(20):
        soundfile.write(tmp_path / "one.wav", 0.1 * rng.normal(size=8000), 16000)
        sounds.append({"bytes": (tmp_path / "one.wav").read_bytes(), "path": None})
    sounds[15]["bytes"] = b"junk"
    (tmp_path / "data").mkdir()
    Dataset.from_dict({"audio": sounds}).to_parquet(tmp_path / "data" / "sounds.parquet")
    # Of the recordings before it some are measured on.
    arguments = SoundArguments(str(tmp_path / "data"), validation_fraction=0.3, max_left_out=0.1)
    load(arguments, 1.0, tmp_path / "out")
    assert (tmp_path / "out" / "left_out_clips.csv").read_text().splitlines()[1].startswith("all,15,row 15,")


def test_a_pretrained_folder_is_not_overwritten(clip_folder, tmp_path):
    train(clip_folder, tmp_path / "out")
    with pytest.raises(SystemExit, match="holds a model already"):
        train(clip_folder, tmp_path / "out")


def test_batches_to_train_on_hide_anew_and_those_to_measure_on_do_not(make_config, extractor):
    rng = np.random.default_rng(0)
    clips = [{"audio": rng.normal(size=length).astype(np.float32)} for length in (16000, 40000)]
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    collators = [MaskedPatchCollator(extractor, make_config(), 1.0, 0.1, generator) for generator in generators]
    first, again, other = (collator.augment(clips) for collator in collators)
    assert all(first[name].equal(again[name]) for name in first)
    assert not first["bool_masked_pos"].equal(other["bool_masked_pos"])
    assert not collators[0].augment(clips)["bool_masked_pos"].equal(first["bool_masked_pos"])
    # What changes features does not draw what is hidden.
    quiet = MaskedPatchCollator(extractor, make_config(), 1.0, 0.0, torch.Generator().manual_seed(0)).augment(clips)
    gains = (first["input_values"] - quiet["input_values"]).mean(dim=(1, 2))
    _, feature_seed, mask_seed = batch_seeds(torch.Generator().manual_seed(0))
    drawn = [RandomGain(0.1)(torch.zeros(2, 98, 128), None, seeded(seed)) for seed in (feature_seed, mask_seed)]
    torch.testing.assert_close(gains, drawn[0].mean(dim=(1, 2)), atol=1e-4, rtol=0)
    assert (gains - drawn[1].mean(dim=(1, 2))).abs().max() > 1e-3
    assert first["input_values"].shape == (2, 98, 128)
    assert first["bool_masked_pos"].shape == (2, 18)
    plain = collators[0](clips)
    assert all(plain[name].equal(value) for name, value in collators[2](clips).items())
    expected = extractor(clips[1]["audio"][:16000], sampling_rate=16000, return_tensors="pt")["input_values"][0]
    torch.testing.assert_close(plain["input_values"][1], expected)


def test_sound_as_datasets_give_it_is_measured_on(make_config, extractor):
    sound = np.random.default_rng(0).normal(size=40000).astype(np.float32)
    collator = MaskedPatchCollator(extractor, make_config(), 1.0)
    plain, expected = ([{"audio": audio}] for audio in ({"array": sound, "sampling_rate": 16000}, sound))
    assert all(collator(plain)[name].equal(value) for name, value in collator(expected).items())
    # An extractor whose padding counts as sound.
    settings = {"max_length": 100, "padding": "max_length", "truncation": True, "return_attention_mask": False}
    whole = type(extractor)(**settings)
    batch = MaskedPatchCollator(whole, make_config(), 1.0).augment(plain)
    assert batch["bool_masked_pos"].shape == (1, make_config().time_patches(100))


def test_sound_of_a_folder_is_read_as_a_sample(recordings, caplog):
    sounds = [*read_sound(recordings)]
    assert len(sounds) == 38
    assert max(map(len, sounds)) == 80000
    assert "broken.wav" in caplog.text


def test_a_folder_without_a_recording_that_can_be_read_is_no_sample(tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="no recording can be read"):
        [*read_sound(tmp_path)]
