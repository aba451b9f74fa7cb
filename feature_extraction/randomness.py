"""Random numbers on the CPU, so that a seed means the same on every device, and a generator for every batch."""

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import distributed
from torch.utils.data import get_worker_info


def uniform(
    shape: Sequence[int],
    generator: torch.Generator | None,
    low: float = 0.0,
    high: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Numbers uniform in [low, high)."""
    return torch.rand(shape, generator=generator, dtype=dtype, device="cpu").mul_(high - low).add_(low)


def integers(shape: Sequence[int], generator: torch.Generator | None, low: int, high: int) -> torch.Tensor:
    """Whole numbers uniform in [low, high)."""
    return torch.randint(low, high, shape, generator=generator, device="cpu")


def batch_seeds(source: torch.Generator | None, process: int | None = None) -> tuple[int, int, int]:
    """Three seeds for one batch that no other batch shares, in whatever epoch, loader worker or process.

    They come from one number of `source`, the process, and the loader worker with its epoch. So later batches do not
    depend on how much this one draws, and processes that hold one seed draw apart.

    Args:
        source: None is torch's default generator, which a `DataLoader` seeds in each worker and epoch, and which
            Trainer saves in its checkpoints.
        process: See `process_index`.
    """
    worker = get_worker_info()
    entropy = [int(integers((), source, 0, 2**63 - 1)), process_index(process), 0 if worker is None else worker.seed]
    first, second, third = (np.random.SeedSequence(entropy).generate_state(3, np.uint64) >> np.uint64(1)).tolist()
    return first, second, third


def seeded(seed: int) -> torch.Generator:
    """A new generator on the CPU."""
    return torch.Generator(device="cpu").manual_seed(seed)


def process_index(known: int | None = None) -> int:
    """Which of several processes that train together this is, or serves.

    Args:
        known: What a process that began this one was; None is the first.
    """
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    # Loader workers inherit the environment, but not always the process group.
    return int(os.environ.get("RANK", known or 0))
