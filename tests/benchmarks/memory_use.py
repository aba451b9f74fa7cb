"""What a process of its own runs in the tests; importing it costs nothing."""

from collections.abc import Callable

import numpy as np


def allocate(mebibytes: int) -> Callable[[], float]:
    """A call that needs this much memory while it runs."""
    return lambda: np.ones(mebibytes << 17).sum()
