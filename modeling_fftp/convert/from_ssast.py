"""Turn a checkpoint of SSAST, the self-supervised AST, into an FFTP model that computes the same.

Source: Gong et al. 2022; reads the parameter names of github.com/YuanGongND/ssast, of pretraining and of fine-tuning.
"""

import re
from pathlib import Path

import torch

from modeling_fftp import FFTPConfig, FFTPForAudioClassification, FFTPModel
from modeling_fftp.configuration_fftp import MULTI_LABEL

from .audioset import MEAN, NUM_MEL_BINS, STD, build_feature_extractor, describe_head
from .checkpoint import count_layers, find_strides, read_checkpoint
from .converted import Converted, fill

HEAD_WIDTH = 64
LAYER_NORM_EPS = 1e-6
NEEDED = ("v.cls_token", "v.dist_token", "v.pos_embed", "v.patch_embed.proj.weight", "v.norm.weight")
# What only pretraining needs, and the head of the vision model that the authors start from.
UNUSED = ("mask_embed", "cpredlayer.", "gpredlayer.", "p_input_fdim", "p_input_tdim", "v.head", "unfold.")
RENAMED = (
    (r"^v\.cls_token", "embeddings.cls_token"),
    (r"^v\.dist_token", "embeddings.distillation_token"),
    (r"^v\.patch_embed\.proj", "embeddings.patch_embeddings.projection"),
    (r"^v\.norm\.", "layernorm."),
    (r"^v\.blocks\.", "layers."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
)
HEAD = {"mlp_head.0.": "classifier.layernorm.", "mlp_head.1.": "classifier.dense."}


def build_config(
    weights: dict[str, torch.Tensor], strides: tuple[int, int] | None, pooling: str, **fields
) -> FFTPConfig:
    """The configuration that the shapes of the weights imply; strides are those of the patches unless given."""
    patch_size = tuple(weights["v.patch_embed.proj.weight"].shape[-2:])
    # Pretraining keeps the size of its input, so a length that differs means other strides.
    known = int(weights["p_input_tdim"]) if "p_input_tdim" in weights else None
    num_patches = weights["v.pos_embed"].shape[1] - 2
    strides, max_length = find_strides(num_patches, patch_size, strides, NUM_MEL_BINS, known)
    hidden_size = weights["v.cls_token"].shape[-1]
    return FFTPConfig(
        num_mel_bins=NUM_MEL_BINS,
        max_length=max_length,
        patch_size=patch_size,
        frequency_stride=strides[0],
        time_stride=strides[1],
        hidden_size=hidden_size,
        num_hidden_layers=count_layers(weights, "v.blocks."),
        num_attention_heads=hidden_size // HEAD_WIDTH,
        intermediate_size=weights["v.blocks.0.mlp.fc1.weight"].shape[0],
        layer_norm_eps=LAYER_NORM_EPS,
        pooling=pooling,
        num_class_tokens=2,
        **fields,
    )


def convert_state_dict(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of the base model by their names here; a name that is not known stays as it is."""
    converted = {}
    for name, tensor in weights.items():
        if name.startswith((*UNUSED, *HEAD)):
            continue
        for old, new in RENAMED:
            name = re.sub(old, new, name)
        if ".attn.qkv." in name:
            parts = ("q_proj", "k_proj", "v_proj")
            for part, third in zip(parts, tensor.chunk(3), strict=True):
                converted[name.replace(".attn.qkv.", f".attention.{part}.")] = third
        else:
            converted[name] = tensor
    positions = converted.pop("v.pos_embed")[0]
    converted["embeddings.cls_token"] = converted["embeddings.cls_token"] + positions[0]
    converted["embeddings.distillation_token"] = converted["embeddings.distillation_token"] + positions[1]
    converted["embeddings.position_embeddings.weight"] = positions[2:]
    return converted


def convert_model(
    weights: dict[str, torch.Tensor], strides: tuple[int, int] | None = None, pooling: str = "mean", **fields
) -> FFTPModel | FFTPForAudioClassification:
    """The FFTP model whose states, or logits where there is a head, equal those of an SSAST with these weights.

    Raises:
        ValueError: Weights that are missing, or of another model.
    """
    missing = [name for name in (*NEEDED, "v.blocks.0.mlp.fc1.weight") if name not in weights]
    if missing:
        raise ValueError(f"no SSAST checkpoint: it lacks {missing[0]}")
    head = {
        new + name.removeprefix(old): weights[name]
        for old, new in HEAD.items()
        for name in weights
        if name.startswith(old)
    }
    if head:
        fields = {"num_labels": head["classifier.dense.weight"].shape[0]} | fields
    base = convert_state_dict(weights)
    config = build_config(weights, strides, pooling, **fields)
    model = FFTPForAudioClassification(config) if head else FFTPModel(config)
    converted = {f"fftp.{name}": tensor for name, tensor in base.items()} | head if head else base
    fill(model, converted, "SSAST")
    return model.eval()


def load_ssast(
    checkpoint: str | Path,
    strides: tuple[int, int] | None = None,
    labels: Path | None = None,
    problem_type: str = MULTI_LABEL,
    pooling: str | None = None,
    mean: float = MEAN,
    std: float = STD,
) -> Converted:
    """An SSAST checkpoint.

    Args:
        checkpoint: File of the authors' training.
        strides: Mel bins and frames between patches; default: the patch size.
        labels: CSV with the columns index and display_name.
        problem_type: Problem type of a fine-tuned checkpoint; the default is that of AudioSet.
        pooling: "mean" over the patches or "cls" over the two class tokens, as it was fine-tuned; the authors' AST has
            "cls".
        mean: Mean of the training audio.
        std: Standard deviation of the training audio.

    Raises:
        ValueError: The file is no SSAST checkpoint, or its positions do not fit the strides; or it is fine-tuned, and
            nothing says how it pools.
    """
    weights = read_checkpoint(checkpoint)
    head = weights.get("mlp_head.1.weight")
    if head is None and labels is not None:
        raise ValueError(f"--labels {labels} names classes, but {checkpoint} has no head")
    fields = {} if head is None else describe_head(problem_type, labels, head.shape[0])
    if head is not None and pooling is None:
        raise ValueError(
            f"{checkpoint} is fine-tuned, and does not say how it pools: `fftp convert --pooling` takes mean (SSAST's "
            "default) or cls (the AST of the same authors, whose files look alike)"
        )
    model = convert_model(weights, strides, pooling or "mean", **fields)
    return Converted(model, build_feature_extractor(model.config.max_length, mean, std))
