"""Checkpoint files of other packages: weights by name."""

from pathlib import Path
from pickle import UnpicklingError
from zipfile import BadZipFile, is_zipfile

import torch
from transformers.utils import logging

from modeling_fftp.pretrained import refuse_damaged

logger = logging.get_logger(__name__)

# Where training scripts put the weights among other things.
NESTED = ("model", "state_dict")


def read_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """Weights by name, without the prefix of data-parallel training; no code in the file is run.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else, or values that are not finite.
    """
    weights = map_checkpoint(path)
    refuse_damaged(weights, str(path))
    return weights


def map_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """The same without a look at the values, which stay on the disk where its format allows that.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except (UnpicklingError, BadZipFile, KeyError, EOFError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{path} is not a checkpoint with weights by name") from error
    for name in NESTED:
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(name), dict):
            checkpoint = checkpoint[name]
    is_by_name = isinstance(checkpoint, dict) and all(isinstance(name, str) for name in checkpoint)
    if not is_by_name or not all(isinstance(value, torch.Tensor) for value in checkpoint.values()):
        raise ValueError(f"{path} is not a checkpoint with weights by name")
    return {name.removeprefix("module."): tensor for name, tensor in checkpoint.items()}


def count_layers(weights: dict[str, torch.Tensor], prefix: str) -> int:
    """Number of blocks whose weights are called `prefix` and their index."""
    return 1 + max(
        (int(name.removeprefix(prefix).split(".")[0]) for name in weights if name.startswith(prefix)), default=-1
    )


def find_strides(
    num_patches: int,
    patch_size: tuple[int, int],
    strides: tuple[int, int] | None,
    num_mel_bins: int,
    num_frames: int | None = None,
) -> tuple[tuple[int, int], int]:
    """The strides of a checkpoint, which does not hold them, and the frames that its patches cover.

    Args:
        num_patches: Patches of its position table.
        patch_size: Mel bins and frames.
        strides: Mel bins and frames between patches; None takes the patches to lie side by side, and says so.
        num_mel_bins: Height of its spectrograms.
        num_frames: Length of its spectrograms, where it is known.

    Raises:
        ValueError: So many patches do not fit these strides.
    """
    used = strides or patch_size
    if min(used) < 1:
        raise ValueError(f"--strides {used[0]} {used[1]} must be at least 1")
    rows = (num_mel_bins - patch_size[0]) // used[0] + 1
    if num_patches % rows:
        raise ValueError(
            f"{num_patches} positions do not form {rows} rows of patches; pass the strides of the model (--strides)"
        )
    covered = (num_patches // rows - 1) * used[1] + patch_size[1]
    if num_frames is not None and not covered <= num_frames < covered + used[1]:
        raise ValueError(
            f"{num_patches} positions at strides of {used[0]} x {used[1]} cover {covered} frames, its spectrograms "
            f"have {num_frames}; pass the strides of the model (--strides)"
        )
    if strides is None and num_frames is None:
        logger.warning(
            f"Nothing says how far apart its patches lie: taken to lie side by side, {rows} x {num_patches // rows} "
            f"patches over {covered} frames. --strides says otherwise"
        )
    return used, covered
