"""A grid of small trainings and what was measured of it."""

import itertools
import json
import statistics
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from benchmarks.commands import PLAIN, ROOT, call, slug
from benchmarks.mixtures import make_mixtures
from benchmarks.report import RESULTS, describe_machine, read_lines, write_lines
from benchmarks.soundscapes import make_soundscapes
from benchmarks.study.grid import arm_arguments
from benchmarks.study.search import choose_rate, rates_to_try
from benchmarks.study.starts import SIGN, fold_arguments, resolve, start_arguments, start_name, start_results
from benchmarks.study.step_times import measure_steps, measure_strides
from modeling_fftp.hub.run_files import STRIDES, TRAIN, read_results, results_of

GRIDS = Path(__file__).parent / "grids"
# Runs end side by side.
WRITING = threading.Lock()
# Data sets that are made of others, once; git leaves `runs` out.
MADE = {"esc10_mixtures": (make_mixtures, "esc10"), "esc50_soundscapes": (make_soundscapes, "esc50")}
MADE_FOLDER = ROOT / "runs"


@dataclass
class Study:
    """A grid and its results.

    Args:
        grid: What `NAME.json` holds.
        records: The results file.
    """

    grid: dict
    records: Path

    @classmethod
    def load(cls, name: str) -> "Study":
        """The study of a name."""
        grid = json.loads((GRIDS / f"{name}.json").read_text(encoding="utf-8"))
        return cls(grid, RESULTS / f"{name}.jsonl")

    def list_runs(self) -> list[dict]:
        """Every training that is reported once: study by study, seed by seed."""
        runs = {}
        for study in self.grid["studies"]:
            task = self.grid["tasks"][study["task"]]
            for seed in study["seeds"]:
                for arm in study["arms"]:
                    folds = task.get("fold_of_seed", {}).get(str(seed))
                    for fold in [folds] if folds else task.get("folds", [None]):
                        run = {"task": study["task"], "arm": arm, "seed": seed, "fold": fold}
                        runs.setdefault(run_name(run), run)
        return [*runs.values()]

    def searches_for(self, run: dict) -> list[dict]:
        """Every training that helps to choose the learning rate of a run, as far as results tell which are needed."""
        if "search" not in self.grid:
            return []
        task, arm = self.searched_pair(run)
        rates = rates_to_try(self.learning_rates, self.search(task, arm))
        return [self.search_run(task, arm, rate) for rate in rates]

    def searched_pair(self, run: dict) -> tuple[str, str]:
        """The task and the arm whose search chooses the learning rate of a run: its own, or like ones."""
        task, arm = run["task"], run["arm"]
        return self.grid["tasks"][task].get("learning_rate_of", task), self.grid["search"].get("arm_of", {}).get(
            arm, arm
        )

    @property
    def learning_rates(self) -> list[float]:
        """Those that a search may try."""
        return self.grid["search"]["learning_rates"]

    def search_run(self, task: str, arm: str, rate: float) -> dict:
        """The training that tries a learning rate, of fewer epochs than those reported where the grid says so."""
        search = self.grid["search"]
        run = {
            "task": task, "arm": arm, "seed": search["seed"], "fold": search["fold_of_task"].get(task), "rate": rate,
        }  # fmt: skip
        epochs = {**search.get("epochs_of_task", {}), **search.get("epochs_of_arm", {}).get(arm, {})}.get(task)
        return run | {"epochs": epochs} if epochs else run

    def search(self, task: str, arm: str) -> dict[float, float]:
        """What was measured so far with each learning rate of an arm, with a seed that is not reported."""
        values = {rate: self.value(self.search_run(task, arm, rate)) for rate in self.learning_rates}
        return {rate: value for rate, value in values.items() if value is not None}

    def value(self, run: dict) -> float | None:
        """What a run is chosen by, if it has a result: that, or the mean over the strides that it was trained for."""
        result = self.result(run)
        if result is None or not (strides := result["arguments"].get("time_strides")):
            return None if result is None else result["value"]
        return statistics.mean(result["strides"][str(stride)] for stride in strides)

    def arguments(self, run: dict) -> dict | None:
        """Arguments of `fftp train` beside data and folders; None where it is not known yet how to train."""
        arguments = arm_arguments(self.grid, run["task"], run["arm"]) | {"seed": run["seed"]}
        if "search" not in self.grid:
            return arguments
        if "epochs" in run:
            arguments["num_train_epochs"] = run["epochs"]
        rate = run["rate"] if "rate" in run else self.choose(run)
        return None if rate is None else arguments | {"learning_rate": rate}

    def choose(self, run: dict) -> float | None:
        """Learning rate of a run; None while the search goes on."""
        return choose_rate(self.learning_rates, self.search(*self.searched_pair(run)))

    def read(self) -> list[dict]:
        """What was measured: results of runs, which have a seed, and times of training steps."""
        return [*self._read_by_name().values()]

    def _read_by_name(self) -> dict[tuple[str, str], dict]:
        """The same by what they are of, read anew where the file is another."""
        if not self.records.exists():
            return {}
        status = self.records.stat()
        return read_by_name(self.records, (status.st_ino, status.st_mtime_ns, status.st_size))

    def keep(self, record: dict) -> None:
        """Add a record, in place of the one of the same run or step; whole or not at all."""
        with WRITING:
            others = [kept for kept in self.read() if identify(kept) != identify(record)]
            write_lines(self.records, sorted([*others, record], key=identify))

    def result(self, run: dict) -> dict | None:
        """What was measured of a run with the arguments that the grid has for it today."""
        record = self._read_by_name().get(identify(run))
        # What a run's arguments are may take a look at a whole search.
        if record is None or record["arguments"] != self.arguments(run):
            return None
        return record if record.get("start_arguments", {}) == self.start_arguments(run) else None

    def results(self) -> list[dict]:
        """What was measured of the runs that are reported."""
        return [result for run in self.list_runs() if (result := self.result(run))]

    def searches(self) -> dict[tuple[str, str], dict[float, float]]:
        """What was measured to choose learning rates, by task and arm."""
        runs = self.list_runs() if "search" in self.grid else []
        found = {pair: self.search(*pair) for pair in dict.fromkeys(map(self.searched_pair, runs))}
        return {pair: values for pair, values in found.items() if values}

    def train(self, run: dict, data: Path, weights: Path | None = None) -> None:
        """Train one run and keep its results."""
        task, arguments = self.grid["tasks"][run["task"]], self.arguments(run)
        source = (MADE_FOLDER if task["data"] in MADE else data) / task["data"]
        resolved = resolve(self.grid, run, arguments, data, weights)
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder, slug(run_name(run)))
            call("train", source, output, resolved | PLAIN | fold_arguments(run))
            trained, validated = read_results(output, TRAIN), read_results(output, results_of("validation"))
            strides = read_results(output, STRIDES) or []
        results = run | {
            "metric": task["metric"],
            "value": validated[f"validation_{task['metric']}"],
            "train_seconds": trained["train_runtime"],
            "arguments": arguments,
            "machine": describe_machine(),
        }
        if "also" in task:
            results["also"] = {metric: validated[f"validation_{metric}"] for metric in task["also"]}
        if strides:
            results["strides"] = {str(row["time_stride"]): row[task["metric"]] for row in strides}
        if starts := self.start_arguments(run):
            results["start_arguments"] = starts
            results["starts"] = {name: start_results(start_name(self.grid, name, run)) for name in starts}
        self.keep(results)
        print(
            f"{run_name(run)}: {task['metric']} {results['value']:.4f}, {results['train_seconds']:.0f} s", flush=True
        )

    def start_arguments(self, run: dict) -> dict[str, dict]:
        """Arguments of the starts that have to be made for a run, by their name in the grid."""
        arm = self.grid["arms"][run["arm"]]
        names = [value.removeprefix(SIGN) for value in arm.values() if str(value).startswith(SIGN)]
        made = [name for name in names if "command" in self.grid["starts"][name]]
        return {name: start_arguments(self.grid, run, name) for name in made}

    def measure_steps(self, seconds: float) -> None:
        """Keep the time of a training step of every arm, on one thread as the study trains."""
        torch.set_num_threads(1)
        for task in self.grid["tasks"]:
            arms = dict.fromkeys(
                arm for study in self.grid["studies"] if study["task"] == task for arm in study["arms"]
            )
            times = measure_steps(self.grid, task, [*arms], seconds)
            times |= measure_strides(self.grid, task, next(iter(arms)), seconds)
            for arm, milliseconds in times.items():
                self.keep({"task": task, "arm": arm, "milliseconds": milliseconds, "machine": describe_machine()})

    def run_all(self, data: Path, weights: Path | None, workers: int, only: str | None = None) -> None:
        """Train what has no results yet, side by side, as soon as its learning rate is known.

        Args:
            data: Folder of the data sets.
            weights: Folder of weights from elsewhere.
            workers: How many trainings run at once.
            only: Name of a task; the others are left out.
        """
        tasks = self.grid["tasks"]
        for name in {tasks[run["task"]]["data"] for run in self.ready(only)} & MADE.keys():
            make, source = MADE[name]
            make(data / source, MADE_FOLDER / name)
        running = {}
        with ThreadPoolExecutor(workers) as pool:
            while True:
                waiting = (run for run in self.ready(only) if run_name(run) not in running.values())
                for run in itertools.islice(waiting, workers - len(running)):
                    running[pool.submit(self.train, run, data, weights)] = run_name(run)
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    del running[future]
                    future.result()

    def ready(self, only: str | None = None) -> Iterator[dict]:
        """The runs without results that can be trained now: what a search needs comes before what is reported."""
        asked = set()
        for run in self.list_runs():
            if only not in (None, run["task"]):
                continue
            for needed in (*self.searches_for(run), run):
                if run_name(needed) not in asked and self.arguments(needed) and self.result(needed) is None:
                    asked.add(run_name(needed))
                    yield needed


@lru_cache(maxsize=1)
def read_by_name(path: Path, version: tuple[int, ...]) -> dict[tuple[str, str], dict]:
    """The records of a file by what they are of; a file that changes is another version."""
    return {identify(record): record for record in read_lines(path)}


def run_name(run: dict) -> str:
    """Name of a run."""
    parts = [f"{name} {run[name]}" for name in ("fold", "seed", "rate", "epochs") if run.get(name) is not None]
    return slug(run["task"], run["arm"], *parts)


def identify(record: dict) -> tuple[str, str]:
    """What a record is of: two of one run or step do not exist."""
    return ("run", run_name(record)) if "seed" in record else ("step", f"{record['task']} {record['arm']}")
