"""A picture of what the model sees."""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.patches import Rectangle

from feature_extraction import FFTPFeatureExtractor, SpecMask
from modeling_fftp import FFTPConfig

matplotlib.use("Agg")

from matplotlib import pyplot

SECONDS_PER_FRAME = 0.01


def plot_patches(
    waveform: np.ndarray, title: str, config: FFTPConfig, extractor: FFTPFeatureExtractor, path: Path, seed: int = 0
) -> None:
    """A spectrogram with its patch grid, and the same under a SpecMask."""
    features = extractor(waveform, sampling_rate=extractor.sampling_rate, return_tensors="pt")["input_values"]
    spec_mask = SpecMask.from_config(config, budget=0.2)
    masks = spec_mask.draw(features, generator=torch.Generator().manual_seed(seed))
    masked = features.masked_fill(masks, torch.nan)[0].T.numpy()
    spectrogram = features[0].T.numpy()
    bins, frames = spectrogram.shape
    extent = (0, frames * SECONDS_PER_FRAME, 0, bins)
    scale = {
        "vmin": spectrogram.min(),
        "vmax": spectrogram.max(),
        "cmap": "magma",
        "origin": "lower",
        "aspect": "auto",
    }

    figure, axes = pyplot.subplots(2, 1, figsize=(9, 6), sharex=True, layout="constrained")
    image = axes[0].imshow(spectrogram, extent=extent, **scale)
    starts = np.arange(config.time_patches(frames)) * config.time_stride
    axes[0].vlines(starts * SECONDS_PER_FRAME, 0, bins, color="white", linewidth=0.5, alpha=0.5)
    first = starts[len(starts) // 2] * SECONDS_PER_FRAME
    width = config.patch_size[1] * SECONDS_PER_FRAME
    axes[0].add_patch(Rectangle((first, 0), width, config.patch_size[0], fill=False, color="cyan", linewidth=2))
    axes[0].set_title(
        f"{title}: {len(starts)} tokens; each sees {config.patch_size[0]} mel bins x {config.patch_size[1]} frames "
        f"(one in cyan), one every {config.time_stride} frames",
        fontsize=10,
    )
    axes[1].set_facecolor("lightgray")
    axes[1].imshow(masked, extent=extent, **scale)
    share = masks.float().mean().item()
    axes[1].set_title(f"SpecMask, {share:.0%} of the cells (gray): full-frequency and localized masks", fontsize=10)
    axes[1].set_xlabel("time (s)")
    for axis in axes:
        axis.set_ylabel("mel bin")
    figure.colorbar(image, ax=axes, label="log-mel energy, normalised")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
