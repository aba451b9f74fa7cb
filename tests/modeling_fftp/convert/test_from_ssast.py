"""A checkpoint with SSAST's parameter names runs here with SSAST's states and logits."""

import json

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForAudioClassification

from modeling_fftp import FFTPModel
from modeling_fftp.cli import app
from modeling_fftp.convert.from_ssast import convert_model
from modeling_fftp.convert.sources import load

# Width and heads of the published sizes; all have 12 blocks and 1024 frames.
SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
FRAME, PATCH = (128, 2), (16, 16)


def make_checkpoint(width=192, patch=FRAME, frames=1024, blocks=12, labels=None, pretrained=True):
    """Random weights under SSAST's names."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape, scale=0.05):
        return torch.randn(*shape, generator=generator) * scale

    patches = (128 // patch[0]) * (frames // patch[1])
    weights = {
        "v.cls_token": draw(1, 1, width), "v.dist_token": draw(1, 1, width),
        "v.pos_embed": draw(1, patches + 2, width),
        "v.patch_embed.proj.weight": draw(width, 1, *patch), "v.patch_embed.proj.bias": draw(width),
        "v.norm.weight": 1 + draw(width), "v.norm.bias": draw(width),
        "v.head.weight": draw(10, width), "v.head.bias": draw(10), "v.head_dist.weight": draw(10, width),
    }  # fmt: skip
    for index in range(blocks):
        shapes = {
            "norm1": (width,), "norm2": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width),
            "mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width),
        }  # fmt: skip
        for name, shape in shapes.items():
            offset = 1.0 if name.startswith("norm") else 0.0
            weights[f"v.blocks.{index}.{name}.weight"] = offset + draw(*shape)
            weights[f"v.blocks.{index}.{name}.bias"] = draw(shape[0])
    if pretrained:
        weights |= {
            "p_input_fdim": torch.tensor(128), "p_input_tdim": torch.tensor(frames), "mask_embed": draw(1, 1, width),
            "cpredlayer.0.weight": draw(width, width), "gpredlayer.2.bias": draw(256),
        }  # fmt: skip
    if labels:
        weights |= {
            "mlp_head.0.weight": 1 + draw(width), "mlp_head.0.bias": draw(width),
            "mlp_head.1.weight": draw(labels, width), "mlp_head.1.bias": draw(labels),
        }  # fmt: skip
    return weights


def ssast_states(weights, features, heads):
    """SSAST's encoder written out, after the authors' `ast_models.py` and timm's blocks."""

    def norm(x, name):
        return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    kernel = weights["v.patch_embed.proj.weight"]
    x = functional.conv2d(
        features.transpose(1, 2)[:, None], kernel, weights["v.patch_embed.proj.bias"], stride=kernel.shape[-2:]
    )
    x = x.flatten(2).transpose(1, 2)
    tokens = [weights[name].expand(len(x), -1, -1) for name in ("v.cls_token", "v.dist_token")]
    x = torch.cat((*tokens, x), dim=1) + weights["v.pos_embed"]
    for index in range(sum(name.endswith("attn.proj.bias") for name in weights)):
        block = f"v.blocks.{index}"
        y = norm(x, f"{block}.norm1") @ weights[f"{block}.attn.qkv.weight"].T + weights[f"{block}.attn.qkv.bias"]
        query, key, value = y.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        attention = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(dim=-1)
        y = (attention @ value).transpose(1, 2).flatten(2)
        x = x + y @ weights[f"{block}.attn.proj.weight"].T + weights[f"{block}.attn.proj.bias"]
        y = norm(x, f"{block}.norm2") @ weights[f"{block}.mlp.fc1.weight"].T + weights[f"{block}.mlp.fc1.bias"]
        x = x + functional.gelu(y) @ weights[f"{block}.mlp.fc2.weight"].T + weights[f"{block}.mlp.fc2.bias"]
    return norm(x, "v.norm")


@pytest.mark.parametrize(
    ("size", "patch"), [("tiny", FRAME), ("tiny", PATCH), ("small", FRAME), ("base", FRAME)], ids=str
)
@torch.no_grad()
def test_states_equal_those_of_ssast(size, patch):
    width, heads = SIZES[size]
    weights, features = make_checkpoint(width, patch), torch.randn(1, 1024, 128) * 0.5
    model = convert_model(weights)
    assert type(model) is FFTPModel
    assert (model.config.patch_size, model.config.num_attention_heads) == (patch, heads)
    expected = ssast_states(weights, features, heads)
    torch.testing.assert_close(model(features).last_hidden_state, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@torch.no_grad()
def test_a_fine_tuned_checkpoint_has_its_logits(tmp_path, pooling):
    weights = make_checkpoint(frames=128, blocks=2, labels=5, pretrained=False)
    torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, tmp_path / "ssast.pth")
    arguments = ["convert", tmp_path / "ssast.pth", tmp_path / "out", "--pooling", pooling]
    app([*map(str, arguments), "--problem_type", "single_label_classification"], standalone_mode=False)
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    features = torch.randn(2, 128, 128) * 0.5
    states = ssast_states(weights, features, 3)
    # "avgtok" of the authors leaves the class tokens out of the mean.
    pooled = states[:, 2:].mean(dim=1) if pooling == "mean" else states[:, :2].mean(dim=1)
    pooled = functional.layer_norm(pooled, pooled.shape[-1:], weights["mlp_head.0.weight"], weights["mlp_head.0.bias"])
    expected = pooled @ weights["mlp_head.1.weight"].T + weights["mlp_head.1.bias"]
    assert model.config.problem_type == "single_label_classification"
    torch.testing.assert_close(model(features).logits, expected, atol=1e-4, rtol=0)
    # Padding that is masked changes nothing, class tokens or not.
    padded = torch.cat((features, torch.full((2, 30, 128), 3.0)), dim=1)
    mask = torch.cat((torch.ones(2, 128), torch.zeros(2, 30)), dim=1)
    torch.testing.assert_close(model(padded, attention_mask=mask).logits, expected, atol=1e-4, rtol=0)
    assert json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())["return_attention_mask"] is False


def test_a_fine_tuned_checkpoint_needs_its_pooling(tmp_path):
    """AST's files have the same names, and pool the class tokens where SSAST's mostly pool the patches."""
    torch.save(make_checkpoint(frames=128, blocks=1, labels=5, pretrained=False), tmp_path / "ast.pth")
    with pytest.raises(ValueError, match=r"ast.pth is fine-tuned, .* takes mean .* or cls"):
        load(tmp_path / "ast.pth")
    assert load(tmp_path / "ast.pth", pooling="cls").model.config.pooling == "cls"


def test_what_is_no_ssast_checkpoint_is_refused(tmp_path):
    weights = make_checkpoint(blocks=1)
    with pytest.raises(ValueError, match=r"no SSAST checkpoint.*v.unknown"):
        convert_model(weights | {"v.unknown": torch.zeros(2)})
    overlapping = make_checkpoint(blocks=1, patch=PATCH)
    # 12 x 50 patches at strides of 10: their number alone would do for 8 rows too.
    overlapping["v.pos_embed"] = torch.zeros(1, 602, 192)
    with pytest.raises(ValueError, match=r"600 positions at strides of 16 x 16 cover 1200 frames, .* have 1024"):
        convert_model(overlapping)
    overlapping["p_input_tdim"] = torch.tensor(506)
    assert convert_model(overlapping, strides=(10, 10)).config.patch_grid == (12, 50)
    with pytest.raises(ValueError, match=r"512 positions do not form 5 rows"):
        convert_model(make_checkpoint(blocks=1, patch=PATCH), strides=(25, 16))
    weights["v.norm.weight"][0] = float("inf")
    torch.save(weights, tmp_path / "ssast.pth")
    with pytest.raises(ValueError, match=r"ssast.pth is damaged: v.norm.weight"):
        load(tmp_path / "ssast.pth")
    torch.save(make_checkpoint(blocks=1, labels=3), tmp_path / "tuned.pth")
    (tmp_path / "labels.csv").write_text("index,name\n0,bell\n")
    with pytest.raises(ValueError, match=r"has the columns \['index', 'name'\]; expected index and display_name"):
        load(tmp_path / "tuned.pth", labels=tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text("index,display_name\n0,bell\n")
    with pytest.raises(ValueError, match=r"names 1 labels; the head has 3"):
        load(tmp_path / "tuned.pth", labels=tmp_path / "labels.csv")
    with pytest.raises(ValueError, match="--problem_type several is unknown"):
        load(tmp_path / "tuned.pth", problem_type="several")
    (tmp_path / "ssast.pth").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"ssast.pth is not a checkpoint with weights by name"):
        load(tmp_path / "ssast.pth")


class Harmful:
    def __reduce__(self):
        return (print, ("this code must not run",))


def test_code_in_a_checkpoint_does_not_run(tmp_path, capsys):
    torch.save({"v.pos_embed": Harmful()}, tmp_path / "ssast.pth")
    with pytest.raises(ValueError, match="not a checkpoint with weights by name"):
        load(tmp_path / "ssast.pth")
    assert "must not run" not in capsys.readouterr().out
