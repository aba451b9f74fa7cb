"""What cards of every kind of folder say."""

import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from huggingface_hub import ModelCard
from transformers.utils import logging

from modeling_fftp import FFTPConfig
from modeling_fftp.atomic_write import atomic_write

logger = logging.get_logger(__name__)

EDITED = "README.edited.md"
# A reader of the page does not see it; it tells whether somebody changed the card since it was written.
SEAL = "\n<!-- fftp card {} -->\n"
# What means something to Markdown; between letters "_" does not.
MARKUP = re.compile(r"[\\`*<>\[\]|]|(?<![^\W_])_|_(?![^\W_])")
BACKBONES = {
    "ast": "an Audio Spectrogram Transformer",
    "mamba": "a bidirectional Mamba (Audio Mamba)",
    "convnext": "an isotropic ConvNeXt",
}


def find_license(folder: Path, given: str | None) -> dict[str, str]:
    """The fields of a card that name its licence: the given one, or that of the card before.

    Args:
        folder: Where the card is, if there is one.
        given: A licence, by its id on the Hub.
    """
    path = folder / "README.md"
    if given or not path.exists():
        return {"license": given} if given else {}
    try:
        written = ModelCard.load(path, ignore_metadata_errors=True).data.to_dict()
    except (ValueError, TypeError, yaml.YAMLError) as error:
        logger.warning("%s cannot be read, so the new card names no licence: %s", path, error)
        return {}
    return {name: written[name] for name in ("license", "license_name", "license_link") if name in written}


def escape(name: str) -> str:
    """A label as Markdown shows it in a sentence or a cell of a table."""
    return MARKUP.sub(r"\\\g<0>", " ".join(name.split()))


def save_card(card: ModelCard, folder: Path) -> Path:
    """Write README.md, whole or not at all; one that somebody edited is kept beside it."""
    path, kept = folder / "README.md", folder / EDITED
    text = str(card)
    with atomic_write(path) as part:
        part.write_text(text + SEAL.format(_digest(text)), encoding="utf-8")
        if path.exists() and not _is_as_written(path.read_text(encoding="utf-8")):
            kept = next(name for name in _names_for(kept) if not name.exists())
            os.replace(path, kept)
            logger.warning("%s was edited; what it was is in %s", path, kept.name)
    return path


def _names_for(path: Path) -> Iterator[Path]:
    """A path, and others like it: README.edited.md, README.edited.2.md and so on."""
    yield path
    for number in itertools.count(2):
        yield path.with_stem(f"{path.stem}.{number}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_as_written(text: str) -> bool:
    """Whether a card's last line is the seal of the text above it."""
    above = text[: -len(SEAL.format(_digest("")))]
    return text == above + SEAL.format(_digest(above))


def describe_backbone(config: FFTPConfig) -> str:
    """Backbone in words."""
    is_causal = config.backbone == "mamba" and config.mamba_variant == "fo-fo"
    return "a Mamba that only looks back (Audio Mamba)" if is_causal else BACKBONES[config.backbone]


def describe_patches(config: FFTPConfig) -> str:
    """Patches in words."""
    height, frames = config.patch_size
    is_full = height == config.num_mel_bins
    return f"full-frequency patches of {frames} frames" if is_full else f"patches of {height} x {frames}"
