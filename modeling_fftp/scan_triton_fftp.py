"""The selective scan as one fused GPU kernel in Triton, forward and backward.

A program owns `BLOCK_DIM` channels of one clip and walks along time with their states in registers. The backward pass
starts from states kept every `CHUNK` steps and computes those in between again.
"""

from contextlib import AbstractContextManager, nullcontext

import torch

try:
    import triton
except ImportError:
    triton = None

try:
    import triton.language as tl
except ImportError:
    tl = None

BLOCK_DIM = 32
CHUNK = 32

if triton is not None:

    @triton.jit
    def _time_step(delta, bias, SOFTPLUS: tl.constexpr):
        """Time step and its slope by `delta`."""
        raw = delta + bias
        if SOFTPLUS:
            step = tl.where(raw > 20.0, raw, tl.log(1.0 + tl.exp(tl.minimum(raw, 20.0))))
            # log(1 + e) loses small e; there it equals e.
            step = tl.where(raw < -12.0, tl.exp(raw), step)
            slope = 1.0 / (1.0 + tl.exp(-raw))
        else:
            step = raw
            slope = tl.full(raw.shape, 1.0, tl.float32)
        return step, slope

    @triton.jit
    def _forward_kernel(
        u_ptr, delta_ptr, A_ptr, B_ptr, C_ptr, D_ptr, z_ptr, bias_ptr, out_ptr, last_ptr, saved_ptr,
        dim, length, chunks,
        STATE: tl.constexpr, BLOCK_STATE: tl.constexpr, BLOCK_DIM: tl.constexpr, CHUNK: tl.constexpr,
        HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
        SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, SAVE: tl.constexpr,
    ):  # fmt: skip
        # 64 bits: offsets into a batch may be beyond 2^31.
        batch = tl.program_id(1).to(tl.int64)
        d = tl.program_id(0).to(tl.int64) * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
        n = tl.arange(0, BLOCK_STATE)
        in_dim, in_state = d < dim, n < STATE
        in_both = in_dim[:, None] & in_state[None, :]
        matrix = d[:, None] * STATE + n[None, :]
        A = tl.load(A_ptr + matrix, mask=in_both, other=0.0)
        D = tl.load(D_ptr + d, mask=in_dim, other=0.0) if HAS_D else tl.zeros((BLOCK_DIM,), tl.float32)
        bias = tl.load(bias_ptr + d, mask=in_dim, other=0.0) if HAS_BIAS else tl.zeros((BLOCK_DIM,), tl.float32)
        h = tl.zeros((BLOCK_DIM, BLOCK_STATE), tl.float32)
        for step in range(length):
            t = length - 1 - step if REVERSE else step
            if SAVE:  # noqa: SIM102  (a constant: without it the code below is not compiled)
                if step % CHUNK == 0:
                    saved = saved_ptr + (batch * chunks + step // CHUNK) * dim * STATE
                    tl.store(saved + matrix, h, mask=in_both)
            at = (batch * dim + d) * length + t
            dt, _ = _time_step(tl.load(delta_ptr + at, mask=in_dim, other=0.0).to(tl.float32), bias, SOFTPLUS)
            u = tl.load(u_ptr + at, mask=in_dim, other=0.0).to(tl.float32)
            row = (batch * STATE + n) * length + t
            B = tl.load(B_ptr + row, mask=in_state, other=0.0).to(tl.float32)
            C = tl.load(C_ptr + row, mask=in_state, other=0.0).to(tl.float32)
            h = tl.exp(dt[:, None] * A) * h + (dt * u)[:, None] * B[None, :]
            y = tl.sum(h * C[None, :], axis=1) + D * u
            if HAS_Z:
                z = tl.load(z_ptr + at, mask=in_dim, other=0.0).to(tl.float32)
                y = y * z / (1.0 + tl.exp(-z))
            tl.store(out_ptr + at, y, mask=in_dim)
        tl.store(last_ptr + batch * dim * STATE + matrix, h, mask=in_both)

    @triton.jit
    def _backward_kernel(
        u_ptr, delta_ptr, A_ptr, B_ptr, C_ptr, D_ptr, z_ptr, bias_ptr, saved_ptr, states_ptr, gout_ptr, glast_ptr,
        gu_ptr, gdelta_ptr, gA_ptr, gB_ptr, gC_ptr, gD_ptr, gz_ptr, gbias_ptr,
        dim, length, chunks, blocks,
        STATE: tl.constexpr, BLOCK_STATE: tl.constexpr, BLOCK_DIM: tl.constexpr, CHUNK: tl.constexpr,
        HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr,
        SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
    ):  # fmt: skip
        batch, block = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64)
        d = block * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
        n = tl.arange(0, BLOCK_STATE)
        in_dim, in_state = d < dim, n < STATE
        in_both = in_dim[:, None] & in_state[None, :]
        matrix = d[:, None] * STATE + n[None, :]
        A = tl.load(A_ptr + matrix, mask=in_both, other=0.0)
        D = tl.load(D_ptr + d, mask=in_dim, other=0.0) if HAS_D else tl.zeros((BLOCK_DIM,), tl.float32)
        bias = tl.load(bias_ptr + d, mask=in_dim, other=0.0) if HAS_BIAS else tl.zeros((BLOCK_DIM,), tl.float32)
        carry = tl.load(glast_ptr + batch * dim * STATE + matrix, mask=in_both, other=0.0)
        gA = tl.zeros((BLOCK_DIM, BLOCK_STATE), tl.float32)
        gD = tl.zeros((BLOCK_DIM,), tl.float32)
        gbias = tl.zeros((BLOCK_DIM,), tl.float32)
        # Room of this program for the states of one chunk.
        rows = tl.arange(0, BLOCK_DIM)[:, None] * BLOCK_STATE + n[None, :]
        room = states_ptr + (batch * blocks + block) * (CHUNK + 1) * BLOCK_DIM * BLOCK_STATE
        for back in range(chunks):
            first = (chunks - 1 - back) * CHUNK
            steps = tl.minimum(CHUNK, length - first)
            saved = saved_ptr + (batch * chunks + chunks - 1 - back) * dim * STATE
            h = tl.load(saved + matrix, mask=in_both, other=0.0)
            tl.store(room + rows, h)
            for i in range(steps):
                t = length - 1 - first - i if REVERSE else first + i
                at = (batch * dim + d) * length + t
                dt, _ = _time_step(tl.load(delta_ptr + at, mask=in_dim, other=0.0).to(tl.float32), bias, SOFTPLUS)
                u = tl.load(u_ptr + at, mask=in_dim, other=0.0).to(tl.float32)
                row = (batch * STATE + n) * length + t
                B = tl.load(B_ptr + row, mask=in_state, other=0.0).to(tl.float32)
                h = tl.exp(dt[:, None] * A) * h + (dt * u)[:, None] * B[None, :]
                tl.store(room + (i + 1) * BLOCK_DIM * BLOCK_STATE + rows, h)
            tl.debug_barrier()
            for j in range(steps):
                i = steps - 1 - j
                t = length - 1 - first - i if REVERSE else first + i
                at = (batch * dim + d) * length + t
                dt, slope = _time_step(tl.load(delta_ptr + at, mask=in_dim, other=0.0).to(tl.float32), bias, SOFTPLUS)
                u = tl.load(u_ptr + at, mask=in_dim, other=0.0).to(tl.float32)
                row = (batch * STATE + n) * length + t
                B = tl.load(B_ptr + row, mask=in_state, other=0.0).to(tl.float32)
                C = tl.load(C_ptr + row, mask=in_state, other=0.0).to(tl.float32)
                before = tl.load(room + i * BLOCK_DIM * BLOCK_STATE + rows)
                h = tl.load(room + (i + 1) * BLOCK_DIM * BLOCK_STATE + rows)
                gy = tl.load(gout_ptr + at, mask=in_dim, other=0.0).to(tl.float32)
                if HAS_Z:
                    z = tl.load(z_ptr + at, mask=in_dim, other=0.0).to(tl.float32)
                    gate = 1.0 / (1.0 + tl.exp(-z))
                    y = tl.sum(h * C[None, :], axis=1) + D * u
                    tl.store(gz_ptr + at, gy * y * gate * (1.0 + z * (1.0 - gate)), mask=in_dim)
                    gy = gy * z * gate
                gh = carry + gy[:, None] * C[None, :]
                partial = ((batch * blocks + block) * STATE + n) * length + t
                tl.store(gC_ptr + partial, tl.sum(gy[:, None] * h, axis=0), mask=in_state)
                tl.store(gB_ptr + partial, tl.sum(gh * (dt * u)[:, None], axis=0), mask=in_state)
                gdrive = tl.sum(gh * B[None, :], axis=1)
                carry = gh * tl.exp(dt[:, None] * A)
                gexponent = carry * before
                gA += gexponent * dt[:, None]
                gdelta = (tl.sum(gexponent * A, axis=1) + gdrive * u) * slope
                tl.store(gdelta_ptr + at, gdelta, mask=in_dim)
                tl.store(gu_ptr + at, gy * D + gdrive * dt, mask=in_dim)
                gD += gy * u
                gbias += gdelta
            tl.debug_barrier()
        tl.store(gA_ptr + batch * dim * STATE + matrix, gA, mask=in_both)
        tl.store(gD_ptr + batch * dim + d, gD, mask=in_dim)
        tl.store(gbias_ptr + batch * dim + d, gbias, mask=in_dim)


def _launching_on(device: torch.device) -> AbstractContextManager:
    """Triton launches on the current device, which need not be that of the tensors."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class _TritonScan(torch.autograd.Function):
    """Launches the kernels; every tensor is contiguous."""

    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, save):
        (batch, dim, length), state = u.shape, A.shape[1]
        blocks, chunks = triton.cdiv(dim, BLOCK_DIM), triton.cdiv(length, CHUNK)
        out, last = torch.empty_like(u), A.new_empty(batch, dim, state)
        saved = A.new_empty((batch, chunks, dim, state) if save else (0,))
        ctx.settings = {
            "STATE": state, "BLOCK_STATE": triton.next_power_of_2(state), "BLOCK_DIM": BLOCK_DIM, "CHUNK": CHUNK,
            "HAS_D": D is not None, "HAS_Z": z is not None, "HAS_BIAS": delta_bias is not None,
            "SOFTPLUS": delta_softplus, "REVERSE": reverse,
        }  # fmt: skip
        with _launching_on(u.device):
            _forward_kernel[blocks, batch](
                u, delta, A, B, C, D, z, delta_bias, out, last, saved, dim, length, chunks, SAVE=save, **ctx.settings
            )
        ctx.save_for_backward(u, delta, A, B, C, D, z, delta_bias, saved)
        return out, last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out, grad_last):
        u, delta, A, B, C, D, z, delta_bias, saved = ctx.saved_tensors
        (batch, dim, length), state = u.shape, A.shape[1]
        blocks, chunks = triton.cdiv(dim, BLOCK_DIM), triton.cdiv(length, CHUNK)
        states = A.new_empty(batch, blocks, CHUNK + 1, BLOCK_DIM, ctx.settings["BLOCK_STATE"])
        grad_u, grad_delta = torch.empty_like(u), torch.empty_like(delta)
        grad_z = None if z is None else torch.empty_like(z)
        grad_A = A.new_empty(batch, dim, state)
        grad_B, grad_C = A.new_empty(batch, blocks, state, length), A.new_empty(batch, blocks, state, length)
        grad_D, grad_bias = A.new_empty(batch, dim), A.new_empty(batch, dim)
        with _launching_on(u.device):
            _backward_kernel[blocks, batch](
                u, delta, A, B, C, D, z, delta_bias, saved, states, grad_out.contiguous(), grad_last.contiguous(),
                grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias,
                dim, length, chunks, blocks, **ctx.settings,
            )  # fmt: skip
        return (
            grad_u,
            grad_delta,
            grad_A.sum(dim=0),
            grad_B.sum(dim=1).to(B.dtype),
            grad_C.sum(dim=1).to(C.dtype),
            None if D is None else grad_D.sum(dim=0),
            grad_z,
            None if delta_bias is None else grad_bias.sum(dim=0),
            None,
            None,
            None,
        )


def selective_scan_triton(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor, D: torch.Tensor | None,
    z: torch.Tensor | None, delta_bias: torch.Tensor | None, delta_softplus: bool, reverse: bool,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The scan of `scan_fftp.py` in Triton; states are float32, sequences float32, bfloat16 or float16.

    Returns:
        Output like `u`, and the last state (batch, dim, state), float32.
    """
    A, D, delta_bias = (None if x is None else x.float() for x in (A, D, delta_bias))
    tensors = [None if x is None else x.contiguous() for x in (u, delta, A, B, C, D, z, delta_bias)]
    # Not what autograd says in `forward`: that counts weights also where nothing is differentiated.
    save = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    return _TritonScan.apply(*tensors, delta_softplus, reverse, save)
