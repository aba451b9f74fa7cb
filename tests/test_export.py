"""ONNX files: logits equal to torch's at other lengths and batch sizes, and all that a user of the file needs."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_modeling import BACKBONES, GEOMETRIES

from modeling_fftp import FFTPForAudioClassification, FFTPForAudioFrameClassification
from modeling_fftp.export import export
from modeling_fftp.scan_fftp import IMPLEMENTATIONS
from modeling_fftp.scan_onnx import selective_scan_onnx

SHAPES = [(1, 100), (3, 250), (2, 37), (1, 8), (2, 3)]


def save(model_class, config, extractor, folder):
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return model


def compare(model, path):
    session = onnxruntime.InferenceSession(path)
    for batch, frames in SHAPES:
        features, mask = torch.randn(batch, frames, 128), torch.ones(batch, frames, dtype=torch.long)
        mask[-1, (2 * frames + 1) // 3 :] = 0
        (logits,) = session.run(None, {"input_values": features.numpy(), "attention_mask": mask.numpy()})
        with torch.no_grad():
            expected = model(features, mask).logits.numpy()
        if expected.ndim == 3:
            assert logits.shape == expected.shape
            is_real = np.arange(logits.shape[1]) < model.config.time_patches(mask.sum(dim=1, keepdim=True)).numpy()
            logits, expected = logits[is_real], expected[is_real]
        np.testing.assert_allclose(logits, expected, atol=1e-4)
    return session


@pytest.mark.parametrize(
    ("geometry", "backbone"),
    [("full-frequency", "ast"), ("full-frequency", "bi-bi"), ("square", "ast"), ("square", "fo-bi")],
)
def test_logits_equal_torch_at_other_lengths_and_batch_sizes(make_config, extractor, tmp_path, geometry, backbone):
    config = make_config(**GEOMETRIES[geometry], **BACKBONES[backbone])
    plain = IMPLEMENTATIONS["torch"]
    model = save(FFTPForAudioClassification, config, extractor, tmp_path)
    session = compare(model, export(tmp_path))
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == [f"LABEL_{index}" for index in range(4)]
    assert metadata["problem_type"] == "single_label_classification"
    assert json.loads(metadata["feature_extractor"])["mean"] == extractor.mean
    assert IMPLEMENTATIONS["torch"] is plain
    assert not list(tmp_path.glob("*.part*"))
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)


@pytest.mark.parametrize("backbone", ["ast", "fo-bi"])
def test_frame_classifiers_keep_their_steps(make_config, extractor, tmp_path, backbone):
    config = make_config(problem_type="multi_label_classification", **BACKBONES[backbone])
    model = save(FFTPForAudioFrameClassification, config, extractor, tmp_path)
    compare(model, export(tmp_path, tmp_path / "frames.onnx"))


@pytest.mark.parametrize("reverse", [False, True])
def test_the_operator_is_the_scan(reverse, generator):
    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    arguments = (draw(2, 6, 9), draw(2, 6, 9), -draw(6, 4).exp(), draw(2, 4, 9), draw(2, 4, 9), draw(6))
    rest = (draw(2, 6, 9), draw(6), True, reverse)
    torch.testing.assert_close(
        selective_scan_onnx(*arguments, *rest)[0], IMPLEMENTATIONS["torch"](*arguments, *rest)[0], atol=1e-5, rtol=1e-5
    )
