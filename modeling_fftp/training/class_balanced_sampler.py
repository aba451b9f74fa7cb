"""Clips of rare classes, drawn more often."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import Sampler


class ClassBalancedSampler(Sampler[int]):
    """Draws clips with replacement, those of rare classes more often (AST's recipe for the full AudioSet).

    The weight of a clip is the sum over its classes of 1 / (clips of that class). Every process draws the same clips;
    accelerate deals them out.

    Args:
        labels: Class indices, (clips,), or vectors of 0 and 1, (clips, classes).
        seed: Decides the clips of each epoch, together with its number.

    Raises:
        ValueError: A clip without a class, which could never be drawn.
    """

    def __init__(self, labels: torch.Tensor, seed: int = 0):
        if labels.ndim == 1 and (labels < 0).any():
            raise ValueError(f"{int((labels < 0).sum())} of {len(labels)} clips have no class, but labels below 0")
        targets = nn.functional.one_hot(labels) if labels.ndim == 1 else labels
        targets = targets.double()
        self.weights = (targets / targets.sum(dim=0).clamp(min=1)).sum(dim=1)
        if not self.weights.all():
            raise ValueError(f"{int((self.weights == 0).sum())} of {len(labels)} clips have no class")
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[int]:
        seed = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64).item()
        generator = torch.Generator().manual_seed(seed % 2**63)
        return iter(torch.multinomial(self.weights, len(self), replacement=True, generator=generator).tolist())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose clips the next iteration gives."""
        self.epoch = epoch


def labels_of(clips: Dataset | Sequence[dict[str, Any]]) -> Sequence:
    """Labels of all clips."""
    # A transform, which may make the labels, would make features of all clips at once.
    if isinstance(clips, Dataset) and clips.format["type"] != "custom":
        return clips["labels" if "labels" in clips.column_names else "label"][:]
    return [clip["labels"] if "labels" in clip else clip["label"] for clip in each_of(clips)]


def each_of(clips: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """All clips in order, as many as `len` says: Python goes on beyond that where a data set has no `__iter__`."""
    return iter(clips) if hasattr(clips, "__iter__") else map(clips.__getitem__, range(len(clips)))
