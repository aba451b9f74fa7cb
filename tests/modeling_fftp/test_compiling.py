"""Models compile to one graph, and exports take clips of every length."""

import pytest
import torch
from torch._inductor import config as inductor

from modeling_fftp import FFTPForAudioClassification
from tests.support import BACKBONES, build_classifier, needs_cpp_compiler

STRIDED = {"time_stride": 10}
STRETCHED = {"time_stride": 20, "position_stride": 5, "stretch_patches": True}


@needs_cpp_compiler
@pytest.mark.parametrize(
    ("backbone", "frozen_weights"), [("ast", False), ("merging", True), ("fo-bi", False), ("convnext", False)]
)
def test_compiles_to_one_graph(make_config, backbone, frozen_weights):
    model = build_classifier(make_config(**{"num_hidden_layers": 1} | BACKBONES[backbone]))
    compiled = torch.compile(model, fullgraph=True)
    # The second length makes the graph one for any length.
    for frames in (60, 45):
        features, mask = torch.randn(2, frames, 128), torch.ones(2, frames, dtype=torch.long)
        mask[1, 33:] = 0
        with torch.no_grad(), inductor.patch(freezing=frozen_weights):
            expected = model(features, mask).logits
            torch.testing.assert_close(compiled(features, mask).logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backbone", ["ast", "merging", "fo-bi", "bi-bi", "convnext"])
def test_exports(make_config, backbone):
    model = build_classifier(make_config(**{"num_hidden_layers": 1} | BACKBONES[backbone]))
    features, mask = torch.randn(2, 60, 128), torch.ones(2, 60, dtype=torch.long)
    mask[1, 33:] = 0
    with torch.no_grad():
        exported = torch.export.export(model, (features, mask)).module()
        torch.testing.assert_close(exported(features, mask).logits, model(features, mask).logits)


def test_stretched_patches_compile_whole(make_config):
    model = FFTPForAudioClassification(make_config(stretch_patches=True)).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    features = torch.randn(2, 157, 128)
    with torch.no_grad():
        expected = model(features, time_stride=20).logits
        torch.testing.assert_close(compiled(features, time_stride=20).logits, expected)


@pytest.mark.parametrize(
    "fields",
    [
        *(BACKBONES[name] | fields for name in ("ast", "fo-bi", "convnext") for fields in ({}, STRIDED, STRETCHED)),
        BACKBONES["merging"] | {"pooling": "mean"},
        BACKBONES["convnext"] | {"num_hidden_layers": 2, "token_merge_layers": [1]},
    ],
    ids=str,
)
def test_an_export_takes_every_length(make_config, fields):
    model = FFTPForAudioClassification(make_config(**fields)).eval()
    size = torch.export.Dim.DYNAMIC
    features = torch.randn(2, 300, 128)
    inputs = {"input_values": features, "attention_mask": torch.ones(2, 300, dtype=torch.long)}
    exported = torch.export.export(
        model, (), inputs, dynamic_shapes={name: {0: size, 1: size} for name in inputs}, strict=False
    ).module()
    # Beyond as many tokens as attention on a CPU may take another way for.
    for frames in (90, 97, 115, 1500):
        inputs = {
            "input_values": torch.randn(3, frames, 128),
            "attention_mask": torch.ones(3, frames, dtype=torch.long),
        }
        torch.testing.assert_close(exported(**inputs).logits, model(**inputs).logits, atol=1e-4, rtol=1e-4)
