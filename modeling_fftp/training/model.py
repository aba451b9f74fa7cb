"""The model of a run: a new one, or a checkpoint, with its feature extractor."""

import logging

import torch

from feature_extraction import FFTPFeatureExtractor
from feature_extraction.log_mel_fftp import num_frames
from modeling_fftp import FFTPConfig, FFTPForAudioClassification

from .arguments import ModelArguments
from .data import SAMPLING_RATE, Clips

logger = logging.getLogger(__name__)


# Fields that say how a model trains or computes, not what weights it has: a checkpoint may take other values.
ADJUSTABLE = (
    "token_merge_layers", "hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "layer_norm_eps",
    "attn_implementation",
)  # fmt: skip


def build_model(
    arguments: ModelArguments, clips: Clips, max_seconds: float, do_train: bool = True
) -> tuple[FFTPForAudioClassification, FFTPFeatureExtractor]:
    """A new model with an extractor that knows the training audio's statistics, or a checkpoint with its own.

    Args:
        arguments: Which of the two, and its shape.
        clips: What it learns.
        max_seconds: Length of training clips, and of a new model's position table.
        do_train: Whether it learns at all; a checkpoint that does not must have its head.

    Raises:
        ValueError: A checkpoint of another model or shape, or for sound at another rate.
    """
    labels = {
        "id2label": dict(enumerate(clips.classes)),
        "label2id": {name: index for index, name in enumerate(clips.classes)},
        "problem_type": clips.problem_type,
    }
    if arguments.model_name_or_path:
        return load_checkpoint(arguments, labels, do_train)
    config = FFTPConfig(**arguments.given, **labels)
    frames = num_frames(round(max_seconds * SAMPLING_RATE), SAMPLING_RATE)
    config.max_length = max(config.patch_size[1], frames)
    extractor = FFTPFeatureExtractor(config.num_mel_bins, SAMPLING_RATE, config.max_length)
    sample = clips.splits["train"] if clips.sample is None else clips.sample
    extractor.mean, extractor.std = extractor.measure(example["audio"] for example in sample)
    if not extractor.std > 0:
        raise ValueError("the training audio has the same energy everywhere: a constant or silence")
    logger.info("Training audio: mean %.4f, std %.4f (natural log of mel energies)", extractor.mean, extractor.std)
    return FFTPForAudioClassification(config), extractor


def read_config(source: str) -> FFTPConfig:
    """The config of a checkpoint.

    Raises:
        ValueError: It is that of another model.
    """
    fields, _ = FFTPConfig.get_config_dict(source)
    if fields.get("model_type") != FFTPConfig.model_type:
        raise ValueError(
            f"{source} holds a model of type {fields.get('model_type')!r}; expected {FFTPConfig.model_type!r}. "
            "`fftp convert` makes one of an Audio Spectrogram Transformer (AST) or an Audio Mamba (AuM)"
        )
    return FFTPConfig.from_pretrained(source)


def load_checkpoint(
    arguments: ModelArguments, labels: dict, do_train: bool
) -> tuple[FFTPForAudioClassification, FFTPFeatureExtractor]:
    """A checkpoint for these labels, with its extractor; its head starts anew where they are others."""
    source, config = arguments.model_name_or_path, read_config(arguments.model_name_or_path)
    refuse_what_cannot_apply(arguments, config)
    settings = {name: value for name, value in arguments.given.items() if name in ADJUSTABLE}
    model, found = FFTPForAudioClassification.from_pretrained(
        source, ignore_mismatched_sizes=True, output_loading_info=True, **labels, **settings
    )
    names = {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"]), *found["unexpected_keys"]}
    of_head = {name for name in names if name.startswith("classifier.")}
    wrong = sorted(names - of_head)
    if wrong:
        raise ValueError(
            f"the weights in {source} are not those of its config: {len(wrong)} are missing, unknown or of another "
            f"shape, such as {wrong[0]}"
        )
    if config.id2label != labels["id2label"] or of_head:
        if not do_train:
            raise ValueError(f"{source} has no head for {[*labels['id2label'].values()]}, and none would be trained")
        logger.info("%s has no head for these classes: it starts anew", source)
        with torch.no_grad():
            model.classifier.dense.weight.normal_(0, model.config.initializer_range)
            model.classifier.dense.bias.zero_()
    extractor = FFTPFeatureExtractor.from_pretrained(source)
    if extractor.sampling_rate != SAMPLING_RATE:
        raise ValueError(f"{source} is for sound at {extractor.sampling_rate} Hz; expected {SAMPLING_RATE} Hz")
    return model, extractor


def refuse_what_cannot_apply(arguments: ModelArguments, config: FFTPConfig) -> None:
    """Refuse arguments that ask for another model than the weights of a checkpoint are."""
    for name, value in arguments.given.items():
        value = tuple(value) if isinstance(value, list) else value
        if name not in ADJUSTABLE and value != getattr(config, name):
            raise ValueError(
                f"--{name} {value} cannot apply: the checkpoint {arguments.model_name_or_path} has "
                f"{getattr(config, name)}"
            )
