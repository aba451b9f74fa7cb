"""Turn a published Audio Mamba (AuM) checkpoint into an FFTP model that computes the same.

Reads the parameter names of github.com/kaistmm/Audio-Mamba-AuM.
"""

import re
from pathlib import Path

import torch

from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.configuration_fftp import MULTI_LABEL

from .audioset import MEAN, NUM_MEL_BINS, STD, build_feature_extractor, describe_head
from .checkpoint import count_layers, find_strides, read_checkpoint
from .converted import Converted, fill

# `norm_epsilon` of the authors' models, which the checkpoint does not hold.
NORM_EPSILON = 1e-5
NEEDED = (
    "cls_token", "pos_embed.pos_embed", "patch_embed.proj.weight", "head.weight", "layers.0.mixer.A_log",
    "layers.0.mixer.conv1d.weight", "layers.0.mixer.dt_proj.weight",
)  # fmt: skip

# Parameters of a mixer that belong to a state space, and whether to that of the reverse direction ("_b").
STATE_SPACE = re.compile(r"mixer\.(conv1d|x_proj|dt_proj|A_log|A|D)(_b_log|_b)?(?=\.|$)")


def refuse_other(weights: dict[str, torch.Tensor]) -> None:
    """Stop on what is no AuM checkpoint.

    Raises:
        ValueError: Names what is missing.
    """
    missing = [name for name in NEEDED if name not in weights]
    if missing:
        raise ValueError(f"no AuM checkpoint with one class token: it lacks {missing}")


def find_variant(weights: dict[str, torch.Tensor]) -> str:
    """The variant that a set of parameters belongs to."""
    if "layers.0.mixer.conv1d_b.weight" in weights:
        return "bi-bi"
    return "fo-bi" if "layers.0.mixer.A_b_log" in weights else "fo-fo"


def build_config(weights: dict[str, torch.Tensor], strides: tuple[int, int] | None, **fields) -> FFTPConfig:
    """The configuration that the shapes of the weights imply; strides are those of the patches unless given."""
    patch_size = tuple(weights["patch_embed.proj.weight"].shape[-2:])
    hidden_size = weights["cls_token"].shape[-1]
    inner_size, state_size = weights["layers.0.mixer.A_log"].shape
    num_patches = weights["pos_embed.pos_embed"].shape[1] - 1
    strides, max_length = find_strides(num_patches, patch_size, strides, NUM_MEL_BINS)
    return FFTPConfig(
        backbone="mamba",
        mamba_variant=find_variant(weights),
        num_mel_bins=NUM_MEL_BINS,
        max_length=max_length,
        patch_size=patch_size,
        frequency_stride=strides[0],
        time_stride=strides[1],
        hidden_size=hidden_size,
        num_hidden_layers=count_layers(weights, "layers."),
        state_size=state_size,
        expand=inner_size // hidden_size,
        conv_kernel=weights["layers.0.mixer.conv1d.weight"].shape[-1],
        time_step_rank=weights["layers.0.mixer.dt_proj.weight"].shape[1],
        layer_norm_eps=NORM_EPSILON,
        **fields,
    )


def convert_name(name: str, variant: str) -> str:
    """Name of an AuM parameter here."""

    def in_state_space(match: re.Match) -> str:
        kind, suffix = match.groups()
        if kind == "A":
            return "mixer.state_space.A_log_reverse" if variant == "fo-bi" else "mixer.state_space_reverse.A_log"
        return f"mixer.state_space{'_reverse' if suffix else ''}.{kind}"

    if name.startswith("layers."):
        return f"fftp.{STATE_SPACE.sub(in_state_space, name)}"
    for old, new in (
        ("patch_embed.proj", "fftp.embeddings.patch_embeddings.projection"),
        ("norm_f", "fftp.layernorm"),
        ("head", "classifier.dense"),
        ("cls_token", "fftp.embeddings.cls_token"),
    ):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def convert_model(
    weights: dict[str, torch.Tensor], strides: tuple[int, int] | None = None, **fields
) -> FFTPForAudioClassification:
    """The FFTP model whose logits equal those of an AuM model with these weights.

    Raises:
        ValueError: Parameters that are missing, or have no place here, such as those of rotary positions.
    """
    refuse_other(weights)
    num_labels = weights["head.weight"].shape[0]
    config = build_config(weights, strides, **({"num_labels": num_labels} | fields))
    weights = dict(weights)
    # The first position is that of the class token, wherever the token stands.
    positions = weights.pop("pos_embed.pos_embed")[0]
    weights["cls_token"] = weights["cls_token"] + positions[0]
    converted = {convert_name(name, config.mamba_variant): tensor for name, tensor in weights.items()}
    converted["fftp.embeddings.position_embeddings.weight"] = positions[1:]
    model = FFTPForAudioClassification(config)
    fill(model, converted, "AuM")
    return model.eval()


def load_aum(
    checkpoint: str | Path,
    strides: tuple[int, int] | None = None,
    labels: Path | None = None,
    problem_type: str = MULTI_LABEL,
    mean: float = MEAN,
    std: float = STD,
) -> Converted:
    """An AuM checkpoint.

    Args:
        checkpoint: File of the authors' training.
        strides: Mel bins and frames between patches; default: the patch size.
        labels: CSV with the columns index and display_name.
        problem_type: The default is that of AudioSet.
        mean: Mean of the training audio.
        std: Standard deviation of the training audio.

    Raises:
        ValueError: The file is no AuM checkpoint, or its positions do not fit the strides.
    """
    weights = read_checkpoint(checkpoint)
    refuse_other(weights)
    fields = describe_head(problem_type, labels, weights["head.weight"].shape[0])
    model = convert_model(weights, strides, **fields)
    return Converted(model, build_feature_extractor(model.config.max_length, mean, std))
