"""The report of the study: tables and plots made of the results files alone."""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from matplotlib import pyplot, ticker

from benchmarks.report import COLORS, RESULTS, look_of, render_table, save_figure, show, write_text
from benchmarks.study.claims import explain_claims, render_claims, runs_by_seed, seed_value, spread
from benchmarks.study.knee import describe_knee
from benchmarks.study.search import choose_rate
from benchmarks.study.step_times import build_config
from benchmarks.study.strides import plot_strides, render_strides
from modeling_fftp.hub.efficiency import multiply_adds

# Results by learning rate, by task and arm.
Searches = Mapping[tuple[str, str], Mapping[float, float]]

STRIDES = """Each of these models at each of the strides, whatever it was trained for: mean over the seeds. The time is
of one clip on one thread, median of one run in which all strides took turns; the last row is what one clip took in all
epochs, forward and backward, on one thread.
"""

STARTS = """## What starts and teachers cost

Minutes on one thread, beside another run on the second core, and not part of the training times above: the median, as
some were interrupted.
"""

SEARCHES = """## Learning rates that were tried

With one seed that is not reported above. A search begins with the two in the middle and goes on from the better one
until the result gets worse or the grid ends; the best, in bold, was taken.
"""


def write_report(
    name: str, grid: dict, results: list[dict], steps: list[dict], searches: Searches | None = None
) -> None:
    """Write `NAME.md` and one plot per study.

    Args:
        name: Of the grid.
        grid: What was asked.
        results: Of the runs that are reported.
        steps: Times of training steps.
        searches: Results of what helped to choose learning rates.
    """
    rows_by_study = [
        [summarise(grid, study, arm, results, steps) for arm in study["arms"]] for study in grid["studies"]
    ]
    for number, (study, rows) in enumerate(zip(grid["studies"], rows_by_study, strict=True), start=1):
        if any(row["values"] for row in rows):
            plot(rows, grid["tasks"][study["task"]]["metric"], RESULTS / f"{name}-{number}.png")
            if "eval_time_strides" in grid["defaults"]:
                plot_strides(grid, study, results, RESULTS / f"{name}-{number}-strides.png")
    text = render(name, grid, results, rows_by_study, searches or {}, steps)
    write_text(RESULTS / f"{name}.md", text)
    print(text)


def render(
    name: str,
    grid: dict,
    results: list[dict],
    rows_by_study: list[list[dict]],
    searches: Searches,
    steps: list[dict],
) -> str:
    """Markdown."""
    parts = ["\n".join(grid["header"]), f"## {grid['question']}\n{explain_claims(grid)}", render_claims(grid, results)]
    for number, (study, rows) in enumerate(zip(grid["studies"], rows_by_study, strict=True), start=1):
        task = grid["tasks"][study["task"]]
        parts.append(f"## {study['title']} ({task['data']}, {task['metric']})\n\n{render_arms(rows)}")
        if any(row["values"] for row in rows):
            parts.append(f"![{study['title']}]({name}-{number}.png)\n")
        if study.get("has_knee") and all(row["values"] for row in rows):
            by_stride = {grid["arms"][row["arm"]]["time_stride"]: row["values"] for row in rows}
            parts.append(describe_knee(by_stride))
        if "eval_time_strides" in grid["defaults"]:
            parts.append(f"{STRIDES}\n{render_strides(grid, study, results, steps)}")
            if any(row["values"] for row in rows):
                parts.append(f"![{study['title']} at each stride]({name}-{number}-strides.png)\n")
    if "starts" in grid:
        parts.append(f"{STARTS}\n{render_starts(grid, results)}")
    if "search" in grid:
        parts.append(f"{SEARCHES}\n{render_searches(grid, searches)}")
    return "\n".join(parts)


def render_starts(grid: dict, results: list[dict]) -> str:
    """Markdown: what starts and teachers took, and how good teachers were, by task."""
    found = defaultdict(dict)
    for run in results:
        for name, start in run.get("starts", {}).items():
            # Several runs share one start, which may have been made again on another machine.
            arguments = json.dumps(run["start_arguments"][name], sort_keys=True)
            found[run["task"], name][arguments] = start
    rows = []
    for (task, name), starts in found.items():
        minutes = statistics.median(start["train_runtime"] for start in starts.values()) / 60
        accuracies = [start["validation_accuracy"] for start in starts.values() if "validation_accuracy" in start]
        accuracy = f"{100 * statistics.mean(accuracies):.2f} %" if accuracies else ""
        rows.append([name, task, grid["starts"][name]["command"], str(len(starts)), f"{minutes:.1f}", accuracy])
    return render_table(["start", "task", "made by", "number", "minutes each", "accuracy"], rows)


def render_searches(grid: dict, searches: Searches) -> str:
    """Markdown: results with every learning rate, the best of a complete search in bold."""
    rates = grid["search"]["learning_rates"]
    rows = []
    for (task, arm), values in searches.items():
        best = choose_rate(rates, values)
        cells = {rate: f"{100 * value:.2f} %" for rate, value in values.items()}
        rows.append([arm, task, *(f"**{cells[rate]}**" if rate == best else cells.get(rate, "") for rate in rates)])
    return render_table(["arm", "task", *(f"{rate:g}" for rate in rates)], rows)


def summarise(grid: dict, study: dict, arm: str, results: list[dict], steps: list[dict]) -> dict:
    """Cost of an arm, and the value of each of its seeds that has all its folds."""
    task = grid["tasks"][study["task"]]
    config = build_config(grid, study["task"], arm)
    runs = runs_by_seed(grid, study["task"], arm, results)
    return {
        "arm": arm,
        "tokens": config.num_patches,
        "multiply_adds": multiply_adds(config, task["frames"]),
        "values": [seed_value(runs[seed]) for seed in study["seeds"] if seed in runs],
        "also": {
            title: [
                statistics.mean(run["also"][metric] for run in runs[seed]) for seed in study["seeds"] if seed in runs
            ]
            for metric, title in task.get("also", {}).items()
        },
        "milliseconds": next(
            (step["milliseconds"] for step in steps if (step["task"], step["arm"]) == (study["task"], arm)), None
        ),
    }


def render_arms(rows: list[dict]) -> str:
    """Markdown."""
    cells = []
    for row in rows:
        costs = [str(row["tokens"]), f"{row['multiply_adds'] / 1e6:.1f} M"]
        results = [describe_values(values) for values in (row["values"], *row["also"].values())]
        cells.append([row["arm"], *costs, str(len(row["values"])), *results, show(row["milliseconds"], ".2f", " ms")])
    header = ["arm", "patches", "multiply-adds", "seeds", "result", *rows[0]["also"], "training step"]
    return render_table(header, cells)


def describe_values(values: list[float]) -> str:
    """Mean and standard deviation in percent."""
    if not values:
        return "not measured"
    mean, deviation = spread(values)
    return f"{100 * mean:.2f} %" + (f" +- {100 * deviation:.2f}" if len(values) > 1 else "")


def plot(rows: list[dict], metric: str, path: Path) -> None:
    """Result against multiply-adds and time of a step, or arm by arm where all cost the same."""
    measured = [row for row in rows if row["values"]]
    for row in measured:
        row["mean"], row["deviation"] = spread(row["values"])
    if len({row["multiply_adds"] for row in measured}) == 1:
        figure = plot_arms(measured, metric)
    else:
        figure = plot_costs(measured, metric)
    save_figure(figure, path)


def plot_arms(rows: list[dict], metric: str) -> pyplot.Figure:
    """One line per arm, the first on top."""
    figure, axis = pyplot.subplots(figsize=(7, 1 + 0.35 * len(rows)), layout="constrained")
    for row in rows[::-1]:
        axis.errorbar(100 * row["mean"], row["arm"], xerr=100 * row["deviation"], fmt="o", color=COLORS[0], capsize=3)
    axis.set(xlabel=f"{metric} (%)")
    axis.grid(alpha=0.3)
    return figure


def plot_costs(rows: list[dict], metric: str) -> pyplot.Figure:
    """A panel for each cost that was measured of all, with a logarithmic axis."""
    costs = {"multiply-adds per clip (millions)": [row["multiply_adds"] / 1e6 for row in rows]}
    if all(row["milliseconds"] for row in rows):
        costs["training step (ms per clip)"] = [row["milliseconds"] for row in rows]
    figure, axes = pyplot.subplots(1, len(costs), figsize=(11, 4), sharey=True, squeeze=False, layout="constrained")
    for axis, (label, values) in zip(axes[0], costs.items(), strict=True):
        for index, (row, cost) in enumerate(zip(rows, values, strict=True)):
            mean, deviation = 100 * row["mean"], 100 * row["deviation"]
            axis.errorbar(cost, mean, deviation, capsize=3, label=row["arm"], linestyle="none", **look_of(index))
        axis.set(xlabel=label, xscale="log")
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ticker.ScalarFormatter())
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.grid(alpha=0.3)
    axes[0, 0].set(ylabel=f"{metric} (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    return figure
