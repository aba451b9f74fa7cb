"""What cards of every kind of folder say."""

import hashlib
import json
import os
from pathlib import Path

from huggingface_hub import ModelCard
from transformers.utils import logging

from modeling_fftp import FFTPConfig
from modeling_fftp.atomic_write import atomic_write

logger = logging.get_logger(__name__)

EDITED = "README.edited.md"
# A reader of the page does not see it; it tells whether somebody changed the card since it was written.
SEAL = "\n<!-- fftp card {} -->\n"
CURVES, RELIABILITY, EXPLANATION = "training.png", "reliability.png", "explanation.png"
RECONSTRUCTION = "reconstruction.png"
BACKBONES = {
    "ast": "an Audio Spectrogram Transformer",
    "mamba": "a bidirectional Mamba (Audio Mamba)",
    "convnext": "an isotropic ConvNeXt",
}


def read_results(folder: Path, name: str) -> dict | None:
    """Read `NAME.json` of a training; None where there is none."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def find_license(folder: Path) -> str | None:
    """Licence that a card in the folder names, which a new card goes on naming."""
    path = folder / "README.md"
    return ModelCard.load(path, ignore_metadata_errors=True).data.license if path.exists() else None


def save_card(card: ModelCard, folder: Path) -> Path:
    """Write README.md, whole or not at all; one that somebody edited is kept beside it."""
    path, kept = folder / "README.md", folder / EDITED
    text = str(card)
    with atomic_write(path) as part:
        part.write_text(text + SEAL.format(_digest(text)), encoding="utf-8")
        if path.exists() and not _is_as_written(path.read_text(encoding="utf-8")):
            os.replace(path, kept)
            logger.warning("%s was edited; what it was is in %s", path, kept.name)
    return path


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_as_written(text: str) -> bool:
    """Whether a card's last line is the seal of the text above it."""
    above = text[: -len(SEAL.format(_digest("")))]
    return text == above + SEAL.format(_digest(above))


def describe_patches(config: FFTPConfig) -> str:
    """Patches in words."""
    height, frames = config.patch_size
    is_full = height == config.num_mel_bins
    return f"full-frequency patches of {frames} frames" if is_full else f"patches of {height} x {frames}"
