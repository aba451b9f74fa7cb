"""The end of a process of several."""

import atexit
import time

from torch import distributed

# Long enough for a thread that waits for the interpreter, on a busy machine too.
MOMENT = 0.5


def end_in_order() -> None:
    """Let gloo's threads drop what the last exchange left to them before the interpreter shuts down.

    A tensor that Python made is dropped under the interpreter's lock. A thread that asks for the lock during the
    shutdown aborts the process (https://github.com/pytorch/pytorch/issues/190489): the work is done and saved, but the
    launcher reports a failure. Destroying the group is no way out: a DDP model that frees it holds the lock, and each
    waits for the other for ever.
    """
    if distributed.is_available() and distributed.is_initialized():
        # Sleeping releases the lock, which is all that the threads wait for.
        atexit.register(time.sleep, MOMENT)
