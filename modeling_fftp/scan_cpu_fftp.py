"""The selective scan as one fused kernel for CPUs: C source and torch operators.

The kernel walks along time with the states of some channels in registers, so no tensor of shape (batch, dim, length,
state) is ever made. The backward pass starts from states kept every `CHUNK` steps. A second decay matrix scans the
same sequence the other way in the same call.
"""

import ctypes

import torch
from torch.nn import functional

from .kernel_cpu_fftp import (
    MAX_LANES,
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

# CHUNK and STATES of the C code: time steps between two kept states, and states that one pass over time takes.
CHUNK = 32
STATE_MULTIPLE = 4
OPERATOR = operator_name("selective_scan_cpu", __name__, __file__)

SOURCE = r"""
typedef struct {
  int64_t batch, dim, length, state, groups, directions, softplus, reverse;
  tensor u, delta, z, out;
  const float *A, *B, *C;             /* (directions, dim, state); (batch, length, state) twice */
  const float *D, *bias;              /* (dim), or NULL */
  float *last, *saved;                /* (batch, directions, state, dim); see saved_states; or NULL */
  tensor gout, gu, gdelta, gz;
  const float *glast;                 /* (batch, directions, state, dim), or NULL */
  float *gA, *gB, *gC;                /* (batch, directions, state, dim); (batch, groups, state, length) twice */
  float *gD, *gbias;                  /* (batch, dim) */
  team team;
} scan;

/* log(1 + e^x) = max(x, 0) + log(1 + e), e = e^-|x| in (0, 1], by a polynomial with relative error 5e-9. */
static inline vec softplus_(vec x) {
  const vec e = exp2_(-LOG2E * (vec)((ivec)x & 0x7fffffff));
  vec p = -3.243980804e-03f * e + 1.985126237e-02f;
  p = p * e - 5.695915860e-02f;
  p = p * e + 1.060361682e-01f;
  p = p * e - 1.530557009e-01f;
  p = p * e + 1.967593145e-01f;
  p = p * e - 2.495413213e-01f;
  p = p * e + 3.332996227e-01f;
  p = p * e - 4.999990242e-01f;
  p = p * e + 1.0f;
  return pick(x > 0.0f, x, splat(0)) + p * e;
}

static inline int64_t num_chunks(const scan *s) { return (s->length + CHUNK - 1) / CHUNK; }
static inline int is_reverse(const scan *s, int64_t direction) { return s->reverse != direction; }

/* States before the first step of a chunk, (state, LANES). */
static inline float *saved_states(const scan *s, int64_t direction, place at, int64_t chunk) {
  const int64_t row = (direction * s->batch + at.b) * num_blocks(s->dim) + at.d / LANES;
  return s->saved + (row * num_chunks(s) + chunk) * s->state * LANES;
}

/* Element [b, direction, n, d] of a tensor (batch, directions, state, dim). */
static inline int64_t parameter(const scan *s, int64_t direction, place at, int64_t n) {
  return ((at.b * s->directions + direction) * s->state + n) * s->dim + at.d;
}

/* A[direction, d, n] of a block. */
static inline vec decay_rates(const scan *s, int64_t direction, place at, int64_t n) {
  const float *A = s->A + (direction * s->dim + at.d) * s->state + n;
  vec v = {0};
  for (int i = 0; i < at.lanes; i++) v[i] = A[i * s->state];
  return v;
}

/* Adds what STATES states, from n on, give to y. */
static void forward_states(
    const scan *s, place at, int64_t direction, int64_t n, const vec *dt, const vec *dtu, vec *y) {
  const int64_t length = s->length, state = s->state;
  const int reverse = is_reverse(s, direction);
  const float *B = s->B + at.b * length * state + n, *C = s->C + at.b * length * state + n;
  vec A2[STATES], h[STATES];
  for (int k = 0; k < STATES; k++) {
    A2[k] = LOG2E * decay_rates(s, direction, at, n + k);
    h[k] = splat(0);
  }
  for (int64_t step = 0; step < length; step++) {
    const int64_t t = reverse ? length - 1 - step : step;
    if (s->saved && step % CHUNK == 0)
      for (int k = 0; k < STATES; k++)
        store(saved_states(s, direction, at, step / CHUNK) + (n + k) * LANES, LANES, h[k]);
    vec sum = y[t];
#pragma GCC unroll 4
    for (int k = 0; k < STATES; k++) {
      h[k] = exp2_(dt[t] * A2[k]) * h[k] + dtu[t] * B[t * state + k];
      sum += h[k] * C[t * state + k];
    }
    y[t] = sum;
  }
  if (s->last)
    for (int k = 0; k < STATES; k++) store(s->last + parameter(s, direction, at, n + k), at.lanes, h[k]);
}

static void forward_block(scan *s, place at, vec *memory) {
  const int64_t length = s->length;
  const vec D = s->D ? (float)s->directions * load(s->D + at.d, at.lanes) : splat(0);
  const vec bias = s->bias ? load(s->bias + at.d, at.lanes) : splat(0);
  vec *dt = memory, *dtu = dt + length, *y = dtu + length;
  read(&s->delta, at, 0, length, dt);
  read(&s->u, at, 0, length, dtu);
  for (int64_t t = 0; t < length; t++) {
    const vec raw = dt[t] + bias;
    dt[t] = s->softplus ? softplus_(raw) : raw;
    y[t] = D * dtu[t];
    dtu[t] *= dt[t];
  }
  for (int64_t direction = 0; direction < s->directions; direction++)
    for (int64_t n = 0; n < s->state; n += STATES) forward_states(s, at, direction, n, dt, dtu, y);
  if (s->z.data) {
    vec *z = dt;
    read(&s->z, at, 0, length, z);
    for (int64_t t = 0; t < length; t++) y[t] *= z[t] * sigmoid_(z[t]);
  }
  write(&s->out, at, 0, length, y);
}

/* One chunk of one block on the way back, by moment; the gradients fill up as the states are passed. */
typedef struct {
  int64_t t, steps;
  vec u[CHUNK], dt[CHUNK], dtu[CHUNK], slope[CHUNK], y[CHUNK], gy[CHUNK], gdtu[CHUNK], gdt[CHUNK];
} chunk_work;

/* What a block carries from chunk to chunk: gradients of the states, and sums; gstate and gA are (state) vectors. */
typedef struct { vec gD, gbias, *gstate, *gA; } block_work;

/* STATES states of a chunk, from n on: walks forwards again, then back. gB and gC are (state, CHUNK) vectors. */
static void backward_states(
    const scan *s, place at, int64_t direction, int64_t chunk, int64_t n, chunk_work *w, block_work *g, vec *gB,
    vec *gC) {
  const int64_t state = s->state, first = (at.b * s->length + w->t) * state + n;
  const int reverse = is_reverse(s, direction);
  const float *B = s->B + first, *C = s->C + first;
  vec A[STATES], A2[STATES], h[STATES], gh[STATES], gA[STATES], decay[CHUNK][STATES], before[CHUNK][STATES];
  memcpy(h, saved_states(s, direction, at, chunk) + n * LANES, sizeof h);
  memcpy(gh, g->gstate + n, sizeof gh);
  memcpy(gA, g->gA + n, sizeof gA);
  for (int k = 0; k < STATES; k++) {
    A[k] = decay_rates(s, direction, at, n + k);
    A2[k] = LOG2E * A[k];
  }
  for (int64_t step = 0; step < w->steps; step++) {
    const int64_t i = reverse ? w->steps - 1 - step : step;
    vec sum = w->y[i];
#pragma GCC unroll 4
    for (int k = 0; k < STATES; k++) {
      before[i][k] = h[k];
      decay[i][k] = exp2_(w->dt[i] * A2[k]);
      h[k] = decay[i][k] * h[k] + w->dtu[i] * B[i * state + k];
      sum += h[k] * C[i * state + k];
    }
    w->y[i] = sum;
  }
  for (int64_t step = w->steps - 1; step >= 0; step--) {
    const int64_t i = reverse ? w->steps - 1 - step : step;
    const vec gy = w->gy[i], dt = w->dt[i], dtu = w->dtu[i];
    vec gdtu = w->gdtu[i], gdt = w->gdt[i];
#pragma GCC unroll 4
    for (int k = 0; k < STATES; k++) {
      gC[(n + k) * CHUNK + i] += gy * h[k];
      gh[k] += gy * C[i * state + k];
      gB[(n + k) * CHUNK + i] += gh[k] * dtu;
      gdtu += gh[k] * B[i * state + k];
      gh[k] *= decay[i][k];
      h[k] = before[i][k];
      const vec gexponent = gh[k] * h[k];
      gdt += gexponent * A[k];
      gA[k] += gexponent * dt;
    }
    w->gdtu[i] = gdtu;
    w->gdt[i] = gdt;
  }
  memcpy(g->gstate + n, gh, sizeof gh);
  memcpy(g->gA + n, gA, sizeof gA);
}

/* Writes a chunk's gradient, on top of that of the first direction. */
static void write_gradient(const tensor *x, place at, int64_t direction, const chunk_work *w, vec *gradient) {
  vec there[CHUNK];
  if (direction) {
    read(x, at, w->t, w->steps, there);
    for (int64_t i = 0; i < w->steps; i++) gradient[i] += there[i];
  }
  write(x, at, w->t, w->steps, gradient);
}

static void backward_chunk(
    const scan *s, place at, int64_t direction, int64_t chunk, chunk_work *w, block_work *g, vec *gB, vec *gC) {
  const vec D = s->D ? load(s->D + at.d, at.lanes) : splat(0);
  const vec bias = s->bias ? load(s->bias + at.d, at.lanes) : splat(0);
  const int64_t first = chunk * CHUNK;
  vec z[CHUNK], gz[CHUNK];
  w->steps = min_(CHUNK, s->length - first);
  w->t = is_reverse(s, direction) ? s->length - first - w->steps : first;
  read(&s->u, at, w->t, w->steps, w->u);
  read(&s->delta, at, w->t, w->steps, w->dt);
  read(&s->gout, at, w->t, w->steps, w->gy);
  for (int64_t i = 0; i < w->steps; i++) {
    const vec raw = w->dt[i] + bias;
    w->dt[i] = s->softplus ? softplus_(raw) : raw;
    w->slope[i] = s->softplus ? sigmoid_(raw) : splat(1);
    w->dtu[i] = w->dt[i] * w->u[i];
    w->y[i] = D * w->u[i];
    w->gdtu[i] = w->gdt[i] = splat(0);
  }
  if (s->z.data) {
    read(&s->z, at, w->t, w->steps, z);
    for (int64_t i = 0; i < w->steps; i++) {
      const vec gate = sigmoid_(z[i]);
      gz[i] = w->gy[i] * gate * (1.0f + z[i] * (1.0f - gate));
      w->gy[i] *= z[i] * gate;
    }
  }
  for (int64_t n = 0; n < s->state; n += STATES) backward_states(s, at, direction, chunk, n, w, g, gB, gC);
  for (int64_t i = 0; i < w->steps; i++) {
    w->gdt[i] = (w->gdt[i] + w->gdtu[i] * w->u[i]) * w->slope[i];
    w->gdtu[i] = w->gy[i] * D + w->gdtu[i] * w->dt[i];
    g->gbias += w->gdt[i];
    g->gD += w->gy[i] * w->u[i];
  }
  write_gradient(&s->gdelta, at, direction, w, w->gdt);
  write_gradient(&s->gu, at, direction, w, w->gdtu);
  if (s->z.data) {
    for (int64_t i = 0; i < w->steps; i++) gz[i] *= w->y[i];
    write_gradient(&s->gz, at, direction, w, gz);
  }
}

/* Sums over the lanes of a chunk's gradients of B or C, into a tensor (state, length); with `add`, on top. */
static void sum_lanes(const scan *s, int64_t t, int64_t steps, vec *sums, float *out, int add) {
  for (int64_t n = 0; n < s->state; n++)
    for (int64_t i = 0; i < steps; i += LANES) {
      vec *x = sums + n * CHUNK + i;
      float *p = out + n * s->length + t + i;
      const int count = min_(LANES, steps - i);
      transpose(x);
      for (int width = LANES / 2; width; width /= 2)
        for (int j = 0; j < width; j++) x[j] += x[j + width];
      store(p, count, add ? x[0] + load(p, count) : x[0]);
    }
}

static void backward_group(scan *s, int64_t b, int64_t group, vec *memory) {
  const int64_t first = group * num_blocks(s->dim) / s->groups, end = (group + 1) * num_blocks(s->dim) / s->groups;
  const int64_t state = s->state, size = end - first;
  const int64_t sums = (b * s->groups + group) * state * s->length;
  vec *gB = memory, *gC = gB + state * CHUNK, *states = gC + state * CHUNK;
  chunk_work *w = (chunk_work *)(states + 2 * size * state);
  block_work *work = (block_work *)(w + 1);
  for (int64_t direction = 0; direction < s->directions; direction++) {
    for (int64_t block = first; block < end; block++) {
      const place at = block_place(s->dim, b, block);
      block_work *g = work + block - first;
      if (!direction) g->gD = g->gbias = splat(0);
      g->gstate = states + 2 * (block - first) * state;
      g->gA = g->gstate + state;
      for (int64_t n = 0; n < state; n++) {
        g->gstate[n] = s->glast ? load(s->glast + parameter(s, direction, at, n), at.lanes) : splat(0);
        g->gA[n] = splat(0);
      }
    }
    for (int64_t chunk = num_chunks(s) - 1; chunk >= 0; chunk--) {
      memset(gB, 0, 2 * state * CHUNK * sizeof(vec));
      for (int64_t block = first; block < end; block++)
        backward_chunk(s, block_place(s->dim, b, block), direction, chunk, w, work + block - first, gB, gC);
      sum_lanes(s, w->t, w->steps, gB, s->gB + sums, direction);
      sum_lanes(s, w->t, w->steps, gC, s->gC + sums, direction);
    }
    for (int64_t block = first; block < end; block++) {
      const place at = block_place(s->dim, b, block);
      for (int64_t n = 0; n < state; n++)
        store(s->gA + parameter(s, direction, at, n), at.lanes, work[block - first].gA[n]);
    }
  }
  for (int64_t block = first; block < end; block++) {
    const place at = block_place(s->dim, b, block);
    store(s->gD + b * s->dim + at.d, at.lanes, work[block - first].gD);
    store(s->gbias + b * s->dim + at.d, at.lanes, work[block - first].gbias);
  }
}

static void forward_worker(void *data) {
  scan *s = data;
  /* Blocks side by side share cache lines and pages: one thread takes them together. */
  const int64_t blocks = num_blocks(s->dim), size = 64 / LANES, tasks = (blocks + size - 1) / size;
  vec *memory = aligned_alloc(sizeof(vec), 3 * s->length * sizeof(vec));
  for (int64_t i; (i = next_task(&s->team)) < s->batch * tasks;)
    for (int64_t block = i % tasks * size; block < min_(blocks, (i % tasks + 1) * size); block++)
      forward_block(s, block_place(s->dim, i / tasks, block), memory);
  free(memory);
}

static void backward_worker(void *data) {
  scan *s = data;
  const int64_t size = (num_blocks(s->dim) + s->groups - 1) / s->groups;
  const size_t vectors = 2 * s->state * (CHUNK + size);
  const size_t bytes = vectors * sizeof(vec) + sizeof(chunk_work) + size * sizeof(block_work);
  vec *memory = aligned_alloc(sizeof(vec), bytes);
  for (int64_t i; (i = next_task(&s->team)) < s->batch * s->groups;)
    backward_group(s, i / s->groups, i % s->groups, memory);
  free(memory);
}

void scan_forward(scan *s) { run(&s->team, forward_worker, s); }
void scan_backward(scan *s) { run(&s->team, backward_worker, s); }
"""


def load_scan_kernel() -> ctypes.CDLL | None:
    """The kernel; None, with one warning, where it cannot be built."""
    return load_kernel("selective_scan", f"#define CHUNK {CHUNK}\n#define STATES {STATE_MULTIPLE}\n{SOURCE}")


class _Scan(ctypes.Structure):
    """`scan` of the C source."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("batch", "dim", "length", "state", "groups", "directions")),
        *((name, ctypes.c_int64) for name in ("softplus", "reverse")),
        *((name, KernelTensor) for name in ("u", "delta", "z", "out")),
        *((name, ctypes.c_void_p) for name in ("A", "B", "C", "D", "bias", "last", "saved")),
        *((name, KernelTensor) for name in ("gout", "gu", "gdelta", "gz")),
        *((name, ctypes.c_void_p) for name in ("glast", "gA", "gB", "gC", "gD", "gbias")),
        ("team", KernelTeam),
    ]


def _describe(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, D: torch.Tensor | None,
    z: torch.Tensor | None, delta_bias: torch.Tensor | None, delta_softplus: bool, reverse: bool,
) -> _Scan:  # fmt: skip
    """The inputs as the C structure; it holds no references, so the tensors must outlive it."""
    batch, dim, length = u.shape
    directions, _, state = A.shape
    return _Scan(
        batch=batch, dim=dim, length=length, state=state, groups=_groups(u), directions=directions,
        softplus=delta_softplus, reverse=reverse, team=team(),
        u=view(u), delta=view(delta), z=view(z),
        A=pointer(A), B=pointer(B), C=pointer(C), D=pointer(D), bias=pointer(delta_bias),
    )  # fmt: skip


def _groups(u: torch.Tensor) -> int:
    """Groups of channels whose gradients of B and C are summed apart, so that few clips still feed several threads."""
    batch, dim, _ = u.shape
    return min(4, -(-64 // batch), -(-dim // MAX_LANES))


@torch.library.custom_op(f"{OPERATOR}_forward", mutates_args=())
def _forward(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, D: torch.Tensor | None,
    z: torch.Tensor | None, delta_bias: torch.Tensor | None, delta_softplus: bool, reverse: bool, save: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """A is (directions, dim, state), B and C are (batch, length, state); output, last states, saved states."""
    out, last, saved = _allocate_forward(u, A, save)
    scan = _describe(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    scan.out, scan.last, scan.saved = view(out), pointer(last), pointer(saved)
    load_scan_kernel().scan_forward(ctypes.byref(scan))
    return out, last, saved


def _allocate_forward(u: torch.Tensor, A: torch.Tensor, save: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output, last states, and the states before each chunk if they are wanted."""
    batch, _, length = u.shape
    directions, dim, state = A.shape
    saved_shape = (directions, batch, -(-length // CHUNK), state, -(-dim // MAX_LANES) * MAX_LANES)
    last = A.new_empty(batch, directions, state, dim)
    return torch.empty_like(u), last, A.new_empty(saved_shape if save else (0,))


@_forward.register_fake
def _forward_fake(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, save):
    find_device(u, delta, A, B, C, D, z, delta_bias)
    return _allocate_forward(u, A, save)


@torch.library.custom_op(f"{OPERATOR}_backward", mutates_args=())
def _backward(
    grad_out: torch.Tensor, grad_last: torch.Tensor | None, saved: torch.Tensor,
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, D: torch.Tensor | None,
    z: torch.Tensor | None, delta_bias: torch.Tensor | None, delta_softplus: bool, reverse: bool,
) -> tuple[
    torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor
]:  # fmt: skip
    if not saved.numel():
        raise RuntimeError("the scan kept nothing for backward(): it ran, or was traced, without gradients")
    grads = _allocate_backward(u, delta, A, z)
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias = grads
    grad_last = None if grad_last is None else grad_last.contiguous()
    scan = _describe(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    scan.saved, scan.gout, scan.glast = pointer(saved), view(grad_out), pointer(grad_last)
    scan.gu, scan.gdelta, scan.gz = view(grad_u), view(grad_delta), view(None if z is None else grad_z)
    scan.gA, scan.gB, scan.gC, scan.gD, scan.gbias = map(pointer, (grad_A, grad_B, grad_C, grad_D, grad_bias))
    load_scan_kernel().scan_backward(ctypes.byref(scan))
    return grads


def _allocate_backward(u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, z: torch.Tensor | None) -> tuple:
    """Gradients in the order of the inputs; those of parameters per clip, those of B and C per group."""
    (batch, dim, length), (directions, _, state), groups = u.shape, A.shape, _groups(u)
    return (
        torch.empty_like(u),
        torch.empty_like(delta),
        A.new_empty(batch, directions, state, dim),
        A.new_empty(batch, groups, state, length),
        A.new_empty(batch, groups, state, length),
        A.new_empty(batch, dim),
        u.new_empty(0) if z is None else torch.empty_like(z),
        A.new_empty(batch, dim),
    )


@_backward.register_fake
def _backward_fake(grad_out, grad_last, saved, u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse):
    find_device(grad_out, grad_last, saved, u, delta, A, B, C, D, z, delta_bias)
    return _allocate_backward(u, delta, A, z)


def _setup_context(ctx, inputs, output):
    *tensors, ctx.delta_softplus, ctx.reverse, _ = inputs
    # The last state and the saved ones seldom have a gradient: None then, not a tensor of zeros.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, output[2])


def _autograd(ctx, grad_out, grad_last, grad_saved):
    *inputs, saved = ctx.saved_tensors
    u, D, z, delta_bias = inputs[0], *inputs[5:]
    grad_out = torch.zeros_like(u) if grad_out is None else grad_out
    grads = _backward(grad_out, grad_last, saved, *inputs, ctx.delta_softplus, ctx.reverse)
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias = grads
    return (
        grad_u,
        grad_delta,
        grad_A.sum(dim=0).transpose(1, 2),
        grad_B.sum(dim=1).transpose(1, 2),
        grad_C.sum(dim=1).transpose(1, 2),
        None if D is None else grad_D.sum(dim=0),
        None if z is None else grad_z,
        None if delta_bias is None else grad_bias.sum(dim=0),
        None,
        None,
        None,
    )


_forward.register_autograd(_autograd, setup_context=_setup_context)
_backward.register_autograd(refuse_second_derivative)


def selective_scan_cpu(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, D: torch.Tensor | None,
    z: torch.Tensor | None, delta_bias: torch.Tensor | None, delta_softplus: bool, reverse: bool,
    A_reverse: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The scan of `scan_fftp.py` on CPU tensors of any strides, in one direction or, with `A_reverse`, in both.

    Sequences in bfloat16 are read and written as such; everything else is float32.

    Returns:
        Output like `u` (with `A_reverse` the sum of both directions), and the last state (batch, dim, state) of the
        first direction.
    """
    dtype = u.dtype
    u, delta, z = (x if x is None or x.dtype == torch.bfloat16 else x.float() for x in (u, delta, z))
    state = A.shape[1]
    A = A[None] if A_reverse is None else torch.stack((A, A_reverse))
    B, C = (x.float().transpose(1, 2) for x in (B, C))
    missing = -state % STATE_MULTIPLE
    if missing:
        # States with B = 0 stay 0.
        A, B, C = functional.pad(A, (0, missing)), *(functional.pad(x, (0, missing)) for x in (B, C))
    A, B, C, D, delta_bias = (None if x is None else x.float().contiguous() for x in (A, B, C, D, delta_bias))
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    needs_gradient = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    # A trace keeps the answer, whoever runs it.
    save = needs_gradient or torch.jit.is_tracing()
    out, last, _ = _forward(*inputs, delta_softplus, reverse, save)
    return out.to(dtype), last[:, 0, :state].transpose(1, 2)
