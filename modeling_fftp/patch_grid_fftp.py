"""Patches cut from spectrograms and pasted together again, and those among them that pretraining hides."""

from collections.abc import Sequence

import torch
from torch import nn

from .configuration_fftp import FFTPConfig


def run_length(patch: int, stride: int) -> int:
    """Patches that must be hidden in a row, so that one patch's width of them is in no neighbour."""
    return max(1, -(-2 * patch // stride) - 1)


# What it draws depends on the lengths of the clips.
@torch.compiler.disable
def draw_patch_mask(
    config: FFTPConfig, num_steps: Sequence[int], time_patches: int, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Hide `config.mask_ratio` of the patches of each clip, at random; at least one is seen.

    Where patches overlap, whole runs of neighbours are hidden (`run_length`, along time and along frequency): the
    neighbours of a single one would show what is in it.

    Args:
        config: The model's config.
        num_steps: Real patches along time of each clip.
        time_patches: Patches along time in the padded batch.
        generator: Generator on the CPU; None is torch's default.

    Returns:
        (clips, frequency patches * time patches), frequency-major like the patches, true where a patch is hidden;
        false in padding.

    Source: He et al. 2022 (MAE) for random masks, section 3; Huang et al. 2022 (AudioMAE) for their share on sound.
    """
    rows, clips = config.frequency_patches, len(num_steps)
    real_steps = torch.tensor(num_steps, device="cpu")[:, None]

    def draw_blocks(size: int, stride: int, places: int, real: torch.Tensor | int) -> torch.Tensor:
        """The run that each place along an axis is in, (clips, places); a run has at most half of the clip."""
        length = (torch.as_tensor(real, device="cpu") + 1).floor_divide(2).clamp(min=1, max=run_length(size, stride))
        offset = (torch.rand(clips, 1, generator=generator, device="cpu") * length).long()
        return (torch.arange(places, device="cpu") + offset) // length

    row_blocks = draw_blocks(config.patch_size[0], config.frequency_stride, rows, rows)
    step_blocks = draw_blocks(config.patch_size[1], config.time_stride, time_patches, real_steps)
    noise = torch.rand(clips, int(row_blocks.max()) + 1, int(step_blocks.max()) + 1, generator=generator, device="cpu")
    noise = noise[torch.arange(clips, device="cpu")[:, None, None], row_blocks[:, :, None], step_blocks[:, None, :]]
    is_real = (torch.arange(time_patches, device="cpu") < real_steps).repeat(1, rows)
    noise = noise.flatten(1).masked_fill(~is_real, 2.0)
    # The last run may be hidden in part: that begins at either end of it.
    from_end = torch.rand(clips, 1, generator=generator, device="cpu") < 0.5
    places = torch.arange(noise.shape[1], device="cpu")
    places = torch.where(from_end, places.flip(0), places)
    order = places.gather(1, noise.gather(1, places).argsort(dim=1, stable=True))
    hidden = count_hidden(config, rows * real_steps)
    return torch.zeros_like(is_real).scatter(1, order, torch.arange(order.shape[1], device="cpu") < hidden)


def count_hidden(config: FFTPConfig, num_patches: torch.Tensor) -> torch.Tensor:
    """Patches that are hidden of so many: one is always seen."""
    return (config.mask_ratio * num_patches).round().clamp(max=num_patches - 1)


def visible_first(bool_masked_pos: torch.Tensor, is_real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Places of the patches that are seen, among all.

    Args:
        bool_masked_pos: (batch, patches), true where a patch is hidden.
        is_real: (batch or 1, patches).

    Returns:
        Their places in rising order, (batch, most that any clip has), and which of these are real, of the same shape.
    """
    is_visible = ~bool_masked_pos & is_real
    counts = is_visible.sum(dim=1, keepdim=True)
    places = is_visible.logical_not().to(torch.uint8).argsort(dim=1, stable=True)[:, : int(counts.max())]
    return places, torch.arange(places.shape[1], device=places.device) < counts


def cut_patches(images: torch.Tensor, config: FFTPConfig) -> torch.Tensor:
    """(batch, frames, mel bins) to (batch, patches, mel bins * frames of a patch), frequency-major."""
    (height, width), down, across = config.patch_size, config.frequency_stride, config.time_stride
    patches = images.transpose(1, 2).unfold(1, height, down).unfold(2, width, across)
    return patches.flatten(1, 2).flatten(2)


def paste_patches(patches: torch.Tensor, config: FFTPConfig, num_frames: int) -> torch.Tensor:
    """The sum of the patches at every cell, 0 where there is none: what `cut_patches` takes apart, but for overlaps.

    Args:
        patches: (batch, patches, mel bins * frames of a patch), frequency-major.
        config: The model's config.
        num_frames: Frames of the spectrograms.

    Returns:
        (batch, frames, mel bins).
    """
    size, stride = (config.patch_size[0], config.patch_frames()), (config.frequency_stride, config.time_stride)
    grid = config.frequency_patches, patches.shape[1] // config.frequency_patches
    height, width = ((count - 1) * step + length for count, step, length in zip(grid, stride, size, strict=True))
    cells = nn.functional.fold(patches.transpose(1, 2), (height, width), size, stride=stride)[:, 0].transpose(1, 2)
    images = cells.new_zeros(len(cells), num_frames, config.num_mel_bins)
    # A clip that is shorter than a patch was padded to one.
    frames = min(num_frames, width)
    images[:, :frames, :height] = cells[:, :frames]
    return images


def unseen_cells(bool_masked_pos: torch.Tensor, is_real: torch.Tensor, config: FFTPConfig) -> torch.Tensor:
    """Cells of hidden patches that no visible patch shows, (batch, patches, cells of a patch).

    Args:
        bool_masked_pos: (batch, patches), true where a patch is hidden.
        is_real: (batch, patches).
        config: The model's config.
    """
    is_hidden = (bool_masked_pos & is_real)[..., None]
    stride = (config.frequency_stride, config.time_stride)
    if all(step >= size for step, size in zip(stride, config.patch_size, strict=True)):
        return is_hidden.expand(-1, -1, config.patch_size[0] * config.patch_size[1])
    grid = (config.frequency_patches, -1)
    is_visible = (~bool_masked_pos & is_real).unflatten(1, grid).float()[:, None]
    kernel = is_visible.new_ones(1, 1, *config.patch_size)
    seen = nn.functional.conv_transpose2d(is_visible, kernel, stride=stride)[:, 0].transpose(1, 2) > 0
    return is_hidden & ~cut_patches(seen, config)
