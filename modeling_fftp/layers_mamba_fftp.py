"""Blocks of the Mamba backbone (Erol et al. 2024, AuM; `mamba_simple.py` of its authors' fork of mamba-ssm)."""

import math

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .cache_fftp import FFTPMambaState
from .configuration_fftp import FFTPConfig
from .conv_fftp import FFTPCausalConv1d
from .drop_path_fftp import FFTPDropPath
from .dtypes_fftp import as_float
from .scan_fftp import bidirectional_scan, selective_scan


class FFTPRMSNorm(nn.RMSNorm):
    """An RMSNorm whose output has the dtype of its weight, since it reads a residual that stays in float32."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(..., hidden) to the same shape."""
        return super().forward(hidden_states.to(self.weight.dtype))


class FFTPTimeStepProjection(nn.Linear):
    """A linear layer that adds its bias in float32: rounded to bfloat16, time steps would be off by a percent."""

    def forward(self, rank: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, rank) to time steps before softplus, (batch, tokens, inner), float32."""
        return functional.linear(rank, self.weight) + as_float(self.bias)


class FFTPStateSpace(nn.Module):
    """One direction of a Mamba block: causal convolution, input-dependent parameters, selective scan.

    Args:
        config: Model configuration.
        reverse: Whether time runs backwards.
        shared_reverse: Whether a second decay matrix scans the same sequence backwards as well ("fo-bi").
    """

    def __init__(self, config: FFTPConfig, reverse: bool = False, shared_reverse: bool = False):
        super().__init__()
        inner_size = config.expand * config.hidden_size
        self.implementation, self.reverse = config.scan_implementation, reverse
        self.sizes = (config.time_step_rank, config.state_size, config.state_size)
        conv_implementation = "torch" if self.implementation in ("torch", "reference") else "auto"
        self.conv1d = FFTPCausalConv1d(inner_size, config.conv_kernel, reverse, conv_implementation)
        self.x_proj = nn.Linear(inner_size, sum(self.sizes), bias=False)
        self.dt_proj = FFTPTimeStepProjection(config.time_step_rank, inner_size)
        self.A_log = nn.Parameter(torch.empty(inner_size, config.state_size))
        self.A_log_reverse = nn.Parameter(torch.empty_like(self.A_log)) if shared_reverse else None
        self.D = nn.Parameter(torch.empty(inner_size))
        self.initialise(config)

    def forward(
        self,
        x: torch.Tensor,
        z: torch.Tensor,
        token_mask: torch.Tensor | None,
        state: FFTPMambaState | None = None,
    ) -> torch.Tensor:
        """Scan a sequence.

        Args:
            x: (batch, tokens, inner), zero in padding.
            z: Gate, like `x`.
            token_mask: (batch, tokens, 1), real tokens first.
            state: State of the sequence so far, which this one continues and changes; forwards only.

        Returns:
            (batch, tokens, inner); with a second decay matrix the sum of both directions.
        """
        # What runs along time takes (batch, channels, tokens) of any strides: these transpositions are views.
        # With a state the convolution sees what came before, and gives that again.
        seen = x.transpose(1, 2) if state is None else state.prepend(x.transpose(1, 2))
        x = self.conv1d(seen).transpose(1, 2)[:, -x.shape[1] :]
        if token_mask is not None:
            # A state that starts in padding and sees zeros there is still zero at the first real token.
            x = x * token_mask
        rank, B, C = self.x_proj(x).split(self.sizes, dim=-1)
        u, delta, B, C, z = (s.transpose(1, 2) for s in (x, self.dt_proj(rank), B, C, z))
        A, rest = -torch.exp(as_float(self.A_log)), (B, C, self.D, z)
        options = {"delta_softplus": True, "implementation": self.implementation}
        if state is not None:
            options |= {"initial_state": state.ssm_states, "return_last_state": True}
            y, last = selective_scan(u, delta, A, *rest, **options)
            # No gradient reaches what was heard before.
            state.ssm_states = last.detach()
        elif self.A_log_reverse is None:
            y = selective_scan(u, delta, A, *rest, reverse=self.reverse, **options)
        else:
            y = bidirectional_scan(u, delta, A, -torch.exp(as_float(self.A_log_reverse)), *rest, **options)
        return y.transpose(1, 2)

    @torch.no_grad()
    def initialise(self, config: FFTPConfig) -> None:
        """Initial values of mamba-ssm's `Mamba`: S4D-real decay, unit skip, time steps log-uniform in a range."""
        for decay in (self.A_log, self.A_log_reverse):
            if decay is not None:
                # 1 to `state_size`, counted so that it also works where processes share the parameter.
                init.copy_(decay, torch.ones_like(decay, dtype=torch.float32).cumsum(dim=1).log())
        init.ones_(self.D)
        self.conv1d.initialise()
        init.kaiming_uniform_(self.x_proj.weight, a=math.sqrt(5))
        init.uniform_(self.dt_proj.weight, -(config.time_step_rank**-0.5), config.time_step_rank**-0.5)
        low, high = math.log(config.time_step_min), math.log(config.time_step_max)
        steps = torch.exp(torch.rand_like(self.dt_proj.bias, dtype=torch.float32) * (high - low) + low)
        steps = steps.clamp(min=config.time_step_floor)
        # The inverse of softplus.
        init.copy_(self.dt_proj.bias, steps + torch.log(-torch.expm1(-steps)))


class FFTPMambaMixer(nn.Module):
    """Gated state spaces in one or two directions.

    "fo-fo" scans forwards; "fo-bi" scans one convolved sequence in both directions, each with its own decay, and adds
    the outputs; "bi-bi" has a state space of its own per direction and averages the outputs.
    """

    def __init__(self, config: FFTPConfig):
        super().__init__()
        inner_size = config.expand * config.hidden_size
        self.in_proj = nn.Linear(config.hidden_size, 2 * inner_size, bias=False)
        self.state_space = FFTPStateSpace(config, shared_reverse=config.mamba_variant == "fo-bi")
        self.state_space_reverse = FFTPStateSpace(config, reverse=True) if config.mamba_variant == "bi-bi" else None
        self.out_proj = nn.Linear(inner_size, config.hidden_size, bias=False)
        self.initialise(config)

    def forward(
        self, hidden_states: torch.Tensor, token_mask: torch.Tensor | None, state: FFTPMambaState | None = None
    ) -> torch.Tensor:
        """(batch, tokens, hidden) to the same shape; `token_mask` (batch, tokens) has real tokens first."""
        x, z = self.in_proj(hidden_states).chunk(2, dim=-1)
        if token_mask is not None:
            token_mask = token_mask[..., None].to(x.dtype)
            x = x * token_mask
        y = self.state_space(x, z, token_mask, state)
        if self.state_space_reverse is not None:
            y = (y + self.state_space_reverse(x, z, token_mask)) / 2
        return self.out_proj(y)

    @torch.no_grad()
    def initialise(self, config: FFTPConfig) -> None:
        """Initial values of mamba-ssm: the output projection is scaled down with the number of residual branches."""
        init.kaiming_uniform_(self.in_proj.weight, a=math.sqrt(5))
        bound = 1 / math.sqrt(self.out_proj.in_features * config.num_hidden_layers)
        init.uniform_(self.out_proj.weight, -bound, bound)


class FFTPMambaLayer(GradientCheckpointingLayer):
    """One block of the Mamba backbone: a mixer behind an RMSNorm, in a residual that stays in float32."""

    def __init__(self, config: FFTPConfig, layer_index: int):
        super().__init__()
        self.norm = FFTPRMSNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mixer = FFTPMambaMixer(config)
        self.drop_path = FFTPDropPath(config, layer_index)

    def forward(
        self,
        hidden_states: torch.Tensor,
        token_mask: torch.Tensor | None = None,
        state: FFTPMambaState | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """(batch, tokens, hidden) to the same shape; `token_mask` (batch, tokens) has real tokens first."""
        mixed = self.mixer(self.norm(hidden_states), token_mask, state)
        return as_float(hidden_states) + self.drop_path(mixed)
