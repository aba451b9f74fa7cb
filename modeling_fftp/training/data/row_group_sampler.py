"""An order of clips that reads every row group once, though clips are shuffled and several processes read."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class RowGroupSampler(Sampler[int]):
    """Deals row groups out to streams, and gives a batch of each stream in turn.

    A loader deals out batches in turn too, first to processes and then to its workers. So each worker reads one
    stream, and holds the row groups that it draws from. Every clip comes once an epoch.

    Args:
        groups: Places of the clips of each row group.
        batch_size: Clips of a batch.
        streams: Number of all processes times the workers of each.
        groups_in_memory: Row groups of a stream that are shuffled together.
        seed: Decides the order of each epoch, together with its number.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        batch_size: int,
        streams: int = 1,
        groups_in_memory: int = 1,
        seed: int = 0,
    ):
        self.groups = groups
        self.batch_size = batch_size
        self.streams = streams
        self.groups_in_memory = groups_in_memory
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return sum(map(len, self.groups))

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.groups))
        streams = [self._shuffle(order[first :: self.streams], generator) for first in range(self.streams)]
        batches, rest = [], []
        for stream in streams:
            whole = len(stream) // self.batch_size * self.batch_size
            batches.append(iter(stream[:whole].reshape(-1, self.batch_size)))
            rest.append(stream[whole:])
        while batches:
            turn = [(stream, next(stream, None)) for stream in batches]
            for _, batch in turn:
                if batch is not None:
                    yield from batch.tolist()
            batches = [stream for stream, batch in turn if batch is not None]
        yield from np.concatenate(rest).tolist()

    def _shuffle(self, groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Places of some groups' clips, shuffled among as many groups as are in memory."""
        parts = [np.zeros(0, np.int64)]
        for start in range(0, len(groups), self.groups_in_memory):
            together = [np.asarray(self.groups[group]) for group in groups[start : start + self.groups_in_memory]]
            parts.append(generator.permutation(np.concatenate(together)))
        return np.concatenate(parts)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch
