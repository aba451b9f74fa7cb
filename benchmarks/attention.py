"""Attention with its backward pass in bfloat16 on a CPU: torch's kernel, and with the backward pass in float32.

It decides `MAX_FLOAT32_TOKENS` in `modeling_fftp/layers_ast_fftp.py`. Both run in turn; batches have about as many
tokens in all, whatever the length of their clips.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from benchmarks.report import describe_machine, name_machine, render_table, run_benchmark
from benchmarks.timing import summarise, time_in_turn
from modeling_fftp.layers_ast_fftp import eager_attention_forward, mixed_attention_forward
from modeling_fftp.memory import keep_freed_memory

TOKENS = (25, 50, 100, 201, 400, 800, 1600)
TOTAL_TOKENS = 1600
HEADS, HEAD_WIDTH = 12, 64
# Of queries and keys: scores as those of trained models, far from even.
SCALE = 2.0
WAYS = {"torch's kernel": ALL_ATTENTION_FUNCTIONS["sdpa"], "backward in float32": mixed_attention_forward}


def make_inputs(tokens: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Query, key and value, laid out as `FFTPAttention` does, and the gradient of the output."""
    generator = torch.Generator().manual_seed(tokens)
    shape = (TOTAL_TOKENS // tokens, tokens, HEADS, HEAD_WIDTH)
    query, key, value, gradient = torch.randn(4, *shape, generator=generator).unbind()
    states = (SCALE * query, SCALE * key, value)
    return [tensor.bfloat16().transpose(1, 2) for tensor in states], gradient.bfloat16()


def attend(
    attention: Callable, inputs: list[torch.Tensor], gradient: torch.Tensor, mask: torch.Tensor | None
) -> list[torch.Tensor]:
    """The output and the gradients of the inputs."""
    module = nn.Module()
    module.is_causal = False
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    output, _ = attention(module, *inputs, mask, scaling=HEAD_WIDTH**-0.5)
    return [output.detach(), *torch.autograd.grad(output, inputs, gradient)]


def find_error(attention: Callable, tokens: int) -> float:
    """The largest relative error of the output and the three gradients, against float64."""
    inputs, gradient = make_inputs(tokens)
    exact = attend(eager_attention_forward, [tensor.double() for tensor in inputs], gradient.double(), None)
    results = attend(attention, inputs, gradient, None)
    pairs = zip(results, exact, strict=True)
    return max(((result.double() - value).norm() / value.norm()).item() for result, value in pairs)


def measure(seconds: float) -> list[dict]:
    """Milliseconds and error by tokens and way."""
    records = []
    for tokens in TOKENS:
        inputs, gradient = make_inputs(tokens)
        # As in a batch of which some clips are padded.
        mask = torch.ones(len(gradient), 1, tokens, tokens, dtype=torch.bool)
        calls = {way: partial(attend, attention, inputs, gradient, mask) for way, attention in WAYS.items()}
        for way, taken in time_in_turn(calls, seconds).items():
            records.append({"tokens": tokens, "way": way, "error": find_error(WAYS[way], tokens)} | summarise(taken))
    return records


def render(results: dict) -> str:
    """Markdown."""
    found = {(record["tokens"], record["way"]): record for record in results["records"]}
    rows = []
    for tokens in dict.fromkeys(record["tokens"] for record in results["records"]):
        kernel, mixed = (found[tokens, way] for way in WAYS)
        gain = kernel["median_ms"] / mixed["median_ms"]
        rows.append(
            [
                str(tokens),
                f"{kernel['median_ms']:.1f} ms",
                f"{mixed['median_ms']:.1f} ms ({gain:.1f}x)",
                *(f"{100 * record['error']:.2f} %" for record in (kernel, mixed)),
            ]
        )
    header = ["tokens per clip", *WAYS, *(f"error, {way}" for way in WAYS)]
    return f"""# Attention in bfloat16, forward and backward pass

`python -m benchmarks.attention`: medians of {HEADS} heads of {HEAD_WIDTH} on clips of so many tokens with a mask, at
most {TOTAL_TOKENS} in all; in brackets how many times as fast as torch's kernel. The error is the largest among output
and gradients, relative to float64. {name_machine(results["machine"])}. GPU: not measured.

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
