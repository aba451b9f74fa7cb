"""What a calibration is worth on sound that did not choose it: several sounds at once, as clips and in a recording.

    python -m benchmarks.calibration --data FOLDER    # trains the models first, in `runs/calibration`

FOLDER holds `esc10`. Of the four folds of its mixtures (`benchmarks/mixtures.py`) two train a model, one calibrates
it, and one measures; each fold measures once. The recording has the clips that measure, one after the other, and its
timeline is judged clip by clip, as segment-based measures do (Mesaros et al. 2016).
"""

import argparse
import itertools
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, load_dataset
from transformers import pipeline

from benchmarks.commands import PLAIN, ROOT, call
from benchmarks.long_recording import compare_calibration
from benchmarks.mixtures import SAMPLING_RATE, make_mixtures
from benchmarks.report import describe_machine, name_machine, render_table, run_benchmark
from modeling_fftp.audio_stream_fftp import read_audio
from modeling_fftp.hub.run_files import CALIBRATION, read_results

# git leaves `runs` out.
FOLDER = ROOT / "runs" / "calibration"
FOLDS = (1, 2, 3, 4)
# Shares of the sounds to find.
RECALLS = (0.4, 0.6, 0.8)
ARGUMENTS = {
    "hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 512,
    "patch_size": [128, 10], "time_stride": 5, "roll_frames": 10, "noise": 0.1, "gain": 0.2, "filter_augment": 0.4,
    "mixup_probability": 0, "spec_mask_budget": 0.1, "cache_features": True, "learning_rate": 0.001,
    "weight_decay": 0.05, "warmup_steps": 0.1, "num_train_epochs": 60, "per_device_train_batch_size": 32,
    "auto_bf16": True, "seed": 0,
}  # fmt: skip


def split_folds(mixtures: Dataset, measures: int, folder: Path) -> None:
    """Write the three splits of one model."""
    calibrates = FOLDS[FOLDS.index(measures) - 1]
    trains = [fold for fold in FOLDS if fold not in (measures, calibrates)]
    for split, folds in ("train", trains), ("validation", [calibrates]), ("test", [measures]):
        rows = [row for row, fold in enumerate(mixtures["fold"]) if fold in folds]
        mixtures.select(rows).to_parquet(folder / f"{split}.parquet")


def count_clips(
    edges: np.ndarray, targets: np.ndarray, segments: list[tuple[float, float, int, float]]
) -> tuple[float, float]:
    """Share of the sounds of a recording's clips that are reported, and sounds an hour that they do not have.

    Args:
        edges: Where clips begin and the last one ends, in seconds, (clips + 1,).
        targets: 0 and 1, (clips, labels).
        segments: Start, end, label and score of what a timeline reports. What covers half of a clip is reported of it.
    """
    covered = np.zeros(targets.shape)
    for start, end, label, _ in segments:
        covered[:, label] += np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, None)
    reported = covered >= np.diff(edges)[:, None] / 2
    hits, false = (reported & (targets == 1)).sum(), (reported & (targets == 0)).sum()
    return float(hits / targets.sum()), float(false * 3600 / edges[-1])


def measure_fold(mixtures: Dataset, fold: int) -> dict:
    """Train and calibrate a model, unless it is there, and compare before and after on the fold that measures."""
    data, model = FOLDER / f"data-{fold}", FOLDER / f"model-{fold}"
    split_folds(mixtures, fold, data)
    wanted, recipe = ARGUMENTS | PLAIN, model.with_suffix(".json")
    if not read_results(model, CALIBRATION) or json.loads(recipe.read_text(encoding="utf-8")) != wanted:
        shutil.rmtree(model, ignore_errors=True)
        call("train", data, model, wanted)
    calibration = read_results(model, CALIBRATION)
    clips = load_dataset(str(data), split="test")
    sounds = [read_audio(audio, SAMPLING_RATE) for audio in clips["audio"]]
    edges = np.cumsum([0, *map(len, sounds)]) / SAMPLING_RATE
    targets = np.stack([np.isin(range(clips.features["labels"].feature.num_classes), row) for row in clips["labels"]])
    tag = pipeline("audio-tagging", model=str(model), trust_remote_code=True)
    answer = tag(np.concatenate(sounds), batch_size=8, return_windows=True)
    count = partial(count_clips, edges, targets.astype(int))
    return {
        "minutes": edges[-1] / 60,
        "clips": {
            name: {key: value for key, value in scores.items() if key != "bins"}
            for name, scores in calibration["test"].items()
        },
        "recording": {
            recall: compare_calibration(answer, count, tag.model.config, calibration["temperature"], recall)
            for recall in RECALLS
        },
    }


def measure(data: Path) -> dict:
    """Train and compare, fold by fold."""
    torch.set_num_threads(1)
    make_mixtures(data / "esc10", FOLDER / "mixtures")
    mixtures = load_dataset(str(FOLDER / "mixtures"), split="train")
    return {"machine": describe_machine(), "folds": {fold: measure_fold(mixtures, fold) for fold in FOLDS}}


def render(results: dict) -> str:
    """Markdown."""
    folds = [*results["folds"].values()]
    first = next(iter(folds[0]["recording"]))

    def row(title: str, part: str, key: str, scale: float = 100, recall: str | None = None) -> list[str]:
        measured = [fold[part] if recall is None else fold[part][recall] for fold in folds]
        values = [[fold[name][key] for fold in measured] for name in ("before", "after")]
        if None in itertools.chain(*values):
            return [title, *["not reached"] * 3]
        before, after = scale * np.array(values)
        form = ".1f" if scale == 100 else ".0f"
        cells = [f"{values.mean():{form}} +- {values.std(ddof=1):{form}}" for values in (before, after)]
        change = after - before
        return [title, *cells, f"{change.mean():+{form}} +- {change.std(ddof=1):{form}}"]

    rows = [
        row("clips: expected calibration error, points", "clips", "ece"),
        row("clips: F1, mean of the labels, %", "clips", "f1"),
        row("clips: precision, %", "clips", "precision"),
        row("clips: recall, %", "clips", "recall"),
        row("recording: sounds found, %", "recording", "recall", recall=first),
        row("recording: false alarms an hour", "recording", "false_alarms", 1, first),
        *(
            row(f"recording: those where {float(recall):.0%} are found", "recording", "at_recall", 1, recall)
            for recall in folds[0]["recording"]
        ),
    ]
    return f"""# What a calibration is worth

`python -m benchmarks.calibration --data FOLDER` on {name_machine(results["machine"])}.
Each model hears two or three of ten kinds of sound at once. Two folds train it, from scratch, a third chooses
temperature and thresholds, and the fourth measures: its clips, and a recording of {folds[0]["minutes"]:.1f} minutes
that has them one after the other. Mean and standard deviation over {len(folds)} models, each measured by another fold.

{render_table(["", "before", "after", "difference"], rows)}
Before: logits as they were trained, and 0.5 for every label. The recording is judged clip by clip: a sound is found
where entries of its kind cover half of its clip; where they cover half of a clip without it, that is a false alarm.
In the last rows all thresholds move by the same number of logits, as high as still finds that share.
"""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    run_benchmark("calibration", parser, lambda given: measure(given.data), render)


if __name__ == "__main__":
    main()
