"""The pipeline "audio-tagging" with a frame classifier: events at the resolution of its steps, joined over windows."""

import numpy as np
import pytest
import soundfile
import torch
from scipy.ndimage import median_filter as scipy_median_filter
from transformers import pipeline
from typer.testing import CliRunner

from feature_extraction import FFTPFeatureExtractor
from feature_extraction.log_mel_fftp import num_frames
from modeling_fftp import FFTPForAudioFrameClassification
from modeling_fftp.cli import app
from modeling_fftp.events_fftp import filter_lengths, median_filter
from tests.support import BACKBONES

RATE = 16000


@pytest.fixture
def build(make_config):
    """A frame classifier whose scores vary, and whose position table is 1 s long."""

    def make(**fields):
        torch.manual_seed(0)
        model = FFTPForAudioFrameClassification(
            make_config(problem_type="multi_label_classification", **fields)
        ).eval()
        torch.nn.init.normal_(model.classifier.dense.weight, std=1.0)
        return model

    return make


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_clip_s_events_are_where_its_steps_say(build, extractor, speech, backbone):
    model = build(**BACKBONES[backbone] | {"token_merge_layers": None})
    clip = speech[:RATE]
    with torch.no_grad():
        scores = model(**extractor(clip, sampling_rate=RATE, return_tensors="pt")).logits[0].sigmoid()
    spans = model.token_spans(len(scores)).tolist()
    tag = pipeline("audio-tagging", model=model, feature_extractor=extractor, device="cpu")
    for answer in (
        tag(clip, return_windows=True),
        tag([clip, clip[: RATE // 2]], batch_size=2, return_windows=True)[0],
    ):
        np.testing.assert_allclose([row["scores"] for row in answer["windows"]], scores.numpy(), atol=1e-5)
        for label in range(4):
            is_on = np.zeros(len(spans), dtype=bool)
            for entry in answer["timeline"]:
                if entry["label"] == f"LABEL_{label}":
                    starts, ends = ([round(span[side], 6) for span in spans] for side in (0, 1))
                    first, last = starts.index(round(entry["start"], 6)), ends.index(round(entry["end"], 6))
                    is_on[first : last + 1] = True
            assert is_on.tolist() == (scores[:, label] >= 0.5).tolist()
        best = {entry["label"]: entry["score"] for entry in answer["labels"]}
        assert best["LABEL_0"] == pytest.approx(scores[:, 0].max().item(), abs=1e-5)


def test_nothing_sounds_after_the_end(build, extractor, speech):
    model = build()
    tag = pipeline("audio-tagging", model=model, feature_extractor=extractor, device="cpu", threshold=0.0)
    # Shorter than a patch of 0.115 s.
    answer = tag(speech[: round(0.05 * RATE)])
    assert {entry["end"] for entry in answer["timeline"]} == {answer["duration"]} == {0.05}


def test_steps_of_padding_that_nobody_masks_are_none(build, speech):
    """As extractors of converted checkpoints pad."""
    model, clip = build(), speech[: round(0.7 * RATE)]
    padding = FFTPFeatureExtractor(
        max_length=100, padding="max_length", truncation=True, return_attention_mask=False, mean=-9.0, std=3.0
    )
    tag = pipeline("audio-tagging", model=model, feature_extractor=padding, device="cpu")
    answer = tag(clip, return_windows=True, threshold=0.0)
    steps = model.config.time_patches(num_frames(len(clip), RATE))
    assert len(answer["windows"]) == steps
    assert all(row["start"] < row["end"] for row in answer["windows"])
    assert {entry["end"] for entry in answer["timeline"]} == {answer["windows"][-1]["end"]}
    assert answer["windows"][-1]["end"] <= answer["duration"] == 0.7
    embed = pipeline("audio-embedding", model=model, feature_extractor=padding, device="cpu")
    assert len(embed(clip, per="step")["embeddings"]) == steps


def test_windows_are_joined_into_one_timeline(build, extractor, speech):
    model, sound = build(), np.tile(speech, 2)
    answer = pipeline("audio-tagging", model=model, feature_extractor=extractor, device="cpu")(
        sound, return_windows=True
    )
    rows = answer["windows"]
    assert [row["end"] for row in rows[:-1]] == [row["start"] for row in rows[1:]]
    assert answer["duration"] == 4.0
    assert rows[0]["start"] == 0.0
    # The window from 0.5 to 1.5 s is the nearest from 0.75 to 1.25 s.
    features = extractor(sound[RATE // 2 : 3 * RATE // 2], sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        expected = model(**features).logits[0].sigmoid()
    middles = 0.5 + model.token_spans(len(expected)).mean(dim=1)
    is_nearest = (middles >= 0.75) & (middles < 1.25)
    found = [row["scores"] for row in rows if 0.75 <= (row["start"] + row["end"]) / 2 < 1.25]
    torch.testing.assert_close(torch.tensor(found), expected[is_nearest])


@pytest.mark.parametrize("steps", [1, 4, 30])
def test_the_median_filter_is_scipy_s(steps):
    scores = torch.rand(steps, 3, generator=torch.Generator().manual_seed(0))
    filtered = median_filter(scores, [1, 3, 7])
    for label, length in enumerate((1, 3, 7)):
        expected = scipy_median_filter(scores[:, label].numpy(), size=length, mode="nearest")
        np.testing.assert_array_equal(filtered[:, label].numpy(), expected)


def test_a_filter_is_as_long_at_every_stride(build, extractor, speech):
    model = build()
    model.config.median_filter_seconds = {"LABEL_0": 0.25, "LABEL_1": 0.15}
    # Steps of 50 and of 20 ms; an odd number of them.
    assert filter_lengths(model.config) == [5, 3, 1, 1]
    assert filter_lengths(model.config, 2) == [13, 7, 1, 1]
    tag = pipeline("audio-tagging", model=model, feature_extractor=extractor, device="cpu")
    lengths = [entry["end"] - entry["start"] for entry in tag(speech)["timeline"] if entry["label"] == "LABEL_0"]
    assert min(lengths) > 0.1
    assert len(tag(speech, time_stride=10, return_windows=True)["windows"]) < 45


def test_a_folder_is_tagged_by_the_command(build, extractor, speech, tmp_path):
    model = build()
    model.save_pretrained(tmp_path / "model")
    extractor.save_pretrained(tmp_path / "model")
    soundfile.write(tmp_path / "speech.wav", speech, RATE)
    done = CliRunner().invoke(
        app, ["tag", str(tmp_path / "speech.wav"), "--model", str(tmp_path / "model"), "--format", "csv"]
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.count("\n") > 4
    tag = pipeline("audio-tagging", model=str(tmp_path / "model"), trust_remote_code=True)
    assert len(tag(speech)["timeline"]) == done.stdout.count("\n") - 1
    refused = CliRunner().invoke(app, ["listen", "-", "--model", str(tmp_path / "model")])
    assert "is a frame classifier; live sound needs a clip classifier" in str(refused.exception)
