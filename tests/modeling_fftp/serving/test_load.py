"""What the command line loads, and how it knows it again."""

import shutil

import torch
from transformers import configuration_utils

from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.serving.load import hash_model


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
