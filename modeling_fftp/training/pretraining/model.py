"""The model of a pretraining: a new one, or a checkpoint, with its feature extractor."""

import logging

import torch
from datasets import Dataset

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPForPreTraining
from modeling_fftp.convert.convert import mask_padding
from modeling_fftp.convert.sources import find_kind
from modeling_fftp.patch_grid_fftp import count_hidden
from modeling_fftp.pretrained import load_pretrained
from modeling_fftp.times_fftp import count_frames

from ..data.unlabelled import Pieces
from ..model import describe_new, fit_positions, fit_to_crops, load_start, refuse_truncation
from ..model_arguments import ADJUSTABLE, DECODER
from .arguments import PretrainingModelArguments

logger = logging.getLogger(__name__)


def build(
    arguments: PretrainingModelArguments, sample: Dataset, max_seconds: float
) -> tuple[FFTPForPreTraining, FFTPFeatureExtractor]:
    """A new model, or the weights of a checkpoint, with a new decoder unless it has one; and the extractor.

    Raises:
        ValueError: Shapes that do not fit, a checkpoint that cannot be used, or constant sound.
    """
    if arguments.model_name_or_path is None:
        config, extractor = describe_new(arguments, sample, max_seconds)
        return FFTPForPreTraining(config), extractor
    start = load_start(arguments, sample, max_seconds)
    refuse_truncation(start.extractor, max_seconds)
    # Padding that nobody masks would be learned.
    mask_padding(start.extractor)
    settings = {name: arguments.given[name] for name in (*ADJUSTABLE, *DECODER) if name in arguments.given}
    config = FFTPConfig.from_dict(start.model.config.to_dict(), **settings)
    weights = start.model.base_model.state_dict()
    fit_to_crops(start.extractor, config, weights, max_seconds)
    model = FFTPForPreTraining(config)
    model.base_model.load_state_dict(weights)
    take_decoder(model, arguments.model_name_or_path)
    return model, start.extractor


def take_decoder(model: FFTPForPreTraining, source: str) -> None:
    """Let pretraining go on with the decoder of a pretrained folder, where that has the same shape."""
    if find_kind(source) != FFTPConfig.model_type:
        return
    if FFTPForPreTraining.__name__ not in (FFTPConfig.from_pretrained(source).architectures or ()):
        return
    own, _ = load_pretrained(FFTPForPreTraining, source)
    weights = own.decoder.state_dict()
    if own.config.max_length != model.config.max_length:
        fit_positions(own.decoder.config, weights, model.config.max_length, "position_embeddings.weight")
    shapes = [{name: x.shape for name, x in state.items()} for state in (weights, model.decoder.state_dict())]
    if shapes[0] == shapes[1]:
        model.decoder.load_state_dict(weights)
    else:
        logger.info("The decoder of %s has another shape; it begins anew", source)


def refuse_too_short(config: FFTPConfig, pieces: Pieces, max_seconds: float) -> None:
    """Stop where no piece is long enough for one patch to be hidden and another to be seen.

    Raises:
        ValueError: None is; a few that are not are counted in the log.
    """
    lengths = torch.tensor(pieces.lengths["train"])
    crops = lengths.clamp(max=round(max_seconds * pieces.sampling_rate))
    patches = config.time_patches(count_frames(crops, config.sampling_rate)) * config.frequency_patches
    short = int((count_hidden(config, patches) == 0).sum())
    message = f"{short} of {len(lengths)} pieces are too short for a patch to be hidden in them"
    if short == len(lengths):
        raise ValueError(f"{message}: one patch is {config.patch_size[1]} frames of 10 ms")
    if short:
        logger.warning("%s; nothing is learned from them", message)
