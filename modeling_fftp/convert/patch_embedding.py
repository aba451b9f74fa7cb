"""Kernels of a patch embedding for patches of another size: each way takes the old kernel and gives the new one.

Kernels are (hidden, 1, mel bins, frames), biases (hidden,).
"""

from collections.abc import Iterable

import torch
from torch import nn

from modeling_fftp.embeddings_fftp import resize_matrix

# Ridge of the least squares, as a share of the mean energy of a cell.
RIDGE = 1e-3
# Windows of a clip that the least squares look at.
WINDOWS = 128


def resize_kernel(kernel: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The kernel as a picture, resized bilinearly."""
    return nn.functional.interpolate(kernel, size=size, mode="bilinear", align_corners=False)


def pi_resize_kernel(kernel: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The kernel that gives, on a resized patch, the token that the old one gives on the patch (PI-resize).

    Source: Beyer et al. 2023 (FlexiViT), section 3.4: the pseudo-inverse of the transposed bilinear resize. Exact
    where patches grow; where they shrink, the nearest in the least squares.
    """
    down, across = (
        torch.linalg.pinv(torch.from_numpy(resize_matrix(old, new).T))
        for old, new in zip(kernel.shape[-2:], size, strict=True)
    )
    return (down @ kernel.double() @ across.T).to(kernel.dtype)


def fit_kernel(
    kernel: torch.Tensor,
    bias: torch.Tensor,
    frequency_stride: int,
    size: tuple[int, int],
    spectrograms: Iterable[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """The kernel and bias whose tokens are nearest, in the least squares, to those of the old ones over real sound.

    A new token, of one patch over all mel bins, is compared with the mean over frequency of the old tokens whose
    patches have its centre in time.

    Args:
        kernel: Old kernel.
        bias: Old bias.
        frequency_stride: Mel bins between old patches.
        size: Mel bins, which must be all, and frames of the new patches.
        spectrograms: Normalised, (frames, mel bins) each. A patch of 128 x 10 wants 100,000 windows, of which a clip
            gives up to 128, spread over it.

    Raises:
        ValueError: No spectrogram is as long as one patch, or the patches do not span all mel bins.
    """
    old_frames, frames = kernel.shape[-1], size[1]
    cells = size[0] * frames + 1
    inputs = torch.zeros(cells, cells, dtype=torch.float64)
    products = torch.zeros(cells, len(kernel), dtype=torch.float64)
    # Patches of both sizes with one centre, out of a window that holds both.
    width = max(frames, old_frames)
    old_start, start = (width - old_frames) // 2, (width - frames) // 2
    count = 0
    for spectrogram in spectrograms:
        if spectrogram.shape[1] != size[0]:
            raise ValueError(f"only patches of all {spectrogram.shape[1]} mel bins can be fitted, not of {size[0]}")
        if len(spectrogram) < width:
            continue
        windows = spectrogram.unfold(0, width, 1)
        windows = windows[torch.linspace(0, len(windows) - 1, min(len(windows), WINDOWS)).long()]
        old_patches = windows[:, None, :, old_start : old_start + old_frames].float()
        targets = nn.functional.conv2d(old_patches, kernel.float(), bias.float(), stride=(frequency_stride, 1))
        targets = targets.mean(dim=(2, 3)).double()
        patches = windows[..., start : start + frames].flatten(1).double()
        patches = torch.cat((patches, patches.new_ones(len(patches), 1)), dim=1)
        inputs += patches.T @ patches
        products += patches.T @ targets
        count += len(patches)
    if not count:
        raise ValueError(f"no sound to fit the patch embedding to: no clip has {width} frames of 10 ms")
    ridge = RIDGE * inputs.diagonal()[:-1].mean()
    inputs.diagonal()[:-1].add_(ridge)
    solution = torch.linalg.solve(inputs, products).T.to(kernel.dtype)
    return solution[:, :-1].unflatten(1, size)[:, None], solution[:, -1]
