"""C kernels for CPUs: the code that they share, their build at first use, and their arguments.

A kernel is plain C with the vector extension of gcc and clang. It takes as many channels as a register holds, and its
threads are those of torch's own OpenMP runtime. The system's compiler builds it into a cache folder of this user.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from transformers.utils import logging

logger = logging.get_logger(__name__)

FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
# The widest register in channels, LANES of the C code at most.
MAX_LANES = 16

PRELUDE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

/* Channels in one vector: the width of the registers. */
#ifdef __AVX512DQ__
#define LANES 16
#else
#define LANES 8
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef uint32_t uvec __attribute__((vector_size(LANES * 4)));
typedef uint16_t hvec __attribute__((vector_size(LANES * 2)));

/* A sequence (batch, channel, time), float32 or bfloat16, and its strides in elements; no data: not there. */
typedef struct { char *data; int64_t bfloat16, batch, channel, time; } tensor;

static inline vec splat(float x) { return x - (vec){0}; }
static inline vec pick(ivec mask, vec a, vec b) { return (vec)(((ivec)a & mask) | ((ivec)b & ~mask)); }

/* 2^x (2 ulp): the nearest integer goes into the exponent, a polynomial covers the rest in [-1/2, 1/2]. */
static inline vec exp2_(vec x) {
#if LANES == 16
  const vec n = (vec)_mm512_roundscale_ps((__m512)x, 0), r = x - n;
#else
  /* Not a number must stay so: the second operand of these instructions does. */
#ifdef __AVX2__
  x = (vec)_mm256_max_ps((__m256)splat(-126.0f), _mm256_min_ps((__m256)splat(127.0f), (__m256)x));
#else
  x = pick(x < -126.0f, splat(-126.0f), pick(x > 127.0f, splat(127.0f), x));
#endif
  const vec n = x + 12582912.0f;          /* 1.5 * 2^23: adding it rounds to an integer */
  const vec r = x - (n - 12582912.0f);
#endif
  vec p = 1.339887440266574e-3f * r + 9.618437357674640e-3f;
  p = p * r + 5.550332471162809e-2f;
  p = p * r + 2.402264791363012e-1f;
  p = p * r + 6.931472028550421e-1f;
  p = p * r + 1.0f;
#if LANES == 16
  return (vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  return (vec)((ivec)p + ((ivec)n << 23));
#endif
}

#define LOG2E 1.44269504088896341f
static inline vec sigmoid_(vec x) { return 1.0f / (1.0f + exp2_(-LOG2E * x)); }

static inline vec widen(hvec h) { return (vec)(__builtin_convertvector(h, uvec) << 16); }

/* To the nearest bfloat16, ties to even; NaN stays NaN. */
static inline hvec narrow(vec v) {
  const uvec x = (uvec)v, rounded = x + 0x7fff + ((x >> 16) & 1);
  return __builtin_convertvector((uvec)pick(v == v, (vec)rounded, (vec)(x | 0x400000)) >> 16, hvec);
}

static inline vec load(const float *p, int lanes) {
  vec v = {0};
  if (lanes == LANES) memcpy(&v, p, sizeof v);
  else for (int i = 0; i < lanes; i++) v[i] = p[i];
  return v;
}

static inline void store(float *p, int lanes, vec v) {
  if (lanes == LANES) memcpy(p, &v, sizeof v);
  else for (int i = 0; i < lanes; i++) p[i] = v[i];
}

static inline vec load_sequence(int64_t bfloat16, const char *p, int64_t stride, int lanes) {
  const int contiguous = stride == 1 && lanes == LANES;
  if (!bfloat16) {
    if (contiguous) return load((const float *)p, LANES);
    vec v = {0};
    for (int i = 0; i < lanes; i++) v[i] = ((const float *)p)[i * stride];
    return v;
  }
  hvec h = {0};
  if (contiguous) memcpy(&h, p, sizeof h);
  else for (int i = 0; i < lanes; i++) h[i] = ((const uint16_t *)p)[i * stride];
  return widen(h);
}

static inline void store_sequence(int64_t bfloat16, char *p, int64_t stride, int lanes, vec v) {
  const int contiguous = stride == 1 && lanes == LANES;
  if (!bfloat16) {
    if (contiguous) store((float *)p, LANES, v);
    else for (int i = 0; i < lanes; i++) ((float *)p)[i * stride] = v[i];
    return;
  }
  const hvec h = narrow(v);
  if (contiguous) memcpy(p, &h, sizeof h);
  else for (int i = 0; i < lanes; i++) ((uint16_t *)p)[i * stride] = h[i];
}

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif

#if LANES == 16
#define LOWER(a, b) SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define UPPER(a, b) SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#else
#define LOWER(a, b) SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define UPPER(a, b) SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#endif

/* Rows become columns: as often as LANES halves, each half of the rows is interleaved with the other. */
static inline void transpose(vec x[LANES]) {
#pragma GCC unroll 4
  for (int size = LANES; size > 1; size /= 2) {
    vec y[LANES];
#pragma GCC unroll 8
    for (int i = 0; i < LANES / 2; i++) {
      const vec a = x[i], b = x[i + LANES / 2];
      y[2 * i] = LOWER(a, b);
      y[2 * i + 1] = UPPER(a, b);
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) x[i] = y[i];
  }
}

static inline int64_t min_(int64_t a, int64_t b) { return a < b ? a : b; }

/* A block of LANES channels (the last one has fewer) of one clip. */
typedef struct { int64_t b, d; int lanes; } place;

/* The block at `steps` moments from t on, one vector per moment. */
static void read(const tensor *x, place at, int64_t t, int64_t steps, vec *out) {
  const int64_t size = x->bfloat16 ? 2 : 4, step = size * x->time, channel = size * x->channel;
  const char *p = x->data + at.b * size * x->batch + at.d * channel + t * step;
  int64_t i = 0;
  if (x->time == 1 && at.lanes == LANES)
    for (; i + LANES <= steps; i += LANES) {
      for (int j = 0; j < LANES; j++) out[i + j] = load_sequence(x->bfloat16, p + i * step + j * channel, 1, LANES);
      transpose(out + i);
    }
  for (; i < steps; i++) out[i] = load_sequence(x->bfloat16, p + i * step, x->channel, at.lanes);
}

/* Write such a block; `in` is transposed in place, so its contents are lost. */
static void write(const tensor *x, place at, int64_t t, int64_t steps, vec *in) {
  const int64_t size = x->bfloat16 ? 2 : 4, step = size * x->time, channel = size * x->channel;
  char *p = x->data + at.b * size * x->batch + at.d * channel + t * step;
  int64_t i = 0;
  if (x->time == 1 && at.lanes == LANES)
    for (; i + LANES <= steps; i += LANES) {
      transpose(in + i);
      for (int j = 0; j < LANES; j++) store_sequence(x->bfloat16, p + i * step + j * channel, 1, LANES, in[i + j]);
    }
  for (; i < steps; i++) store_sequence(x->bfloat16, p + i * step, x->channel, at.lanes, in[i]);
}

static inline int64_t num_blocks(int64_t dim) { return (dim + LANES - 1) / LANES; }
static inline place block_place(int64_t dim, int64_t b, int64_t block) {
  return (place){b, block * LANES, min_(LANES, dim - block * LANES)};
}

/* Threads of the runtime that torch uses, and the next task of a job, shared between them. */
typedef struct { void (*parallel)(void (*)(void *), void *, unsigned, unsigned); int64_t threads, next; } team;

static inline int64_t next_task(team *t) { return __atomic_fetch_add(&t->next, 1, __ATOMIC_RELAXED); }

static void run(team *t, void (*worker)(void *), void *job) {
  t->next = 0;
  if (t->parallel && t->threads > 1) t->parallel(worker, job, t->threads, 0);
  else worker(job);
}
"""


def find_device(*tensors: torch.Tensor | None) -> torch.device:
    """The device that all tensors lie on.

    Where one argument of an operator is on "meta", torch calls its fake kernel, whose result is uninitialised memory.

    Raises:
        ValueError: The tensors lie on several devices.
    """
    devices = {tensor.device for tensor in tensors if tensor is not None}
    if len(devices) > 1:
        raise ValueError(f"tensors lie on several devices, {sorted(map(str, devices))}; expected one")
    return devices.pop()


def refuse_second_derivative(ctx, *gradients: torch.Tensor | None) -> None:
    """The derivative that the backward pass of a kernel does not have.

    Raises:
        RuntimeError: Always.
    """
    raise RuntimeError(
        "backward() of this kernel cannot be differentiated again; scan_implementation='reference' of the config, or "
        "implementation='reference' of a scan and 'torch' of a convolution, has all derivatives"
    )


class KernelTensor(ctypes.Structure):
    """`tensor` of the C code."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("bfloat16", "batch", "channel", "time")),
    ]


class KernelTeam(ctypes.Structure):
    """`team` of the C code."""

    _fields_ = [("parallel", ctypes.c_void_p), ("threads", ctypes.c_int64), ("next", ctypes.c_int64)]


def view(tensor: torch.Tensor | None) -> KernelTensor:
    """A tensor (batch, channel, time) of any strides, float32 or bfloat16, as an argument that it must outlive."""
    if tensor is None:
        return KernelTensor()
    return KernelTensor(tensor.data_ptr(), tensor.dtype == torch.bfloat16, *tensor.stride())


def pointer(tensor: torch.Tensor | None) -> int | None:
    """A contiguous float32 tensor as an argument that it must outlive."""
    return None if tensor is None else tensor.data_ptr()


def team() -> KernelTeam:
    """The threads that torch uses now."""
    return KernelTeam(_find_parallel(), torch.get_num_threads())


def operator_name(name: str, module: str, file: str) -> str:
    """Name of a torch operator that no other copy or version of its file has.

    The package and the code of each loaded checkpoint register operators of their own: a second registration of one
    name would take the first away under a model that uses it, and torch.compile keeps graphs on disk by name.
    """
    return f"fftp::{name}_{hashlib.sha256(module.encode() + Path(file).read_bytes()).hexdigest()[:8]}"


def _cache_folder() -> Path:
    """A folder of this user alone for built kernels."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise FileNotFoundError("no folder for built kernels: neither $XDG_CACHE_HOME nor a home folder") from error
    folder = base / "fftp"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix" and (folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022):
        raise PermissionError(f"{folder} belongs to another user or can be written by others")
    return folder


def _machine() -> str:
    """Everything that a build for this very processor depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return (
        "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
        + platform.platform()
    )


def _build(name: str, source: str) -> Path:
    """Compile a kernel, or find it compiled; raises OSError or CalledProcessError where that is not possible."""
    # It may hold more than a name: "ccache gcc".
    try:
        program, *options = shlex.split(os.environ.get("CC", "")) or ["cc"]
    except ValueError as error:
        raise FileNotFoundError(f"$CC={os.environ['CC']!r} is not a command: {error}") from error
    compiler = shutil.which(program)
    if compiler is None:
        raise FileNotFoundError(f"no C compiler: {program} is not on the PATH; $CC names another")
    command = [compiler, *options, *FLAGS]
    digest = hashlib.sha256("\0".join((source, *command, _machine())).encode()).hexdigest()[:20]
    library = _cache_folder() / f"{name}_{digest}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            code, built = Path(scratch, "kernel.c"), Path(scratch, "kernel.so")
            code.write_text(source)
            subprocess.run([*command, str(code), "-o", str(built)], check=True, capture_output=True, text=True)
            os.replace(built, library)
    return library


@cache
def _find_parallel() -> int | None:
    """Address of GOMP_parallel in torch's own OpenMP runtime: a second one's threads would fight for the cores."""
    for path in sorted(Path(torch.__file__).parent.glob("lib/lib*omp*")):
        try:
            return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
    return None


def require_kernel(kernel: ctypes.CDLL | None, device: torch.device | str) -> None:
    """Refuse to run a kernel that could not be built, or on what no CPU can read.

    Raises:
        ImportError: It could not be built; the log said why.
        ValueError: Tensors that are not on a CPU.
    """
    if torch.device(device).type != "cpu":
        raise ValueError(f"implementation='cpu' runs on CPU tensors; these are on {device}")
    if kernel is None:
        raise ImportError(
            "implementation='cpu' needs its kernel, which could not be built; the log says why. A compiler comes by "
            "apt-get install gcc"
        )


@cache
def load_kernel(name: str, source: str) -> ctypes.CDLL | None:
    """A kernel made of `PRELUDE` and `source`, built at its first use of all; None where it cannot be built."""
    try:
        return ctypes.CDLL(str(_build(name, PRELUDE + source)))
    except (OSError, subprocess.CalledProcessError) as error:
        detail = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        logger.warning_once(f"Plain torch runs in place of the CPU kernels: they could not be built ({detail})")
        return None
