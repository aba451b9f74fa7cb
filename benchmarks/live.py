"""Live sound on one core: time of every hop, and memory over an hour; random weights.

Hops are 50 ms. A tiny Mamba goes on from its state, a tiny AST looks at a window of 1 s.
"""

import argparse
import time

import numpy as np
import torch

from benchmarks.report import describe_machine, name_machine, render_table, run_benchmark
from benchmarks.timing import process_memory
from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPForAudioClassification

SAMPLING_RATE = 16000
HOP_SECONDS = 0.05
BLOCK = round(HOP_SECONDS * SAMPLING_RATE)
LABELS = 40
TINY = {"hidden_size": 192, "num_labels": LABELS, "max_length": 98, "time_stride": 5}
MODELS = {
    "Mamba, from its state": {
        "backbone": "mamba", "mamba_variant": "fo-fo", "pooling": "mean", "use_absolute_position_embeddings": False,
        "num_hidden_layers": 24, "state_size": 8, "expand": 1,
    },
    "AST, a window of 1 s": {"num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768},
}  # fmt: skip


def measure_hops(fields: dict, minutes: float) -> dict:
    """Stream noise through a model with random weights, hop by hop."""
    torch.manual_seed(0)
    model, extractor = FFTPForAudioClassification(FFTPConfig(**TINY, **fields)).eval(), FFTPFeatureExtractor()
    # Scores that differ from label to label, and none that is next to 1 whatever is heard.
    torch.nn.init.normal_(model.classifier.dense.weight, std=0.1)
    stream, rng = model.stream(extractor, hop_seconds=HOP_SECONDS), np.random.default_rng(0)
    blocks = round(60 * minutes / HOP_SECONDS)
    times, memory, answer = [], [], None
    for index in range(blocks):
        block = (0.1 * rng.normal(size=BLOCK)).astype(np.float32)
        started = time.perf_counter()
        answers = stream.push(block)
        times.append(time.perf_counter() - started)
        answer = answers[-1] if answers else answer
        if index % (blocks // 6) == blocks // 60:
            memory.append(process_memory("VmRSS"))
    difference = None
    if stream.cache is not None:
        rng = np.random.default_rng(0)
        sound = np.concatenate([(0.1 * rng.normal(size=BLOCK)).astype(np.float32) for _ in range(blocks)])
        with torch.inference_mode():
            heard = sound[: round(answer.seconds * SAMPLING_RATE)]
            features = extractor(heard, sampling_rate=SAMPLING_RATE, return_tensors="pt")
            whole = model(**features).logits[0].softmax(dim=-1)
        difference = (whole - answer.scores).abs().max().item()
    milliseconds = 1000 * np.asarray(times)
    return {
        "median_ms": float(np.median(milliseconds)),
        "p99_ms": float(np.quantile(milliseconds, 0.99)),
        "worst_ms": float(milliseconds.max()),
        "memory_mib": memory,
        "offline_difference": difference,
    }


def measure(arguments: argparse.Namespace) -> dict:
    """Everything that the command line asks for."""
    torch.set_num_threads(1)
    hops = {name: measure_hops(fields, arguments.minutes) for name, fields in MODELS.items()}
    return {"machine": describe_machine(), "minutes": arguments.minutes, "hops": hops}


def render(results: dict) -> str:
    """Markdown."""
    rows = []
    for name, hops in results["hops"].items():
        memory, difference = hops["memory_mib"], hops["offline_difference"]
        times = [f"{hops[key]:.1f} ms" for key in ("median_ms", "p99_ms", "worst_ms")]
        offline = "" if difference is None else f"{difference:.1e}"
        rows.append([name, *times, f"{memory[0]:.0f} to {memory[-1]:.0f} MiB", offline])
    header = ["tiny model", "median", "99th percentile", "worst", "memory, first to last minutes", "off from offline"]
    return f"""# Live sound on one core

`python -m benchmarks.live` on {name_machine(results["machine"])}: {results["minutes"]:.0f} minutes of noise in hops
of 50 ms, random weights. "Off from offline" is the largest difference of a last score from that of the whole sound in
one pass.

{render_table(header, rows)}"""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    run_benchmark("live", parser, measure, render)


if __name__ == "__main__":
    main()
