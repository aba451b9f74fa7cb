"""A checkpoint with AuM's parameter names runs here with AuM's logits."""

import json

import pytest
import torch
from torch.nn import functional
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from modeling_fftp.cli import app
from modeling_fftp.convert.from_aum import convert_model
from modeling_fftp.convert.sources import find_kind
from modeling_fftp.scan_fftp import selective_scan_ref

HIDDEN, INNER, STATE, RANK, LAYERS, LABELS = 32, 64, 16, 2, 3, 5


def make_checkpoint(variant, patch=16, frames=160):
    """Random weights under AuM's names, for a spectrogram of 128 x `frames`."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape, scale=0.2):
        return torch.randn(*shape, generator=generator) * scale

    patches = (128 // patch) * (frames // patch)
    weights = {
        "cls_token": draw(1, 1, HIDDEN), "pos_embed.pos_embed": draw(1, patches + 1, HIDDEN),
        "patch_embed.proj.weight": draw(HIDDEN, 1, patch, patch), "patch_embed.proj.bias": draw(HIDDEN),
        "norm_f.weight": 1 + draw(HIDDEN), "head.weight": draw(LABELS, HIDDEN), "head.bias": draw(LABELS),
    }  # fmt: skip
    for index in range(LAYERS):
        mixer = {"in_proj.weight": draw(2 * INNER, HIDDEN), "out_proj.weight": draw(HIDDEN, INNER)}
        for suffix in ("", "_b") if variant == "bi-bi" else ("",):
            mixer |= {
                f"conv1d{suffix}.weight": draw(INNER, 1, 4), f"conv1d{suffix}.bias": draw(INNER),
                f"x_proj{suffix}.weight": draw(RANK + 2 * STATE, INNER), f"D{suffix}": draw(INNER),
                f"dt_proj{suffix}.weight": draw(INNER, RANK), f"dt_proj{suffix}.bias": draw(INNER) - 2,
            }  # fmt: skip
        mixer["A_log"] = draw(INNER, STATE)
        if variant != "fo-fo":
            mixer["A_b_log"] = draw(INNER, STATE)
        weights[f"layers.{index}.norm.weight"] = 1 + draw(HIDDEN)
        weights |= {f"layers.{index}.mixer.{name}": tensor for name, tensor in mixer.items()}
    return weights


def rms_norm(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight


def mixer_output(xz, mixer, suffix, decay):
    """One direction of AuM's mixer: (batch, 2 inner, tokens) to (batch, inner, tokens)."""
    x, z = xz.chunk(2, dim=1)
    weight, bias = mixer[f"conv1d{suffix}.weight"], mixer[f"conv1d{suffix}.bias"]
    x = functional.silu(functional.conv1d(x, weight, bias, padding=3, groups=INNER)[..., : x.shape[-1]])
    rank, B, C = (mixer[f"x_proj{suffix}.weight"] @ x).split((RANK, STATE, STATE), dim=1)  # noqa: N806
    delta = mixer[f"dt_proj{suffix}.weight"] @ rank
    bias = mixer[f"dt_proj{suffix}.bias"]
    return [x, delta, -torch.exp(mixer[decay]), B, C, mixer[f"D{suffix}"], z, bias, True]


def flip(arguments):
    return [x.flip(2) if isinstance(x, torch.Tensor) and x.ndim == 3 else x for x in arguments]


def aum_logits(weights, features, variant):
    """AuM's forward pass written out with flips, after the authors' `mamba_models.py` and `mamba_simple.py`."""
    stride = weights["patch_embed.proj.weight"].shape[-1]
    tokens = functional.conv2d(
        features.transpose(1, 2)[:, None], weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride
    )
    tokens = tokens.flatten(2).transpose(1, 2) + weights["pos_embed.pos_embed"][:, 1:]
    middle = tokens.shape[1] // 2
    class_token = (weights["cls_token"] + weights["pos_embed.pos_embed"][:, :1]).expand(len(tokens), -1, -1)
    residual = torch.cat((tokens[:, :middle], class_token, tokens[:, middle:]), dim=1)
    for index in range(LAYERS):
        prefix = f"layers.{index}.mixer."
        mixer = {name.removeprefix(prefix): x for name, x in weights.items() if name.startswith(prefix)}
        hidden = rms_norm(residual, weights[f"layers.{index}.norm.weight"])
        xz = (hidden @ mixer["in_proj.weight"].T).transpose(1, 2)
        forward = mixer_output(xz, mixer, "", "A_log")
        y = selective_scan_ref(*forward)
        if variant == "fo-bi":
            backward = [*forward[:2], -torch.exp(mixer["A_b_log"]), *forward[3:]]
            y = y + selective_scan_ref(*flip(backward)).flip(2)
        if variant == "bi-bi":
            backward = mixer_output(xz.flip(2), mixer, "_b", "A_b_log")
            y = (y + selective_scan_ref(*backward).flip(2)) / 2
        residual = residual + y.transpose(1, 2) @ mixer["out_proj.weight"].T
    return rms_norm(residual, weights["norm_f.weight"])[:, middle] @ weights["head.weight"].T + weights["head.bias"]


@pytest.mark.parametrize("variant", ["fo-fo", "fo-bi", "bi-bi"])
@torch.no_grad()
def test_logits_equal_those_of_aum(variant):
    weights, features = make_checkpoint(variant), torch.randn(2, 160, 128)
    model = convert_model(weights)
    assert model.config.mamba_variant == variant
    assert model.config.patch_grid == (8, 10)
    expected = aum_logits(weights, features, variant)
    assert expected.std() > 0.1
    torch.testing.assert_close(model(features).logits, expected, atol=1e-4, rtol=0)


def test_command_line(tmp_path):
    weights = make_checkpoint("fo-bi")
    torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, tmp_path / "aum.pth")
    names = ["index,mid,display_name", *(f'{index},/m/{index},"Sound, {index}"' for index in range(LABELS))]
    (tmp_path / "labels.csv").write_text("\n".join(names))
    words = ("convert", tmp_path / "aum.pth", tmp_path / "out", "--labels", tmp_path / "labels.csv")
    app([*map(str, words), "--mean", "-7", "--std", "3"], standalone_mode=False)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"]["3"] == "Sound, 3"
    assert config["problem_type"] == "multi_label_classification"
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    features = extractor(torch.randn(8000), sampling_rate=16000, return_tensors="pt")
    assert features["input_values"].shape == (1, 160, 128)
    # AuM pads with zeros before it normalises.
    torch.testing.assert_close(features["input_values"][0, -1], torch.full((128,), 7 / (2 * 3.0)))
    with torch.no_grad():
        expected = aum_logits(weights, features["input_values"], "fo-bi")
        torch.testing.assert_close(model(**features).logits, expected, atol=1e-4, rtol=0)


def test_what_is_no_aum_checkpoint_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth holds weights such as \['weight'\].*SSAST or AuM"):
        find_kind(tmp_path / "other.pth")
    weights = make_checkpoint("fo-bi")
    with pytest.raises(ValueError, match=r"no AuM checkpoint.*rope"):
        convert_model(weights | {"rope.freqs_cos": torch.zeros(3)})
    del weights["cls_token"]
    with pytest.raises(ValueError, match=r"it lacks \['cls_token'\]"):
        convert_model(weights)
    with pytest.raises(ValueError, match=r"80 positions do not form 9 rows.*--strides"):
        convert_model(make_checkpoint("fo-bi"), strides=(14, 16))
