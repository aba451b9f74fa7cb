"""Clips that stand for all: some, spread evenly over a split."""

from collections.abc import Iterator

import numpy as np
from datasets import Dataset


def spread(length: int, most: int | None) -> list[int]:
    """At most so many places, evenly over a length."""
    count = length if most is None else min(length, most)
    return np.linspace(0, length - 1, count).round().astype(int).tolist()


def spread_sounds(clips: Dataset, most: int | None = None) -> Iterator[np.ndarray]:
    """Waveforms (samples,) of all clips, or of so many of them."""
    for index in spread(len(clips), most):
        yield clips[index]["audio"]
