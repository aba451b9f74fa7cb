"""Arguments of a model held against each other and against a checkpoint, before anything is decoded."""

import logging

import torch

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPModel
from modeling_fftp.convert.from_vit import VISION_MODELS
from modeling_fftp.convert.patch_geometry import GEOMETRY
from modeling_fftp.convert.sources import find_kind
from modeling_fftp.window_pipeline_fftp import check_extractor

from .arguments import ModelArguments
from .data.arguments import SAMPLING_RATE

logger = logging.getLogger(__name__)

# Fields that say how a model trains or computes, not what weights it has: a checkpoint may take other values.
ADJUSTABLE = (
    "token_merge_layers", "time_strides", "stretch_patches", "hidden_dropout_prob", "attention_probs_dropout_prob",
    "drop_path_rate", "layer_norm_eps", "attn_implementation",
)  # fmt: skip

# Fields of what only pretraining has, which a checkpoint may take other values of as well; a resumed run may not.
DECODER = (
    "mask_ratio", "decoder_hidden_size", "decoder_num_hidden_layers", "decoder_num_attention_heads",
    "decoder_intermediate_size",
)  # fmt: skip

# Fields that only some backbones read.
READ_BY = {
    "mamba_variant": ("mamba",), "state_size": ("mamba",), "expand": ("mamba",),
    "num_attention_heads": ("ast",), "attention_probs_dropout_prob": ("ast",), "attn_implementation": ("ast",),
    "intermediate_size": ("ast", "convnext"), "layer_scale_init_value": ("convnext",),
}  # fmt: skip


def find_sampling_rate(arguments: ModelArguments) -> int:
    """Rate in Hz of the sound that a model learns from: the one that is asked for, or else that of the checkpoint.

    Raises:
        ValueError: A checkpoint that has heard another, or whose extractor is not that of its model.
    """
    source, wanted = arguments.model_name_or_path, arguments.sampling_rate
    kind = None if source is None else find_kind(source)
    if kind is None or kind in VISION_MODELS:
        return wanted or SAMPLING_RATE
    known = SAMPLING_RATE
    if kind == FFTPConfig.model_type:
        extractor = FFTPFeatureExtractor.from_pretrained(source)
        check_extractor(extractor, FFTPConfig.from_pretrained(source))
        known = extractor.sampling_rate
    if wanted not in (None, known):
        raise ValueError(f"--sampling_rate {wanted} cannot apply: the checkpoint {source} is for sound at {known} Hz")
    return known


def refuse_impossible(arguments: ModelArguments, do_train: bool = True) -> None:
    """Refuse a model that cannot be, as far as that is known before clips are decoded; say what has no effect on it.

    Args:
        arguments: What to train, or to measure.
        do_train: Whether it will be trained: new patches must be, but any stride can be measured.

    Raises:
        ValueError: Fields that do not fit each other, or not the checkpoint.
    """
    source = arguments.model_name_or_path
    if source is None:
        config = FFTPConfig(**arguments.given)
        refuse_missing_attention(config)
        refuse_foreign_stride(config)
        report_unread(arguments, config.backbone)
    elif find_kind(source) == FFTPConfig.model_type:
        if not do_train:
            refuse_new_patches(arguments)
        changes = {
            name: value for name, value in arguments.given.items() if name in (*GEOMETRY, *ADJUSTABLE, *DECODER)
        }
        if "patch_size" in changes:
            # Rows of new patches follow each other unless somebody says otherwise.
            changes = {"frequency_stride": None} | changes
        config = FFTPConfig.from_pretrained(source, **changes)
        refuse_missing_attention(config)
        refuse_what_cannot_apply(arguments, config)
        # New patches may bring a stride of their own.
        if do_train and arguments.patch_size is None:
            refuse_foreign_stride(config)


def refuse_missing_attention(config: FFTPConfig) -> None:
    """Refuse an implementation of attention that is not there.

    Raises:
        ValueError: There is none of that name.
        ImportError: Its package is missing.
    """
    if config.backbone == "ast":
        with torch.device("meta"):
            FFTPModel(config)


def report_unread(arguments: ModelArguments, backbone: str) -> None:
    """Log which arguments a new model has no use for."""
    unread = [
        f"--{name}" for name, backbones in READ_BY.items() if name in arguments.given and backbone not in backbones
    ]
    if unread:
        logger.warning("Without effect on the backbone %s: %s", backbone, ", ".join(unread))


def refuse_foreign_stride(config: FFTPConfig) -> None:
    """Refuse strides to train at that lack the one that the model is to have.

    Raises:
        ValueError: `time_strides` lacks `time_stride`.
    """
    strides = tuple(config.time_strides or ())
    if strides and config.time_stride not in strides:
        raise ValueError(
            f"--time_strides {strides} leave out the model's own stride, {config.time_stride}; --time_stride chooses "
            "another"
        )


def refuse_new_patches(arguments: ModelArguments) -> None:
    """Refuse to evaluate a checkpoint with patches that it has never seen.

    Raises:
        ValueError: Another patch size than its own.
    """
    own = FFTPConfig.from_pretrained(arguments.model_name_or_path).patch_size
    if arguments.patch_size is not None and tuple(arguments.patch_size) != own:
        raise ValueError(
            f"--patch_size {tuple(arguments.patch_size)} cannot apply: the checkpoint has {own}, and no new patch "
            "embedding would be trained"
        )


def refuse_what_cannot_apply(arguments: ModelArguments, config: FFTPConfig) -> None:
    """Refuse arguments that ask for another model than the weights of a checkpoint are."""
    for name, value in arguments.given.items():
        value = tuple(value) if isinstance(value, list) else value
        if name not in (*ADJUSTABLE, *DECODER) and value != getattr(config, name):
            raise ValueError(
                f"--{name} {value} cannot apply: the checkpoint {arguments.model_name_or_path} has "
                f"{getattr(config, name)}"
            )
