"""The paper at its size: base models from scratch on ESC-50, square patches and full-frequency ones, with masks."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.commands import PLAIN, call, slug
from benchmarks.gpu.setting import Setting
from modeling_fftp.hub.run_files import TRAIN, read_results, results_of

# The fold that validates, whatever the seed.
FOLD, SEEDS = "4", (1, 2, 3)
SHARED = {
    "max_seconds": 5, "num_train_epochs": 60, "per_device_train_batch_size": 32, "learning_rate": 1e-4,
    "warmup_steps": 0.1, "mixup_probability": 0.5, "bf16": True, "features_on_device": True,
    "validation_column": "fold", "validation_value": FOLD, "spec_mask_budget": 0, "dataloader_num_workers": 4,
}  # fmt: skip
MASKED = {"spec_mask_budget": 0.2}
ARMS = {
    "square 16/10": {"patch_size": [16, 16], "frequency_stride": 10, "time_stride": 10},
    "FFTP, stride 5": {"time_stride": 5},
    "FFTP, stride 5, SpecMask": {"time_stride": 5} | MASKED,
    "FFTP, stride 1": {"time_stride": 1},
    "FFTP, stride 1, SpecMask": {"time_stride": 1} | MASKED,
    "square 16/10, SpecMask": {"patch_size": [16, 16], "frequency_stride": 10, "time_stride": 10} | MASKED,
}
TINY = {
    "hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 96,
    "num_train_epochs": 1, "dataloader_num_workers": 0, "bf16": False, "use_cpu": True,
    "validation_column": None, "validation_value": None,
}  # fmt: skip


def list_cases(setting: Setting) -> dict[str, Callable[[], dict]]:
    """Trainings, all arms of a seed before the next seed; none without data."""
    if setting.data is None:
        return {}
    seeds, arms = (SEEDS[:1], [*ARMS][:1]) if setting.is_tiny else (SEEDS, [*ARMS])
    return {f"{arm}, seed {seed}": partial(train, setting, arm, seed) for seed in seeds for arm in arms}


def train(setting: Setting, arm: str, seed: int) -> dict:
    """Accuracy after the last epoch, and the time of the training."""
    arguments = SHARED | ARMS[arm] | PLAIN | {"seed": seed} | (TINY if setting.is_tiny else {})
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, slug(arm))
        call("train", setting.data / "esc50", output, arguments)
        trained, validated = read_results(output, TRAIN), read_results(output, results_of("validation"))
    return {
        "kind": "paper", "arm": arm, "seed": seed, "accuracy": validated["validation_accuracy"],
        "train_seconds": trained["train_runtime"], "arguments": arguments,
    }  # fmt: skip
