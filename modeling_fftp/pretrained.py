"""Models of transformers as sources, loaded whole or not at all."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel


def load_pretrained(
    model_class: Any,
    source: str | Path,
    may_lack: tuple[str, ...] = (),
    knows_all: bool = False,
    **kwargs,
) -> tuple[PreTrainedModel, list[str]]:
    """A model of transformers, whose weights the source holds.

    Args:
        model_class: Class to load, or one of the Auto classes.
        source: Folder or Hub id.
        may_lack: Beginnings of names that may be missing, of another shape, or unknown.
        knows_all: Whether the source must hold no other weights.
        **kwargs: See `from_pretrained`.

    Returns:
        The model in evaluation mode, and what of it the source lacks.

    Raises:
        ValueError: The weights cannot be read, are not those of the class, or not finite.
    """
    try:
        model, found = model_class.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
        )
    except SafetensorError as error:
        raise ValueError(f"{source} is damaged: its weights cannot be read ({error})") from error
    lacking = sorted({*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])})
    names = [*lacking, *(found["unexpected_keys"] if knows_all else ())]
    if wrong := [name for name in names if not name.startswith(may_lack)]:
        raise ValueError(
            f"{source} is no {model_class.__name__}: {len(wrong)} weights are missing, unknown or of another shape, "
            f"such as {wrong[0]}"
        )
    refuse_damaged(model.state_dict(), str(source))
    return model.eval(), lacking


def refuse_damaged(weights: dict[str, torch.Tensor], source: str) -> None:
    """Stop on weights that are not finite.

    Raises:
        ValueError: Names the first of them.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{source} is damaged: {name} holds values that are NaN or infinite")


def hash_weights(folder: str | Path) -> str | None:
    """SHA-256 of the weights in a folder, or None where there are none, as in repositories."""
    paths = sorted(Path(folder).glob("model*.safetensors"))
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest() if paths else None
