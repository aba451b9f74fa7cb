"""What gloo's threads, and FSDP's weights, need of a process of several."""

import atexit
import os
import time
from functools import cache

from torch import distributed, nn

# Seconds, long enough for a thread that waits for the interpreter; the end comes once, on a busy machine too.
BEFORE_FORK, BEFORE_END = 0.005, 0.5


def let_exchanges_end() -> None:
    """From now on let gloo's threads drop what an exchange left to them before workers are forked, and at the end.

    A tensor that Python made is dropped under the interpreter's lock, after the exchange that it was part of. A thread
    that asks for the lock during the shutdown aborts the process (https://github.com/pytorch/pytorch/issues/190489):
    the work is done and saved, but the launcher reports a failure. Destroying the group is no way out: a DDP model
    that frees it holds the lock, and each waits for the other for ever. While Python 3.11 forks, a thread that asks
    for the lock may leave the child a mutex that nobody unlocks, so that a worker of a loader hangs.
    """
    if distributed.is_available() and distributed.is_initialized():
        _release_lock()


def reshard(model: nn.Module) -> None:
    """Let FSDP drop whole weights that a forward pass left: what is changed in them would be lost."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    # A torch that was built without processes cannot import it.
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@cache
def _release_lock() -> None:
    """Once in a process; sleeping releases the lock, which is all that the threads wait for."""
    atexit.register(time.sleep, BEFORE_END)
    # Windows forks nothing.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lambda: time.sleep(BEFORE_FORK))
