"""Where the cases of `gpu.py` run, how large they are, and how they take the time there."""

import gc
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.timing import time_in_turn


@dataclass
class Setting:
    """Where and how large.

    Args:
        device: To measure on.
        is_tiny: Whether everything is as small as it can be, for a rehearsal.
        data: Folder of the data sets.
    """

    device: torch.device
    is_tiny: bool = False
    data: Path | None = None

    @property
    def name(self) -> str:
        """Of the device."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"

    def synchronize(self) -> None:
        """Wait until the device has done what it was told to."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def clear(self) -> None:
        """Let go of what earlier cases built and compiled."""
        torch.compiler.reset()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def milliseconds(self, calls: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Median time of each call, all in turn, until the device has done it."""

        def build_whole(call: Callable[[], object]) -> Callable[[], None]:
            def whole() -> None:
                call()
                self.synchronize()

            return whole

        seconds = 0.0 if self.is_tiny else 5.0 * len(calls)
        times = time_in_turn({name: build_whole(call) for name, call in calls.items()}, seconds)
        return {name: 1000 * statistics.median(taken) for name, taken in times.items()}

    def peak_gib(self, call: Callable[[], object]) -> float | None:
        """Memory that the device holds at the peak of a call, weights included; None on a CPU."""
        if self.device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats(self.device)
        call()
        self.synchronize()
        return torch.cuda.max_memory_allocated(self.device) / 2**30


def make_scan_inputs(
    device: torch.device, batch: int, dim: int, length: int, state: int, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Inputs of a selective scan: sequences of a dtype, and what has no time in float32."""
    generator = torch.Generator().manual_seed(length)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    inputs = {
        "u": draw(batch, dim, length), "delta": draw(batch, dim, length), "A": -4 * draw(dim, state).abs() - 0.1,
        "B": draw(batch, state, length), "C": draw(batch, state, length), "D": draw(dim),
        "z": draw(batch, dim, length), "delta_bias": draw(dim),
    }  # fmt: skip
    return {name: value.to(device, dtype if value.ndim == 3 else None) for name, value in inputs.items()}
