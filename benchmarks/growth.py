"""How time and memory of a forward pass grow with the length of the clip and with the batch, for both backbones.

    python -m benchmarks.growth                 # base size, clips of 1 s to 10 minutes

An exponent of 1 is linear growth. Those of neighbouring measurements differ: a short clip costs what reading the
weights costs, a long one what attention costs.
"""

import argparse

import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from benchmarks.efficiency import SIZES, forward
from benchmarks.report import describe_machine, name_machine, render_table, run_benchmark
from benchmarks.timing import peak_memory, summarise, time_in_turn

MODELS = ("FFTP-AST, stride 5", "FFTP-AuM, stride 5")
CLIP_SECONDS = (1, 3, 10, 30, 100, 300, 600)
BATCHES = (1, 2, 4, 8, 16, 32)
BATCH_SECONDS = 10
AXES = {"seconds": "clip (s), one at a time", "batch": f"clips of {BATCH_SECONDS} s in a batch"}
UNITS = {"median_ms": "time (ms)", "mib": "memory (MiB)"}


def measure(size: str, seconds_per_group: float) -> list[dict]:
    """Time and memory of each model at each length and each batch."""
    records = []
    points = [("seconds", seconds, 1) for seconds in CLIP_SECONDS]
    points += [("batch", BATCH_SECONDS, batch) for batch in BATCHES]
    for axis, seconds, batch in points:
        times = time_in_turn({name: forward(name, size, seconds, batch) for name in MODELS}, seconds_per_group)
        for name in MODELS:
            record = {"axis": axis, "model": name, "seconds": seconds, "batch": batch, **summarise(times[name])}
            records.append(record | {"mib": peak_memory(forward, name, size, seconds, batch)})
    return records


def series(records: list[dict], axis: str, model: str, quantity: str) -> tuple[list[float], list[float]]:
    """Lengths or batches, and what was measured there."""
    chosen = [record for record in records if (record["axis"], record["model"]) == (axis, model)]
    return [record[axis] for record in chosen], [record[quantity] for record in chosen]


def exponents(sizes: list[float], values: list[float]) -> tuple[float, float]:
    """Slopes of the logarithms over the lower and the upper half of the sizes, which share the middle one."""
    half = len(sizes) // 2
    logs = np.log(sizes), np.log(np.maximum(values, 1e-9))
    return tuple(
        float(np.polyfit(logs[0][part], logs[1][part], 1)[0]) for part in (slice(half + 1), slice(half, None))
    )


def render(results: dict) -> str:
    """Markdown."""
    rows = []
    for axis, over in AXES.items():
        for model in MODELS:
            for quantity, unit in UNITS.items():
                sizes, values = series(results["records"], axis, model, quantity)
                half = len(sizes) // 2
                low, high = exponents(sizes, values)
                ends = f"{low:.2f} ({sizes[0]} to {sizes[half]})", f"{high:.2f} ({sizes[half]} to {sizes[-1]})"
                rows.append([model, over, unit, f"{values[0]:.0f} to {values[-1]:.0f}", *ends])
    header = ["model", "over", "what", "from, to", "exponent, lower half", "exponent, upper half"]
    return f"""# How cost grows

`python -m benchmarks.growth --size {results["size"]}` on {name_machine(results["machine"])}, float32: a forward pass,
medians; memory of the process at its peak, beyond that of the libraries. GPU: not measured.

{render_table(header, rows)}
![How cost grows](growth.png)
"""


def plot(results: dict) -> Figure:
    """Time and memory over length and batch."""
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for column, axis in enumerate(AXES):
        for row, (quantity, unit) in enumerate(UNITS.items()):
            for model in MODELS:
                sizes, values = series(results["records"], axis, model, quantity)
                axes[row, column].loglog(sizes, values, "o-", label=model)
            axes[row, column].set(xlabel=AXES[axis], ylabel=unit)
            axes[row, column].grid(alpha=0.3)
    axes[0, 0].legend()
    return figure


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", choices=SIZES)
    parser.add_argument("--seconds_per_group", type=float, default=20.0, help="3 to 15 rounds that fit into this")

    def measure_all(given: argparse.Namespace) -> dict:
        records = measure(given.size, given.seconds_per_group)
        return {"machine": describe_machine(), "size": given.size, "records": records}

    run_benchmark("growth", parser, measure_all, render, plot)


if __name__ == "__main__":
    main()
