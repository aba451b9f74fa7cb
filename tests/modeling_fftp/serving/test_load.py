"""What the command line loads, and how it knows it again."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import configuration_utils

from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.serving.embed import load_embedder
from modeling_fftp.serving.export import export
from modeling_fftp.serving.load import hash_model
from modeling_fftp.serving.tag import load_tagger


def test_a_model_is_known_again_wherever_it_lies_and_whatever_loads_it(make_config, tmp_path, monkeypatch):
    model = FFTPForAudioClassification(make_config())
    model.save_pretrained(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first, other = (FFTPForAudioClassification.from_pretrained(tmp_path / name) for name in "ab")
    known = hash_model(first)
    monkeypatch.setattr(configuration_utils, "__version__", "6.0.0")
    assert hash_model(other) == known
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert hash_model(other) != known
    first.config.thresholds = {"LABEL_0": 0.9}
    assert hash_model(first) != known


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda weights: weights.pop("classifier.dense.weight"), "weights are missing, .* classifier.dense.weight"),
        (lambda weights: weights["classifier.dense.bias"].fill_(float("nan")), "classifier.dense.bias holds .* NaN"),
    ],
)
def test_weights_that_are_missing_or_damaged_answer_nothing(make_config, extractor, tmp_path, damage, message):
    FFTPForAudioClassification(make_config()).save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    damage(weights)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for load in (load_tagger, export):
        with pytest.raises(ValueError, match=message):
            load(tmp_path)
    assert not [*tmp_path.glob("*.onnx")]
    # Of a classifier its embeddings need no head.
    assert load_embedder(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "folder.onnx"])
def test_nothing_but_an_onnx_file_is_written(make_config, extractor, tmp_path, name):
    FFTPForAudioClassification(make_config()).save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    kept = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=f"{name}: expected a file to write, whose name ends in .onnx"):
        export(tmp_path, tmp_path / name)
    assert (tmp_path / "model.safetensors").read_bytes() == kept
