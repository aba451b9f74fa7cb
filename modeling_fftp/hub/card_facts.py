"""What cards of every kind of folder say."""

import json
import os
from pathlib import Path

from huggingface_hub import ModelCard

from modeling_fftp import FFTPConfig

CURVES, RELIABILITY, EXPLANATION = "training.png", "reliability.png", "explanation.png"
BACKBONES = {
    "ast": "an Audio Spectrogram Transformer",
    "mamba": "a bidirectional Mamba (Audio Mamba)",
    "convnext": "an isotropic ConvNeXt",
}


def read_results(folder: Path, name: str) -> dict | None:
    """What a training wrote into `NAME.json`; None where it did not."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def find_license(folder: Path) -> str | None:
    """Licence that a card in the folder names, which a new card goes on naming."""
    path = folder / "README.md"
    return ModelCard.load(path, ignore_metadata_errors=True).data.license if path.exists() else None


def save_card(card: ModelCard, folder: Path) -> Path:
    """Write README.md, whole or not at all."""
    path = folder / "README.md"
    part = path.with_suffix(".md.part")
    card.save(part)
    os.replace(part, path)
    return path


def describe_patches(config: FFTPConfig) -> str:
    """Patches in words."""
    height, frames = config.patch_size
    is_full = height == config.num_mel_bins
    return f"full-frequency patches of {frames} frames" if is_full else f"patches of {height} x {frames}"
