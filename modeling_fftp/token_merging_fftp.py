"""Fewer tokens from some layer on: neighbours along time become one token.

Full-frequency patches overlap along time, so neighbouring tokens say similar things. That merging needs no weights is
from Bolya et al. 2023 (ToMe, arXiv 2210.09461); that all tokens merge, in fixed pairs, from Dai et al. 2020
(Funnel-Transformer, arXiv 2006.03236).
"""

import torch

from .embeddings_fftp import contiguous


def merge_neighbours(
    tokens: torch.Tensor, mask: torch.Tensor | None, num_class_tokens: int, num_rows: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Make one token, their mean, of every two patch tokens that follow each other in time.

    A token without a real partner stays as it is, so padding changes nothing.

    Args:
        tokens: (batch, class tokens + rows * steps, hidden), class tokens first, patches frequency-major.
        mask: (batch, class tokens + rows * steps), true at real tokens, those of a row before its padding, or None.
        num_class_tokens: Tokens in front that are not merged.
        num_rows: Patches along frequency.

    Returns:
        Tokens (batch, class tokens + rows * ceil(steps / 2), hidden), and the mask over them.
    """
    first, second = _pairs(tokens[:, num_class_tokens:], num_rows)
    if mask is not None:
        mask = mask.to(tokens.device)
        is_real, has_partner = _pairs(mask[:, num_class_tokens:], num_rows)
        second = torch.where(has_partner[..., None], second, first)
        is_real = contiguous(is_real).flatten(1)
        mask = torch.cat((mask[:, :num_class_tokens], is_real), dim=1)
    merged = ((first + second) / 2).flatten(1, 2)
    return torch.cat((tokens[:, :num_class_tokens], merged), dim=1), mask


def restore_tokens(
    tokens: torch.Tensor, num_merges: int, num_tokens: int, num_class_tokens: int, num_rows: int
) -> torch.Tensor:
    """Undo the change of length: every patch gets the token that it was merged into.

    Args:
        tokens: (batch, class tokens + rows * merged steps, hidden).
        num_merges: Times that `merge_neighbours` ran.
        num_tokens: Tokens before, class tokens among them.
        num_class_tokens: Tokens in front that were not merged.
        num_rows: Patches along frequency.

    Returns:
        (batch, num_tokens, hidden).
    """
    patches = tokens[:, num_class_tokens:].unflatten(1, (num_rows, -1))
    steps = torch.arange((num_tokens - num_class_tokens) // num_rows, device=tokens.device)
    patches = patches.index_select(2, steps // 2**num_merges)
    return torch.cat((tokens[:, :num_class_tokens], patches.flatten(1, 2)), dim=1)


def _pairs(patches: torch.Tensor, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, rows * steps, ...) to the first and second of each pair, (batch, rows, ceil(steps / 2), ...).

    The last of an odd number of steps is its own partner.
    """
    steps = patches.unflatten(1, (num_rows, -1))
    return steps[:, :, 0::2], torch.cat((steps, steps[:, :, -1:]), dim=2)[:, :, 1::2]
