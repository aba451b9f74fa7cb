"""A picture of what pretraining sees, and of what it makes of it."""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from modeling_fftp import FFTPConfig, FFTPForPreTraining
from modeling_fftp.hub.figures import save_figure
from modeling_fftp.patch_grid_fftp import paste_patches
from modeling_fftp.pretraining_fftp import normalised_patches
from modeling_fftp.times_fftp import frame_seconds


@torch.no_grad()
def reconstruct(
    model: FFTPForPreTraining, spectrogram: torch.Tensor, bool_masked_pos: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Let a model see a part of a spectrogram, and reconstruct the rest.

    Args:
        model: A model in evaluation mode.
        spectrogram: (frames, mel bins), at least one patch long.
        bool_masked_pos: (1, patches).

    Returns:
        The spectrogram with NaN where no visible patch shows it, and with predictions there, both (frames, mel bins).
        A prediction is of a patch's normalised values, so its level and contrast come from the patch itself. Where no
        patch is, both are NaN.
    """
    config = model.config
    outputs = model(spectrogram[None], bool_masked_pos=bool_masked_pos)
    patches, mean, deviation = normalised_patches(spectrogram[None], config)
    is_hidden = bool_masked_pos[..., None]
    seen = _average_patches(patches * deviation + mean, ~is_hidden, config, len(spectrogram))
    guessed = _average_patches(outputs.logits * deviation + mean, is_hidden, config, len(spectrogram))
    return seen, torch.where(seen.isnan(), guessed, seen)


def _average_patches(patches: torch.Tensor, chosen: torch.Tensor, config: FFTPConfig, num_frames: int) -> torch.Tensor:
    """The mean of the chosen patches at every cell, (frames, mel bins); NaN where there is none."""
    sums, counts = (
        paste_patches(cells, config, num_frames)[0] for cells in (patches * chosen, chosen.expand_as(patches).float())
    )
    return torch.where(counts > 0, sums / counts, torch.nan)


def plot_reconstruction(
    model: FFTPForPreTraining, spectrogram: torch.Tensor, bool_masked_pos: torch.Tensor, path: Path
) -> None:
    """Save a picture of a spectrogram, of what the model sees, and of its reconstruction, one above the other.

    Args:
        model: A model in evaluation mode.
        spectrogram: (frames, mel bins).
        bool_masked_pos: (1, patches).
        path: File to write.
    """
    seen, guessed = reconstruct(model, spectrogram, bool_masked_pos)
    _, step = frame_seconds(model.config.sampling_rate)
    extent = (0, len(spectrogram) * step, 0, model.config.num_mel_bins)
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True, sharey=True)
    low, high = spectrogram.min().item(), spectrogram.max().item()
    titles = ("sound", f"what the encoder sees ({1 - model.config.mask_ratio:.0%} of the patches)", "reconstruction")
    for axis, title, image in zip(axes, titles, (spectrogram, seen, guessed), strict=True):
        picture = axis.imshow(image.T, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high)
        axis.set(title=title, ylabel="mel bin")
    axes[-1].set(xlabel="seconds")
    figure.colorbar(picture, ax=axes, label="normalised log energy")
    save_figure(figure, path)
