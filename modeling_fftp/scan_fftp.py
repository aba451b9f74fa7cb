"""The selective scan of Mamba (Gu and Dao 2023, section 3), in several implementations of one signature.

Shapes and names are those of mamba-ssm's `selective_scan_fn`: u, delta, z (batch, dim, length); A (dim, state); B, C
(batch, state, length); D, delta_bias (dim). With the time step dt = delta + delta_bias, through softplus if asked, and
for each t in order, or in reverse order:

    h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] u[t]    (equation 2; A by zero-order hold, B by Euler's rule)
    y[t] = C[t] h[t] + D u[t],   times silu(z[t]) where z is given
"""

import os
from contextlib import nullcontext
from functools import partial

import torch
from torch.nn import functional
from transformers.utils import logging

from .dtypes_fftp import as_float
from .kernel_cpu_fftp import find_device, require_kernel
from .scan_cpu_fftp import load_scan_kernel, selective_scan_cpu
from .scan_triton_fftp import selective_scan_triton
from .tracing_fftp import takes_other_derivatives

try:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
except ImportError:
    selective_scan_fn = None

try:
    import triton
except ImportError:
    triton = None

logger = logging.get_logger(__name__)

# Steps between two states that the backward pass of the plain implementation starts again from.
CHUNK_STEPS = 32


def selective_scan_ref(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
    return_last_state: bool = False,
    initial_state: torch.Tensor | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """The scan as the equations have it, one step after the other; what every other implementation is tested against.

    Shapes: u, delta, z (batch, dim, length); A (dim, state); B, C (batch, state, length); D, delta_bias (dim);
    initial_state (batch, dim, state).
    Returns: (batch, dim, length), and with `return_last_state` also (batch, dim, state); computed in float32, or in
    float64 where the inputs are.
    """
    dtype = u.dtype
    u, delta, A, B, C = (as_float(x) for x in (u, delta, A, B, C))
    dt = delta if delta_bias is None else delta + as_float(delta_bias)[:, None]
    if delta_softplus:
        dt = functional.softplus(dt)
    steps = range(u.shape[2])
    state = u.new_zeros(u.shape[0], *A.shape) if initial_state is None else as_float(initial_state)
    outputs = [None] * len(steps)
    for t in reversed(steps) if reverse else steps:
        state = torch.exp(dt[:, :, t, None] * A) * state + (dt * u)[:, :, t, None] * B[:, None, :, t]
        outputs[t] = (state * C[:, None, :, t]).sum(dim=-1)
    y = torch.stack(outputs, dim=2)
    if D is not None:
        y = y + as_float(D)[:, None] * u
    if z is not None:
        y = y * functional.silu(as_float(z))
    return (y.to(dtype), state) if return_last_state else y.to(dtype)


class _ChunkedScan(torch.autograd.Function):
    """States and outputs of the bare recurrence in plain torch, one chunk of time after the other.

    What is kept for the backward pass is the state before each chunk; the states within are computed again.
    """

    @staticmethod
    def forward(ctx, u, dt, A, B, C):
        state = u.new_zeros(u.shape[0], *A.shape)
        starts, outputs = [], []
        for chunk in _chunks(u, dt, B, C):
            starts.append(state)
            states = _chunk_states(state, A, *chunk[:3])[1]
            outputs.append(_einsum("bdkn,bnk->bdk", states, chunk[3]))
            state = states[:, :, -1]
        ctx.save_for_backward(u, dt, A, B, C, *starts)
        return torch.cat(outputs, dim=2), state

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y, grad_last):
        u, dt, A, B, C, *starts = ctx.saved_tensors
        chunks = [
            *zip(starts, *zip(*_chunks(u, dt, B, C), strict=True), grad_y.split(CHUNK_STEPS, dim=2), strict=True)
        ]
        grad_A, carry, grads = torch.zeros_like(A), grad_last, []
        for start, u_k, dt_k, B_k, C_k, grad_k in reversed(chunks):
            decay, states = _chunk_states(start, A, u_k, dt_k, B_k)
            grad_states = []
            for step in reversed(range(u_k.shape[2])):
                grad_states.append(torch.addcmul(carry, grad_k[:, :, step, None], C_k[:, None, :, step]))
                carry = grad_states[-1] * decay[:, :, step]
            grad_state = torch.stack(grad_states[::-1], dim=2)
            before = torch.cat((start[:, :, None], states[:, :, :-1]), dim=2)
            grad_exponent = grad_state * before * decay
            grad_drive = _einsum("bdkn,bnk->bdk", grad_state, B_k)
            grad_A += _einsum("bdkn,bdk->dn", grad_exponent, dt_k)
            grads.append(
                (
                    grad_drive * dt_k,
                    grad_drive * u_k + _einsum("bdkn,dn->bdk", grad_exponent, A),
                    _einsum("bdkn,bdk->bnk", grad_state, dt_k * u_k),
                    _einsum("bdkn,bdk->bnk", states, grad_k),
                )
            )
        grad_u, grad_dt, grad_B, grad_C = (torch.cat(parts[::-1], dim=2) for parts in zip(*grads, strict=True))
        return grad_u, grad_dt, grad_A, grad_B, grad_C


def _einsum(equation: str, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """A product in the precision of its factors, under autocast too, which the "meta" device does not know."""
    device = first.device.type
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        return torch.einsum(equation, first, second)


def _chunks(*tensors: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    """Cut tensors (..., length) into chunks of time."""
    return [*zip(*(tensor.split(CHUNK_STEPS, dim=2) for tensor in tensors), strict=True)]


def _chunk_states(
    state: torch.Tensor, A: torch.Tensor, u: torch.Tensor, dt: torch.Tensor, B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decay factors and states of a chunk, both (batch, dim, steps, state), after the state (batch, dim, state)."""
    decay = torch.exp(dt[..., None] * A[:, None])
    drive = (dt * u)[..., None] * B.transpose(1, 2)[:, None]
    states = []
    for factor, term in zip(decay.unbind(dim=2), drive.unbind(dim=2), strict=True):
        state = torch.addcmul(term, factor, state)
        states.append(state)
    return decay, torch.stack(states, dim=2)


def _chunked_recurrence(u, dt, A, B, C, reverse):
    if u.is_meta:
        # There are no values to step through: what depends on every input and has the right shape will do.
        y = u * dt * A.sum(dim=1, keepdim=True) * (B * C).sum(dim=1, keepdim=True)
        return y, u.new_empty(u.shape[0], *A.shape)
    sequences = [x.flip(2) if reverse else x for x in (u, dt, B, C)]
    y, last = _ChunkedScan.apply(*sequences[:2], A, *sequences[2:])
    return (y.flip(2) if reverse else y), last


def _exported_recurrence(u, dt, A, B, C, reverse):
    """One operator of torch that exporters know: what is exported takes sequences of any length."""
    # Not at the top of the file, which loads with versions of torch that lack it.
    from torch._higher_order_ops.scan import scan

    def step(state, inputs):
        u_t, dt_t, B_t, C_t = inputs
        state = torch.exp(dt_t[..., None] * A) * state + (dt_t * u_t)[..., None] * B_t[:, None]
        return state, (state * C_t[:, None]).sum(dim=-1)

    time_first = tuple(x.permute(2, 0, 1) for x in (u, dt, B, C))
    last, y = scan(step, u.new_zeros(u.shape[0], *A.shape), time_first, dim=0, reverse=reverse)
    return y.permute(1, 2, 0), last


def _scan_plain(recurrence, u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse):
    """The scan around its bare recurrence, in float32, or float64 where the inputs are."""
    dtype = u.dtype
    tensors = (u, delta, A, B, C, D, z, delta_bias)
    u, delta, A, B, C, D, z, delta_bias = (None if x is None else as_float(x) for x in tensors)
    dt = delta if delta_bias is None else delta + delta_bias[:, None]
    if delta_softplus:
        dt = functional.softplus(dt)
    y, last = recurrence(u, dt, A, B, C, reverse)
    if D is not None:
        y = y + D[:, None] * u
    return (y if z is None else y * functional.silu(z)).to(dtype), last


def _scan_mamba_ssm(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse):
    # The kernel takes sequences of one type alone.
    dtype, common = u.dtype, torch.promote_types(u.dtype, delta.dtype)
    sequences = (None if x is None else x.to(common) for x in (u, delta, B, C, z))
    u, delta, B, C, z = (None if x is None else (x.flip(2) if reverse else x).contiguous() for x in sequences)
    A, D, delta_bias = (None if x is None else x.float() for x in (A, D, delta_bias))
    y, last = selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state=True)
    return (y.flip(2) if reverse else y).to(dtype), last


IMPLEMENTATIONS = {
    "torch": partial(_scan_plain, _chunked_recurrence),
    "export": partial(_scan_plain, _exported_recurrence),
    "cpu": selective_scan_cpu,
    "triton": selective_scan_triton,
    "mamba_ssm": _scan_mamba_ssm,
    "reference": partial(selective_scan_ref, return_last_state=True),
}


@torch.compiler.assume_constant_result
def choose_implementation(implementation: str, device: str, dtype: torch.dtype = torch.float32) -> str:
    """Resolve "auto" on a type of device, for inputs of a dtype, and refuse what is not there.

    Raises:
        ValueError: An unknown name, or an implementation that does not run on the device.
        ImportError: A package or compiler that is missing; the message has the line that installs it.
    """
    if implementation == "auto":
        if torch.compiler.is_exporting():
            return "export"
        if takes_other_derivatives():
            return "reference"
        if dtype == torch.float64:
            # The kernels compute in float32.
            return "torch"
        if device == "cuda":
            chosen = "mamba_ssm" if selective_scan_fn is not None else "triton" if triton is not None else "torch"
        else:
            chosen = "cpu" if device == "cpu" and load_scan_kernel() is not None else "torch"
        if device != "meta":
            logger.info_once(f"selective_scan on {device}: implementation {chosen!r}")
        return chosen
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation={implementation!r} is unknown; expected 'auto' or one of {[*IMPLEMENTATIONS]}"
        )
    if implementation not in ("export", "reference") and takes_other_derivatives():
        raise ValueError(
            f"implementation={implementation!r} has no derivatives but backward(); expected 'auto' or 'reference' in "
            "forward mode and in torch.func"
        )
    if implementation == "cpu":
        require_kernel(load_scan_kernel(), device)
    if implementation == "triton" and triton is None:
        raise ImportError("implementation='triton' needs Triton: pip install triton")
    if implementation == "mamba_ssm" and selective_scan_fn is None:
        raise ImportError("implementation='mamba_ssm' needs mamba-ssm: pip install mamba-ssm")
    is_interpreted = implementation == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    if implementation in ("triton", "mamba_ssm") and device != "cuda" and not is_interpreted:
        raise ValueError(f"implementation={implementation!r} runs on a GPU; these tensors are on the {device.upper()}")
    return implementation


def _add_initial_state(y, last, initial_state, delta, A, C, z, delta_bias, delta_softplus, reverse):
    """Outputs and last state of a scan that began with zeros, as if it had begun with a state.

    The recurrence is linear in its first state, which decays as if there were no input. So every implementation takes
    one, and none has to know of it. It makes a tensor (batch, dim, length, state): this is for pieces of a stream.
    """
    dt = as_float(delta) if delta_bias is None else as_float(delta) + as_float(delta_bias)[:, None]
    if delta_softplus:
        dt = functional.softplus(dt)
    elapsed = dt.flip(2).cumsum(dim=2).flip(2) if reverse else dt.cumsum(dim=2)
    left = torch.exp(elapsed[..., None] * as_float(A)[:, None]) * as_float(initial_state)[:, :, None]
    carried = _einsum("bdkn,bnk->bdk", left, as_float(C))
    if z is not None:
        carried = carried * functional.silu(as_float(z))
    return (y + carried).to(y.dtype), last + left[:, :, 0 if reverse else -1]


def _check_inputs(u, delta, A, B, C, D=None, z=None, delta_bias=None, initial_state=None):
    find_device(u, delta, A, B, C, D, z, delta_bias, initial_state)
    batch, dim, length = u.shape
    expected = {"delta": (delta, (batch, dim, length)), "A": (A, (dim, A.shape[-1])), "z": (z, (batch, dim, length))}
    expected |= {"B": (B, (batch, A.shape[-1], length)), "C": (C, (batch, A.shape[-1], length))}
    expected |= {"D": (D, (dim,)), "delta_bias": (delta_bias, (dim,))}
    expected |= {"initial_state": (initial_state, (batch, dim, A.shape[-1]))}
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; with u {tuple(u.shape)} it must be {shape}")
    if not torch.compiler.is_compiling() and not u.numel():
        raise ValueError(f"u has shape {tuple(u.shape)}; expected at least one clip, channel and step")


def selective_scan(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
    return_last_state: bool = False,
    implementation: str = "auto",
    initial_state: torch.Tensor | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """The selective scan, computed in float32; for float64 "torch", "export" and "reference" compute in that.

    Args:
        u: Input, (batch, dim, length).
        delta: Time steps before bias and softplus, like `u`.
        A: Decay rates, (dim, state); at most 0.
        B: Input weights, (batch, state, length).
        C: Output weights, (batch, state, length).
        D: Skip weights, (dim).
        z: Gate, like `u`.
        delta_bias: Added to `delta`, (dim).
        delta_softplus: Whether time steps go through softplus.
        reverse: Whether time runs backwards.
        return_last_state: Whether to return the state after the last step as well.
        implementation: "torch" (runs anywhere), "cpu" (fused C kernel), "triton" (fused GPU kernel), "mamba_ssm" (the
            official GPU kernel), "export" (one operator of torch, slow), "reference" (`selective_scan_ref`: all
            derivatives that torch knows, slow), or "auto": in an export "export"; in forward mode and in torch.func
            "reference"; for float64 torch; on CUDA mamba_ssm, else triton, else torch; on a CPU cpu, else torch.
        initial_state: State before the first step, (batch, dim, state), as `return_last_state` gave it for the piece
            of the sequence before this one; None is zeros.

    Returns:
        (batch, dim, length) in the dtype of `u`, and with `return_last_state` also (batch, dim, state) in the dtype
        that was computed in.

    Raises:
        ValueError: Shapes that do not belong together, tensors on several devices, or an implementation that does not
            exist or fit the device.
        ImportError: An implementation that is not installed.
    """
    _check_inputs(u, delta, A, B, C, D, z, delta_bias, initial_state)
    scan = IMPLEMENTATIONS[choose_implementation(implementation, u.device.type, u.dtype)]
    y, last = scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    if initial_state is not None:
        y, last = _add_initial_state(y, last, initial_state, delta, A, C, z, delta_bias, delta_softplus, reverse)
    return (y, last) if return_last_state else y


def bidirectional_scan(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    A_reverse: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    implementation: str = "auto",
) -> torch.Tensor:
    """The sum of a scan with `A` forwards and a scan with `A_reverse` backwards over the same sequences.

    Arguments and errors are those of `selective_scan`. The "cpu" kernel takes both directions in one pass.

    Returns:
        (batch, dim, length) in the dtype of `u`.
    """
    _check_inputs(u, delta, A, B, C, D, z, delta_bias)
    _check_inputs(u, delta, A_reverse, B, C)
    chosen = choose_implementation(implementation, u.device.type, u.dtype)
    if chosen == "cpu":
        return selective_scan_cpu(u, delta, A, B, C, D, z, delta_bias, delta_softplus, False, A_reverse)[0]
    scan, rest = IMPLEMENTATIONS[chosen], (B, C, D, z, delta_bias, delta_softplus)
    return scan(u, delta, A, *rest, False)[0] + scan(u, delta, A_reverse, *rest, True)[0]
