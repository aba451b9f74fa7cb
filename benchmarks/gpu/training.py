"""What a training step costs on a GPU: base models, 64 clips of 10 s, features on the device, bfloat16."""

import statistics
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.efficiency import RATE, REFERENCE_SECONDS, build_model, make_sound
from benchmarks.gpu.setting import Setting
from benchmarks.timing import Stopwatch
from feature_extraction import FFTPFeatureExtractor, SpecMask, SpecMaskDataCollator

MODELS = (
    "FFTP-AST, stride 5", "AST, square 16/10", "FFTP-AuM, stride 5", "AuM, square 16/16", "FFTP-AST, stride 1",
)  # fmt: skip
BATCH, WARM_UP, STEPS = 64, 3, 10


def list_cases(setting: Setting) -> dict[str, Callable[[], dict]]:
    """A step of each model."""
    models = MODELS[:1] if setting.is_tiny else MODELS
    return {f"training step, {name}": partial(measure, setting, name) for name in models}


def measure(setting: Setting, name: str) -> dict:
    """Milliseconds by part, clips per second, and memory."""
    batch = 2 if setting.is_tiny else BATCH
    size = "tiny" if setting.is_tiny else "base"
    with setting.device:
        model = build_model(name, size).train()
    mask = SpecMask.from_config(model.config)
    collator = SpecMaskDataCollator(FFTPFeatureExtractor(), mask, defer_features=True)
    clips = [{"audio": make_sound(REFERENCE_SECONDS), "labels": index} for index in range(batch)]
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    watch = Stopwatch()

    def step() -> None:
        def take(part: str) -> None:
            setting.synchronize()
            watch.take(part)

        setting.synchronize()
        watch.start()
        sound = collator.augment(clips)
        take("collator")
        moved = {key: value.to(setting.device) for key, value in sound.items()}
        take("copy")
        features = collator.featurize(moved)
        features.pop("feature_seed", None)
        take("features and masks")
        with torch.autocast(setting.device.type, torch.bfloat16):
            loss = model(**features).loss
        take("forward")
        loss.backward()
        take("backward")
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        take("clipping")
        optimizer.step()
        optimizer.zero_grad()
        take("optimizer")

    for _ in range(1 if setting.is_tiny else WARM_UP + STEPS):
        step()
    skipped = 0 if setting.is_tiny else WARM_UP
    parts = {part: statistics.median(taken[skipped:]) for part, taken in watch.milliseconds.items()}
    return {
        "kind": "training", "model": name, "size": size, "batch": batch, "rate": RATE, "parts": parts,
        "clips_per_second": 1000 * batch / sum(parts.values()), "gib": setting.peak_gib(step),
    }  # fmt: skip
