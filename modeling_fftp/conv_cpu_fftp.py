"""The causal convolution with SiLU as one fused kernel for CPUs: C source and torch operators."""

import ctypes

import torch

from .kernel_cpu_fftp import (
    KernelTeam,
    KernelTensor,
    find_device,
    load_kernel,
    operator_name,
    pointer,
    refuse_second_derivative,
    team,
    view,
)

OPERATOR = operator_name("causal_conv_silu_cpu", __name__, __file__)

SOURCE = r"""
typedef struct {
  int64_t batch, dim, length, width, reverse;
  tensor x, out, gout, gx;
  const float *weight, *bias;         /* (width, dim), the last row is that of the present; (dim) */
  float *gweight;                     /* (batch, width + 1, dim), the last row is that of the bias */
  team team;
} conv;

/* Where tap k looks: a distance in time. */
static inline int64_t offset(const conv *c, int64_t k) { return c->reverse ? c->width - 1 - k : k - c->width + 1; }

/* A block over all of time with room for the taps at both ends, which is zero. */
static void read_padded(const conv *c, const tensor *x, place at, vec *out) {
  for (int64_t i = 0; i < c->width - 1; i++) out[-1 - i] = out[c->length + i] = splat(0);
  read(x, at, 0, c->length, out);
}

static inline int64_t padded_length(const conv *c) { return c->length + 2 * (c->width - 1); }

/* The convolution at moment t, before its nonlinearity. */
static inline vec convolve(const conv *c, const vec *x, const vec *weight, vec bias, int64_t t) {
  for (int64_t k = 0; k < c->width; k++) bias += weight[k] * x[t + offset(c, k)];
  return bias;
}

static void load_weight(const conv *c, place at, vec *weight) {
  for (int64_t k = 0; k < c->width; k++) weight[k] = load(c->weight + k * c->dim + at.d, at.lanes);
}

static void forward_block(const conv *c, place at, vec *memory) {
  vec *weight = memory, *x = weight + c->width + c->width - 1, *y = x + c->length + c->width - 1;
  const vec bias = load(c->bias + at.d, at.lanes);
  load_weight(c, at, weight);
  read_padded(c, &c->x, at, x);
  for (int64_t t = 0; t < c->length; t++) {
    const vec sum = convolve(c, x, weight, bias, t);
    y[t] = sum * sigmoid_(sum);
  }
  write(&c->out, at, 0, c->length, y);
}

static void backward_block(const conv *c, place at, vec *memory) {
  vec *weight = memory, *x = weight + c->width + c->width - 1, *g = x + c->length + 2 * (c->width - 1);
  const vec bias = load(c->bias + at.d, at.lanes);
  float *gweight = c->gweight + at.b * (c->width + 1) * c->dim + at.d;
  vec gbias = splat(0);
  load_weight(c, at, weight);
  read_padded(c, &c->x, at, x);
  read_padded(c, &c->gout, at, g);
  for (int64_t t = 0; t < c->length; t++) {
    const vec sum = convolve(c, x, weight, bias, t), gate = sigmoid_(sum);
    g[t] *= gate * (1.0f + sum * (1.0f - gate));
    gbias += g[t];
  }
  for (int64_t k = 0; k < c->width; k++) {
    vec sum = splat(0);
    for (int64_t t = 0; t < c->length; t++) sum += g[t] * x[t + offset(c, k)];
    store(gweight + k * c->dim, at.lanes, sum);
  }
  store(gweight + c->width * c->dim, at.lanes, gbias);
  for (int64_t t = 0; t < c->length; t++) {
    x[t] = splat(0);
    for (int64_t k = 0; k < c->width; k++) x[t] += weight[k] * g[t - offset(c, k)];
  }
  write(&c->gx, at, 0, c->length, x);
}

static void work(conv *c, void (*block)(const conv *, place, vec *)) {
  /* Blocks side by side share cache lines and pages: one thread takes them together. */
  const int64_t blocks = num_blocks(c->dim), size = 64 / LANES, tasks = (blocks + size - 1) / size;
  vec *memory = aligned_alloc(sizeof(vec), (c->width + 2 * padded_length(c)) * sizeof(vec));
  for (int64_t i; (i = next_task(&c->team)) < c->batch * tasks;)
    for (int64_t j = i % tasks * size; j < min_(blocks, (i % tasks + 1) * size); j++)
      block(c, block_place(c->dim, i / tasks, j), memory);
  free(memory);
}

static void forward_worker(void *c) { work(c, forward_block); }
static void backward_worker(void *c) { work(c, backward_block); }
void conv_forward(conv *c) { run(&c->team, forward_worker, c); }
void conv_backward(conv *c) { run(&c->team, backward_worker, c); }
"""


def load_conv_kernel() -> ctypes.CDLL | None:
    """The kernel; None, with one warning, where it cannot be built."""
    return load_kernel("causal_conv_silu", SOURCE)


class _Conv(ctypes.Structure):
    """`conv` of the C source."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("batch", "dim", "length", "width", "reverse")),
        *((name, KernelTensor) for name in ("x", "out", "gout", "gx")),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "gweight")),
        ("team", KernelTeam),
    ]


def _describe(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, reverse: bool) -> _Conv:
    """The inputs as the C structure; it holds no references, so the tensors must outlive it."""
    batch, dim, length = x.shape
    return _Conv(
        batch=batch, dim=dim, length=length, width=weight.shape[0], reverse=reverse, team=team(),
        x=view(x), weight=pointer(weight), bias=pointer(bias),
    )  # fmt: skip


@torch.library.custom_op(f"{OPERATOR}_forward", mutates_args=())
def _forward(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, reverse: bool) -> torch.Tensor:
    """The sequence is (batch, dim, length), the weight (width, dim)."""
    out = torch.empty_like(x)
    conv = _describe(x, weight, bias, reverse)
    conv.out = view(out)
    load_conv_kernel().conv_forward(ctypes.byref(conv))
    return out


@_forward.register_fake
def _forward_fake(x, weight, bias, reverse):
    find_device(x, weight, bias)
    return torch.empty_like(x)


@torch.library.custom_op(f"{OPERATOR}_backward", mutates_args=())
def _backward(
    grad_out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, reverse: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    grad_x, grad_weight = _allocate_backward(x, weight)
    conv = _describe(x, weight, bias, reverse)
    conv.gout, conv.gx, conv.gweight = view(grad_out), view(grad_x), pointer(grad_weight)
    load_conv_kernel().conv_backward(ctypes.byref(conv))
    return grad_x, grad_weight


def _allocate_backward(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the input and, per clip, of the weight with that of the bias below."""
    return torch.empty_like(x), weight.new_empty(x.shape[0], weight.shape[0] + 1, weight.shape[1])


@_backward.register_fake
def _backward_fake(grad_out, x, weight, bias, reverse):
    find_device(grad_out, x, weight, bias)
    return _allocate_backward(x, weight)


def _setup_context(ctx, inputs, output):
    *tensors, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)


def _autograd(ctx, grad_out):
    grad_x, grad_weight = _backward(grad_out, *ctx.saved_tensors, ctx.reverse)
    grad_weight = grad_weight.sum(dim=0)
    return grad_x, grad_weight[:-1], grad_weight[-1], None


_forward.register_autograd(_autograd, setup_context=_setup_context)
_backward.register_autograd(refuse_second_derivative)


def causal_conv_silu_cpu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, reverse: bool) -> torch.Tensor:
    """`causal_conv_silu` of `conv_fftp.py` on CPU tensors of any strides; bfloat16 is read and written as such."""
    dtype = x.dtype
    x = x if x.dtype == torch.bfloat16 else x.float()
    weight = weight[:, 0].t().float().contiguous()
    return _forward(x, weight, bias.float(), reverse).to(dtype)
