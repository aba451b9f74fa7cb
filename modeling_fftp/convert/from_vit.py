"""Turn a vision transformer of transformers (ViT, DeiT, DINOv2) into an FFTP model with square patches.

A spectrogram is a grey picture, high frequencies at the bottom: the three colours of the patch embedding are summed,
and the positions interpolated to the spectrogram's grid, so that the model computes what the source does on that
picture.
"""

import re
from pathlib import Path

import torch
from torch import nn
from transformers import DeiTConfig, DeiTModel, Dinov2Config, Dinov2Model, PreTrainedConfig, ViTConfig, ViTModel

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPModel
from modeling_fftp.pretrained import load_pretrained

from .audioset import NUM_MEL_BINS
from .converted import Converted, fill

# Model type: class, class tokens, and the arguments that leave out its pooler.
VISION_MODELS = {
    ViTConfig.model_type: (ViTModel, 1, {"add_pooling_layer": False}),
    DeiTConfig.model_type: (DeiTModel, 2, {"add_pooling_layer": False}),
    Dinov2Config.model_type: (Dinov2Model, 1, {}),
}
SHARED_FIELDS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "hidden_dropout_prob",
    "attention_probs_dropout_prob", "layer_norm_eps", "initializer_range", "qkv_bias",
)  # fmt: skip
# Names of earlier and later releases of transformers.
RENAMED = (
    (r"^encoder\.layer\.", "layers."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attention\.attention\.", ".attention."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.value\.", ".attention.v_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
# The gain of DINOv2's residual branches, and the projections that it belongs to.
LAYER_SCALE = re.compile(r"^(layers\.\d+\.)layer_scale([12])\.lambda1$")
SCALED = {"1": "attention.o_proj", "2": "mlp.fc2"}


def rename(name: str) -> str:
    """Name of a parameter here."""
    for old, new in RENAMED:
        name = re.sub(old, new, name)
    return name


def fold_layer_scale(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights whose projections have the gain of their branch in them."""
    folded = {name: tensor for name, tensor in weights.items() if not LAYER_SCALE.match(name)}
    for name, gain in weights.items():
        if match := LAYER_SCALE.match(name):
            projection = match[1] + SCALED[match[2]]
            folded[f"{projection}.weight"] = folded[f"{projection}.weight"] * gain[:, None]
            folded[f"{projection}.bias"] = folded[f"{projection}.bias"] * gain
    return folded


def resize_positions(positions: torch.Tensor, source: tuple[int, int], grid: tuple[int, int]) -> torch.Tensor:
    """Positions (patches, hidden) of one grid on another, as these models do for pictures of another size."""
    if source == grid:
        return positions
    images = positions.unflatten(0, source).permute(2, 0, 1)[None]
    images = nn.functional.interpolate(images, size=grid, mode="bicubic", align_corners=False)
    return images[0].flatten(1).T.contiguous()


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width that may be given as one number."""
    return (size, size) if isinstance(size, int) else tuple(size)


def build_config(source: PreTrainedConfig, num_class_tokens: int, max_length: int) -> FFTPConfig:
    """The configuration of the source on spectrograms of 128 mel bins.

    Raises:
        ValueError: Layers that have no counterpart here.
    """
    if getattr(source, "use_swiglu_ffn", False):
        raise ValueError(
            "DINOv2 with gated feed-forward layers (use_swiglu_ffn, its giant size) has no counterpart here"
        )
    fields = {name: getattr(source, name) for name in SHARED_FIELDS}
    patch_size = pair(source.patch_size)
    return FFTPConfig(
        **fields,
        intermediate_size=getattr(source, "intermediate_size", None) or source.hidden_size * source.mlp_ratio,
        num_mel_bins=NUM_MEL_BINS,
        max_length=max(max_length, patch_size[1]),
        patch_size=patch_size,
        frequency_stride=patch_size[0],
        time_stride=patch_size[1],
        num_class_tokens=num_class_tokens,
    )


def convert_state_dict(
    state_dict: dict[str, torch.Tensor], config: FFTPConfig, image_size: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """Weights by their names here."""
    weights = {rename(name): tensor for name, tensor in state_dict.items()}
    weights = fold_layer_scale(weights)
    weights.pop("embeddings.mask_token", None)
    kernel = weights["embeddings.patch_embeddings.projection.weight"]
    weights["embeddings.patch_embeddings.projection.weight"] = kernel.sum(dim=1, keepdim=True)
    positions = weights.pop("embeddings.position_embeddings")[0]
    for index, name in enumerate(("cls_token", "distillation_token")[: config.count_class_tokens()]):
        weights[f"embeddings.{name}"] = weights[f"embeddings.{name}"] + positions[index]
    source = tuple(size // patch for size, patch in zip(image_size, config.patch_size, strict=True))
    weights["embeddings.position_embeddings.weight"] = resize_positions(
        positions[config.count_class_tokens() :], source, config.position_grid
    )
    return weights


def load_vit(source: str | Path, kind: str, max_length: int = 1000, sampling_rate: int = 16000) -> Converted:
    """A vision transformer for spectrograms.

    Args:
        source: Folder or Hub id.
        kind: Model type of its config: "vit", "deit" or "dinov2".
        max_length: Frames that its positions are stretched over.
        sampling_rate: Rate of the sound that it is to hear, in Hz.

    Raises:
        ValueError: Weights that are missing or damaged, or layers that have no counterpart here.
    """
    if max_length < 1:
        raise ValueError(f"--max_length {max_length} must be at least 1 frame")
    model_class, num_class_tokens, options = VISION_MODELS[kind]
    vision, _ = load_pretrained(model_class, source, **options)
    config = build_config(vision.config, num_class_tokens, max_length)
    config.sampling_rate = sampling_rate
    model = FFTPModel(config).to(vision.dtype)
    fill(model, convert_state_dict(vision.state_dict(), config, pair(vision.config.image_size)), kind)
    return Converted(
        model.eval(),
        FFTPFeatureExtractor(sampling_rate=sampling_rate, max_length=config.max_length),
        knows_sound=False,
    )
