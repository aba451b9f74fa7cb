"""Where the time of a training step goes, what gradient checkpointing costs, and what workers that load data gain.

The parts are those of this code and, with `--against FOLDER`, of another checkout of it, in turn.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks import training_step
from benchmarks.efficiency import forward_backward
from benchmarks.report import RESULTS, describe_machine, name_machine, read_results, render_table, run_benchmark
from benchmarks.timing import peak_memory, time_in_turn
from modeling_fftp.memory import keep_freed_memory
from modeling_fftp.training.trainer import FFTPTrainer

ROOT = Path(__file__).parent.parent
DATA_PARTS = ("reading", "features", "masks", "other changes to clips")
PARTS = (*DATA_PARTS, "forward", "backward", "clipping", "optimizer")
WORKERS = (0, 1, 2)
TRAINED_CLIPS = 64 * 40
# A model of the middle size, 16 clips of 10 s.
CHECKPOINTED = ("FFTP-AST, stride 5", "small", 10.0, 16)


def measure_parts(checkouts: dict[str, Path], turns: int, rounds: int) -> dict[str, dict]:
    """By checkout the precision that the recipe chooses there, and median milliseconds by precision and part.

    Processes of the checkouts run in turn.
    """
    chosen, times = {}, {name: {} for name in checkouts}
    for _ in range(turns):
        for name, folder in checkouts.items():
            output = subprocess.run(
                [sys.executable, "-m", training_step.__name__, str(rounds)],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(folder)},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
            step = json.loads(output)
            chosen[name] = step["chosen"]
            for precision, parts in step["times"].items():
                for part, taken in parts.items():
                    times[name].setdefault(precision, {}).setdefault(part, []).extend(taken)
    return {
        name: {
            "chosen": chosen[name],
            "times": {precision: find_parts(parts) for precision, parts in precisions.items()},
        }
        for name, precisions in times.items()
    }


def find_parts(times: dict[str, list[float]]) -> dict[str, float]:
    """Medians of the parts that add up to a step."""
    medians = {part: statistics.median(taken) for part, taken in times.items()}
    medians["other changes to clips"] = max(0.0, medians["collator"] - medians["features"] - medians["masks"])
    return {part: medians[part] for part in PARTS}


def measure_checkpointing(seconds: float) -> list[dict]:
    """Time and memory of a forward and backward pass, with and without."""
    ways = {"all activations kept": False, "gradient checkpointing": True}
    calls = {name: forward_backward(*CHECKPOINTED, checkpointing) for name, checkpointing in ways.items()}
    times = time_in_turn(calls, seconds)
    return [
        {
            "way": name,
            "milliseconds": 1000 * statistics.median(times[name]),
            "mib": peak_memory(forward_backward, *CHECKPOINTED, checkpointing),
        }
        for name, checkpointing in ways.items()
    ]


def measure_workers(turns: int) -> dict[int, float]:
    """Clips per second of `FFTPTrainer` by the number of workers, medians."""
    rates = {workers: [] for workers in WORKERS}
    with tempfile.TemporaryDirectory() as folder:
        clips = training_step.make_clips(f"{folder}/clips", TRAINED_CLIPS)
        for _ in range(turns):
            for workers in WORKERS:
                rates[workers].append(train_once(clips, f"{folder}/output", workers))
    return {workers: statistics.median(taken) for workers, taken in rates.items()}


def train_once(clips, folder: str, workers: int) -> float:
    """Clips per second of one epoch as a training runs it, without evaluation."""
    torch.manual_seed(0)
    model, collator, arguments = training_step.build(folder)
    arguments.num_train_epochs, arguments.dataloader_num_workers = 1, workers
    arguments.eval_strategy = arguments.save_strategy = "no"
    arguments.load_best_model_at_end, arguments.disable_tqdm = False, True
    trainer = FFTPTrainer(model, arguments, data_collator=collator, train_dataset=clips)
    return trainer.train().metrics["train_samples_per_second"]


def measure(given: argparse.Namespace) -> dict[str, dict]:
    """Results of this machine, in place of those that it had, beside those of others."""
    kept = read_results("training") if (RESULTS / "training.json").exists() else {}
    # As a training does.
    keep_freed_memory()
    checkouts = {given.against_name: given.against.resolve()} if given.against else {}
    machine = describe_machine()
    results = {
        "machine": machine,
        "parts": measure_parts(checkouts | {"this code": ROOT}, given.turns, given.rounds),
        "checkpointing": measure_checkpointing(60.0),
        "workers": {str(workers): rate for workers, rate in measure_workers(given.turns).items()},
    }
    return kept | {machine["processor"]: results}


def render(machines: dict[str, dict]) -> str:
    """Markdown: a section for each machine."""
    head = """# Where the time of a training step goes

`python -m benchmarks.training`, on each machine at another time ("this code" is that of then), with `--against FOLDER`
where it names other code; medians. GPU: not measured.
"""
    return "\n".join([head, *map(render_machine, machines.values())])


def render_machine(results: dict) -> str:
    """What was measured on one."""
    rows = []
    for name, code in results["parts"].items():
        for precision, parts in code["times"].items():
            step = sum(parts.values())
            cells = [f"{parts[part]:.1f} ms ({parts[part] / step:.0%})" for part in PARTS]
            share = (parts["forward"] + parts["backward"]) / step
            rate = 1000 * training_step.BATCH / step
            label = f"**{precision}**" if precision == code["chosen"] else precision
            rows.append([f"{name}, {label}", *cells, f"{step:.0f} ms", f"{rate:.0f}", f"{share:.0%}"])
    steps = render_table(["code, precision", *PARTS, "step", "clips per second", "forward and backward"], rows)
    model, size, seconds, batch = CHECKPOINTED
    memory = [
        [kept["way"], f"{kept['milliseconds']:.0f} ms", f"{kept['mib']:.0f} MiB"] for kept in results["checkpointing"]
    ]
    workers = results["workers"]
    return f"""## {results["machine"]["processor"]}

{name_machine(results["machine"])}. The step of the recipe `{training_step.RECIPE}` (192 wide, 12 layers) on
{training_step.BATCH} clips of 1 s; the precision that the recipe chooses is in bold:

{steps}
Forward and backward pass of {model}, {size}, {batch} clips of {seconds:g} s, float32:

{render_table(["", "time", "memory"], memory)}
Clips per second of `FFTPTrainer` by `dataloader_num_workers`, everything included:

{render_table([*workers], [[f"{rate:.0f}" for rate in workers.values()]])}"""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="folder of another checkout")
    parser.add_argument("--against_name", default="before", help="what the report calls it")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=15, help="steps per turn")
    run_benchmark("training", parser, measure, render)


if __name__ == "__main__":
    main()
