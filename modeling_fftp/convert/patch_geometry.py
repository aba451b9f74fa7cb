"""Move a model to patches of another size or stride: blocks stay, positions follow time, the embedding is adapted."""

import copy
from collections.abc import Iterable

import torch
from torch import nn

from modeling_fftp import FFTPConfig, FFTPForAudioClassification, FFTPModel

from .patch_embedding import fit_kernel, pi_resize_kernel, resize_kernel

# Ways to a patch embedding of another size.
PATCH_INITS = ("random", "resize", "pi_resize", "least_squares")
# The best that `benchmarks/results/weights.md` has, from square to full-frequency patches too.
DEFAULT_PATCH_INIT = "pi_resize"
# Modules that belong to a geometry.
ADAPTED = ("patch_embeddings.", "position_embeddings.")
# Weights of a ConvNeXt whose shape follows the rows of the grid.
FILTERS = ".depthwise_conv.weight"
GEOMETRY = ("patch_size", "frequency_stride", "time_stride")


def change_geometry(
    config: FFTPConfig,
    patch_size: tuple[int, int] | None = None,
    frequency_stride: int | None = None,
    time_stride: int | None = None,
) -> FFTPConfig:
    """A copy of a configuration with other patches.

    Args:
        config: The model's config.
        patch_size: Mel bins and frames.
        frequency_stride: Mel bins between patches; default: the height of patches of another size, else as it is.
        time_stride: Frames between patches; default: the width of patches of another size, else as it is.

    Raises:
        ValueError: The patches do not fit the spectrogram.
    """
    changed = copy.deepcopy(config)
    if patch_size is not None and tuple(patch_size) != config.patch_size:
        changed.patch_size = tuple(patch_size)
        changed.frequency_stride, changed.time_stride = changed.patch_size
        changed.position_stride, changed.time_strides = changed.time_stride, ()
    if frequency_stride is not None:
        changed.frequency_stride = frequency_stride
    if time_stride is not None:
        changed.time_stride = time_stride
        # A table that is denser than the tokens serves them as it is.
        changed.position_stride = min(changed.position_stride, time_stride)
    changed.validate()
    return changed


def change_patches(
    model: FFTPModel | FFTPForAudioClassification,
    config: FFTPConfig,
    patch_init: str | None = None,
    spectrograms: Iterable[torch.Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> FFTPModel | FFTPForAudioClassification:
    """A model with the weights of another and patches of another geometry.

    Args:
        model: The model whose weights to take.
        config: The model's config with another geometry, from `change_geometry`.
        patch_init: One of `PATCH_INITS`; default: `DEFAULT_PATCH_INIT`. It matters only where the patch size changes.
        spectrograms: Normalised, (frames, mel bins) each, for "least_squares"; a thousand clips are enough.
        generator: Draws a "random" embedding; None is torch's default.

    Raises:
        ValueError: An unknown way, or least squares without sound or for patches that do not span all mel bins.
    """
    if patch_init is not None and patch_init not in PATCH_INITS:
        raise ValueError(f"patch_init={patch_init!r} is unknown; expected one of {', '.join(PATCH_INITS)}")
    changed = type(model)(config).to(model.dtype)
    present = changed.state_dict()
    kept = {name: tensor for name, tensor in model.state_dict().items() if not any(part in name for part in ADAPTED)}
    filters = {name: fit_rows(kept[name], present[name].shape[2]) for name in kept if name.endswith(FILTERS)}
    changed.load_state_dict(present | kept | filters)
    old, new = model.base_model.embeddings, changed.base_model.embeddings
    with torch.no_grad():
        if config.use_absolute_position_embeddings:
            positions = resample_positions(old.position_embeddings.weight, model.config, config)
            new.position_embeddings.weight.copy_(positions)
        if config.patch_size == model.config.patch_size:
            new.patch_embeddings.load_state_dict(old.patch_embeddings.state_dict())
        else:
            patch_init = patch_init or DEFAULT_PATCH_INIT
            projections = old.patch_embeddings.projection, new.patch_embeddings.projection
            if patch_init == "least_squares":
                fit_projection(*projections, model.config.frequency_stride, spectrograms)
            else:
                adapt_projection(*projections, patch_init, config.initializer_range, generator)
    return changed.eval()


def fit_rows(filters: torch.Tensor, height: int) -> torch.Tensor:
    """Filters over a grid of one row of patches for one of several, or the other way round.

    One row gets what a filter gives in the middle of rows that are all alike; several get it in the row that they look
    from.

    Args:
        filters: (channels, 1, rows, steps).
        height: Rows of the new filters.
    """
    if height == filters.shape[2]:
        return filters
    if height == 1:
        return filters.sum(dim=2, keepdim=True)
    return nn.functional.pad(filters, (0, 0, height // 2, height // 2))


def fit_projection(
    old: nn.Conv2d, new: nn.Conv2d, frequency_stride: int, spectrograms: Iterable[torch.Tensor] | None
) -> None:
    """Fit a patch embedding to sound.

    Raises:
        ValueError: No sound, or patches that do not span all mel bins.
    """
    if spectrograms is None:
        raise ValueError("patch_init='least_squares' fits the patch embedding to sound; none was given")
    kernel, bias = fit_kernel(old.weight, old.bias, frequency_stride, new.kernel_size, spectrograms)
    new.weight.copy_(kernel)
    new.bias.copy_(bias)


def adapt_projection(
    old: nn.Conv2d, new: nn.Conv2d, patch_init: str, initializer_range: float, generator: torch.Generator | None
) -> None:
    """Fill a new patch embedding from an old one, whose bias it keeps."""
    if patch_init == "random":
        kernel = torch.empty_like(new.weight).normal_(0.0, initializer_range, generator=generator)
    else:
        resize = pi_resize_kernel if patch_init == "pi_resize" else resize_kernel
        kernel = resize(old.weight, new.kernel_size)
    new.weight.copy_(kernel)
    new.bias.copy_(old.bias)


def resample_positions(positions: torch.Tensor, old: FFTPConfig, new: FFTPConfig) -> torch.Tensor:
    """Positions (patches, hidden) of one grid at the centres of another's patches.

    They are interpolated linearly along time and along frequency, but one row of patches gets the mean of all rows.
    """
    rows, steps = new.position_grid
    grid = positions.unflatten(0, old.position_grid)
    if rows == 1:
        grid = grid.mean(dim=0, keepdim=True)
    else:
        strides = old.frequency_stride, new.frequency_stride
        grid = _read_at_centres(grid, old.patch_size[0], new.patch_size[0], *strides, rows)
    strides = old.position_stride, new.position_stride
    grid = _read_at_centres(grid.transpose(0, 1), old.patch_size[1], new.patch_size[1], *strides, steps)
    return grid.transpose(0, 1).flatten(0, 1)


def _read_at_centres(
    table: torch.Tensor, old_size: int, new_size: int, old_stride: int, new_stride: int, count: int
) -> torch.Tensor:
    """Entries of a table (old patches, ...) at the centres of `count` new patches, (new patches, ...)."""
    centres = torch.arange(count, dtype=torch.float64) * new_stride + (new_size - 1) / 2
    places = ((centres - (old_size - 1) / 2) / old_stride).clamp(0, len(table) - 1)
    lower = places.long()
    upper = (lower + 1).clamp(max=len(table) - 1)
    share = (places - lower).to(table.dtype).view(-1, *[1] * (table.ndim - 1))
    return torch.lerp(table[lower], table[upper], share)
