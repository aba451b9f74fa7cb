"""Weights from elsewhere: which kind a source is, and the loader of each kind."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import ASTConfig, PreTrainedConfig

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPModel
from modeling_fftp.heads_fftp import find_saved_task
from modeling_fftp.modeling_fftp import CLASSIFIERS
from modeling_fftp.pretrained import load_pretrained

from .checkpoint import map_checkpoint
from .converted import Converted
from .from_ast import load_ast
from .from_aum import load_aum
from .from_ssast import load_ssast
from .from_vit import VISION_MODELS, load_vit

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
# A parameter that only checkpoints of this kind have.
MARKS = {"ssast": "v.pos_embed", "aum": "pos_embed.pos_embed"}
# Model types in configs of transformers, by kind.
MODEL_TYPES = {"ast": ASTConfig.model_type, "fftp": FFTPConfig.model_type} | {kind: kind for kind in VISION_MODELS}


def load_fftp(source: str | Path) -> Converted:
    """A model of this package, with the head that it has; the encoder alone where nothing here knows its class."""
    model_class = CLASSIFIERS.get(find_saved_task(FFTPConfig.from_pretrained(source)), FFTPModel)
    model, lacking = load_pretrained(model_class, source, may_lack=("classifier.",), knows_all=True)
    extractor = FFTPFeatureExtractor.from_pretrained(source)
    return Converted(model.base_model if lacking else model, extractor)


LOADERS: dict[str, Callable[..., Converted]] = {
    "ast": load_ast, "fftp": load_fftp, "ssast": load_ssast, "aum": load_aum,
} | {kind: load_vit for kind in VISION_MODELS}  # fmt: skip


def find_kind(source: str | Path) -> str:
    """The kind of a source: a checkpoint file by its parameter names, a folder or Hub id by its config.

    Raises:
        FileNotFoundError: Neither a path nor a Hub id.
        ValueError: None of `LOADERS`.
    """
    path = Path(source)
    if path.is_file() or str(source).endswith(CHECKPOINT_SUFFIXES):
        weights = map_checkpoint(source)
        kinds = [kind for kind, mark in MARKS.items() if mark in weights]
        if kinds:
            return kinds[0]
        raise ValueError(f"{source} holds weights such as {[*weights][:3]}; expected those of SSAST or AuM")
    refuse_missing(source)
    if (path / "adapter_config.json").is_file():
        raise ValueError(f"{source} holds an adapter, not a model; PEFT's merge_and_unload() makes one of it")
    try:
        fields, _ = PreTrainedConfig.get_config_dict(source)
    except OSError as error:
        if path.exists():
            raise
        raise OSError(f"{source} is no folder or file here, and the Hub does not give it: {error}") from error
    kinds = [kind for kind, name in MODEL_TYPES.items() if name == fields.get("model_type")]
    if kinds:
        return kinds[0]
    found = f"a model of type {fields['model_type']!r}" if "model_type" in fields else "no config with a model type"
    raise ValueError(
        f"{source} holds {found}; expected one of {', '.join(MODEL_TYPES.values())}, or a checkpoint file of SSAST or "
        "AuM"
    )


def refuse_missing(source: str | Path) -> None:
    """Stop on what is neither here nor can be a Hub id, rather than ask the Hub for it.

    Raises:
        FileNotFoundError: The source is neither.
    """
    try:
        if not Path(source).exists():
            validate_repo_id(str(source))
    except HFValidationError as error:
        raise FileNotFoundError(f"{source} is neither a folder or a file here nor a Hub id") from error


def load(source: str | Path, kind: str | None = None, **options: Any) -> Converted:
    """A model from elsewhere, which computes what it computes there.

    Args:
        source: Folder, Hub id, or checkpoint file.
        kind: One of `LOADERS`; default: what `find_kind` says.
        **options: Those of the kind's loader.

    Raises:
        ValueError: A source that is damaged or not of that kind, an unknown kind, or an option that it does not know.
    """
    if kind is not None and kind not in LOADERS:
        raise ValueError(f"--kind {kind} is unknown; expected one of {', '.join(LOADERS)}")
    kind = _choose_kind(source, kind)
    known = [name for name in inspect.signature(LOADERS[kind]).parameters if name != "kind"][1:]
    for name in options:
        if name not in known:
            raise ValueError(f"--{name} is not for a source of the kind {kind!r}; that knows {known or 'no options'}")
    if kind in VISION_MODELS:
        options["kind"] = kind
    return LOADERS[kind](source, **options)


def _choose_kind(source: str | Path, kind: str | None) -> str:
    """The kind that is said, where the source does not say another."""
    try:
        found = find_kind(source)
    except ValueError:
        if kind is None:
            raise
        return kind
    if kind not in (None, found):
        raise ValueError(f"{source} is of the kind {found!r}, not {kind!r}")
    return found
