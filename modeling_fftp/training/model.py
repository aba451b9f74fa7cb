"""The model of a run: a new one, or a checkpoint, with its feature extractor."""

import logging

import torch

from feature_extraction import FFTPFeatureExtractor
from feature_extraction.log_mel_fftp import num_frames
from modeling_fftp import FFTPConfig, FFTPForAudioClassification

from .arguments import ModelArguments
from .data import SAMPLING_RATE, Clips

logger = logging.getLogger(__name__)


def build_model(
    arguments: ModelArguments, clips: Clips, max_seconds: float, keep_classes: bool
) -> tuple[FFTPForAudioClassification, FFTPFeatureExtractor]:
    """A new model with an extractor that knows the training audio's statistics, or a checkpoint with its own.

    Args:
        arguments: Which of the two, and its shape.
        clips: What it learns.
        max_seconds: Length of training clips, and of a new model's position table.
        keep_classes: Whether a checkpoint for other classes is refused. Else its head starts anew, also where there
            are as many.

    Raises:
        ValueError: A checkpoint for other classes, or for sound at another rate.
    """
    labels = {
        "id2label": dict(enumerate(clips.classes)),
        "label2id": {name: index for index, name in enumerate(clips.classes)},
        "problem_type": clips.problem_type,
    }
    if arguments.model_name_or_path:
        return load_checkpoint(arguments, labels, keep_classes)
    shape = dict(vars(arguments))
    shape.pop("model_name_or_path")
    max_length = max(shape["patch_size"][-1], num_frames(round(max_seconds * SAMPLING_RATE), SAMPLING_RATE))
    config = FFTPConfig(max_length=max_length, **shape, **labels)
    extractor = FFTPFeatureExtractor(config.num_mel_bins, SAMPLING_RATE, max_length)
    extractor.mean, extractor.std = extractor.measure(example["audio"] for example in clips.splits["train"])
    logger.info("Training audio: mean %.4f, std %.4f (natural log of mel energies)", extractor.mean, extractor.std)
    return FFTPForAudioClassification(config), extractor


def load_checkpoint(
    arguments: ModelArguments, labels: dict, keep_classes: bool
) -> tuple[FFTPForAudioClassification, FFTPFeatureExtractor]:
    """A checkpoint for these labels, with its extractor; its head starts anew where they are others."""
    source, names = arguments.model_name_or_path, [*labels["id2label"].values()]
    known = [*FFTPConfig.from_pretrained(source).id2label.values()]
    if keep_classes and known != names:
        raise ValueError(f"{source} tells apart {known}; the data has {names}")
    settings = labels | {"attn_implementation": arguments.attn_implementation}
    if arguments.token_merge_layers is not None:
        settings["token_merge_layers"] = arguments.token_merge_layers
    model = FFTPForAudioClassification.from_pretrained(source, ignore_mismatched_sizes=True, **settings)
    if known != names:
        logger.info("%s tells apart other classes: the head starts anew", source)
        with torch.no_grad():
            model.classifier.dense.weight.normal_(0, model.config.initializer_range)
            model.classifier.dense.bias.zero_()
    extractor = FFTPFeatureExtractor.from_pretrained(source)
    if extractor.sampling_rate != SAMPLING_RATE:
        raise ValueError(f"{source} is for sound at {extractor.sampling_rate} Hz; expected {SAMPLING_RATE} Hz")
    return model, extractor
