"""Blocks of the ConvNeXt backbone (Liu et al. 2022, section 3 and table 3; `convnext_isotropic.py` of its authors).

There the last LayerNorm sees the mean of the tokens; here, as in the other backbones, every token before the mean, so
that heads over steps read normed states too.
"""

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .configuration_fftp import FFTPConfig
from .drop_path_fftp import FFTPDropPath
from .layers_ast_fftp import FFTPMLP

# Width of the filters in patches.
KERNEL_SIZE = 7


class FFTPDepthwiseConv2d(nn.Conv2d):
    """A filter for each channel, in the type of its weights on a CPU, whatever autocast says.

    There torch's gradient of such filters takes several times as long in bfloat16 as in float32.
    """

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        """(batch, channels, rows, steps) to the same shape."""
        if not torch.is_autocast_enabled("cpu"):
            return super().forward(grid)
        with torch.autocast("cpu", enabled=False):
            return super().forward(grid.to(self.weight.dtype))


class FFTPConvNextLayer(GradientCheckpointingLayer):
    """One block of the ConvNeXt backbone: a depthwise convolution over the grid of patches and a feed-forward layer.

    With one row of patches the filters are 7 patches along time, with several 7 x 7.
    """

    def __init__(self, config: FFTPConfig, layer_index: int):
        super().__init__()
        self.num_rows = config.frequency_patches
        kernel_size = (KERNEL_SIZE if self.num_rows > 1 else 1, KERNEL_SIZE)
        self.depthwise_conv = FFTPDepthwiseConv2d(
            config.hidden_size, config.hidden_size, kernel_size, padding="same", groups=config.hidden_size
        )
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = FFTPMLP(config)
        self.layer_scale_parameter = nn.Parameter(torch.empty(config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = FFTPDropPath(config, layer_index)
        self.initialise(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        token_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """(batch, rows * steps, hidden) to the same shape; `token_mask` (batch, tokens) is true at real tokens."""
        seen = hidden_states
        if token_mask is not None:
            # As at the end of a clip without padding, where the convolution sees zeros.
            seen = seen.masked_fill(~token_mask[..., None], 0.0)
        # Tokens are channels last already: these transpositions are views.
        grid = seen.transpose(1, 2).unflatten(2, (self.num_rows, -1))
        is_compiling = torch.compiler.is_dynamo_compiling()
        # torch 2.13's inductor fails on the strides of the gradients of such views where lengths are dynamic.
        convolved = self.depthwise_conv(grid.contiguous() if is_compiling else grid)
        convolved = (convolved.contiguous() if is_compiling else convolved).flatten(2).transpose(1, 2)
        transformed = self.layer_scale_parameter * self.mlp(self.layernorm(convolved))
        return hidden_states + self.drop_path(self.dropout(transformed))

    @torch.no_grad()
    def initialise(self, config: FFTPConfig) -> None:
        """The initial scale; other layers have theirs from transformers."""
        init.constant_(self.layer_scale_parameter, config.layer_scale_init_value)
