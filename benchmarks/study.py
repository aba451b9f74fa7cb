"""The paper's claims put to the test: a grid of small trainings over seeds, and a report made of their results.

    python -m benchmarks.study --data FOLDER               # run what has no results yet, then report
    python -m benchmarks.study --data FOLDER --only speech  # one task
    python -m benchmarks.study --steps                     # time a training step of every arm, then report
    python -m benchmarks.study --report                    # report what is there

`study.json` is the grid. FOLDER holds the data sets by name. Every run trains with `train.py` on one thread, two runs
side by side; it is evaluated once, after its last epoch, and leaves one line in `results/study.jsonl`. A run that
has a line, made with the arguments that the grid has now, is not repeated.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks.mixtures import make_mixtures
from benchmarks.report import RESULTS, describe_machine, write_text
from benchmarks.study_report import write_report
from benchmarks.study_time import measure_steps

ROOT = Path(__file__).parent.parent
GRID = Path(__file__).parent / "study.json"
RECORDS = RESULTS / "study.jsonl"
# Runs end side by side.
WRITING = threading.Lock()
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
    """Name of a run."""
    parts = (run["task"], run["arm"], f"fold {run['fold']}" if run["fold"] else "", f"seed {run['seed']}")
    return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")


def run_arguments(grid: dict, run: dict) -> dict:
    """Arguments of `train.py` beside data and folders."""
    task = grid["tasks"][run["task"]]
    arguments = grid["defaults"] | task["arguments"] | grid["arms"][run["arm"]]
    return arguments | task.get("overrides", {}).get(run["arm"], {}) | {"seed": run["seed"]}


def read_records() -> list[dict]:
    """What was measured: results of runs, which have a seed, and times of training steps."""
    return [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines()] if RECORDS.exists() else []


def keep_record(record: dict) -> None:
    """Add a record, in place of the one of the same run or step; whole or not at all."""
    with WRITING:
        others = [kept for kept in read_records() if identify(kept) != identify(record)]
        lines = [json.dumps(kept, ensure_ascii=False) for kept in sorted([*others, record], key=identify)]
        write_text(RECORDS, "\n".join(lines) + "\n")


def identify(record: dict) -> tuple[str, str]:
    """What a record is of: two of one run or step do not exist."""
    return ("run", run_name(record)) if "seed" in record else ("step", f"{record['task']} {record['arm']}")


def find_results(grid: dict, records: list[dict]) -> list[dict]:
    """Results of the runs that the grid asks for today with the arguments that they had."""
    kept = {run_name(record): record for record in records if "seed" in record}
    runs = ((kept.get(run_name(run)), run) for run in list_runs(grid))
    return [result for result, run in runs if result and result["arguments"] == run_arguments(grid, run)]


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
    keep_record(results)
    print(f"{run_name(run)}: {task['metric']} {results['value']:.4f}, {results['train_seconds']:.0f} s", flush=True)


def measure_all_steps(grid: dict, seconds: float) -> None:
    """Keep the time of a training step of every arm, on one thread as the study trains."""
    torch.set_num_threads(1)
    for task in grid["tasks"]:
        arms = dict.fromkeys(arm for study in grid["studies"] if study["task"] == task for arm in study["arms"])
        for arm, milliseconds in measure_steps(grid, task, [*arms], seconds).items():
            keep_record({"task": task, "arm": arm, "milliseconds": milliseconds, "machine": describe_machine()})


def main() -> None:
    """Run what is missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--only", help="run one task only")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", action="store_true", help="time a training step of every arm, and train nothing")
    parser.add_argument("--seconds_per_group", type=float, default=60.0, help="for --steps: 3 to 15 rounds that fit")
    parser.add_argument("--report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    grid = json.loads(GRID.read_text(encoding="utf-8"))
    if arguments.steps:
        measure_all_steps(grid, arguments.seconds_per_group)
    elif not arguments.report:
        if arguments.data is None:
            parser.error("--data is missing: the folder that holds the data sets")
        done = {run_name(result) for result in find_results(grid, read_records())}
        missing = [run for run in list_runs(grid) if run_name(run) not in done]
        missing = [run for run in missing if arguments.only in (None, run["task"])]
        if any(grid["tasks"][run["task"]]["data"] == MIXTURES.name for run in missing):
            make_mixtures(arguments.data / "esc10", MIXTURES)
        with ThreadPoolExecutor(arguments.workers) as pool:
            # list() raises what a run raised.
            list(pool.map(lambda run: train(grid, run, arguments.data.resolve()), missing))
    records = read_records()
    write_report(grid, find_results(grid, records), [record for record in records if "seed" not in record])


if __name__ == "__main__":
    main()
