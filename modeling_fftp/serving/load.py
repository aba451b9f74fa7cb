"""Pipelines for the command line, by the code of this package and none from the Hub."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig
from modeling_fftp.modeling_fftp import FFTPModel, FFTPPreTrainedModel
from modeling_fftp.pretrained import load_pretrained
from modeling_fftp.window_pipeline_fftp import FFTPWindowPipeline

logger = logging.getLogger(__name__)


def load_pipeline(
    pipeline_class: type[FFTPWindowPipeline], model_classes: Sequence[type[FFTPPreTrainedModel]], model: str | Path
) -> FFTPWindowPipeline:
    """The pipeline of a folder or Hub id.

    Args:
        pipeline_class: Which.
        model_classes: What it takes; where that is `FFTPModel`, any model.
        model: Folder or Hub id.

    Raises:
        OSError: There is no such model.
        ValueError: It is none of this package, or not one of those, or lacks weights or holds some that are not
            finite.
    """
    try:
        config, _ = FFTPConfig.get_config_dict(model)
    except OSError as error:
        raise OSError(f"{model} is not a folder with a model, and the Hub did not give one: {error}") from error
    if not config:
        raise OSError(f"{model} has no config.json, so it holds no model")
    architecture = (config.get("architectures") or ["a model"])[0]
    known = {one.__name__: one for one in model_classes}
    model_class = known.get(architecture, FFTPModel if FFTPModel in model_classes else None)
    if config.get("model_type") != FFTPConfig.model_type or model_class is None:
        expected = f"a model of type {FFTPConfig.model_type!r}" if FFTPModel in model_classes else " or ".join(known)
        raise ValueError(f"{model} holds {architecture} of type {config.get('model_type')!r}; expected {expected}")
    loaded, _ = load_pretrained(model_class, model)
    return pipeline_class(
        model=loaded,
        feature_extractor=FFTPFeatureExtractor.from_pretrained(model),
        # Of several processes on one machine each has a GPU of its own.
        device=int(os.environ.get("LOCAL_RANK", 0)) if torch.cuda.is_available() else None,
    )


def warn_of_gaps(config: FFTPConfig, time_stride: int | None) -> None:
    """Say where patches at a stride that a model was not trained for skip sound between them."""
    stride, frames = config.resolve_time_stride(time_stride), config.patch_frames(time_stride)
    if stride > frames and stride not in (config.time_stride, *config.time_strides):
        logger.warning("time_stride=%d: of %d frames each patch hears %d, the others nothing", stride, stride, frames)


def hash_model(model: nn.Module) -> str:
    """Digest of what the answers of a model depend on: its config and its weights, whoever wrote them and where."""
    config = model.config.to_dict()
    fields = {name: value for name, value in config.items() if name not in ("transformers_version", "_name_or_path")}
    state = hashlib.blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=16)
    for name, tensor in model.state_dict().items():
        state.update(name.encode())
        state.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return state.hexdigest()
