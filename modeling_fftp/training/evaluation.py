"""What a model reaches on a split: all of its results, each class's, and at other strides."""

from collections.abc import Callable, Sequence

import evaluate
from datasets import Dataset
from transformers import EvalPrediction
from transformers.trainer_utils import PredictionOutput

from hub_cards import METRIC
from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.hub.efficiency import measure_efficiency

from .data.recording_pieces import RecordingPieces
from .results import write_per_class
from .trainer import FFTPTrainer

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
