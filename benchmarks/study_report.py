"""The report of the study: tables and plots made of the results files alone."""

import statistics
from collections import defaultdict
from pathlib import Path

import matplotlib
from scipy import stats

from benchmarks.report import RESULTS, write_text
from benchmarks.study_time import build_config, load_step_times
from modeling_fftp.hub.efficiency import multiply_adds

matplotlib.use("Agg")

from matplotlib import pyplot, ticker

COLORS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB", "#000000", "#EE8866")

HEADER = """# The paper's claims on small models and real recordings

Made by `python -m benchmarks.study --report` from the files in `study/`; `python -m benchmarks.study --data FOLDER`
makes those that are missing, after the grid in `study.json`. Every arm of a study has the same training: same epochs,
same batches, one evaluation after the last epoch, no choice of checkpoint. A value is the mean over seeds and its
standard deviation; where there are folds, a seed's value is the mean over its folds. One learning rate, chosen once,
and few epochs serve all arms: what learns slowly looks worse here than it would in the end. SpecAugment draws widths
between 0 and a limit, so its budget is that of its masks on average; SpecMask's is a cap. Multiply-adds are of one
clip, linear layers only, as the paper counts. Times are of one clip in a training step, forward and backward, on one
thread, medians of one run in which all models took turns (`python -m benchmarks.study_time`).
"""

CLAIMS = """## Where the paper's claims hold

Differences between two arms with the same seed, in points; the mean over seeds and the half-width of its 95 %
confidence interval (Student's t). A claim holds where the whole interval is above 0, the opposite where it is below;
what is neither, or was measured with fewer than three seeds, is undecided. Nothing is corrected for the number of
claims.
"""


def write_report(grid: dict, results: list[dict]) -> None:
    """Write `study.md` and one plot per study."""
    parts = [HEADER, CLAIMS + "\n" + render_claims(grid, results)]
    for number, study in enumerate(grid["studies"], start=1):
        task = grid["tasks"][study["task"]]
        rows = [summarise(grid, study, arm, results) for arm in study["arms"]]
        parts.append(f"## {study['title']} ({task['data']}, {task['metric']})\n\n{render_table(rows)}")
        if any(row["values"] for row in rows):
            plot(rows, task["metric"], RESULTS / f"study-{number}.png")
            parts.append(f"![{study['title']}](study-{number}.png)\n")
    text = "\n".join(parts)
    write_text(RESULTS / "study.md", text)
    print(text)


def summarise(grid: dict, study: dict, arm: str, results: list[dict]) -> dict:
    """Cost of an arm, and the value of each of its seeds that has all its folds."""
    task = grid["tasks"][study["task"]]
    config = build_config(grid, study["task"], arm)
    runs = runs_by_seed(grid, study["task"], arm, results)
    return {
        "arm": arm,
        "tokens": config.num_patches,
        "multiply_adds": multiply_adds(config, task["frames"]),
        "values": [seed_value(runs[seed]) for seed in study["seeds"] if seed in runs],
        "milliseconds": load_step_times().get(study["task"], {}).get(arm),
    }


def runs_by_seed(grid: dict, task: str, arm: str, results: list[dict]) -> dict[int, list[dict]]:
    """The runs of an arm, of each seed that has all its folds."""
    by_seed = defaultdict(list)
    for run in results:
        if (run["task"], run["arm"]) == (task, arm):
            by_seed[run["seed"]].append(run)
    folds = len(grid["tasks"][task].get("folds", [None]))
    return {seed: runs for seed, runs in by_seed.items() if len(runs) == folds}


def seed_value(runs: list[dict]) -> float:
    """Mean over the folds."""
    return statistics.mean(run["value"] for run in runs)


def judge(grid: dict, claim: dict, results: list[dict]) -> dict:
    """Differences over the seeds that both arms have, and what they say of a claim."""
    arms = [runs_by_seed(grid, claim["task"], claim[side], results) for side in ("better", "than")]
    seeds = sorted(arms[0].keys() & arms[1].keys())
    differences = [seed_value(arms[0][seed]) - seed_value(arms[1][seed]) for seed in seeds]
    if len(seeds) < 2:
        return {"differences": differences, "half_width": None, "verdict": "undecided" if seeds else "not measured"}
    mean, deviation = spread(differences)
    half_width = stats.t.ppf(0.975, len(seeds) - 1) * deviation / len(seeds) ** 0.5
    verdict = "holds" if mean > half_width else "the opposite" if mean < -half_width else "undecided"
    if len(seeds) < 3:
        verdict = "undecided"
    return {"differences": differences, "half_width": half_width, "verdict": verdict}


def render_claims(grid: dict, results: list[dict]) -> str:
    """Markdown."""
    lines = ["| claim | task | difference | seeds | verdict |", "|---|---|---|---|---|"]
    for claim in grid["claims"]:
        judged = judge(grid, claim, results)
        difference = ""
        if judged["differences"]:
            difference = f"{100 * statistics.mean(judged['differences']):+.2f}"
        if judged["half_width"] is not None:
            difference += f" +- {100 * judged['half_width']:.2f}"
        lines.append(
            f"| {claim['claim']} | {claim['task']} | {difference} | {len(judged['differences'])} "
            f"| {judged['verdict']} |"
        )
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation; that of one value is 0."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def render_table(rows: list[dict]) -> str:
    """Markdown."""
    lines = ["| arm | patches | multiply-adds | seeds | result | training step |", "|---|---|---|---|---|---|"]
    for row in rows:
        result = time = "not measured"
        if row["values"]:
            mean, deviation = spread(row["values"])
            result = f"{100 * mean:.2f} %" + (f" +- {100 * deviation:.2f}" if len(row["values"]) > 1 else "")
        if row["milliseconds"] is not None:
            time = f"{row['milliseconds']:.2f} ms"
        lines.append(
            f"| {row['arm']} | {row['tokens']} | {row['multiply_adds'] / 1e6:.1f} M | {len(row['values'])} "
            f"| {result} | {time} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: list[dict], metric: str, path: Path) -> None:
    """Result against multiply-adds and time of a step, or arm by arm where all cost the same."""
    measured = [row for row in rows if row["values"]]
    for row in measured:
        row["mean"], row["deviation"] = spread(row["values"])
    if len({row["multiply_adds"] for row in measured}) == 1:
        figure = plot_arms(measured, metric)
    else:
        figure = plot_costs(measured, metric)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


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
        for row, cost, color in zip(rows, values, COLORS, strict=False):
            mean, deviation = 100 * row["mean"], 100 * row["deviation"]
            axis.errorbar(cost, mean, deviation, fmt="o", color=color, capsize=3, label=row["arm"])
        axis.set(xlabel=label, xscale="log")
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ticker.ScalarFormatter())
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.grid(alpha=0.3)
    axes[0, 0].set(ylabel=f"{metric} (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    return figure
