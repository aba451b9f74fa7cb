"""A study's part about strides: one model at several, in a table and a plot made of the results file alone."""

import statistics
from pathlib import Path

from matplotlib import pyplot

from benchmarks.report import look_of, render_table, save_figure, show
from benchmarks.study.grid import arm_arguments
from benchmarks.study.step_times import build_config, stride_name
from modeling_fftp.hub.efficiency import multiply_adds


def value_at(run: dict, stride: int | None) -> float:
    """What a run measured: at its model's own stride, or at one that it was evaluated at besides."""
    return run["value"] if stride is None else run["strides"][str(stride)]


def values_by_arm(study: dict, results: list[dict], stride: int) -> dict[str, list[float]]:
    """What the seeds of each arm measured at a stride."""
    found = {arm: [] for arm in study["arms"]}
    for run in results:
        if run["task"] == study["task"] and run["arm"] in found and str(stride) in run.get("strides", {}):
            found[run["arm"]].append(value_at(run, stride))
    return found


def render_strides(grid: dict, study: dict, results: list[dict], steps: list[dict]) -> str:
    """Markdown: what every stride costs, and what every arm reaches at it."""
    task, arms, rows = grid["tasks"][study["task"]], study["arms"], []
    for stride in grid["defaults"]["eval_time_strides"]:
        config = build_config(grid, study["task"], arms[0])
        config.time_stride = stride
        milliseconds = milliseconds_at(study["task"], stride, steps)
        cells = [str(config.time_patches(task["frames"])), f"{multiply_adds(config, task['frames']) / 1e6:.1f} M"]
        cells += [show(milliseconds, ".2f", " ms")]
        for values in values_by_arm(study, results, stride).values():
            cells.append(show(100 * statistics.mean(values) if values else None, ".2f", " %"))
        rows.append([str(stride), *cells])
    training = ["", "", "", "all training steps"]
    for arm in arms:
        step = next((step for step in steps if (step["task"], step["arm"]) == (study["task"], arm)), None)
        epochs = arm_arguments(grid, study["task"], arm)["num_train_epochs"]
        training.append(show(step and epochs * step["milliseconds"] / 1000, ".2f", " s"))
    return render_table(["stride", "patches", "multiply-adds", "one clip", *arms], [*rows, training])


def milliseconds_at(task: str, stride: int, steps: list[dict]) -> float | None:
    """Time of one clip, if it was measured."""
    wanted = (task, stride_name(stride))
    return next((step["milliseconds"] for step in steps if (step["task"], step["arm"]) == wanted), None)


def plot_strides(grid: dict, study: dict, results: list[dict], path: Path) -> None:
    """Results of each arm over the strides that it was evaluated at."""
    figure, axis = pyplot.subplots(figsize=(7, 4), layout="constrained")
    strides = grid["defaults"]["eval_time_strides"]
    for index, arm in enumerate(study["arms"]):
        found = {stride: values_by_arm(study, results, stride)[arm] for stride in strides}
        measured = {stride: 100 * statistics.mean(values) for stride, values in found.items() if values}
        axis.plot([*measured], [*measured.values()], label=arm, **look_of(index))
    axis.set(xlabel="time stride (frames)", ylabel=f"{grid['tasks'][study['task']]['metric']} (%)", xticks=strides)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    save_figure(figure, path)
