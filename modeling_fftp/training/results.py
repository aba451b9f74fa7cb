"""What a run leaves beside the model: JSON files of arguments, metrics and results per class."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import evaluate
from datasets import Dataset
from transformers import EvalPrediction
from transformers.trainer_utils import PredictionOutput

from hub_cards import METRIC
from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.atomic_write import atomic_write
from modeling_fftp.hub.card_facts import EXPLANATION, RELIABILITY
from modeling_fftp.hub.efficiency import measure_efficiency

from .arguments import FFTPTrainingArguments
from .data.recording_pieces import RecordingPieces
from .trainer import FFTPTrainer

# Files of what is measured and drawn of weights.
MEASURED_OF_WEIGHTS = (
    *(f"{split}_{what}.json" for split in ("validation", "test") for what in ("results", "per_class", "events")),
    "all_results.json", "calibration_results.json", "strides_results.json", "efficiency_results.json",
    RELIABILITY, EXPLANATION,
)  # fmt: skip

Scorer = Callable[[EvalPrediction], dict]


def build_scorer(names: list[str]) -> Scorer:
    """Gives all results of the metric `audio_tagging` from logits and labels."""
    # In memory: processes that evaluate side by side share no files.
    metric = evaluate.load(str(METRIC), keep_in_memory=True)
    return lambda prediction: metric.compute(
        predictions=prediction.predictions, references=prediction.label_ids, class_names=names
    )


def only_numbers(results: dict) -> dict[str, float]:
    """The results that are one number."""
    return {name: value for name, value in results.items() if isinstance(value, float)}


def evaluate_split(trainer: FFTPTrainer, clips: Dataset, name: str, scorer: Scorer, metric: str) -> PredictionOutput:
    """Evaluate a split, and write its results and those of each class; gives logits, labels and metrics."""
    prediction = trainer.predict(clips, metric_key_prefix=name)
    trainer.log_metrics(name, prediction.metrics)
    trainer.save_metrics(name, prediction.metrics)
    if trainer.is_world_process_zero():
        results = scorer(prediction)
        write_per_class(trainer.args, name, results)
        score = "not defined" if results[metric] is None else f"{results[metric]:.4f}"
        is_cut = isinstance(clips, RecordingPieces) and len(clips) > len(clips.recordings)
        unit = "pieces of recordings" if is_cut else "clips"
        print(f"{name} {metric}: {score} on {len(clips)} {unit}, results in {trainer.args.output_dir}")
    return prediction


def write_per_class(training: FFTPTrainingArguments, name: str, results: dict) -> None:
    """Write of the results of a split those of each class."""
    write_results(training, f"{name}_per_class", {key: results[key] for key in ("per_class", "left_out")})


def evaluate_strides(
    trainer: FFTPTrainer, clips: Dataset, metric: str, strides: Sequence[int], seconds: float
) -> list[dict]:
    """Measure what a saved model reaches at each of several strides, and what it costs.

    Args:
        trainer: Trainer whose output folder holds the model.
        clips: Clips to measure on.
        metric: Name of the task's metric.
        strides: Frames between patches.
        seconds: Length of the clip whose cost is measured.

    Returns:
        For each stride `time_stride`, the metric, and of `measure_efficiency` `tokens`, `multiply_adds` and
        `milliseconds`.
    """
    folder, rows = trainer.args.output_dir, []
    for time_stride in strides:
        at_stride = FFTPTrainer(
            model=FFTPForAudioClassification.from_pretrained(folder, time_stride=time_stride),
            args=trainer.args,
            data_collator=trainer.data_collator,
            eval_dataset=clips,
            compute_metrics=trainer.compute_metrics,
        )
        metrics = at_stride.predict(clips, metric_key_prefix="").metrics
        row = {"time_stride": time_stride, metric: metrics.get(f"_{metric}")}
        if trainer.is_world_process_zero():
            cost = measure_efficiency(folder, seconds, time_stride=time_stride)
            row |= {name: cost[name] for name in ("tokens", "multiply_adds", "milliseconds")}
        rows.append(row)
    return rows


def forget_results(training: FFTPTrainingArguments) -> None:
    """Delete what was measured and drawn of earlier weights in the output folder; the first process does."""
    if training.process_index == 0:
        for name in MEASURED_OF_WEIGHTS:
            Path(training.output_dir, name).unlink(missing_ok=True)


def write_results(training: FFTPTrainingArguments, name: str, results: dict) -> None:
    """Write `NAME.json` into the output folder, whole or not at all; the first process does."""
    if training.process_index == 0:
        with atomic_write(Path(training.output_dir, f"{name}.json")) as part:
            part.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
