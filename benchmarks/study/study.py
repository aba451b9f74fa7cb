"""A grid of small trainings and what was measured of it."""

import json
import statistics
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.commands import PLAIN, ROOT, call, slug
from benchmarks.mixtures import make_mixtures
from benchmarks.report import RESULTS, describe_machine, read_lines, write_lines
from benchmarks.soundscapes import make_soundscapes
from benchmarks.study.search import Search, choose_epochs, choose_rate, epochs_to_try, rates_to_try
from benchmarks.study.starts import SIGN, fold_arguments, resolve, start_arguments, start_name, start_results
from benchmarks.study.step_times import measure_steps, measure_strides

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
        """Every training that is reported once, those of the first seed first."""
        runs = {}
        for study in self.grid["studies"]:
            task = self.grid["tasks"][study["task"]]
            for seed in study["seeds"]:
                for arm in study["arms"]:
                    folds = task.get("fold_of_seed", {}).get(str(seed))
                    for fold in [folds] if folds else task.get("folds", [None]):
                        run = {"task": study["task"], "arm": arm, "seed": seed, "fold": fold}
                        runs.setdefault(run_name(run), run)
        return sorted(runs.values(), key=lambda run: run["seed"])

    def list_searches(self) -> list[dict]:
        """Every training that helps to choose how arms are trained, as far as results tell which are needed."""
        return [run for pair in self.searched_pairs() for run in self.searches_of(*pair)]

    def searches_of(self, task: str, arm: str) -> list[dict]:
        """The same for one arm: first its learning rate, then, where the grid asks for it, its epochs."""
        search = self.search(task, arm)
        rate = choose_rate(self.learning_rates, search.rates)
        runs = [self.search_run(task, arm, rate) for rate in rates_to_try(self.learning_rates, search.rates)]
        if rate is not None:
            counts = epochs_to_try(self.epochs_of(task), search.epochs, self.grid["search"].get("gain", 0.0))
            runs += [self.search_run(task, arm, rate, count) for count in counts[1:]]
        return runs

    def searched_pairs(self) -> list[tuple[str, str]]:
        """Tasks and arms whose training is searched for."""
        runs = self.list_runs() if "search" in self.grid else []
        return [*dict.fromkeys((self.searched_task(run["task"]), self.searched_arm(run["arm"])) for run in runs)]

    def epochs_of(self, task: str) -> list[int]:
        """Numbers of epochs that a search may try; none where the task says how many."""
        return self.grid["search"].get("epochs_of_task", {}).get(task, [])

    @property
    def learning_rates(self) -> list[float]:
        """Those that a search may try."""
        return self.grid["search"]["learning_rates"]

    def search_run(self, task: str, arm: str, rate: float, epochs: int | None = None) -> dict:
        """The training that tries a learning rate, with the fewest epochs unless it tries more."""
        search = self.grid["search"]
        run = {
            "task": task, "arm": arm, "seed": search["seed"], "fold": search["fold_of_task"].get(task), "rate": rate,
        }  # fmt: skip
        counts = self.epochs_of(task)
        return run | {"epochs": epochs or counts[0]} if counts else run

    def search(self, task: str, arm: str) -> Search:
        """What was measured so far to choose how an arm is trained."""
        rates = {rate: self.value(self.search_run(task, arm, rate)) for rate in self.learning_rates}
        search = Search({rate: value for rate, value in rates.items() if value is not None})
        rate = choose_rate(self.learning_rates, search.rates)
        if rate is not None:
            epochs = {count: self.value(self.search_run(task, arm, rate, count)) for count in self.epochs_of(task)}
            search.epochs = {count: value for count, value in epochs.items() if value is not None}
        return search

    def value(self, run: dict) -> float | None:
        """What a run is chosen by, if it has a result: that, or the mean over the strides that it was trained for."""
        result = self.result(run)
        if result is None or not (strides := result["arguments"].get("time_strides")):
            return None if result is None else result["value"]
        return statistics.mean(result["strides"][str(stride)] for stride in strides)

    def arguments(self, run: dict) -> dict | None:
        """Arguments of `fftp train` beside data and folders; None where it is not known yet how to train."""
        task = self.grid["tasks"][run["task"]]
        arguments = self.grid["defaults"] | task["arguments"] | self.grid["arms"][run["arm"]]
        arguments |= task.get("overrides", {}).get(run["arm"], {}) | {"seed": run["seed"]}
        if "search" not in self.grid:
            return arguments
        chosen = self.choose(run["task"], run["arm"]) if "rate" not in run else (run["rate"], run.get("epochs"))
        if chosen is None:
            return None
        rate, epochs = chosen
        return arguments | {"learning_rate": rate} | ({"num_train_epochs": epochs} if epochs else {})

    def searched_task(self, task: str) -> str:
        """The task whose search chooses the learning rates of a task: its own, or that of a like one."""
        return self.grid["tasks"][task].get("learning_rate_of", task)

    def searched_arm(self, arm: str) -> str:
        """The arm whose search chooses how an arm is trained: its own, or that of a like one."""
        return self.grid["search"].get("arm_of", {}).get(arm, arm)

    def choose(self, task: str, arm: str) -> tuple[float, int | None] | None:
        """Learning rate of an arm on a task, and its epochs where the grid searches them; None while that goes on."""
        task, arm = self.searched_task(task), self.searched_arm(arm)
        search, counts = self.search(task, arm), self.epochs_of(task)
        rate = choose_rate(self.learning_rates, search.rates)
        if rate is None or not counts:
            return None if rate is None else (rate, None)
        epochs = choose_epochs(counts, search.epochs, self.grid["search"]["gain"])
        return None if epochs is None else (rate, epochs)

    def read(self) -> list[dict]:
        """What was measured: results of runs, which have a seed, and times of training steps."""
        return read_lines(self.records)

    def keep(self, record: dict) -> None:
        """Add a record, in place of the one of the same run or step; whole or not at all."""
        with WRITING:
            others = [kept for kept in self.read() if identify(kept) != identify(record)]
            write_lines(self.records, sorted([*others, record], key=identify))

    def result(self, run: dict) -> dict | None:
        """What was measured of a run with the arguments that the grid has for it today."""
        wanted = self.arguments(run), self.start_arguments(run)
        for record in self.read():
            if "seed" in record and run_name(record) == run_name(run):
                return record if (record["arguments"], record.get("start_arguments", {})) == wanted else None
        return None

    def results(self) -> list[dict]:
        """What was measured of the runs that are reported."""
        return [result for run in self.list_runs() if (result := self.result(run))]

    def searches(self) -> dict[tuple[str, str], Search]:
        """What was measured to choose how arms are trained, by task and arm."""
        found = {pair: self.search(*pair) for pair in self.searched_pairs()}
        return {pair: search for pair, search in found.items() if search.rates}

    def train(self, run: dict, data: Path, weights: Path | None = None) -> None:
        """Train one run and keep its results."""
        task, arguments = self.grid["tasks"][run["task"]], self.arguments(run)
        source = (MADE_FOLDER if task["data"] in MADE else data) / task["data"]
        resolved = resolve(self.grid, run, arguments, data, weights)
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder, slug(run_name(run)))
            call("train", source, output, resolved | PLAIN | fold_arguments(run))
            trained, validated = (
                json.loads((output / f"{name}_results.json").read_text()) for name in ("train", "validation")
            )
            at_strides = output / "strides_results.json"
            strides = json.loads(at_strides.read_text()) if at_strides.exists() else []
        results = run | {
            "metric": task["metric"],
            "value": validated[f"validation_{task['metric']}"],
            "train_seconds": trained["train_runtime"],
            "arguments": arguments,
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

    def run_task(self, task: str, data: Path, weights: Path | None, workers: int) -> None:
        """Train what has no results yet, side by side: first to choose learning rates, then what is reported."""
        # What a search needs next depends on what it found.
        while searches := self.missing(self.list_searches(), self.searched_task(task)):
            self.train_all(searches, data, weights, workers)
        self.train_all(self.missing(self.list_runs(), task), data, weights, workers)

    def missing(self, runs: list[dict], task: str) -> list[dict]:
        """The runs of a task that have no results yet."""
        return [run for run in runs if run["task"] == task and self.result(run) is None]

    def train_all(self, runs: list[dict], data: Path, weights: Path | None, workers: int) -> None:
        """Train runs side by side."""
        for name in {self.grid["tasks"][run["task"]]["data"] for run in runs} & MADE.keys():
            make, source = MADE[name]
            make(data / source, MADE_FOLDER / name)
        with ThreadPoolExecutor(workers) as pool:
            # list() raises what a run raised.
            list(pool.map(lambda run: self.train(run, data, weights), runs))


def run_name(run: dict) -> str:
    """Name of a run."""
    parts = [f"{name} {run[name]}" for name in ("fold", "seed", "rate", "epochs") if run.get(name) is not None]
    return slug(run["task"], run["arm"], *parts)


def identify(record: dict) -> tuple[str, str]:
    """What a record is of: two of one run or step do not exist."""
    return ("run", run_name(record)) if "seed" in record else ("step", f"{record['task']} {record['arm']}")
