"""Blocks of the AST backbone: a pre-norm vision transformer (Gong et al. 2021; `ast_models.py` of its authors)."""

from collections.abc import Callable

import torch
from torch import nn
from transformers.activations import get_activation
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .configuration_fftp import FFTPConfig
from .drop_path_fftp import FFTPDropPath
from .tracing_fftp import takes_other_derivatives

# Up to so many tokens the backward pass of "sdpa" is faster in float32 than in bfloat16 on a CPU.
MAX_FLOAT32_TOKENS = 400


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out, the reference of every other implementation.

    Args:
        module: The calling layer; dropout is active when it trains.
        query: (batch, heads, tokens, head width).
        key: Like `query`.
        value: Like `query`.
        attention_mask: Added to the scores, broadcast to (batch, heads, tokens, tokens).
        scaling: Factor on the scores.
        dropout: Probability of dropping an attention weight.
        **kwargs: Ignored; other implementations use them.

    Returns:
        Output (batch, tokens, heads, head width) and weights (batch, heads, tokens, tokens).
    """
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class _MixedAttention(torch.autograd.Function):
    """torch's kernel forwards in the states' dtype, and backwards in float32."""

    @staticmethod
    def forward(query, key, value, bias, scaling):
        flash_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return flash_attention(query, key, value, attn_mask=bias, scale=scaling)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.scaling = inputs
        ctx.save_for_backward(*tensors, *output)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output, _):
        query, key, value, bias, output, log_sums = ctx.saved_tensors
        bias = None if bias is None else bias.float()
        states = (tensor.float() for tensor in (grad_output, query, key, value, output))
        grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *states, log_sums, dropout_p=0.0, is_causal=False, attn_mask=bias, scale=ctx.scaling
        )
        return *(grad.to(query.dtype) for grad in grads), None, None


def mixed_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, None]:
    """Compute what "sdpa" does on a CPU, with a faster backward pass: `benchmarks/results/attention.md`.

    Args and the first return value are those of `eager_attention_forward`, but `attention_mask` is true where a token
    is attended to, and `dropout` is 0.
    """
    bias = attention_mask
    if bias is not None:
        bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill_(~bias, float("-inf"))
    output, _ = _MixedAttention.apply(query, key, value, bias, scaling)
    return output.transpose(1, 2).contiguous(), None


def find_attention(
    implementation: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float
) -> Callable[..., tuple[torch.Tensor, torch.Tensor | None]]:
    """The function that computes attention.

    Args:
        implementation: "eager", "sdpa", or another that transformers knows. "sdpa" leaves the choice of the kernel to
            torch, but gives way to `mixed_attention_forward` where its backward pass is faster.
        query: (batch, heads, tokens, head width).
        key: Like `query`.
        value: Like `query`.
        dropout: Probability of dropping an attention weight.
    """
    has_backward = torch.is_grad_enabled() and any(states.requires_grad for states in (query, key, value))
    is_bfloat16_on_cpu = query.dtype == torch.bfloat16 and query.device.type == "cpu"
    is_candidate = implementation == "sdpa" and has_backward and is_bfloat16_on_cpu and not dropout
    # The operator is for CPUs alone, and a graph may run elsewhere.
    is_candidate = is_candidate and not torch.compiler.is_exporting()
    if is_candidate and not torch.compiler.is_compiling():
        # Derivatives such as those of single clips, and `sdpa_kernel` without flash attention, are for torch alone.
        is_candidate = torch.backends.cuda.flash_sdp_enabled() and not takes_other_derivatives()
    # Last, since an export with dynamic lengths would hold for those on one side of the limit.
    if is_candidate and key.shape[2] <= MAX_FLOAT32_TOKENS:
        return mixed_attention_forward
    return ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)


class FFTPAttention(nn.Module):
    """Multi-head self-attention, dispatched through transformers' attention interface."""

    def __init__(self, config: FFTPConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        num_queries: int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(batch, tokens, hidden) to (batch, queries, hidden), and the weights where the implementation has them.

        The first `num_queries` tokens attend to all; default: all do.
        """
        attending = hidden_states[:, :num_queries]
        if attention_mask is not None and num_queries is not None:
            attention_mask = attention_mask[:, :, :num_queries]
        query = self._split_heads(self.q_proj(attending))
        key = self._split_heads(self.k_proj(hidden_states))
        value = self._split_heads(self.v_proj(hidden_states))
        dropout = self.attention_dropout if self.training else 0.0
        attend = find_attention(self.config._attn_implementation, query, key, value, dropout)
        output, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        return self.o_proj(output.reshape(attending.shape).contiguous()), weights

    def _split_heads(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, hidden) to (batch, heads, tokens, head width)."""
        return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class FFTPMLP(nn.Module):
    """Feed-forward layer."""

    def __init__(self, config: FFTPConfig):
        super().__init__()
        self.activation_fn = get_activation(config.hidden_act)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, hidden) to the same shape."""
        return self.fc2(self.activation_fn(self.fc1(hidden_states)))


class FFTPTransformerLayer(GradientCheckpointingLayer):
    """One block of the AST backbone: attention and feed-forward layer, each behind a LayerNorm, in a residual."""

    def __init__(self, config: FFTPConfig, layer_index: int):
        super().__init__()
        self.attention = FFTPAttention(config)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = FFTPMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = FFTPDropPath(config, layer_index)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        num_queries: int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """(batch, tokens, hidden) to the same shape, or to the first `num_queries` tokens alone."""
        attended, _ = self.attention(self.layernorm_before(hidden_states), attention_mask, num_queries, **kwargs)
        hidden_states = hidden_states[:, :num_queries] + self.drop_path(self.dropout(attended))
        transformed = self.mlp(self.layernorm_after(hidden_states))
        return hidden_states + self.drop_path(self.dropout(transformed))
