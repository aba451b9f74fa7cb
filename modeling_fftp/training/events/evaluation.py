"""What a training on events has besides: scores of steps, events made of them, and how good these are."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from transformers import EvalPrediction, PreTrainedModel

from feature_extraction import FFTPFeatureExtractor
from feature_extraction.events import read_events
from modeling_fftp import FFTPConfig
from modeling_fftp.audio_tagging_fftp import FFTPAudioTaggingPipeline
from modeling_fftp.events_fftp import SOMEWHERE, filter_lengths, median_filter
from modeling_fftp.hub.run_files import RECIPE, events_of, read_results
from modeling_fftp.loss_fftp import IGNORED
from modeling_fftp.scores_fftp import label_names
from modeling_fftp.serving.row_groups import group_rows

from ..arguments import FFTPTrainingArguments
from ..data.decoding import clip_lengths
from ..data.recording_pieces import RecordingPieces
from ..results import write_results
from ..trainer import FFTPTrainer
from .metrics import Collars, Recording, event_f1, psds
from .postprocessing import find_events, fit_postprocessing

logger = logging.getLogger(__name__)

# Event F1 of a label below which its threshold is no choice.
POOR_F1 = 0.3


def score_steps(score: Callable[[EvalPrediction], dict]) -> Callable[[EvalPrediction], dict]:
    """Make a scorer of clips, (clips, labels), one of the real steps of padded clips, (clips, steps, labels)."""

    def score_real(prediction: EvalPrediction) -> dict:
        # Logits go on to where the batch was padded to.
        count = min(prediction.predictions.shape[1], prediction.label_ids.shape[1])
        logits, labels = prediction.predictions[:, :count], prediction.label_ids[:, :count]
        is_real = labels[..., 0] != IGNORED
        if (labels[is_real] == SOMEWHERE).any():
            raise ValueError("an event has no times; measure on clips whose events have them")
        return score(EvalPrediction(logits[is_real], labels[is_real]))

    return score_real


def hear(
    model: PreTrainedModel, extractor: FFTPFeatureExtractor, clips: Dataset, device: torch.device, batch_size: int
) -> list[Recording]:
    """Scores of the steps of clips, as the pipeline that serves them has them: in windows.

    Args:
        model: A frame classifier.
        extractor: Its feature extractor.
        clips: "audio" at the extractor's rate, and "labels", events by name.
        device: Device to compute on.
        batch_size: Windows at a time.
    """
    pipeline = FFTPAudioTaggingPipeline(model=model.eval(), feature_extractor=extractor, device=device)
    recordings = []
    # Long ones fill batches alone, and several of them would fill the memory.
    most = batch_size * pipeline.window_seconds * extractor.sampling_rate
    for rows in group_rows(clip_lengths(clips), most):
        some = clips[rows]
        sounds = [np.asarray(sound, dtype=np.float32) for sound in some["audio"]]
        answers = pipeline(sounds, batch_size=batch_size, return_windows=True)
        for answer, events in zip(answers, some["labels"], strict=True):
            scores = torch.tensor([row["scores"] for row in answer["windows"]])
            spans = torch.tensor([[row["start"], row["end"]] for row in answer["windows"]], dtype=torch.float64)
            recordings.append(Recording(scores, spans, read_events(events), answer["duration"]))
    return recordings


def hear_clips(trainer: FFTPTrainer, clips: RecordingPieces) -> list[Recording]:
    """Scores of the steps of whole recordings, by the model that a trainer holds."""
    arguments = trainer.args
    batch_size = arguments.per_device_eval_batch_size
    return hear(trainer.model, trainer.processing_class, clips.recordings, arguments.device, batch_size)


def choose_postprocessing(trainer: FFTPTrainer) -> None:
    """Choose thresholds and median filters on the clips that validate, for the config; the first process does."""
    if not trainer.is_world_process_zero():
        return
    config = trainer.model.config
    recordings = hear_clips(trainer, trainer.eval_dataset)
    config.thresholds, config.median_filter_seconds = fit_postprocessing(recordings, config, collars_of(trainer))


def evaluate_events(trainer: FFTPTrainer, clips: RecordingPieces, name: str, metrics: dict[str, float]) -> None:
    """Measure the events of a split, and save them with its other metrics; the first process does."""
    if not trainer.is_world_process_zero():
        return
    collars = collars_of(trainer)
    recordings = hear_clips(trainer, clips)
    results = measure_events(recordings, trainer.model.config, collars)
    per_class = results.pop("per_class")
    trainer.save_metrics(name, metrics | {f"{name}_{key}": value for key, value in results.items()})
    write_results(trainer.args, events_of(name), {"collars": asdict(collars), **results, "per_class": per_class})
    shown = ", ".join(f"{key} {value:.4f}" for key, value in results.items() if value is not None)
    print(f"{name} {shown}; collars of {collars.onset:g} and {collars.offset:g} s")
    known = {label: value for label, value in per_class.items() if value is not None}
    if poor := [f"{label} ({value:.2f})" for label, value in known.items() if value < POOR_F1]:
        logger.warning("%s: hardly found, so their thresholds mean little: %s", name, ", ".join(poor))


def set_collars(training: FFTPTrainingArguments, source: str | None) -> None:
    """Set the collars that are not given: those that a checkpoint which is evaluated was trained with, or defaults.

    Args:
        training: The arguments.
        source: The checkpoint.
    """
    recipe = _find_recipe(source) if source and not training.do_train else None
    for name, default in (("onset_collar", Collars.onset), ("offset_collar", Collars.offset)):
        if getattr(training, name) is None:
            setattr(training, name, (recipe or {}).get(name, default))


def _find_recipe(source: str) -> dict | None:
    """The recipe of a folder or of a repository on the Hub, if it has one."""
    if Path(source).exists():
        return read_results(source, RECIPE)
    try:
        return json.loads(Path(hf_hub_download(source, f"{RECIPE}.json")).read_text(encoding="utf-8"))
    except EntryNotFoundError as error:
        logger.warning("No recipe of %s names the collars of its training, so the defaults count: %s", source, error)
        return None


def collars_of(trainer: FFTPTrainer) -> Collars:
    """The collars of a trainer's arguments."""
    return Collars(trainer.args.onset_collar, trainer.args.offset_collar)


def measure_events(recordings: list[Recording], config: FFTPConfig, collars: Collars) -> dict:
    """Event F1 with the thresholds and filters of a config, and PSDS with its filters, over all thresholds."""
    labels, lengths = label_names(config), filter_lengths(config)
    found = [find_events(recording, config) for recording in recordings]
    filtered = [replace(recording, scores=median_filter(recording.scores, lengths)) for recording in recordings]
    return event_f1([recording.events for recording in recordings], found, labels, collars) | psds(filtered, labels)
