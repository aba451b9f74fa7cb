"""The selective scan as one fused kernel for CPUs: C source, its build at first use, and the torch operators.

The kernel keeps 16 channels in one vector and walks along time with their states in registers, so no tensor of shape
(batch, dim, length, state) is ever made. The backward pass starts from states kept every `CHUNK` steps. It is plain C
with the vector extension of gcc and clang; its threads are those of torch's own OpenMP runtime.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import torch
from transformers.utils import logging

logger = logging.get_logger(__name__)

LANES = 16
CHUNK = 32
MAX_STATE = 64
MAX_GROUPS = 4
# Each copy of this file (the package, the code of each loaded checkpoint) registers operators of its own: a second
# registration of one name would take the first away under a model that uses it.
OPERATOR = f"fftp::selective_scan_cpu_{hashlib.sha256(__name__.encode()).hexdigest()[:8]}"
FLAGS = ("-O2", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")

SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef void (*parallel_fn)(void (*)(void *), void *, unsigned, unsigned);

/* A float tensor (batch, channel, time) and its strides; of B and C the "channel" is the state, and its stride 1. */
typedef struct { float *data; int64_t batch, channel, time; } tensor;

typedef struct {
  int64_t batch, dim, length, state, groups, softplus, reverse, threads;
  parallel_fn parallel;               /* GOMP_parallel of the runtime that torch uses, or NULL */
  tensor u, delta, z, B, C, out;      /* z.data may be NULL */
  const float *A, *D, *bias;          /* (state, dim), (dim), (dim); D and bias may be NULL */
  float *last, *saved;                /* (batch, state, dim); (batch, blocks, chunks, state, LANES) or NULL */
  tensor gout, gu, gdelta, gz;
  const float *glast;                 /* (batch, state, dim) */
  float *gA, *gB, *gC;                /* (batch, state, dim); (batch, groups, length, state) twice */
  float *gD, *gbias;                  /* (batch, dim) */
  int64_t next;                       /* next task, shared between threads */
} scan;

static inline vec splat(float x) { return x - (vec){0}; }
static inline vec pick(ivec mask, vec a, vec b) { return (vec)(((ivec)a & mask) | ((ivec)b & ~mask)); }

/* 2^x: the nearest integer goes into the exponent, a polynomial covers the rest (2 ulp). */
static inline vec exp2_(vec x) {
#ifdef __AVX512F__
  const vec n = (vec)_mm512_roundscale_ps((__m512)x, 0), r = x - n;
#else
  x = pick(x > -126.0f, x, splat(-126.0f));
  x = pick(x < 126.0f, x, splat(126.0f));
  const vec n = x + 12582912.0f;          /* 1.5 * 2^23: adding it rounds to an integer */
  const vec r = x - (n - 12582912.0f);
#endif
  vec p = 1.339887440266574e-3f * r + 9.618437357674640e-3f;
  p = p * r + 5.550332471162809e-2f;
  p = p * r + 2.402264791363012e-1f;
  p = p * r + 6.931472028550421e-1f;
  p = p * r + 1.0f;
#ifdef __AVX512F__
  return (vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  return (vec)((ivec)p + ((ivec)n << 23));
#endif
}

#define LOG2E 1.44269504088896341f
static inline vec sigmoid_(vec x) { return 1.0f / (1.0f + exp2_(-LOG2E * x)); }

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

static inline vec load(const float *p, int64_t stride, int lanes) {
  vec v = {0};
  if (stride == 1 && lanes == LANES) memcpy(&v, p, sizeof v);
  else for (int i = 0; i < lanes; i++) v[i] = p[i * stride];
  return v;
}

static inline void store(float *p, int64_t stride, int lanes, vec v) {
  if (stride == 1 && lanes == LANES) memcpy(p, &v, sizeof v);
  else for (int i = 0; i < lanes; i++) p[i * stride] = v[i];
}

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif

/* Rows become columns: four times, each half of the rows is interleaved with the other. */
static inline void transpose(vec x[LANES]) {
  for (int pass = 0; pass < 4; pass++) {
    vec y[LANES];
    for (int i = 0; i < LANES / 2; i++) {
      vec a = x[i], b = x[i + LANES / 2];
      y[2 * i] = SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      y[2 * i + 1] = SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    memcpy(x, y, sizeof y);
  }
}

/* Channels d to d + lanes at the moments t to t + steps (at most LANES), one vector per moment. */
static inline void read(const tensor *x, int64_t b, int64_t d, int64_t t, int lanes, int steps, vec out[LANES]) {
  const float *p = x->data + b * x->batch + d * x->channel + t * x->time;
  if (x->time == 1 && lanes == LANES && steps == LANES) {
    for (int i = 0; i < LANES; i++) memcpy(&out[i], p + i * x->channel, sizeof(vec));
    transpose(out);
  } else {
    for (int i = 0; i < steps; i++) out[i] = load(p + i * x->time, x->channel, lanes);
  }
}

static inline void write(const tensor *x, int64_t b, int64_t d, int64_t t, int lanes, int steps, vec in[LANES]) {
  float *p = x->data + b * x->batch + d * x->channel + t * x->time;
  if (x->time == 1 && lanes == LANES && steps == LANES) {
    transpose(in);
    for (int i = 0; i < LANES; i++) memcpy(p + i * x->channel, &in[i], sizeof(vec));
  } else {
    for (int i = 0; i < steps; i++) store(p + i * x->time, x->channel, lanes, in[i]);
  }
}

/* Row of B or C at one moment. */
static inline const float *row(const tensor *x, int64_t b, int64_t t) { return x->data + b * x->batch + t * x->time; }

/* Steps of the tile of LANES steps that begins at step `first`, and the earliest moment in it. */
static inline int tile_steps(int64_t length, int64_t first) { return length - first < LANES ? length - first : LANES; }

static inline int64_t num_blocks(const scan *s) { return (s->dim + LANES - 1) / LANES; }
static inline int64_t num_chunks(const scan *s) { return (s->length + CHUNK - 1) / CHUNK; }
static inline float *saved_states(const scan *s, int64_t b, int64_t block, int64_t chunk) {
  return s->saved + ((b * num_blocks(s) + block) * num_chunks(s) + chunk) * s->state * LANES;
}

static inline __attribute__((always_inline)) void forward_block(scan *s, int64_t b, int64_t block, int64_t N) {
  const int64_t d = block * LANES, length = s->length;
  const int lanes = s->dim - d < LANES ? s->dim - d : LANES;
  const vec D = s->D ? load(s->D + d, 1, lanes) : splat(0), bias = s->bias ? load(s->bias + d, 1, lanes) : splat(0);
  vec A2[MAX_STATE], h[MAX_STATE], u[LANES], delta[LANES], z[LANES], out[LANES];
  for (int64_t n = 0; n < N; n++) {
    A2[n] = LOG2E * load(s->A + n * s->dim + d, 1, lanes);
    h[n] = splat(0);
  }
  for (int64_t first = 0; first < length; first += LANES) {
    const int steps = tile_steps(length, first);
    const int64_t t0 = s->reverse ? length - first - steps : first;
    if (s->saved && first % CHUNK == 0) memcpy(saved_states(s, b, block, first / CHUNK), h, N * sizeof(vec));
    read(&s->u, b, d, t0, lanes, steps, u);
    read(&s->delta, b, d, t0, lanes, steps, delta);
    if (s->z.data) read(&s->z, b, d, t0, lanes, steps, z);
    for (int step = 0; step < steps; step++) {
      const int i = s->reverse ? steps - 1 - step : step;
      const float *B = row(&s->B, b, t0 + i), *C = row(&s->C, b, t0 + i);
      const vec raw = delta[i] + bias, dt = s->softplus ? softplus_(raw) : raw, dtu = dt * u[i];
      vec y = D * u[i];
#pragma GCC unroll 4
      for (int64_t n = 0; n < N; n++) {
        h[n] = exp2_(dt * A2[n]) * h[n] + dtu * B[n];
        y += h[n] * C[n];
      }
      out[i] = s->z.data ? y * z[i] * sigmoid_(z[i]) : y;
    }
    write(&s->out, b, d, t0, lanes, steps, out);
  }
  for (int64_t n = 0; n < N; n++) store(s->last + (b * N + n) * s->dim + d, 1, lanes, h[n]);
}

/* What the backward pass keeps of one chunk of one block while it walks back. */
typedef struct {
  vec h[CHUNK + 1][MAX_STATE], a[CHUNK][MAX_STATE];
  vec dt[CHUNK], slope[CHUNK], y[CHUNK];
} chunk_states;

/* And over all chunks: sums over blocks for B and C, and running sums per block. */
typedef struct {
  vec gB[CHUNK][MAX_STATE], gC[CHUNK][MAX_STATE];
} chunk_sums;

typedef struct { vec carry[MAX_STATE], gA[MAX_STATE], gD, gbias; } block_sums;

static inline __attribute__((always_inline)) void backward_chunk(
    scan *s, int64_t b, int64_t block, int64_t chunk, int64_t N, chunk_states *k, chunk_sums *sums, block_sums *g) {
  const int64_t d = block * LANES, begin = chunk * CHUNK, length = s->length;
  const int64_t end = begin + CHUNK < length ? begin + CHUNK : length;
  const int lanes = s->dim - d < LANES ? s->dim - d : LANES;
  const vec D = s->D ? load(s->D + d, 1, lanes) : splat(0), bias = s->bias ? load(s->bias + d, 1, lanes) : splat(0);
  vec A[MAX_STATE], A2[MAX_STATE], u[LANES], delta[LANES], z[LANES], gout[LANES], gu[LANES], gdelta[LANES], gz[LANES];
  for (int64_t n = 0; n < N; n++) {
    A[n] = load(s->A + n * s->dim + d, 1, lanes);
    A2[n] = LOG2E * A[n];
  }
  memcpy(k->h[0], saved_states(s, b, block, chunk), N * sizeof(vec));
  for (int64_t first = begin; first < end; first += LANES) {
    const int steps = tile_steps(length, first);
    const int64_t t0 = s->reverse ? length - first - steps : first;
    read(&s->u, b, d, t0, lanes, steps, u);
    read(&s->delta, b, d, t0, lanes, steps, delta);
    for (int step = 0; step < steps; step++) {
      const int i = s->reverse ? steps - 1 - step : step, j = first - begin + step;
      const float *B = row(&s->B, b, t0 + i), *C = row(&s->C, b, t0 + i);
      const vec raw = delta[i] + bias, dt = s->softplus ? softplus_(raw) : raw, dtu = dt * u[i];
      vec y = D * u[i];
      for (int64_t n = 0; n < N; n++) {
        const vec a = k->a[j][n] = exp2_(dt * A2[n]);
        const vec h = k->h[j + 1][n] = a * k->h[j][n] + dtu * B[n];
        y += h * C[n];
      }
      k->slope[j] = s->softplus ? sigmoid_(raw) : splat(1);
      k->dt[j] = dt;
      k->y[j] = y;
    }
  }
  for (int64_t first = begin + (end - begin - 1) / LANES * LANES; first >= begin; first -= LANES) {
    const int steps = tile_steps(length, first);
    const int64_t t0 = s->reverse ? length - first - steps : first;
    read(&s->u, b, d, t0, lanes, steps, u);
    read(&s->gout, b, d, t0, lanes, steps, gout);
    if (s->z.data) read(&s->z, b, d, t0, lanes, steps, z);
    for (int step = steps - 1; step >= 0; step--) {
      const int i = s->reverse ? steps - 1 - step : step, j = first - begin + step;
      const float *B = row(&s->B, b, t0 + i), *C = row(&s->C, b, t0 + i);
      vec gy = gout[i];
      if (s->z.data) {
        const vec gate = sigmoid_(z[i]);
        gz[i] = gy * k->y[j] * gate * (1.0f + z[i] * (1.0f - gate));
        gy *= z[i] * gate;
      }
      const vec dt = k->dt[j], dtu = dt * u[i];
      vec gdtu = splat(0), gdt = splat(0);
      for (int64_t n = 0; n < N; n++) {
        const vec gh = g->carry[n] + gy * C[n];
        sums->gC[j][n] += gy * k->h[j + 1][n];
        sums->gB[j][n] += gh * dtu;
        gdtu += gh * B[n];
        g->carry[n] = gh * k->a[j][n];
        const vec ga = g->carry[n] * k->h[j][n];
        gdt += ga * A[n];
        g->gA[n] += ga * dt;
      }
      gdelta[i] = (gdt + gdtu * u[i]) * k->slope[j];
      gu[i] = gy * D + gdtu * dt;
      g->gbias += gdelta[i];
      g->gD += gy * u[i];
    }
    write(&s->gu, b, d, t0, lanes, steps, gu);
    write(&s->gdelta, b, d, t0, lanes, steps, gdelta);
    if (s->z.data) write(&s->gz, b, d, t0, lanes, steps, gz);
  }
}

static inline __attribute__((always_inline)) void backward_group(
    scan *s, int64_t b, int64_t group, int64_t N, char *memory) {
  const int64_t blocks = num_blocks(s), size = (blocks + s->groups - 1) / s->groups;
  const int64_t first = group * size, end = first + size < blocks ? first + size : blocks;
  chunk_states *k = (chunk_states *)memory;
  chunk_sums *sums = (chunk_sums *)(k + 1);
  block_sums *g = (block_sums *)(sums + 1);
  for (int64_t block = first; block < end; block++) {
    const int64_t d = block * LANES;
    const int lanes = s->dim - d < LANES ? s->dim - d : LANES;
    memset(&g[block - first], 0, sizeof(block_sums));
    for (int64_t n = 0; n < N; n++) g[block - first].carry[n] = load(s->glast + (b * N + n) * s->dim + d, 1, lanes);
  }
  for (int64_t chunk = num_chunks(s) - 1; chunk >= 0; chunk--) {
    memset(sums, 0, sizeof *sums);
    for (int64_t block = first; block < end; block++)
      backward_chunk(s, b, block, chunk, N, k, sums, &g[block - first]);
    for (int64_t i = 0; i < CHUNK && chunk * CHUNK + i < s->length; i++) {
      const int64_t step = chunk * CHUNK + i, t = s->reverse ? s->length - 1 - step : step;
      for (int64_t n = 0; n < N; n++) {
        float gB = 0, gC = 0;
        for (int lane = 0; lane < LANES; lane++) { gB += sums->gB[i][n][lane]; gC += sums->gC[i][n][lane]; }
        const int64_t index = ((b * s->groups + group) * s->length + t) * N + n;
        s->gB[index] = gB;
        s->gC[index] = gC;
      }
    }
  }
  for (int64_t block = first; block < end; block++) {
    const int64_t d = block * LANES;
    const int lanes = s->dim - d < LANES ? s->dim - d : LANES;
    for (int64_t n = 0; n < N; n++) store(s->gA + (b * N + n) * s->dim + d, 1, lanes, g[block - first].gA[n]);
    store(s->gD + b * s->dim + d, 1, lanes, g[block - first].gD);
    store(s->gbias + b * s->dim + d, 1, lanes, g[block - first].gbias);
  }
}

static void forward_worker(void *data) {
  scan *s = data;
  const int64_t blocks = num_blocks(s);
  for (int64_t i; (i = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED)) < s->batch * blocks;) {
    if (s->state == 16) forward_block(s, i / blocks, i % blocks, 16);
    else forward_block(s, i / blocks, i % blocks, s->state);
  }
}

static void backward_worker(void *data) {
  scan *s = data;
  const int64_t size = (num_blocks(s) + s->groups - 1) / s->groups;
  const size_t bytes = sizeof(chunk_states) + sizeof(chunk_sums) + size * sizeof(block_sums);
  char *memory = aligned_alloc(sizeof(vec), bytes);
  for (int64_t i; (i = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED)) < s->batch * s->groups;) {
    if (s->state == 16) backward_group(s, i / s->groups, i % s->groups, 16, memory);
    else backward_group(s, i / s->groups, i % s->groups, s->state, memory);
  }
  free(memory);
}

static void run(scan *s, void (*worker)(void *)) {
  s->next = 0;
  if (s->parallel && s->threads > 1) s->parallel(worker, s, s->threads, 0);
  else worker(s);
}

void scan_forward(scan *s) { run(s, forward_worker); }
void scan_backward(scan *s) { run(s, backward_worker); }
"""


class _Tensor(ctypes.Structure):
    """`tensor` of the C source."""

    _fields_ = [("data", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("batch", "channel", "time"))]


class _Scan(ctypes.Structure):
    """`scan` of the C source."""

    _fields_ = [
        *(
            (n, ctypes.c_int64)
            for n in ("batch", "dim", "length", "state", "groups", "softplus", "reverse", "threads")
        ),
        ("parallel", ctypes.c_void_p),
        *((name, _Tensor) for name in ("u", "delta", "z", "B", "C", "out")),
        *((name, ctypes.c_void_p) for name in ("A", "D", "bias", "last", "saved")),
        *((name, _Tensor) for name in ("gout", "gu", "gdelta", "gz")),
        *((name, ctypes.c_void_p) for name in ("glast", "gA", "gB", "gC", "gD", "gbias")),
        ("next", ctypes.c_int64),
    ]


def _cache_folder() -> Path:
    """A folder of this user alone for built kernels."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "fftp"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix" and (folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022):
        raise PermissionError(f"{folder} belongs to another user or can be written by others")
    return folder


def _machine() -> str:
    """What a build for this very processor depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return (
        "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
        + platform.platform()
    )


def _build() -> Path:
    """Compile the kernel, or find it compiled; raises OSError or CalledProcessError where that is not possible."""
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        raise FileNotFoundError("no C compiler: neither $CC nor cc is on the PATH")
    defines = [f"-D{name}={value}" for name, value in (("LANES", LANES), ("CHUNK", CHUNK), ("MAX_STATE", MAX_STATE))]
    command = [compiler, *FLAGS, *defines]
    digest = hashlib.sha256("\0".join((SOURCE, *command, _machine())).encode()).hexdigest()[:20]
    library = _cache_folder() / f"selective_scan_{digest}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            source, built = Path(scratch, "scan.c"), Path(scratch, "scan.so")
            source.write_text(SOURCE)
            subprocess.run([*command, str(source), "-o", str(built)], check=True, capture_output=True, text=True)
            os.replace(built, library)
    return library


class _Kernel:
    """The loaded library and the thread pool it borrows."""

    def __init__(self, library: Path):
        handle = ctypes.CDLL(str(library))
        self.forward, self.backward = handle.scan_forward, handle.scan_backward
        for function in (self.forward, self.backward):
            function.argtypes, function.restype = [ctypes.POINTER(_Scan)], None
        self.parallel = _find_parallel()


def _find_parallel() -> int | None:
    """Address of GOMP_parallel in torch's own OpenMP runtime: a second one's threads would fight for the cores."""
    for path in sorted(Path(torch.__file__).parent.glob("lib/lib*omp*")):
        try:
            return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
    return None


@lru_cache(maxsize=1)
def load_cpu_kernel() -> _Kernel | None:
    """The kernel, built at the first call of all; None, with one warning, where it cannot be built."""
    try:
        return _Kernel(_build())
    except (OSError, subprocess.CalledProcessError) as error:
        detail = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        logger.warning(f"The selective scan runs in plain torch: its CPU kernel could not be built ({detail})")
        return None


def _view(tensor: torch.Tensor | None) -> _Tensor:
    return _Tensor() if tensor is None else _Tensor(tensor.data_ptr(), *tensor.stride())


def _pointer(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _describe(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, D: torch.Tensor | None,
    z: torch.Tensor | None, delta_bias: torch.Tensor | None, delta_softplus: bool, reverse: bool,
) -> _Scan:  # fmt: skip
    """The inputs as the C structure; it holds no references, so the tensors must outlive it."""
    batch, dim, length = u.shape
    return _Scan(
        batch=batch, dim=dim, length=length, state=A.shape[0], groups=_groups(u),
        softplus=delta_softplus, reverse=reverse, threads=torch.get_num_threads(), parallel=load_cpu_kernel().parallel,
        u=_view(u), delta=_view(delta), z=_view(z), B=_view(B), C=_view(C),
        A=_pointer(A), D=_pointer(D), bias=_pointer(delta_bias),
    )  # fmt: skip


def _blocks(u: torch.Tensor) -> int:
    return -(-u.shape[1] // LANES)


def _groups(u: torch.Tensor) -> int:
    """Groups of blocks whose gradients of B and C are summed apart, so that one clip still feeds several threads."""
    size = -(-_blocks(u) // MAX_GROUPS)
    return -(-_blocks(u) // size)


def _num_saved(u: torch.Tensor) -> int:
    return -(-u.shape[2] // CHUNK)


@torch.library.custom_op(f"{OPERATOR}_forward", mutates_args=())
def _forward(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, D: torch.Tensor | None,
    z: torch.Tensor | None, delta_bias: torch.Tensor | None, delta_softplus: bool, reverse: bool, save: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    out, last, saved = _allocate_forward(u, A, save)
    scan = _describe(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    scan.out, scan.last, scan.saved = _view(out), last.data_ptr(), saved.data_ptr() if save else None
    load_cpu_kernel().forward(scan)
    return out, last, saved


def _allocate_forward(u: torch.Tensor, A: torch.Tensor, save: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output, last state, and the states before each chunk if they are wanted."""
    saved_shape = (u.shape[0], _blocks(u), _num_saved(u), A.shape[0], LANES) if save else (0,)
    return torch.empty_like(u), u.new_empty(u.shape[0], *A.shape), u.new_empty(saved_shape)


@_forward.register_fake
def _forward_fake(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, save):
    return _allocate_forward(u, A, save)


@torch.library.custom_op(f"{OPERATOR}_backward", mutates_args=())
def _backward(
    grad_out: torch.Tensor, grad_last: torch.Tensor, saved: torch.Tensor,
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, D: torch.Tensor | None,
    z: torch.Tensor | None, delta_bias: torch.Tensor | None, delta_softplus: bool, reverse: bool,
) -> tuple[
    torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor
]:  # fmt: skip
    grads = _allocate_backward(u, delta, A, z)
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias = grads
    grad_last = grad_last.contiguous()
    scan = _describe(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    scan.saved, scan.gout, scan.glast = saved.data_ptr(), _view(grad_out), grad_last.data_ptr()
    scan.gu, scan.gdelta, scan.gz = _view(grad_u), _view(grad_delta), _view(None if z is None else grad_z)
    scan.gA, scan.gB, scan.gC = grad_A.data_ptr(), grad_B.data_ptr(), grad_C.data_ptr()
    scan.gD, scan.gbias = grad_D.data_ptr(), grad_bias.data_ptr()
    load_cpu_kernel().backward(scan)
    return grads


def _allocate_backward(u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, z: torch.Tensor | None) -> tuple:
    """Gradients in the order of the inputs; those of parameters per clip, those of B and C per group."""
    (batch, dim, length), state, groups = u.shape, A.shape[0], _groups(u)
    return (
        torch.empty_like(u),
        torch.empty_like(delta),
        u.new_empty(batch, state, dim),
        u.new_empty(batch, groups, length, state),
        u.new_empty(batch, groups, length, state),
        u.new_empty(batch, dim),
        u.new_empty(0) if z is None else torch.empty_like(z),
        u.new_empty(batch, dim),
    )


@_backward.register_fake
def _backward_fake(grad_out, grad_last, saved, u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse):
    return _allocate_backward(u, delta, A, z)


def _setup_context(ctx, inputs, output):
    *tensors, ctx.delta_softplus, ctx.reverse, _ = inputs
    ctx.save_for_backward(*tensors, output[2])


def _autograd(ctx, grad_out, grad_last, grad_saved):
    *inputs, saved = ctx.saved_tensors
    D, z, delta_bias = inputs[5:]
    grads = _backward(grad_out, grad_last, saved, *inputs, ctx.delta_softplus, ctx.reverse)
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias = grads
    return (
        grad_u,
        grad_delta,
        grad_A.sum(dim=0),
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


def selective_scan_cpu(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, D: torch.Tensor | None,
    z: torch.Tensor | None, delta_bias: torch.Tensor | None, delta_softplus: bool, reverse: bool,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The scan of `scan_fftp.py` on float32 CPU tensors of any strides.

    Returns:
        Output like `u`, and the last state (batch, dim, state).

    Raises:
        ValueError: More than `MAX_STATE` states.
    """
    if A.shape[1] > MAX_STATE:
        raise ValueError(f"A has {A.shape[1]} states; the CPU kernel holds at most {MAX_STATE}")
    # The kernel reads the states of one moment, and the channels of one state, side by side.
    A, D, delta_bias = (None if x is None else x.contiguous() for x in (A.t(), D, delta_bias))
    B, C = (x if x.stride(1) == 1 else x.transpose(1, 2).contiguous().transpose(1, 2) for x in (B, C))
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    out, last, _ = _forward(*inputs, delta_softplus, reverse, save)
    return out, last.transpose(1, 2)
