"""Stochastic depth, which all backbones use."""

import torch
from torch import nn

from .configuration_fftp import FFTPConfig


class FFTPDropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): training drops a sample's residual branch with probability `rate`.

    Args:
        config: Says the rate of the last block.
        layer_index: Index of the block, counted from 0; the rate grows linearly.
    """

    def __init__(self, config: FFTPConfig, layer_index: int):
        super().__init__()
        self.rate = config.drop_path_rate * layer_index / max(1, config.num_hidden_layers - 1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, hidden) to the same shape, kept branches scaled by 1 / (1 - rate)."""
        if self.rate == 0.0 or not self.training:
            return hidden_states
        keep = hidden_states.new_empty(hidden_states.shape[0], 1, 1).bernoulli_(1 - self.rate)
        return hidden_states * keep / (1 - self.rate)

    def extra_repr(self) -> str:
        """The rate, for printing."""
        return f"rate={self.rate:.3f}"
