"""A vision transformer gives a spectrogram the states here that it gives a grey picture in transformers."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    DeiTConfig,
    DeiTModel,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from modeling_fftp import FFTPModel
from modeling_fftp.convert.convert import convert
from modeling_fftp.convert.sources import load

# Published shapes: ViT-tiny, DeiT-tiny distilled, and DINOv2-small with its 37 x 37 positions.
TINY = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
SOURCES = {
    "vit": (ViTModel, ViTConfig(**TINY), {"interpolate_pos_encoding": True}),
    "deit": (DeiTModel, DeiTConfig(**TINY), {"interpolate_pos_encoding": True}),
    "dinov2": (Dinov2Model, Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14), {}),
}


def randomise(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model.eval()


@pytest.mark.parametrize("kind", SOURCES)
@torch.no_grad()
def test_states_equal_those_of_transformers(tmp_path, kind):
    model_class, config, options = SOURCES[kind]
    source = randomise(model_class(config))
    source.save_pretrained(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "converted", max_length=300)
    model = FFTPModel.from_pretrained(tmp_path / "converted")
    spectrograms = torch.randn(2, 300, 128)
    pictures = spectrograms.transpose(1, 2)[:, None].expand(-1, 3, -1, -1)
    expected = source(pictures, **options).last_hidden_state
    assert expected.std() > 0.1
    torch.testing.assert_close(model(spectrograms).last_hidden_state, expected, atol=1e-4, rtol=0)


def test_a_classifier_of_pictures_is_taken_without_its_head(tmp_path):
    config = ViTConfig(**TINY, num_labels=7)
    config.num_hidden_layers = 2
    ViTForImageClassification(config).save_pretrained(tmp_path)
    assert type(load(tmp_path).model) is FFTPModel


@pytest.fixture
def small(tmp_path):
    config = ViTConfig(**TINY)
    config.num_hidden_layers = 2
    ViTModel(config).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_damaged_sources_are_refused_by_name_and_leave_nothing(tmp_path, small):
    rewrite(small, lambda weights: weights.pop("embeddings.cls_token"))
    with pytest.raises(ValueError, match=r"vit is no ViTModel: 1 weights are missing.*embeddings.cls_token"):
        convert(small, tmp_path / "out")
    weights = (small / "model.safetensors").read_bytes()
    (small / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match=r"vit is damaged: its weights cannot be read"):
        convert(small, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_finite_are_refused(small):
    rewrite(small, lambda weights: weights["embeddings.position_embeddings"].fill_(float("nan")))
    with pytest.raises(ValueError, match=r"damaged: embeddings.position_embeddings holds values that are NaN"):
        load(small)


def test_models_without_a_counterpart_are_refused(tmp_path, small):
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(ValueError, match="of type 'bert'; expected one of audio-spectrogram-transformer, fftp"):
        load(small)
    Dinov2Model(Dinov2Config(**{**TINY, "num_hidden_layers": 1, "use_swiglu_ffn": True})).save_pretrained(
        tmp_path / "g"
    )
    with pytest.raises(ValueError, match="use_swiglu_ffn"):
        load(tmp_path / "g")
