"""Turn a published Audio Mamba (AuM) checkpoint into an FFTP model that computes the same.

fftp convert CHECKPOINT.pth OUTPUT_FOLDER

Reads the parameter names of github.com/kaistmm/Audio-Mamba-AuM.
"""

import csv
import re
from pathlib import Path
from pickle import UnpicklingError

import torch

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPForAudioClassification

from .save_folder import save_folder

NUM_MEL_BINS = 128
# `norm_epsilon` of the authors' models, which the checkpoint does not hold.
NORM_EPSILON = 1e-5
AUDIOSET_MEAN, AUDIOSET_STD = -4.2677393, 4.5689974

# Parameters of a mixer that belong to a state space, and whether to that of the reverse direction ("_b").
STATE_SPACE = re.compile(r"mixer\.(conv1d|x_proj|dt_proj|A_log|A|D)(_b_log|_b)?(?=\.|$)")


def read_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """Weights by name, without the prefix of data-parallel training."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint = checkpoint.get("model", checkpoint)
    except (UnpicklingError, KeyError, EOFError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{path} is no checkpoint with weights by name") from error
    weights = {name.removeprefix("module."): tensor for name, tensor in checkpoint.items()}
    missing = {"cls_token", "pos_embed.pos_embed", "patch_embed.proj.weight", "head.weight"} - set(weights)
    if missing:
        raise ValueError(f"{path} is no AuM checkpoint with one class token: it lacks {sorted(missing)}")
    return weights


def find_variant(weights: dict[str, torch.Tensor]) -> str:
    """The variant that a set of parameters belongs to."""
    if "layers.0.mixer.conv1d_b.weight" in weights:
        return "bi-bi"
    return "fo-bi" if "layers.0.mixer.A_b_log" in weights else "fo-fo"


def build_config(weights: dict[str, torch.Tensor], strides: tuple[int, int] | None, **fields) -> FFTPConfig:
    """The configuration that the shapes of the weights imply; strides are those of the patches unless given."""
    patch_size = tuple(weights["patch_embed.proj.weight"].shape[-2:])
    frequency_stride, time_stride = strides or patch_size
    hidden_size = weights["cls_token"].shape[-1]
    inner_size, state_size = weights["layers.0.mixer.A_log"].shape
    rows = (NUM_MEL_BINS - patch_size[0]) // frequency_stride + 1
    num_patches = weights["pos_embed.pos_embed"].shape[1] - 1
    if num_patches % rows:
        raise ValueError(
            f"{num_patches} positions do not form {rows} rows of patches; pass the strides of the model (--strides)"
        )
    return FFTPConfig(
        backbone="mamba",
        mamba_variant=find_variant(weights),
        num_mel_bins=NUM_MEL_BINS,
        max_length=(num_patches // rows - 1) * time_stride + patch_size[1],
        patch_size=patch_size,
        frequency_stride=frequency_stride,
        time_stride=time_stride,
        hidden_size=hidden_size,
        num_hidden_layers=1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers.")),
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
        RuntimeError: Parameters that have no place here, such as those of rotary positions.
    """
    num_labels = weights["head.weight"].shape[0]
    config = build_config(weights, strides, **({"num_labels": num_labels} | fields))
    weights = dict(weights)
    # The first position is that of the class token, wherever the token stands.
    positions = weights.pop("pos_embed.pos_embed")[0]
    weights["cls_token"] = weights["cls_token"] + positions[0]
    converted = {convert_name(name, config.mamba_variant): tensor for name, tensor in weights.items()}
    converted["fftp.embeddings.position_embeddings.weight"] = positions[1:]
    model = FFTPForAudioClassification(config)
    model.load_state_dict(converted)
    return model.eval()


def build_feature_extractor(max_length: int, mean: float, std: float) -> FFTPFeatureExtractor:
    """What AuM's data loader does: zeros are padded before normalisation, and nothing is masked."""
    return FFTPFeatureExtractor(
        num_mel_bins=NUM_MEL_BINS,
        max_length=max_length,
        mean=mean,
        std=std,
        padding="max_length",
        truncation=True,
        padding_value=-mean / (2 * std),
        return_attention_mask=False,
    )


def read_labels(path: Path) -> dict[str, dict]:
    """`id2label` and `label2id` from a CSV with the columns index and display_name, as AudioSet has it."""
    with path.open(newline="", encoding="utf-8") as file:
        names = {int(row["index"]): row["display_name"] for row in csv.DictReader(file)}
    return {"id2label": names, "label2id": {name: index for index, name in names.items()}}


def convert(
    checkpoint: str | Path,
    output_folder: str | Path,
    strides: tuple[int, int] | None = None,
    labels: Path | None = None,
    problem_type: str = "multi_label_classification",
    mean: float = AUDIOSET_MEAN,
    std: float = AUDIOSET_STD,
) -> None:
    """Convert a checkpoint into a folder, which appears only when it is complete.

    Args:
        checkpoint: File of the authors' training.
        output_folder: Folder to create.
        strides: Mel bins and frames between patches; default: the patch size.
        labels: CSV with the columns index and display_name.
        problem_type: The default is that of AudioSet.
        mean: Of the training audio.
        std: Of the training audio.

    Raises:
        FileExistsError: `output_folder` exists and is not empty.
        ValueError: The file is no AuM checkpoint, or its positions do not fit the strides.
    """
    fields = {"problem_type": problem_type} | (read_labels(labels) if labels else {})
    with save_folder(output_folder) as folder:
        model = convert_model(read_checkpoint(checkpoint), strides, **fields)
        model.save_pretrained(folder)
        build_feature_extractor(model.config.max_length, mean, std).save_pretrained(folder)
