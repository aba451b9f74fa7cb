"""What every benchmark shares: its command line, the machine, tables, and results as files."""

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import matplotlib
import transformers

from modeling_fftp.atomic_write import atomic_write
from modeling_fftp.hub import efficiency, figures

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
COLORS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB", "#000000", "#EE8866")
# One for every nine things.
MARKERS = "os^v"


def run_benchmark(
    name: str,
    parser: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace], dict],
    render: Callable[[dict], str],
    plot: Callable[[dict], Figure] | None = None,
) -> None:
    """Measure and report, as the command line says.

    Args:
        name: Of the files in `results`.
        parser: With the options of the benchmark.
        measure: Results that JSON can hold.
        render: Their report, Markdown.
        plot: Their picture.
    """
    parser.add_argument("--report", action="store_true", help="measure nothing, report what was measured")
    arguments = parser.parse_args()
    results = read_results(name) if arguments.report else measure(arguments)
    RESULTS.mkdir(exist_ok=True)
    # First, so that nothing that was measured is lost.
    write_json(RESULTS / f"{name}.json", results)
    text = render(results)
    write_text(RESULTS / f"{name}.md", text)
    if plot is not None:
        save_figure(plot(results), RESULTS / f"{name}.png")
    print(text)


def read_results(name: str) -> dict:
    """What was measured."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def write_json(path: Path, results: dict) -> None:
    """Write results in place of those before, whole or not at all."""
    write_text(path, json.dumps(results, indent=1) + "\n")


def read_lines(path: Path) -> list[dict]:
    """The records of a file of JSON lines; none where there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def write_lines(path: Path, records: Iterable[dict]) -> None:
    """Write records as JSON lines in place of those before, whole or not at all."""
    write_text(path, "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records))


def write_text(path: Path, text: str) -> None:
    """Write a text in place of the one before, whole or not at all."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def look_of(index: int) -> dict[str, str]:
    """Colour and marker of one of several things in a plot."""
    return {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index // len(COLORS)]}


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture and close it."""
    figures.save_figure(figure, path, dpi=120)
    pyplot.close(figure)


def describe_machine() -> dict[str, str | int]:
    """Processor, threads and versions."""
    return efficiency.describe_machine() | {"transformers": transformers.__version__}


def name_machine(machine: dict) -> str:
    """The same in words."""
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    return f"{threads} of {machine['processor']}, torch {machine['torch']}"


def render_table(header: list[str], rows: Iterable[list[str]]) -> str:
    """Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)) + "\n"


def show(value: float | None, form: str, unit: str = "") -> str:
    """A value, or that there is none."""
    return "not measured" if value is None else f"{value:{form}}{unit}"
