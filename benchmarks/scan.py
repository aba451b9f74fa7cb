"""Time of the selective scan on a CPU against its peers, and its share of a whole Mamba forward pass.

Peers: mamba-ssm's own CPU reference, the fallback of transformers' Mamba, and mambapy's parallel scan. All run in turn
within each round. mamba-ssm cannot be installed without a GPU, so its
reference is read from the file that holds it: unpack its source distribution and pass
`--mamba_ssm_source .../mamba_ssm/ops/selective_scan_interface.py`, or leave it out.
"""

import argparse
import ast
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from transformers.models.mamba.modeling_mamba import mamba_selective_scan

from benchmarks.report import describe_machine, name_machine, render_table, run_benchmark
from benchmarks.timing import summarise, time_call, time_in_turn
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.scan_cpu_fftp import OPERATOR
from modeling_fftp.scan_fftp import selective_scan

BATCH, DIM, LENGTH, STATE = 8, 1536, 199, 16
OURS = "ours, cpu kernel"


def make_inputs() -> dict[str, torch.Tensor]:
    """Inputs of the scan in a base-size block at 199 tokens, batch 8."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    inputs = {
        "u": draw(BATCH, DIM, LENGTH), "delta": draw(BATCH, DIM, LENGTH) - 3,
        "A": -torch.arange(1.0, STATE + 1).repeat(DIM, 1), "B": draw(BATCH, STATE, LENGTH),
        "C": draw(BATCH, STATE, LENGTH), "D": torch.ones(DIM), "z": draw(BATCH, DIM, LENGTH), "delta_bias": draw(DIM),
    }  # fmt: skip
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


def load_mamba_ssm_reference(source: Path):
    """`selective_scan_ref` out of mamba-ssm's source file, whose other contents need CUDA to be imported."""
    from einops import rearrange, repeat

    tree = ast.parse(source.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "selective_scan_ref"]
    namespace = {"torch": torch, "F": functional, "rearrange": rearrange, "repeat": repeat}
    exec(compile(tree, str(source), "exec"), namespace)
    return namespace["selective_scan_ref"]


def run_mambapy(u, delta, A, B, C, D, z, delta_bias, delta_softplus):  # noqa: N803
    """The parallel scan of mambapy, in its layout (batch, length, dim)."""
    from mambapy.pscan import pscan

    dt = functional.softplus(delta + delta_bias[:, None]).transpose(1, 2)
    x = u.transpose(1, 2)
    states = pscan(torch.exp(dt[..., None] * A), (dt * x)[..., None] * B.transpose(1, 2)[:, :, None])
    y = (states @ C.transpose(1, 2)[..., None])[..., 0] + D * x
    return y.transpose(1, 2) * functional.silu(z)


def run_transformers(u, delta, A, B, C, D, z, delta_bias, delta_softplus):  # noqa: N803
    """The fallback that transformers' Mamba runs on a CPU."""
    output = mamba_selective_scan(u, delta, A, B, C, D, z=z, delta_bias=delta_bias, delta_softplus=delta_softplus)
    return output[0] if isinstance(output, tuple) else output


def build_scans(mamba_ssm_source: Path | None) -> dict[str, Callable]:
    """The scans to time, by name."""
    scans = (
        {} if mamba_ssm_source is None else {"mamba-ssm, CPU reference": load_mamba_ssm_reference(mamba_ssm_source)}
    )
    scans["transformers, Mamba fallback"] = run_transformers
    try:
        import mambapy  # noqa: F401
    except ImportError:
        print("mambapy is not installed: left out (pip install mambapy)")
    else:
        scans["mambapy, parallel scan"] = run_mambapy
    scans["ours, plain torch"] = lambda **inputs: selective_scan(**inputs, implementation="torch")
    scans[OURS] = lambda **inputs: selective_scan(**inputs, implementation="cpu")
    return scans


def measure_scans(scans: dict[str, Callable], seconds: float) -> list[dict]:
    """Times of each scan, forward alone and forward with backward."""
    inputs, records = make_inputs(), []
    expected = scans[OURS](**inputs, delta_softplus=True)
    for scan in scans.values():
        torch.testing.assert_close(scan(**inputs, delta_softplus=True), expected, atol=1e-3, rtol=1e-3)
    for pass_name, run_pass in PASSES.items():
        times = time_in_turn({name: partial(run_pass, scan, inputs) for name, scan in scans.items()}, seconds)
        records += [{"scan": name, "pass": pass_name} | summarise(taken) for name, taken in times.items()]
    return records


@torch.no_grad()
def run_forward(scan: Callable, inputs: dict[str, torch.Tensor]) -> None:
    """A forward pass."""
    scan(**inputs, delta_softplus=True)


def run_forward_backward(scan: Callable, inputs: dict[str, torch.Tensor]) -> None:
    """A forward and a backward pass."""
    torch.autograd.grad(scan(**inputs, delta_softplus=True).sum(), list(inputs.values()))


PASSES = {"forward": run_forward, "forward + backward": run_forward_backward}


def scan_share() -> dict[str, float]:
    """Seconds of a base-size forward pass at 199 tokens, batch 8, and the share of it that the scans take."""
    config = FFTPConfig(backbone="mamba", num_hidden_layers=24, num_labels=527)
    model = FFTPForAudioClassification(config).eval()
    features = torch.randn(BATCH, 1000, 128)
    with torch.no_grad():
        model(features)
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            total = time_call(lambda: model(features))
    operator = f"{OPERATOR}_forward"
    scan = sum(event.cpu_time_total for event in recorded.key_averages() if event.key == operator) / 1e6
    return {"forward_seconds": total, "scan_seconds": scan, "share": scan / total}


def render(results: dict) -> str:
    """Markdown."""
    medians = {(record["scan"], record["pass"]): record["median_ms"] for record in results["records"]}
    rows = []
    for name in dict.fromkeys(record["scan"] for record in results["records"]):
        times = {pass_name: medians[name, pass_name] for pass_name in PASSES}
        rows.append([name, *(f"{time:.1f} ms ({time / medians[OURS, kind]:.1f}x)" for kind, time in times.items())])
    share = results["share"]
    return f"""# Time of the selective scan on a CPU

`python -m benchmarks.scan --mamba_ssm_source FILE`: medians at batch {BATCH}, {DIM} channels, {LENGTH} tokens, {STATE}
states; in brackets how many times the time of our CPU kernel. {name_machine(results["machine"])}. GPU kernels: not
measured.

{render_table(["scan", *PASSES], rows)}
One forward pass of FFTP-AuM-base (fo-bi, {LENGTH} tokens, batch {BATCH}), under torch's
profiler, takes {share["forward_seconds"]:.2f} s; its 48 scans, two at a time, are {share["share"]:.0%} of it.
"""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mamba_ssm_source", type=Path)
    parser.add_argument("--seconds_per_group", type=float, default=60.0, help="3 to 15 rounds that fit into this")
    parser.add_argument("--rounds", help=argparse.SUPPRESS)

    def measure(given: argparse.Namespace) -> dict:
        if given.rounds is not None:
            parser.error("--rounds is now --seconds_per_group: 3 to 15 rounds that fit into this")
        scans = build_scans(given.mamba_ssm_source)
        return {
            "machine": describe_machine(),
            "share": scan_share(),
            "records": measure_scans(scans, given.seconds_per_group),
        }

    run_benchmark("scan", parser, measure, render)


if __name__ == "__main__":
    main()
