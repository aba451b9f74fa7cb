"""Questions put to the test: a grid of small trainings over seeds, and a report made of their results.

    python -m benchmarks.study --data FOLDER               # run what has no results yet, then report
    python -m benchmarks.study --data FOLDER --only speech  # one task
    python -m benchmarks.study --steps                     # time a training step of every arm, then report
    python -m benchmarks.study --report                    # report what is there
    python -m benchmarks.study --grid weights ...          # another grid than `grids/study.json`

FOLDER holds the data sets by name. Every run trains with `fftp train` on one thread, two runs side by side; it is
evaluated once, after its last epoch, and leaves one line in `results/GRID.jsonl`. A run that has a line, made with the
arguments that the grid has now, is not repeated. Where a grid has learning rates, each arm of each task is first
trained with the two in the middle, and on outwards as long as that is better, with a seed that is not reported; the
best serves.
"""

import argparse
from pathlib import Path

from benchmarks.study.report import write_report
from benchmarks.study.study import GRIDS, Study


def main() -> None:
    """Run what is missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    grids = sorted(path.stem for path in GRIDS.glob("*.json"))
    parser.add_argument("--grid", default="study", choices=grids, help="name of a grid in `grids`")
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--weights", type=Path, help="folder of weights from elsewhere that a grid starts from")
    parser.add_argument("--only", help="run one task only")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", action="store_true", help="time a training step of every arm, and train nothing")
    parser.add_argument("--seconds_per_group", type=float, default=60.0, help="for --steps: 3 to 15 rounds that fit")
    parser.add_argument("--report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    study = Study.load(arguments.grid)
    if arguments.only not in (None, *study.grid["tasks"]):
        parser.error(f"--only {arguments.only}: the grid has the tasks {[*study.grid['tasks']]}")
    if arguments.steps:
        study.measure_steps(arguments.seconds_per_group)
    elif not arguments.report:
        if arguments.data is None:
            parser.error("--data is missing: the folder that holds the data sets")
        study.run_all(arguments.data.resolve(), arguments.weights, arguments.workers, arguments.only)
    steps = [record for record in study.read() if "seed" not in record]
    write_report(arguments.grid, study.grid, study.results(), steps, study.searches())


if __name__ == "__main__":
    main()
