"""Time of a training step of every arm of the study, side by side in one run.

    python -m benchmarks.study_time

A step is a forward and a backward pass at the task's batch size, on one thread as the study trains. All models of a
task run in turn within each round. Results go to `results/study_time.json`, which the study's report reads.
"""

import argparse
import json
import statistics
import time

import torch

from benchmarks.report import RESULTS, describe_machine, write_json
from modeling_fftp import FFTPConfig, FFTPForAudioClassification

MODEL_FIELDS = (
    "backbone", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps",
    "patch_size", "frequency_stride", "time_stride", "attn_implementation",
)  # fmt: skip


def build_config(grid: dict, task: str, arm: str) -> FFTPConfig:
    """Model of an arm on a task of the grid."""
    arguments = grid["defaults"] | grid["tasks"][task]["arguments"] | grid["arms"][arm]
    fields = {name: arguments[name] for name in MODEL_FIELDS if name in arguments}
    return FFTPConfig(max_length=grid["tasks"][task]["frames"], num_labels=grid["tasks"][task]["labels"], **fields)


def load_step_times() -> dict[str, dict[str, float]]:
    """Milliseconds per clip by task and arm; empty where nothing was measured."""
    path = RESULTS / "study_time.json"
    return json.loads(path.read_text(encoding="utf-8"))["milliseconds_per_clip"] if path.exists() else {}


def measure_steps(grid: dict, task: str, arms: list[str], rounds: int) -> dict[str, float]:
    """Median milliseconds per clip of each arm; arms with the same model are measured once."""
    arguments = grid["defaults"] | grid["tasks"][task]["arguments"]
    batch, frames = arguments["per_device_train_batch_size"], grid["tasks"][task]["frames"]
    labels = torch.randint(grid["tasks"][task]["labels"], (batch,))
    configs = {arm: build_config(grid, task, arm) for arm in arms}
    names = {arm: config.to_json_string() for arm, config in configs.items()}
    models = {names[arm]: FFTPForAudioClassification(config).train() for arm, config in configs.items()}
    clips = torch.randn(batch, frames, 128)
    times = {name: [] for name in models}
    for index in range(rounds + 1):
        for name, model in models.items():
            model.zero_grad()
            started = time.perf_counter()
            model(clips, labels=labels).loss.backward()
            # The first round warms up.
            if index:
                times[name].append(1000 * (time.perf_counter() - started) / batch)
    return {arm: statistics.median(times[name]) for arm, name in names.items()}


def main() -> None:
    """Measure every task, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    grid = json.loads((RESULTS.parent / "study.json").read_text(encoding="utf-8"))
    milliseconds = {}
    for task in grid["tasks"]:
        arms = dict.fromkeys(arm for study in grid["studies"] if study["task"] == task for arm in study["arms"])
        milliseconds[task] = measure_steps(grid, task, [*arms], rounds)
    results = {"machine": describe_machine(), "rounds": rounds, "milliseconds_per_clip": milliseconds}
    write_json(RESULTS / "study_time.json", results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
