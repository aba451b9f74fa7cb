"""Explanations point to where made sounds are, add up to what they explain, and come as words and pictures."""

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.cli import app
from modeling_fftp.explain_fftp import steady_background
from modeling_fftp.hub.figures import save_figure
from modeling_fftp.serving import explain
from modeling_fftp.serving.explain import draw, explain_recording
from tests.support import BACKBONES, GEOMETRIES, run_training

RATE = 16000
# Without the third a model would need to know one of the others alone.
PITCHES = {"low": 300, "high": 3000, "neither": 0}


def build(config):
    torch.manual_seed(0)
    model = FFTPForAudioClassification(config).eval()
    torch.nn.init.normal_(model.classifier.dense.weight, std=1.0)
    return model


def make_beep(pitch, start, seed=0):
    """One second of faint noise with a beep of 0.2 s."""
    time = np.arange(RATE) / RATE
    sound = 0.01 * np.random.default_rng(seed).normal(size=RATE)
    return sound + 0.3 * np.sin(2 * np.pi * pitch * time) * ((time >= start) & (time < start + 0.2))


@pytest.fixture(scope="module")
def placed(tmp_path_factory):
    """Folder of a run on beeps of two pitches, each somewhere in its clip, and on clips without."""
    folder, rng = tmp_path_factory.mktemp("beeps"), np.random.default_rng(0)
    for split, count in (("train", 32), ("validation", 8)):
        for label, pitch in PITCHES.items():
            (folder / split / label).mkdir(parents=True)
            for index in range(count):
                sound = make_beep(pitch * rng.uniform(0.9, 1.1), rng.uniform(0.0, 0.8), seed=index)
                soundfile.write(folder / split / label / f"{index}.wav", sound, RATE)
    words = ["--num_train_epochs", 40, "--learning_rate", "2e-3", "--mixup_probability", 0, "--spec_mask_budget", 0]
    run_training(folder / "model", "--dataset_name", folder, *words)
    return folder / "model"


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_cells_add_up_to_what_the_sound_changes(make_config, batch, backbone, geometry):
    model = build(make_config(**BACKBONES[backbone] | GEOMETRIES[geometry]))
    relevance = model.explain(**batch, label=2)
    assert relevance.shape == batch["input_values"].shape
    with torch.no_grad():
        odds, without = (model(values, batch["attention_mask"]).logits.softmax(dim=1)[:, 2].logit() for values in (
            batch["input_values"], steady_background(**batch),
        ))  # fmt: skip
    torch.testing.assert_close(relevance.sum(dim=(1, 2)), odds - without, atol=0.02, rtol=0.05)
    # Padding speaks for nothing.
    assert not relevance[batch["attention_mask"] == 0].any()
    best = model(**batch).logits.argmax(dim=1)[0].item()
    torch.testing.assert_close(model.explain(**batch)[0], model.explain(**batch, label=best)[0])


@pytest.mark.parametrize("start", [0.1, 0.6])
@pytest.mark.parametrize("label", ["low", "high"])
def test_relevance_is_where_the_sound_is(placed, label, start):
    model = FFTPForAudioClassification.from_pretrained(placed).eval()
    extractor = FFTPFeatureExtractor.from_pretrained(placed)
    explanation = explain_recording(make_beep(PITCHES[label], start, seed=99), model, extractor, label)
    assert explanation.score > 0.8 > 0.5 > explanation.background_score
    relevance = explanation.relevance.clip(min=0)
    frames = slice(round(100 * start) - 2, round(100 * start) + 22)
    assert relevance[frames].sum() > 0.6 * relevance.sum()
    assert all(start - 0.1 <= first < last <= start + 0.3 for first, last in explanation.moments)
    # And at its pitch, whose mel bins are the loudest there.
    loudest = explanation.spectrogram[frames].mean(axis=0).argsort()[-20:]
    assert relevance[frames][:, loudest].sum() > 0.3 * relevance[frames].sum()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_rollout_shares_out_what_the_pooled_state_takes(make_config, batch, pooling, geometry):
    model = build(make_config(pooling=pooling, **GEOMETRIES[geometry]))
    model.set_attn_implementation("eager")
    shares = model.explain(**batch, method="rollout")
    assert shares.shape == batch["input_values"].shape
    assert (shares >= 0).all()
    whole = shares.sum(dim=(1, 2))
    assert (whole <= 1 + 1e-5).all()
    if pooling == "mean":
        torch.testing.assert_close(whole, torch.ones(3))
    # A clip alone has the same shares as padded beside others.
    alone = model.explain(batch["input_values"][:1, :61], method="rollout")
    torch.testing.assert_close(shares[0, :61], alone[0], atol=1e-6, rtol=1e-4)


def test_what_does_not_fit_is_refused(make_config, batch):
    for fields in ({"backbone": "mamba"}, {"num_hidden_layers": 3, "token_merge_layers": (1,)}, {}):
        with pytest.raises(ValueError, match=r"rollout needs backbone='ast', attn_implementation='eager'"):
            build(make_config(**fields)).explain(**batch, method="rollout")
    with pytest.raises(ValueError, match=r"\(2, 16000\); expected \(batch, frames, mel bins\)"):
        build(make_config()).explain(torch.zeros(2, 16000))
    with pytest.raises(ValueError, match="training mode"):
        build(make_config()).train().explain(torch.zeros(1, 50, 128))
    with pytest.raises(ValueError, match="method='magic' is unknown; expected one of gradient, rollout"):
        build(make_config()).explain(**batch, method="magic")


def test_the_command_says_and_draws(placed, tmp_path):
    path, picture = tmp_path / "beep.wav", tmp_path / "why.png"
    soundfile.write(path, np.concatenate((np.zeros(8000), make_beep(3000, 0.5))), RATE)

    def run(*words):
        return CliRunner().invoke(app, ["explain", str(path), "--model", str(placed), *map(str, words)])

    done = run("--label", "high", "--start", 0.5, "--output", picture)
    assert done.exit_code == 0, done.output
    label, moments = done.stdout.split("; ")
    assert label.startswith("high ")
    # In the time of the recording.
    first = float(moments.split(" to ")[0])
    assert 0.9 < first < 1.25
    assert picture.read_bytes().startswith(b"\x89PNG")
    done = run("--method", "rollout")
    assert "; attention went to 0." in done.stdout
    assert "spoke" not in done.stdout
    for words, message in (
        (["--label", "cat"], "no label 'cat'; the model has"),
        (["--label", "low", "--method", "rollout"], "rollout shows attention, whatever the label"),
        (["--start", 9], "start=9 s lies outside the recording, which is 1.50 s long"),
        (["--output", tmp_path / "why"], "why: expected the name of a picture, which ends in one of"),
        (["--output", picture / "other.png"], "why.png is a file"),
    ):
        assert message in str(run(*words).exception)


def test_a_label_is_no_mathematics(placed, tmp_path):
    model, extractor = (kind.from_pretrained(placed) for kind in (FFTPForAudioClassification, FFTPFeatureExtractor))
    explanation = explain_recording(make_beep(3000, 0.5), model.eval(), extractor)
    save_figure(draw(explanation._replace(label="$a_b^c_d$ and $\\frac{$"), RATE), tmp_path / "new" / "picture.png")
    assert (tmp_path / "new" / "picture.png").stat().st_size > 5000


def test_as_much_is_explained_as_the_pipeline_hears_at_once(placed, monkeypatch):
    model = FFTPForAudioClassification.from_pretrained(placed).eval()
    extractor = FFTPFeatureExtractor.from_pretrained(placed)
    extractor.padding, extractor.max_length, extractor.truncation = "max_length", 60, True
    read = []
    blocks = [np.full(RATE, number, np.float32) / 10 for number in range(1, 9)]
    monkeypatch.setattr(explain, "read_blocks", lambda *_: (read.append(block) or block for block in blocks))
    explanation = explain_recording("a.wav", model, extractor, start=1.5)
    assert len(explanation.spectrogram) == 58
    # What comes later is not decoded.
    assert len(read) == 3
    stretch = explain.read_stretch("a.wav", RATE, 1.5, 1.0)
    assert stretch.tolist() == [np.float32(0.2)] * (RATE // 2) + [np.float32(0.3)] * (RATE // 2)
    with pytest.raises(ValueError, match="start=-1 s lies before the recording"):
        explain.read_stretch("a.wav", RATE, -1.0, 1.0)


def test_other_types_and_extractors_that_pad(placed):
    sound = make_beep(300, 0.6)
    model = FFTPForAudioClassification.from_pretrained(placed).eval()
    extractor = FFTPFeatureExtractor.from_pretrained(placed)
    expected = explain_recording(sound, model, extractor)
    extractor.padding, extractor.max_length = "max_length", 300
    padded = explain_recording(sound, model, extractor)
    assert padded.background_score == pytest.approx(expected.background_score, abs=1e-5)
    np.testing.assert_allclose(padded.relevance, expected.relevance, atol=1e-4)
    half = explain_recording(sound, model.to(torch.bfloat16), FFTPFeatureExtractor.from_pretrained(placed))
    assert half.relevance.dtype == np.float32
    assert half.label == expected.label
    model.float()
    with torch.inference_mode():
        features = FFTPFeatureExtractor.from_pretrained(placed)(sound, sampling_rate=RATE, return_tensors="pt")
        assert model.explain(**features).isfinite().all()


def test_an_extractor_that_pads_without_a_mask(placed):
    """Its padding, two thirds of what the model gets, is neither background nor a part of the answer."""
    sound = make_beep(300, 0.6)
    model = FFTPForAudioClassification.from_pretrained(placed).eval()
    extractor = FFTPFeatureExtractor.from_pretrained(placed)
    frames = len(explain_recording(sound, model, extractor).relevance)
    extractor.padding, extractor.max_length, extractor.return_attention_mask = "max_length", 300, False
    explanation = explain_recording(sound, model, extractor)
    assert len(explanation.relevance) == len(explanation.spectrogram) == len(explanation.course) == frames
    values = extractor(sound, sampling_rate=RATE, return_tensors="pt")["input_values"]
    relevance = model.explain(values, num_frames=98)
    assert not relevance[:, 98:].any()
    background = steady_background(values, (torch.arange(300) < 98)[None])
    torch.testing.assert_close(background[0, 0], values[0, :98].median(dim=0).values)
    torch.testing.assert_close(background[0, 98:], values[0, 98:])


@pytest.mark.parametrize("label", [-1, 3, "low"])
def test_an_unknown_label_is_refused(placed, label):
    with pytest.raises(ValueError, match="must be an index below 3, the labels of the model"):
        FFTPForAudioClassification.from_pretrained(placed).explain(torch.zeros(1, 50, 128), label=label)


def test_an_output_of_a_regression_is_explained_alone(make_config, batch):
    model = build(make_config(problem_type="regression"))
    with torch.no_grad():
        values, without = (model(one, batch["attention_mask"]).logits[:, 1] for one in (
            batch["input_values"], steady_background(**batch),
        ))  # fmt: skip
    torch.testing.assert_close(model.explain(**batch, label=1).sum(dim=(1, 2)), values - without, atol=0.02, rtol=0.05)


def test_the_card_has_a_picture(placed):
    assert (placed / "explanation.png").read_bytes().startswith(b"\x89PNG")
    assert "![What spoke for an answer](explanation.png)" in (placed / "README.md").read_text(encoding="utf-8")
