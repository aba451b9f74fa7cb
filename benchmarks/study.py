"""The paper's claims put to the test: a grid of small trainings over seeds, and a report made of their results.

    python -m benchmarks.study --data FOLDER               # run what has no results yet, then report
    python -m benchmarks.study --data FOLDER --only speech  # one task
    python -m benchmarks.study --report                    # report what is there

`study.json` is the grid. FOLDER holds the data sets by name. Every run trains with `train.py` on one thread, two runs
side by side; it is evaluated once, after its last epoch, and leaves one file in `results/study/`. A run that
has a file, made with the arguments that the grid has now, is not repeated.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.mixtures import make_mixtures
from benchmarks.report import RESULTS, write_json
from benchmarks.study_report import write_report

ROOT = Path(__file__).parent.parent
GRID = Path(__file__).parent / "study.json"
RUNS = RESULTS / "study"
SPLITS = ("train", "validation")
# Made once; git leaves `runs` out.
MIXTURES = ROOT / "runs" / "esc10_mixtures"


def list_runs(grid: dict) -> list[dict]:
    """Every training of the grid once, those of the first seed first."""
    runs = {}
    for study in grid["studies"]:
        task = grid["tasks"][study["task"]]
        for seed in study["seeds"]:
            for arm in study["arms"]:
                for fold in task.get("folds", [None]):
                    run = {"task": study["task"], "arm": arm, "seed": seed, "fold": fold}
                    runs.setdefault(run_name(run), run)
    return sorted(runs.values(), key=lambda run: run["seed"])


def run_name(run: dict) -> str:
    """Name of a run's results file."""
    parts = (run["task"], run["arm"], f"fold {run['fold']}" if run["fold"] else "", f"seed {run['seed']}")
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


def run_arguments(grid: dict, run: dict) -> dict:
    """Arguments of `train.py` beside data and folders."""
    task = grid["tasks"][run["task"]]
    arguments = grid["defaults"] | task["arguments"] | grid["arms"][run["arm"]]
    return arguments | task.get("overrides", {}).get(run["arm"], {}) | {"seed": run["seed"]}


def load_results(grid: dict) -> dict[str, dict]:
    """Results by name, of the runs that the grid asks for today with the arguments that they had."""
    results = {}
    for run in list_runs(grid):
        path = RUNS / f"{run_name(run)}.json"
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["arguments"] == run_arguments(grid, run):
                results[run_name(run)] = kept
    return results


def train(grid: dict, run: dict, data: Path) -> None:
    """Train one run and keep its results."""
    task = grid["tasks"][run["task"]]
    with tempfile.TemporaryDirectory() as folder:
        recipe, output = Path(folder, "recipe.json"), Path(folder, "output")
        plain = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "disable_tqdm": True}
        groups = {"validation_column": "fold", "validation_value": run["fold"]} if run["fold"] else {}
        recipe.write_text(json.dumps(run_arguments(grid, run) | plain | groups), encoding="utf-8")
        source = MIXTURES if task["data"] == MIXTURES.name else data / task["data"]
        command = [sys.executable, "train.py", recipe, "--dataset_name", source, "--output_dir", output]
        done = subprocess.run(
            [*map(str, command)], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{run_name(run)} failed:\n{done.stderr[-2000:]}")
        trained, validated = (json.loads((output / f"{name}_results.json").read_text()) for name in SPLITS)
    results = run | {
        "metric": task["metric"],
        "value": validated[f"validation_{task['metric']}"],
        "train_seconds": trained["train_runtime"],
        "arguments": run_arguments(grid, run),
    }
    RUNS.mkdir(parents=True, exist_ok=True)
    write_json(RUNS / f"{run_name(run)}.json", results)
    print(f"{run_name(run)}: {task['metric']} {results['value']:.4f}, {results['train_seconds']:.0f} s", flush=True)


def main() -> None:
    """Run what is missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--only", help="run one task only")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    grid = json.loads(GRID.read_text(encoding="utf-8"))
    if not arguments.report:
        if arguments.data is None:
            parser.error("--data is missing: the folder that holds the data sets")
        done = load_results(grid)
        missing = [run for run in list_runs(grid) if run_name(run) not in done]
        missing = [run for run in missing if arguments.only in (None, run["task"])]
        if any(grid["tasks"][run["task"]]["data"] == MIXTURES.name for run in missing):
            make_mixtures(arguments.data / "esc10", MIXTURES)
        with ThreadPoolExecutor(arguments.workers) as pool:
            # list() raises what a run raised.
            list(pool.map(lambda run: train(grid, run, arguments.data.resolve()), missing))
    write_report(grid, [*load_results(grid).values()])


if __name__ == "__main__":
    main()
