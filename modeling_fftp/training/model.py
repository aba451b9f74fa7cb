"""The model of a run: a new one, or a checkpoint, with its feature extractor."""

import logging
from collections.abc import Iterable
from math import floor
from typing import Any

import torch
from datasets import Dataset
from torch import nn

from feature_extraction import FFTPFeatureExtractor
from feature_extraction.log_mel_fftp import num_frames
from modeling_fftp import FFTPConfig
from modeling_fftp.convert.convert import adapt, mask_padding, spectrograms_of
from modeling_fftp.convert.converted import Converted
from modeling_fftp.convert.from_vit import VISION_MODELS
from modeling_fftp.convert.patch_geometry import GEOMETRY
from modeling_fftp.convert.sources import find_kind, load
from modeling_fftp.heads_fftp import CLIPS, FRAMES, find_saved_task
from modeling_fftp.label_fields_fftp import FIELDS_OF_LABELS
from modeling_fftp.modeling_fftp import CLASSIFIERS, FFTPPreTrainedModel
from modeling_fftp.scores_fftp import label_names
from modeling_fftp.times_fftp import frame_seconds, table_seconds, window_seconds

from .arguments import ModelArguments
from .data.loading import Clips
from .data.messages import name_some
from .data.sampling import spread_sounds
from .model_arguments import (
    ADJUSTABLE,
    find_sampling_rate,
    refuse_foreign_stride,
    refuse_what_cannot_apply,
)

logger = logging.getLogger(__name__)


# Name of the table in the weights of the base model.
POSITIONS = "embeddings.position_embeddings.weight"
# Clips that a patch embedding is fitted to.
FITTED_CLIPS = 1024
# Classes that the log names at most.
NAMED = 20


def build_model(
    arguments: ModelArguments, clips: Clips, max_seconds: float, do_train: bool = True, freeze_backbone: bool = False
) -> tuple[FFTPPreTrainedModel, FFTPFeatureExtractor]:
    """A new model with an extractor that knows the training audio's statistics, or a checkpoint with its own.

    Args:
        arguments: Which of the two, and its shape.
        clips: What it learns.
        max_seconds: Length of training clips, and of a new model's position table.
        do_train: Whether it learns at all; a checkpoint that does not must have its head.
        freeze_backbone: Whether of a checkpoint only what is new learns: the head, and the embedding of new patches.

    Raises:
        ValueError: A checkpoint of another model or shape, or for sound at another rate.
    """
    labels = {"id2label": dict(enumerate(clips.classes)), "problem_type": clips.problem_type}
    if arguments.model_name_or_path:
        return load_checkpoint(arguments, labels, clips, max_seconds, do_train, freeze_backbone)
    config, extractor = describe_new(arguments, clips.sample("train"), max_seconds, **labels)
    return model_class(clips)(config), extractor


def describe_new(
    arguments: ModelArguments, sample: Dataset, max_seconds: float, **labels: Any
) -> tuple[FFTPConfig, FFTPFeatureExtractor]:
    """Config and extractor of a new model, for crops of so many seconds of sound as that of a sample.

    Raises:
        ValueError: Fields that do not fit each other, or constant sound.
    """
    config = FFTPConfig(**arguments.given, **labels)
    refuse_foreign_stride(config)
    config.max_length = table_frames(config, max_seconds)
    extractor = FFTPFeatureExtractor(config.num_mel_bins, config.sampling_rate, config.max_length)
    set_statistics(extractor, spread_sounds(sample))
    return config, extractor


def clip_frames(seconds: float, sampling_rate: int) -> int:
    """Frames of a clip."""
    return num_frames(round(seconds * sampling_rate), sampling_rate)


def table_frames(config: FFTPConfig, max_seconds: float) -> int:
    """Frames of a table of positions for crops of so many seconds: those of a patch at least."""
    return max(config.patch_size[1], clip_frames(max_seconds, config.sampling_rate))


def set_statistics(extractor: FFTPFeatureExtractor, sounds: Iterable) -> None:
    """Set the mean and standard deviation of an extractor to those of the sound to train on.

    Raises:
        ValueError: As `FFTPFeatureExtractor.measure`.
    """
    extractor.mean, extractor.std = extractor.measure(sounds)
    logger.info("Training audio: mean %.4f, std %.4f (natural log of mel energies)", extractor.mean, extractor.std)


def read_config(source: str, task: str) -> FFTPConfig:
    """The config of a checkpoint to evaluate on clips or on frames.

    Raises:
        ValueError: It is that of another model.
    """
    kind = find_kind(source)
    if kind != FFTPConfig.model_type:
        raise ValueError(f"{source} is of the kind {kind!r}; `fftp convert` makes an FFTP model of it, to evaluate")
    config = FFTPConfig.from_pretrained(source)
    if config.architectures and find_saved_task(config) != task:
        raise ValueError(
            f"{source} holds {config.architectures[0]}, which has no head for {task}, and none is trained"
        )
    return config


def read_crop_seconds(source: str) -> float:
    """Length of the crops that a checkpoint learned from: the most hundredths of a second without one frame more."""
    config, extractor = FFTPConfig.from_pretrained(source), FFTPFeatureExtractor.from_pretrained(source)
    length, shift = frame_seconds(config.sampling_rate)
    frames = round(window_seconds(config, extractor) / shift)
    return floor(100 * (frames * shift + length)) / 100


def load_checkpoint(
    arguments: ModelArguments,
    labels: dict,
    clips: Clips,
    max_seconds: float,
    do_train: bool,
    freeze_backbone: bool,
) -> tuple[FFTPPreTrainedModel, FFTPFeatureExtractor]:
    """A checkpoint for these labels, with its extractor; its head starts anew for those that it does not know."""
    source = arguments.model_name_or_path
    start = load_start(arguments, clips.sample("train"), max_seconds)
    settings = {name: arguments.given[name] for name in ADJUSTABLE if name in arguments.given}
    # Thresholds are those of scores before what is learned now.
    anew = dict.fromkeys(FIELDS_OF_LABELS) if do_train else {}
    config = FFTPConfig.from_dict(start.model.config.to_dict() | anew, **settings, **labels)
    if do_train:
        refuse_foreign_stride(config)
    weights = start.model.base_model.state_dict()
    if do_train and clips.is_framewise and not start.extractor.return_attention_mask:
        logger.info("%s hears padding as sound; padding is masked from now on, since no step of it has labels", source)
        mask_padding(start.extractor)
    if do_train:
        fit_to_crops(start.extractor, config, weights, max_seconds)
    model = model_class(clips)(config)
    model.base_model.load_state_dict(weights)
    knows_classes = type(start.model) is type(model) and start.model.config.id2label == config.id2label
    if not (do_train or knows_classes):
        raise ValueError(f"{source} has no head for {[*labels['id2label'].values()]}, and none would be trained")
    take_known_classes(model, start.model, source)
    if freeze_backbone:
        model.base_model.requires_grad_(False)
        if start.has_new_patches:
            logger.info("The embedding of the new patches learns too: frozen, it would stay as it began")
            model.get_input_embeddings().requires_grad_(True)
    return model, start.extractor


def refuse_truncation(extractor: FFTPFeatureExtractor, max_seconds: float) -> None:
    """Refuse to learn from crops of which an extractor drops the end.

    Raises:
        ValueError: Crops have more frames than the extractor keeps.
    """
    frames = clip_frames(max_seconds, extractor.sampling_rate)
    if extractor.truncation and frames > extractor.max_length:
        step = frame_seconds(extractor.sampling_rate)[1]
        raise ValueError(
            f"training clips have {frames} frames, and the checkpoint's extractor cuts to {extractor.max_length}; "
            f"expected --max_seconds {extractor.max_length * step:g} or less, or another --time_stride or patch size, "
            "with which a model hears clips of any length"
        )


def fit_to_crops(
    extractor: FFTPFeatureExtractor, config: FFTPConfig, weights: dict[str, torch.Tensor], max_seconds: float
) -> None:
    """Give extractor and positions the length of the crops to learn from, unless the extractor cuts to its own."""
    frames = table_frames(config, max_seconds)
    if not extractor.truncation and frames != config.max_length:
        logger.info("Windows of %g s become as long as the crops, %g s", table_seconds(config), max_seconds)
        extractor.max_length = frames
        fit_positions(config, weights, frames)


def fit_positions(
    config: FFTPConfig, weights: dict[str, torch.Tensor], max_length: int, name: str = POSITIONS
) -> None:
    """Give a table of positions the length of the clips to learn from.

    The model would stretch a shorter table over them anyway, and of a longer one it reads only the head. So what is
    trained is served as it was trained: pipelines cut recordings into windows as long as the table.

    Args:
        config: The model's config; its `max_length` changes.
        weights: Weights of the base model, or of a decoder; the table changes, if there is one.
        max_length: Frames of the clips.
        name: Name of the table.
    """
    grid, is_longer = config.position_grid, max_length > config.max_length
    logger.info(
        "Positions are %s from %d to %d frames, the length of the clips",
        "stretched" if is_longer else "cut",
        config.max_length,
        max_length,
    )
    config.max_length = max_length
    if name in weights:
        table, count = weights[name].unflatten(0, grid), config.position_grid[1]
        if is_longer:
            stretched = nn.functional.interpolate(table.movedim(1, -1).float(), count, mode="linear")
            table = stretched.movedim(-1, 1).to(table.dtype)
        weights[name] = table[:, :count].flatten(0, 1)


def load_start(arguments: ModelArguments, sample: Dataset | None, max_seconds: float) -> Converted:
    """The model of a checkpoint, with the patches that are asked for.

    Args:
        arguments: Which, and what of it.
        sample: Sound to train on, if it is: a checkpoint that has heard none learns its statistics, and a patch
            embedding may be fitted to it.
        max_seconds: What positions of a checkpoint that has heard no sound are stretched over.

    Raises:
        ValueError: A checkpoint of another shape, or for sound at another rate.
    """
    source = arguments.model_name_or_path
    kind, rate = find_kind(source), find_sampling_rate(arguments)
    new = {"max_length": clip_frames(max_seconds, rate), "sampling_rate": rate} if kind in VISION_MODELS else {}
    if kind == "ssast":
        # Of a head that starts anew.
        new["pooling"] = arguments.given.get("pooling", "mean")
    start = load(source, kind, **new)
    if start.extractor.sampling_rate != rate:
        raise ValueError(f"{source} is for sound at {start.extractor.sampling_rate} Hz; expected {rate} Hz")
    if not start.knows_sound:
        logger.info("%s has heard no sound; its patch embedding is adapted to spectrograms", source)
        set_statistics(start.extractor, spread_sounds(sample))
    geometry = {name: arguments.given[name] for name in GEOMETRY if name in arguments.given}
    spectrograms = spectrograms_of(start, spread_sounds(sample, FITTED_CLIPS))
    start = adapt(start, **geometry, patch_init=arguments.patch_init, spectrograms=spectrograms)
    refuse_what_cannot_apply(arguments, start.model.config)
    return start


def model_class(clips: Clips) -> type[FFTPPreTrainedModel]:
    """The class of model that learns from clips: whole ones, or steps of them."""
    return CLASSIFIERS[FRAMES if clips.is_framewise else CLIPS]


def take_known_classes(model: FFTPPreTrainedModel, start: FFTPPreTrainedModel, source: str) -> None:
    """Copy what the head of a checkpoint knows of the classes that both tell apart; the log names the others."""
    known, wanted = label_names(start.config), label_names(model.config)
    shared = [name for name in wanted if name in known] if type(start) is type(model) else []
    if not shared:
        logger.info("%s has no head for these classes: it starts anew", source)
        return
    own, other = model.classifier, start.classifier
    if own.layernorm is not None:
        own.layernorm.load_state_dict(other.layernorm.state_dict())
    rows, places = ([names.index(name) for name in shared] for names in (wanted, known))
    with torch.no_grad():
        own.dense.weight[rows], own.dense.bias[rows] = other.dense.weight[places], other.dense.bias[places]
    if forgotten := [name for name in known if name not in wanted]:
        logger.warning("%s: classes that the data lack are forgotten: %s", source, name_some(forgotten, NAMED))
    if new := [name for name in wanted if name not in known]:
        logger.info("%s: classes that are new to the head: %s", source, name_some(new, NAMED))
