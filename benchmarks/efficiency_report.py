"""The report of the efficiency benchmark, and the README's table: made of its results alone."""

import re
from pathlib import Path

from matplotlib import pyplot

from benchmarks.report import RESULTS, look_of, render_table, save_figure, show, write_text

README = Path(__file__).parent.parent / "README.md"
BASELINE, PEAK = "transformers AST", "matrix product"
PRECISIONS = ("float32", "bfloat16")
INT8 = "int8"

HEADER = """# What full-frequency patches cost, and save

Made by `python -m benchmarks.efficiency` on {threads} threads of
{processor}, torch {torch}. Times are medians of 3 to 15 rounds;
what a column compares ran in turn (extractors: by number of clips). Columns may stem from different hours
(`--resume`), so compare within them. Random weights, 527 classes.
Multiply-adds are those of the linear layers over every token, as the paper counts, and of ConvNeXt's convolutions.
FLOPs are those that are computed, attention too, and two per multiply-add: our AST computes its last layer for the
class tokens alone. They leave out AuM's convolutions and scans, so its share of the peak is understated. The share
of the peak is that of the rate of one large matrix product in the same precision, measured in the same rounds.
Forward passes by length leave out transformers' AST, timed at 10 s alone, since it pads or cuts every clip to
10.24 s. Merged: half the tokens after layer 3 (`token_merge_layers`). int8 are files of `fftp export --int8`, run by
onnxruntime. Freed memory is kept (`modeling_fftp.memory.keep_freed_memory`), for all models alike, except where
memory is measured. Training steps are of {training_batches}.
Memory, in float32 and measured once, is that of the process beyond the libraries, weights included. transformers'
extractor {extractor}. GPU: not measured.
"""
EXTRACTORS = {True: "runs torchaudio's code", False: "runs its own code, as torchaudio is not installed"}
# What README shows of the pipelines: models, and lengths in seconds with precisions.
README_MODELS = (
    BASELINE, "AST, square 16/10", "FFTP-AST, stride 5", "FFTP-AST, stride 10, 50 frames", "FFTP-AuM, stride 5",
)  # fmt: skip
README_COLUMNS = ((1, "float32"), (10, "float32"), (10, "bfloat16"), (10, INT8))


class Results:
    """The results file, to be asked for one value at a time."""

    def __init__(self, results: dict):
        self.results = results
        measured = {item.get("size") for item in results["records"]}
        self.sizes = [size for size in dict.fromkeys(item["size"] for item in results["counts"]) if size in measured]
        self.lengths = list(dict.fromkeys(item["seconds"] for item in results["counts"]))
        self.models = list(dict.fromkeys(item["model"] for item in results["counts"]))

    def median(self, **wanted: object) -> float | None:
        """Median milliseconds of the record that has these values."""
        return next((item["median_ms"] for item in self.results["records"] if wanted.items() <= item.items()), None)

    def count(self, **wanted: object) -> dict:
        """Counts of a model."""
        return next(item for item in self.results["counts"] if wanted.items() <= item.items())

    def memory(self, **wanted: object) -> float | None:
        """Memory in MiB."""
        return next((item["mib"] for item in self.results["memory"] if wanted.items() <= item.items()), None)

    def step_per_clip(self, **wanted: object) -> float | None:
        """Median milliseconds of a training step per clip."""
        wanted |= {"what": "training step"}
        steps = (item for item in self.results["records"] if wanted.items() <= item.items())
        return next((item["median_ms"] / item["batch"] for item in steps), None)

    def share_of_peak(self, model: str, **group: object) -> float | None:
        """Rate of a forward pass over that of the matrix product, both of one group of records."""
        flops = self.count(model=model, size=group["size"], seconds=group["seconds"])["flops"]
        time, peak = (self.median(what="forward", model=name, **group) for name in (model, PEAK))
        if None in (flops, time, peak):
            return None
        return group["batch"] * flops / time / (self.results["peak_flops"] / peak)


def render(raw: dict) -> str:
    """Markdown."""
    results, machine = Results(raw), raw["machine"]
    batches = {item["size"]: item["batch"] for item in raw["records"] if item["what"] == "training step"}
    batches = ", ".join(f"{batch} clips ({size})" for size, batch in batches.items())
    parts = [HEADER.format(extractor=EXTRACTORS[machine["torchaudio"]], training_batches=batches, **machine)]
    for size in results.sizes:
        parts += [f"## Clips of 10 s, {size}\n", render_costs(results, size)]
    for size in results.sizes:
        parts += [f"## Forward pass of one clip, {size}\n", render_forwards(results, size)]
    for size in results.sizes:
        parts += [f"## Sound to labels, {size}\n", render_pipelines(results, size)]
    parts += ["## Feature extractor\n", render_extractors(results)]
    parts.append("![Time against length](efficiency.png)\n")
    return "\n".join(parts)


def write_report(raw: dict, folder: Path) -> None:
    """Write `efficiency.md` and its plot, and the README's table where the folder is that of the kept results."""
    results, text = Results(raw), render(raw)
    plot_lengths(results, results.sizes[-1], folder / "efficiency.png")
    write_text(folder / "efficiency.md", text)
    print(text)
    if folder.resolve() == RESULTS.resolve():
        write_text(README, replace_block(README.read_text(encoding="utf-8"), render_summary(results)))


def replace_block(text: str, block: str) -> str:
    """The README with a new table between its marks."""
    marks = "<!-- benchmarks.efficiency -->", "<!-- end -->"
    pattern = f"({re.escape(marks[0])}\n).*?(?={re.escape(marks[1])})"
    if not re.search(pattern, text, flags=re.DOTALL):
        raise ValueError(f"README.md lacks the marks {marks[0]} ... {marks[1]}")
    return re.sub(pattern, lambda match: match[1] + block, text, flags=re.DOTALL)


def render_costs(results: Results, size: str) -> str:
    """Counts, times and memory of every model for clips of 10 s."""
    header = ["model", "tokens", "parameters", "multiply-adds", "FLOPs"]
    header += [
        f"forward, {batch} clip{'s' * (batch > 1)}, {precision}" for precision in PRECISIONS for batch in (1, 16)
    ]
    header += [f"share of peak, 16 clips, {precision}" for precision in PRECISIONS]
    header += [f"training step per clip, {precision}" for precision in PRECISIONS]
    header += ["memory, forward of 16", "memory, training step"]
    rows = []
    for model in results.models:
        group = {"model": model, "size": size, "seconds": 10}
        counts, times = results.count(**group), {"what": "forward", **group}
        row = [model, str(counts["tokens"]), f"{counts['parameters'] / 1e6:.1f} M"]
        row += [f"{counts[name] / 1e9:.2f} G" for name in ("multiply_adds", "flops")]
        row += [
            show(results.median(batch=batch, precision=precision, **times), ".1f", " ms")
            for precision in PRECISIONS
            for batch in (1, 16)
        ]
        row += [show(results.share_of_peak(batch=16, precision=name, **group), ".0%") for name in PRECISIONS]
        row += [show(results.step_per_clip(precision=name, **group), ".1f", " ms") for name in PRECISIONS]
        row += [
            show(results.memory(what=what, model=model, size=size), ".0f", " MiB")
            for what in ("forward", "training step")
        ]
        rows.append(row)
    return render_table(header, rows)


def render_forwards(results: Results, size: str) -> str:
    """Times of forward passes of one clip by its length, and their share of the peak."""
    header = ["model", *(f"{seconds:g} s" for seconds in results.lengths)]
    rows = []
    # transformers' AST takes as long for every length, so it was timed at one.
    for model in (model for model in results.models if model != BASELINE):
        for precision in PRECISIONS:
            row = [f"{model}, {precision}"]
            for seconds in results.lengths:
                group = {"model": model, "size": size, "precision": precision, "seconds": seconds, "batch": 1}
                time, share = results.median(what="forward", **group), results.share_of_peak(**group)
                row.append(show(time, ".1f", f" ms ({show(share, '.0%')})"))
            rows.append(row)
    return render_table(header, rows)


def show_pipeline(results: Results, **group: object) -> str:
    """The time of one pipeline call, with the ratio to transformers' AST at that length."""
    time = results.median(what="pipeline", **group)
    base = results.median(what="pipeline", **(group | {"model": BASELINE, "precision": "float32"}))
    return show(time, ".1f", f" ms ({base / time:.1f}x)" if time and base else "")


def render_summary(results: Results) -> str:
    """README's table: one pipeline call of base size on a clip."""
    rows = (
        [model, *(show_pipeline(results, model=model, size="base", seconds=s, precision=p) for s, p in README_COLUMNS)]
        for model in README_MODELS
    )
    return render_table(["one clip, base size", *(f"{s} s, {p}" for s, p in README_COLUMNS)], rows)


def render_pipelines(results: Results, size: str) -> str:
    """One pipeline call by length."""
    rows = []
    for model in results.models:
        for precision in (*PRECISIONS, INT8):
            group = {"size": size, "model": model, "precision": precision}
            # Not every model has a file with int8 weights.
            if precision != INT8 or results.median(what="pipeline", **group):
                cells = (show_pipeline(results, seconds=seconds, **group) for seconds in results.lengths)
                rows.append([f"{model}, {precision}", *cells])
    return render_table(["pipeline", *(f"{seconds:g} s clip" for seconds in results.lengths)], rows)


def render_extractors(results: Results) -> str:
    """Milliseconds per clip."""
    rows = []
    for batch in (1, 16):
        for name in (BASELINE, "FFTP"):
            times = [
                results.median(what="extractor", model=name, seconds=seconds, batch=batch)
                for seconds in results.lengths
            ]
            rows.append([name, str(batch), *(show(time and time / batch, ".2f", " ms") for time in times)])
    return render_table(["extractor", "clips", *(f"per {seconds:g} s clip" for seconds in results.lengths)], rows)


def plot_lengths(results: Results, size: str, path: Path) -> None:
    """Time of one clip against its length: a pipeline call above, a forward pass below, by precision."""
    figure, axes = pyplot.subplots(2, 3, figsize=(14, 8), sharey="row", layout="constrained")
    for row, what in zip(axes, ("pipeline", "forward"), strict=True):
        # Only pipelines run files with int8 weights.
        for axis, precision in zip(row, (*PRECISIONS, INT8) if what == "pipeline" else PRECISIONS, strict=False):
            for index, model in enumerate(results.models):
                group = {"what": what, "size": size, "batch": 1, "model": model, "precision": precision}
                times = [results.median(seconds=seconds, **group) for seconds in results.lengths]
                if all(times):
                    axis.loglog(results.lengths, times, label=model, **look_of(index))
            axis.set(xlabel="clip (s)", title=f"{what}, {size}, {precision}")
            axis.grid(alpha=0.3)
        row[0].set(ylabel=f"{what}, ms")
    axes[1, 2].axis("off")
    axes[1, 2].legend(*axes[0, 0].get_legend_handles_labels(), loc="upper left")
    save_figure(figure, path)
