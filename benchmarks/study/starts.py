"""What arms of a grid start from or are taught by: folders that are made once, and kept."""

import hashlib
import json
import shutil
import threading
from collections import defaultdict
from pathlib import Path

from benchmarks.commands import PLAIN, ROOT, call, slug
from modeling_fftp.hub.run_files import TRAIN, read_results, results_of

# git leaves `runs` out.
FOLDER = ROOT / "runs" / "starts"
# Arguments that name a start do so behind this sign.
SIGN = "@"
# Two runs may need one start.
MAKING: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def start_name(grid: dict, name: str, run: dict) -> str:
    """Name of the start that a run needs: another for every task, fold, seed or arguments that it depends on."""
    facts = {"task": run["task"], "data": grid["tasks"][run["task"]]["data"], "seed": f"seed {run['seed']}"}
    facts["fold"] = f"fold {run['fold']}" if run["fold"] else None
    arguments = json.dumps(start_arguments(grid, run, name), sort_keys=True)
    digest = hashlib.sha256(arguments.encode()).hexdigest()[:8]
    return slug(name, *(facts[part] for part in grid["starts"][name].get("per", [])), digest)


def fold_arguments(run: dict) -> dict:
    """Arguments that keep the fold of a run out of what is learned."""
    return {"validation_column": "fold", "validation_value": run["fold"]} if run["fold"] else {}


def resolve(grid: dict, run: dict, arguments: dict, data: Path, weights: Path | None) -> dict:
    """Arguments with folders in place of names of starts; what is not there yet is made."""
    resolved = dict(arguments)
    for name, value in arguments.items():
        if isinstance(value, str) and value.startswith(SIGN):
            resolved[name] = str(find_start(grid, run, value.removeprefix(SIGN), data, weights))
    return resolved


def find_start(grid: dict, run: dict, name: str, data: Path, weights: Path | None) -> Path:
    """The folder of a start, which is made if it is not there.

    Raises:
        FileNotFoundError: Weights that have to be fetched are not there.
    """
    start = grid["starts"][name]
    if "folder" in start:
        folder = (weights or Path()) / start["folder"]
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is missing: {start['hint']}; --weights names the folder above it")
        return folder.resolve()
    folder = FOLDER / start_name(grid, name, run)
    with MAKING[folder.name]:
        # Both commands write the card last.
        if not (folder / "README.md").exists():
            shutil.rmtree(folder, ignore_errors=True)
            arguments = start_arguments(grid, run, name)
            source = data if start.get("data") == "all" else data / grid["tasks"][run["task"]]["data"]
            call(start["command"], source, folder, resolve(grid, run, arguments, data, weights))
    return folder


def start_arguments(grid: dict, run: dict, name: str) -> dict:
    """Arguments that make a start."""
    start = grid["starts"][name]
    per = start.get("per", [])
    arguments = start["arguments"] | start.get("by_task", {}).get(run["task"], {}) | PLAIN
    if "fold" in per:
        arguments |= fold_arguments(run)
    if start["command"] == "train":
        task = grid["tasks"][run["task"]]["arguments"]
        shared = {key: task[key] for key in ("max_train_samples",) if key in task}
        return arguments | shared | ({"seed": run["seed"]} if "seed" in per else {})
    return {key: value for key, value in arguments.items() if key != "load_best_model_at_end"}


def start_results(name: str) -> dict:
    """What was measured when a start was made."""
    folder = FOLDER / name
    return (read_results(folder, TRAIN) or {}) | (read_results(folder, results_of("validation")) or {})
