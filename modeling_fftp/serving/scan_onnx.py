"""The selective scan as ONNX's own `Scan`: one torch operator that an export keeps whole, and its translation."""

from collections.abc import Callable, Sequence

import torch
from onnxscript import FLOAT, graph, script
from onnxscript import opset18 as op
from torch.nn import functional

from modeling_fftp.scan_fftp import selective_scan


@torch.library.custom_op("fftp::recurrence", mutates_args=())
def recurrence(
    u: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, reverse: bool
) -> torch.Tensor:
    """The bare recurrence, time first: u and dt (length, batch, dim), B and C (length, batch, state)."""
    u, dt, B, C = (x.permute(1, 2, 0) for x in (u, dt, B, C))
    return selective_scan(u, dt, A, B, C, reverse=reverse).permute(2, 0, 1).contiguous()


@recurrence.register_fake
def _(u, dt, A, B, C, reverse):
    return torch.empty_like(u)


def selective_scan_onnx(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse):
    """An implementation of `selective_scan` for exports; it gives no last state."""
    dt = delta if delta_bias is None else delta + delta_bias[:, None]
    if delta_softplus:
        dt = functional.softplus(dt)
    time_first = [x.permute(2, 0, 1) for x in (u, dt, B, C)]
    y = torch.ops.fftp.recurrence(*time_first[:2], A, *time_first[2:], reverse).permute(1, 2, 0)
    if D is not None:
        y = y + D[:, None] * u
    return y if z is None else y * functional.silu(z), None


@script()
def _scan(
    u: FLOAT[...], dt: FLOAT[...], A: FLOAT[...], B: FLOAT[...], C: FLOAT[...],
    input_directions: Sequence[int], output_directions: Sequence[int],
) -> FLOAT[...]:  # fmt: skip
    before = op.Unsqueeze(op.Gather(u, 0) * 0.0, [2]) * op.Unsqueeze(A, [0])

    @graph()
    def step(state: FLOAT[...], u_t: FLOAT[...], dt_t: FLOAT[...], B_t: FLOAT[...], C_t: FLOAT[...]):
        decay = op.Exp(op.Unsqueeze(dt_t, [2]) * A)
        new = decay * state + op.Unsqueeze(dt_t * u_t, [2]) * op.Unsqueeze(B_t, [1])
        y_t = op.ReduceSum(new * op.Unsqueeze(C_t, [1]), [2], keepdims=0)
        return op.Identity(new), y_t

    _, y = op.Scan(
        before, u, dt, B, C, body=step, num_scan_inputs=4,
        scan_input_directions=input_directions, scan_output_directions=output_directions,
    )  # fmt: skip
    return y


def _translate(u, dt, A, B, C, reverse: bool):
    return _scan(u, dt, A, B, C, input_directions=[int(reverse)] * 4, output_directions=[int(reverse)])


# For torch.onnx.export.
TRANSLATIONS: dict[Callable, Callable] = {torch.ops.fftp.recurrence.default: _translate}
