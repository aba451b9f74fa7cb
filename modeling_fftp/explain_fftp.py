"""Which moments and frequencies of a sound spoke for a label."""

import torch
from torch import nn

from .configuration_fftp import SINGLE_LABEL, FFTPConfig
from .patch_grid_fftp import paste_patches

METHODS = ("gradient", "rollout")
# Places on the way from the background to the sound.
PATH_STEPS = 32


def steady_background(input_values: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
    """Clips without what comes and goes: of each mel bin the median over real frames, (batch, frames, mel bins)."""
    if attention_mask is not None:
        real = input_values.masked_fill(attention_mask[..., None] == 0, torch.nan)
        median = real.nanmedian(dim=1, keepdim=True).values
        return torch.where(attention_mask[..., None] != 0, median, input_values)
    return input_values.median(dim=1, keepdim=True).values.expand_as(input_values)


def real_frames(
    input_values: torch.Tensor, attention_mask: torch.Tensor | None, num_frames: int | None
) -> torch.Tensor | None:
    """The mask of a batch, or one of so many frames where it has none."""
    if attention_mask is not None or num_frames is None:
        return attention_mask
    is_real = torch.arange(input_values.shape[1], device=input_values.device) < num_frames
    return is_real.long().expand(input_values.shape[:2])


def log_odds(logits: torch.Tensor, label: torch.Tensor, config: FFTPConfig) -> torch.Tensor:
    """Log-odds of each clip's label (batch, 1), (batch,): against all other labels where a clip has one."""
    own = logits.gather(1, label)[:, 0]
    if config.problem_type != SINGLE_LABEL:
        return own
    return own - logits.scatter(1, label, -torch.inf).logsumexp(dim=1)


def integrated_gradients(
    model: nn.Module,
    input_values: torch.Tensor,
    attention_mask: torch.Tensor | None,
    label: int | None,
    num_frames: int | None = None,
) -> torch.Tensor:
    """Compute what each cell adds to the log-odds of a label by standing out from the steady background.

    The gradient is the mean over the way from that background to the sound, so that what is certain already still has
    one, and the cells add up to what the sound changes.

    Source: Sundararajan et al. 2017, "Axiomatic attribution for deep networks".

    Args:
        model: A clip classifier, of any backbone.
        input_values: (batch, frames, mel bins).
        attention_mask: (batch, frames).
        label: Index; None is the best of each clip.
        num_frames: Real frames of clips without a mask; default: all.

    Returns:
        (batch, frames, mel bins), positive where it spoke for the label.
    """
    with torch.no_grad():
        best = model(input_values, attention_mask=attention_mask).logits.argmax(dim=1, keepdim=True)
    chosen = best if label is None else torch.full_like(best, label)
    background = steady_background(input_values, real_frames(input_values, attention_mask, num_frames))
    change, total = input_values - background, torch.zeros_like(input_values)
    for step in range(PATH_STEPS):
        # Closer together near the background, where layer normalisation bends the way most.
        place, length = ((step + 0.5) / PATH_STEPS) ** 2, (2 * step + 1) / PATH_STEPS**2
        with torch.enable_grad():
            values = (background + place * change).requires_grad_()
            logits = model(values, attention_mask=attention_mask).logits
            odds = log_odds(logits, chosen, model.config)
            total += length * torch.autograd.grad(odds.sum(), values)[0]
    return total * change


def attention_rollout(
    model: nn.Module, input_values: torch.Tensor, attention_mask: torch.Tensor | None
) -> torch.Tensor:
    """Compute how much of each patch reaches the pooled state through the attention of all layers, whatever the label.

    Source: Abnar and Zuidema 2020, "Quantifying attention flow in transformers".

    Args:
        model: A clip classifier with backbone "ast", eager attention and no merging of tokens.
        input_values: (batch, frames, mel bins).
        attention_mask: (batch, frames).

    Returns:
        (batch, frames, mel bins); the shares of all patches, each spread over its cells, sum to at most 1.

    Raises:
        ValueError: A model that has no such attention.
    """
    config = model.config
    if config.backbone != "ast" or config.token_merge_layers or config._attn_implementation != "eager":
        raise ValueError(
            "rollout needs backbone='ast', attn_implementation='eager' and no token_merge_layers, not "
            f"{config.backbone!r}, {config._attn_implementation!r} and {config.token_merge_layers}; gradient takes all"
        )
    with torch.no_grad():
        outputs = model(input_values, attention_mask=attention_mask, output_attentions=True, pooled_only=False)
    mixed = None
    for attention in outputs.attentions:
        # Half of a state is its own, by the residual connection.
        step = attention.float().mean(dim=1).lerp(torch.eye(attention.shape[-1], device=attention.device), 0.5)
        mixed = step if mixed is None else step @ mixed
    first = config.count_class_tokens()
    if config.pooling == "cls":
        pooled = mixed[:, :first].mean(dim=1)
    else:
        # The states of real patches alone are pooled.
        count = (mixed.shape[1] - first) // config.frequency_patches
        places = torch.arange(count, device=mixed.device)
        frames = torch.full((len(mixed), 1), input_values.shape[1], device=mixed.device)
        frames = frames if attention_mask is None else attention_mask.sum(dim=1, keepdim=True)
        is_real = (places < config.time_patches(frames)).repeat(1, config.frequency_patches)[..., None]
        pooled = (mixed[:, first:] * is_real).sum(dim=1) / is_real.sum(dim=1)
    cells_of_patch = config.patch_size[0] * config.patch_frames()
    shares = (pooled[:, first:, None] / cells_of_patch).expand(-1, -1, cells_of_patch)
    return paste_patches(shares, config, input_values.shape[1])


def explain(
    model: nn.Module,
    input_values: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    label: int | None = None,
    method: str = "gradient",
    num_frames: int | None = None,
) -> torch.Tensor:
    """Relevance of each cell, (batch, frames, mel bins), float32, by `integrated_gradients` or `attention_rollout`.

    Raises:
        ValueError: An unknown method or label, a model that the method does not fit or that is in training, or sound
            in place of spectrograms.
    """
    if model.training:
        raise ValueError("the model is in training mode, which would change its answers: call model.eval() first")
    if input_values.ndim != 3:
        raise ValueError(f"input_values has shape {tuple(input_values.shape)}; expected (batch, frames, mel bins)")
    if method not in METHODS:
        raise ValueError(f"method={method!r} is unknown; expected one of {', '.join(METHODS)}")
    if label is not None and label not in range(model.config.num_labels):
        raise ValueError(f"label={label!r} must be an index below {model.config.num_labels}, the labels of the model")
    # What was made in inference mode knows no gradients; a clone does.
    with torch.inference_mode(False):
        # In float32, whatever the weights are: the sum over the path would lose what half of the precision drops.
        input_values = input_values.detach().to(torch.float32, copy=True)
        attention_mask = None if attention_mask is None else attention_mask.clone()
        if method == "gradient":
            return integrated_gradients(model, input_values, attention_mask, label, num_frames)
        return attention_rollout(model, input_values, attention_mask)


__all__ = ["explain", "steady_background"]
