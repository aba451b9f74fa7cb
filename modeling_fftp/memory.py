"""The C library's memory, as training and large batches want it."""

import ctypes

# Options of glibc's `mallopt`, from its malloc.h, and their values in bytes: the largest that it takes on 64 bits, and
# as good as never.
M_TRIM_THRESHOLD, NEVER = -1, 2**31 - 1
M_MMAP_THRESHOLD, LARGEST = -3, 2**25


def keep_freed_memory() -> None:
    """Let the process keep the memory of freed tensors for the next ones.

    glibc gives it back to the system, which clears every page anew when the next training step or batch allocates the
    same tensors as the one before. Tensors above 32 MiB are still given back. Without glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST)
    mallopt(M_TRIM_THRESHOLD, NEVER)


def give_back_freed_memory() -> None:
    """Give what is kept back to the system now; without glibc nothing happens."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, TypeError, AttributeError):
        return
