"""Side-by-side measurements: whatever else the machine does falls on all that is compared."""

import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)
ROUNDS = (3, 15)
# Threads of torch and of onnxruntime wait for more work for a while, on the processor that the next call needs.
PAUSE_SECONDS = 0.02


def time_in_turn(calls: dict[Name, Callable[[], object]], seconds: float) -> dict[Name, list[float]]:
    """Run calls in turn, round after round, and take the time of each.

    Args:
        calls: What to time, by name; each runs once before, to warm up.
        seconds: As many rounds are made as fit into this time, but 3 at least and 15 at most.

    Returns:
        Seconds of every round, by name; as many for each.
    """
    started = time.perf_counter()
    for call in calls.values():
        call()
    rounds = int(seconds / (time.perf_counter() - started))
    times = {name: [] for name in calls}
    for _ in range(max(ROUNDS[0], min(ROUNDS[1], rounds))):
        for name, call in calls.items():
            time.sleep(PAUSE_SECONDS)
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return times


def summarise(seconds: list[float]) -> dict[str, float | int]:
    """Median, first and third quartile in milliseconds, and how many there were."""
    low, median, high = (1000 * value for value in statistics.quantiles(seconds, n=4, method="inclusive"))
    return {"median_ms": median, "low_ms": low, "high_ms": high, "rounds": len(seconds)}


def peak_memory(build: Callable[..., Callable[[], object]], *arguments: object) -> float:
    """Memory that a process needs at the peak of a call, the second one, beyond what it held before building it.

    Linux only. So weights, input and, after a first training step, the optimizer's state are in it.

    Args:
        build: A function of a module, which returns the call; it runs in a process of its own.
        arguments: Of `build`.

    Returns:
        MiB.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_of_call, (build, arguments))


def _peak_of_call(build: Callable[..., Callable[[], object]], arguments: tuple) -> float:
    before = _memory("VmRSS")
    call = build(*arguments)
    call()
    # Forget the peak so far.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    call()
    return _memory("VmHWM") - before


def _memory(field: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"{field}:\s*(\d+) kB", status)[1]) / 1024
