"""Attention with its backward pass on a CPU: torch's kernel, and written out as matrix products.

It decides `MAX_SHORT_TOKENS` in `modeling_fftp/layers_ast_fftp.py`. Both run in turn; batches have about as many
tokens in all, whatever the length of their clips.
"""

import argparse
from collections.abc import Callable

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from benchmarks.report import describe_machine, name_machine, render_table, run_benchmark
from benchmarks.timing import summarise, time_in_turn
from modeling_fftp.layers_ast_fftp import short_attention_forward
from modeling_fftp.training.memory import keep_freed_memory

TOKENS = (25, 50, 100, 201, 256, 400, 800)
TOTAL_TOKENS = 1600
HEADS, HEAD_WIDTH = 12, 64
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WAYS = {"torch's kernel": ALL_ATTENTION_FUNCTIONS["sdpa"], "written out": short_attention_forward}


def build_call(attend: Callable, tokens: int, dtype: torch.dtype) -> Callable[[], None]:
    """A forward and a backward pass, laid out as `FFTPAttention` does."""
    batch = TOTAL_TOKENS // tokens
    projected = [torch.randn(batch, tokens, HEADS, HEAD_WIDTH, dtype=dtype) for _ in range(3)]
    inputs = [states.transpose(1, 2).requires_grad_() for states in projected]
    gradient = torch.randn_like(projected[0])
    # As in a batch of which some clips are padded.
    is_seen = torch.ones(batch, 1, tokens, tokens, dtype=torch.bool)
    module = nn.Module()
    module.is_causal = False

    def call() -> None:
        output, _ = attend(module, *inputs, is_seen, scaling=HEAD_WIDTH**-0.5)
        torch.autograd.grad(output, inputs, gradient)

    return call


def measure(seconds: float) -> list[dict]:
    """Milliseconds by tokens, precision and way."""
    records = []
    for tokens in TOKENS:
        for precision, dtype in PRECISIONS.items():
            times = time_in_turn({way: build_call(attend, tokens, dtype) for way, attend in WAYS.items()}, seconds)
            group = {"tokens": tokens, "precision": precision}
            records += [group | {"way": way} | summarise(taken) for way, taken in times.items()]
    return records


def render(results: dict) -> str:
    """Markdown."""
    medians = {(item["tokens"], item["precision"], item["way"]): item["median_ms"] for item in results["records"]}
    rows = []
    for tokens in dict.fromkeys(item["tokens"] for item in results["records"]):
        cells = [str(tokens)]
        for precision in PRECISIONS:
            kernel, written = (medians[tokens, precision, way] for way in WAYS)
            cells += [f"{kernel:.1f} ms", f"{written:.1f} ms ({kernel / written:.1f}x)"]
        rows.append(cells)
    header = ["tokens per clip", *(f"{precision}, {way}" for precision in PRECISIONS for way in WAYS)]
    return f"""# Attention, forward and backward pass

`python -m benchmarks.attention`: medians of {HEADS} heads of {HEAD_WIDTH} on clips of so many tokens with a mask, at
most {TOTAL_TOKENS} in all; in brackets how many times as fast as torch's kernel. {name_machine(results["machine"])}.
GPU: not measured.

{render_table(header, rows)}"""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds_per_group", type=float, default=10.0, help="3 to 15 rounds that fit into this")
    # As a training does.
    keep_freed_memory()
    run_benchmark(
        "attention",
        parser,
        lambda given: {"machine": describe_machine(), "records": measure(given.seconds_per_group)},
        render,
    )


if __name__ == "__main__":
    main()
