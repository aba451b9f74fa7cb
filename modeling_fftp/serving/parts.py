"""How several processes share the recordings of an archive."""

import os
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A share of an archive.

    Args:
        index: Which, counted from 0.
        count: Number of shares.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read "3/16", counted from 1.

        Raises:
            ValueError: The text is no shard.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ValueError(f"--shard {text}: expected a number and how many there are, such as 3/16")
        return cls(int(index) - 1, int(count))

    def split(self, other: "Part") -> "Part":
        """A share of this share."""
        return Part(self.index * other.count + other.index, self.count * other.count)

    def of_process(self) -> "Part":
        """The share of this process, of those that torchrun or accelerate began.

        Raises:
            ValueError: The environment says half of which process this is, or what cannot be.
        """
        rank, size = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
        if not rank and not size:
            return self
        if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
            raise ValueError(
                f"RANK={rank!r} and WORLD_SIZE={size!r} in the environment name no process of several; unset them, or "
                "start by `accelerate launch`"
            )
        return self.split(Part(int(rank), int(size)))

    def of(self, recordings: Sequence[str]) -> list[str]:
        """Every `count`-th recording."""
        return [*recordings[self.index :: self.count]]


# All of an archive.
WHOLE = Part()
