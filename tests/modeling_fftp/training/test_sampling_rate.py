"""Training at another rate than 16 kHz: what lies above 8 kHz is heard, in every command."""

import json

import numpy as np
import pytest
import soundfile
from transformers import pipeline

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig
from modeling_fftp.training.pretraining.pretrain import pretrain
from modeling_fftp.training.probing.probe import probe
from tests.support import TINY, run_training

RATE = 32000


@pytest.fixture(scope="module")
def high_sounds(tmp_path_factory):
    """Tones of 9 and 13 kHz, which are alike at 16 kHz: nothing but noise."""
    folder, rng = tmp_path_factory.mktemp("high_sounds"), np.random.default_rng(0)
    time = np.arange(RATE) / RATE
    for split, count in (("train", 16), ("validation", 8)):
        for kind, pitch in (("bat", 13000), ("wren", 9000)):
            (folder / split / kind).mkdir(parents=True)
            for index in range(count):
                sound = 0.1 * np.sin(2 * np.pi * pitch * rng.uniform(0.98, 1.02) * time)
                sound += 0.01 * rng.normal(size=RATE)
                soundfile.write(folder / split / kind / f"{index}.wav", sound, RATE)
    return folder


@pytest.fixture(scope="module")
def trained_high(high_sounds, tmp_path_factory):
    """A model of these, trained on its sound as it is."""
    folder = tmp_path_factory.mktemp("trained_high") / "model"
    run_training(
        folder, "--dataset_name", high_sounds, "--sampling_rate", RATE, "--num_train_epochs", 8, "--learning_rate",
        0.002, "--mixup_probability", 0, "--max_seconds", 0.5, "--per_device_train_batch_size", 4,
    )  # fmt: skip
    return folder


def accuracy(folder):
    return json.loads((folder / "validation_results.json").read_text())["validation_accuracy"]


def test_what_is_above_8_khz_is_learned_and_served(trained_high, high_sounds):
    assert accuracy(trained_high) == 1.0
    config = FFTPConfig.from_pretrained(trained_high)
    assert config.sampling_rate == FFTPFeatureExtractor.from_pretrained(trained_high).sampling_rate == RATE
    # Crops of half a second, in frames of 10 ms.
    assert config.max_length == 48
    assert json.loads((trained_high / "recipe.json").read_text())["sampling_rate"] == RATE
    data = json.loads((trained_high / "data_results.json").read_text())["splits"]
    assert data["train"]["hours"] == pytest.approx(32 / 3600)
    tag = pipeline("audio-tagging", model=str(trained_high), trust_remote_code=True)
    answer = tag(str(high_sounds / "validation" / "bat" / "0.wav"))
    assert (answer["labels"][0]["label"], answer["duration"]) == ("bat", 1.0)
    assert "nothing above 16000 Hz" in (trained_high / "README.md").read_text()


@pytest.mark.parametrize("streaming", [False, True])
def test_a_checkpoint_hears_at_its_own_rate(trained_high, high_sounds, tmp_path, streaming):
    words = ["--dataset_name", high_sounds, "--model_name_or_path", trained_high, "--streaming", streaming]
    run_training(tmp_path / "again", *words, "--do_train", "false")
    assert accuracy(tmp_path / "again") == 1.0
    with pytest.raises(ValueError, match=r"--sampling_rate 16000 cannot apply: the checkpoint .* has 32000"):
        run_training(tmp_path / "other", *words, "--sampling_rate", 16000)


def test_a_probe_and_a_pretraining_hear_as_much(trained_high, high_sounds, tmp_path):
    probe([str(high_sounds), "--model", str(trained_high), "--output_dir", str(tmp_path / "probe")])
    assert accuracy(tmp_path / "probe") == 1.0
    pretrain([
        str(high_sounds), *TINY, "--output_dir", str(tmp_path / "start"), "--sampling_rate", str(RATE),
        "--decoder_hidden_size", "48", "--max_seconds", "0.5",
    ])  # fmt: skip
    assert FFTPConfig.from_pretrained(tmp_path / "start").sampling_rate == RATE
    run_training(tmp_path / "tuned", "--dataset_name", high_sounds, "--model_name_or_path", tmp_path / "start")
    assert FFTPFeatureExtractor.from_pretrained(tmp_path / "tuned").sampling_rate == RATE


def test_a_student_learns_at_a_rate_that_is_not_its_teachers(trained_high, high_sounds, tmp_path):
    words = ["--dataset_name", high_sounds, "--teacher", trained_high, "--teacher_only", "true"]
    run_training(tmp_path, *words, "--sampling_rate", 24000)
    assert FFTPConfig.from_pretrained(tmp_path).sampling_rate == 24000


def test_a_rate_that_is_none_is_refused(high_sounds, tmp_path):
    with pytest.raises(SystemExit, match=r"--sampling_rate 32 must lie in \[1000, inf\)"):
        run_training(tmp_path, "--dataset_name", high_sounds, "--sampling_rate", 32)


def test_what_is_lost_is_said(high_sounds, tmp_path, caplog):
    caplog.set_level("INFO")
    run_training(tmp_path, "--dataset_name", high_sounds)
    assert "Sound of up to 32000 Hz is resampled to 16000 Hz: what is above 8000 Hz is lost" in caplog.text
