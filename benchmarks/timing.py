"""Side-by-side measurements: whatever else the machine does falls on all that is compared."""

import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")
ROUNDS = (3, 15)
# A turn starts with calls that are not timed: the threads of other libraries wait for more work for a while, on the
# processors that this call needs, and its weights are not in the cache. Slow calls do not notice.
WARM_UP_SECONDS = 0.1
SLOW_SECONDS = 1.0


def time_in_turn(calls: dict[Name, Callable[[], object]], seconds: float) -> dict[Name, list[float]]:
    """Run calls in turn, round after round, and take the time of each.

    Args:
        calls: What to time, by name; each runs twice before all turns, since the first may compile, and fast ones for
            a moment before every turn.
        seconds: As many rounds are made as fit into this time, but 3 at least and 15 at most.

    Returns:
        Seconds of every round, by name; as many for each.
    """
    for call in calls.values():
        call()
    expected = {name: time_call(call) for name, call in calls.items()}
    rounds = int(seconds / sum(expected.values()))
    times = {name: [] for name in calls}
    for _ in range(max(ROUNDS[0], min(ROUNDS[1], rounds))):
        for name, call in calls.items():
            spent = 0.0
            while expected[name] < SLOW_SECONDS and spent < WARM_UP_SECONDS:
                spent += time_call(call)
            times[name].append(time_call(call))
    return times


def time_call(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


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
    return in_new_process(_peak_of_call, build, arguments)


def in_new_process(function: Callable[..., Result], *arguments: object) -> Result:
    """What the function of a module returns in a process of its own.

    Raises:
        BrokenProcessPool: The process was killed.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _peak_of_call(build: Callable[..., Callable[[], object]], arguments: tuple) -> float:
    before = process_memory("VmRSS")
    call = build(*arguments)
    call()
    # Forget the peak so far.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    call()
    return process_memory("VmHWM") - before


def process_memory(field: str) -> float:
    """Memory of this process in MiB: "VmRSS" now, or "VmHWM" at its peak. Linux only."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"{field}:\s*(\d+) kB", status)[1]) / 1024


class Stopwatch:
    """Milliseconds by part of something that is done again and again."""

    def __init__(self):
        self.milliseconds: dict[str, list[float]] = {}
        self.started = time.perf_counter()

    def start(self) -> None:
        """What was done since the last part belongs to none."""
        self.started = time.perf_counter()

    def take(self, part: str) -> None:
        """What was done since the last part belongs to this one."""
        self.milliseconds.setdefault(part, []).append(1000 * (time.perf_counter() - self.started))
        self.start()
