"""An AST checkpoint runs here with the logits it has in transformers."""

import numpy as np
import pytest
import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
)

from modeling_fftp.convert.convert import convert


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ast")
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96, max_length=200,
        hidden_act="relu", layer_norm_eps=1e-3,
        id2label={0: "bell", 1: "rain", 2: "siren"}, label2id={"bell": 0, "rain": 1, "siren": 2},
    )  # fmt: skip
    model = ASTForAudioClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder / "source")
    ASTFeatureExtractor(max_length=200).save_pretrained(folder / "source")
    convert(str(folder / "source"), str(folder / "converted"))
    return folder


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_equal_those_of_transformers(checkpoint, attention):
    expected = ASTForAudioClassification.from_pretrained(checkpoint / "source", attn_implementation=attention)
    converted = AutoModelForAudioClassification.from_pretrained(
        checkpoint / "converted", attn_implementation=attention
    )
    features = torch.randn(3, 200, 128)
    with torch.no_grad():
        torch.testing.assert_close(converted(features).logits, expected(features).logits, atol=1e-4, rtol=0)
    assert converted.config.id2label == expected.config.id2label


@pytest.mark.parametrize("seconds", [0.7, 3.0])
def test_sound_to_logits_equals_transformers(checkpoint, seconds):
    sound = np.random.default_rng(0).normal(size=int(16000 * seconds)).astype(np.float32) * 0.1
    logits = []
    for name in ("source", "converted"):
        extractor = AutoFeatureExtractor.from_pretrained(checkpoint / name)
        model = AutoModelForAudioClassification.from_pretrained(checkpoint / name)
        with torch.no_grad():
            logits.append(model(**extractor(sound, sampling_rate=16000, return_tensors="pt")).logits)
    torch.testing.assert_close(logits[0], logits[1], atol=1e-3, rtol=0)


def test_the_labels_of_audioset_may_sound_at_once(tmp_path, caplog):
    """Checkpoints of AST in transformers do not say so."""
    for num_labels, given, expected in (
        (527, None, "multi_label_classification"),
        (527, "single_label_classification", "single_label_classification"),
        (35, None, "single_label_classification"),
        (35, "multi_label_classification", "multi_label_classification"),
    ):
        config = ASTConfig(
            hidden_size=48, num_hidden_layers=1, num_attention_heads=3, intermediate_size=96, max_length=200,
            num_labels=num_labels,
        )  # fmt: skip
        folder, options = tmp_path / f"{num_labels}-{given}", {"problem_type": given} if given else {}
        ASTForAudioClassification(config).save_pretrained(folder / "source")
        ASTFeatureExtractor(max_length=200).save_pretrained(folder / "source")
        convert(folder / "source", folder / "converted", **options)
        converted = AutoModelForAudioClassification.from_pretrained(folder / "converted")
        assert converted.config.problem_type == expected
    assert caplog.text.count("a clip may have several") == 1


def test_existing_output_is_left_alone(checkpoint):
    before = sorted(path.name for path in checkpoint.iterdir())
    with pytest.raises(FileExistsError, match="converted"):
        convert(str(checkpoint / "source"), str(checkpoint / "converted"))
    with pytest.raises(OSError):  # noqa: PT011
        convert(str(checkpoint / "missing"), str(checkpoint / "new"))
    assert sorted(path.name for path in checkpoint.iterdir()) == before
