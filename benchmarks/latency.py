"""Time to classify one clip of 1 s and of 10 s: FFTP against transformers' AST, as a user's pipeline runs them.

Weights are random, since they do not change the time. All pipelines run in turn within each round, so that whatever
else the machine does falls on all of them; the table gives medians over the rounds.
"""

import argparse
import statistics
import time

import numpy as np
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, pipeline

from benchmarks.report import describe_machine, keep
from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPForAudioClassification

SAMPLING_RATE = 16000
CLIP_SECONDS = (1, 10)
BASELINE = "transformers AST-base, 1212 tokens"


def build_pipelines() -> dict:
    """Pipelines of base size (768 wide, 12 layers, 527 classes), by name."""
    models = {BASELINE: (ASTForAudioClassification(ASTConfig(num_labels=527)), ASTFeatureExtractor())}
    for tokens, patch_frames, time_stride in ((991, 10, 1), (199, 10, 5), (96, 50, 10)):
        config = FFTPConfig(patch_size=(128, patch_frames), time_stride=time_stride, num_labels=527)
        models[f"FFTP-AST-base, {tokens} tokens"] = FFTPForAudioClassification(config), FFTPFeatureExtractor()
    return {
        name: pipeline("audio-classification", model=model.eval(), feature_extractor=extractor)
        for name, (model, extractor) in models.items()
    }


def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds per clip of every round, by pipeline and by clip length."""
    pipelines = build_pipelines()
    rng = np.random.default_rng(0)
    clips = {f"{n} s": (0.1 * rng.normal(size=n * SAMPLING_RATE)).astype(np.float32) for n in CLIP_SECONDS}
    seconds = {name: {length: [] for length in clips} for name in pipelines}
    for index in range(rounds + 1):
        for name, classify in pipelines.items():
            for length, clip in clips.items():
                started = time.perf_counter()
                classify(clip)
                # The first round warms up.
                if index:
                    seconds[name][length].append(time.perf_counter() - started)
    return seconds


def render(results: dict) -> str:
    """Markdown table of medians, with ratios to the baseline at the same length."""
    medians = {
        name: {length: statistics.median(times) for length, times in lengths.items()}
        for name, lengths in results["seconds"].items()
    }
    machine = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    rows = [
        "| pipeline | " + " | ".join(f"{n} s clip" for n in CLIP_SECONDS) + " |",
        "|---" * (len(CLIP_SECONDS) + 1) + "|",
    ]
    for name, lengths in medians.items():
        cells = [f"{1000 * s:.1f} ms ({medians[BASELINE][length] / s:.1f}x)" for length, s in lengths.items()]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(
        [
            "# Time to classify one clip",
            "",
            f"`python -m benchmarks.latency --rounds {results['rounds']}`: median time of one pipeline call at batch",
            "1, features included, and in brackets how many times faster than transformers' AST on the same clip.",
            f"Measured on: {machine}. GPU: not measured.",
            "",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Measure, print the table, keep it with the raw times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    results = {"rounds": rounds, "machine": describe_machine(), "seconds": measure(rounds)}
    keep("latency", results, render(results))


if __name__ == "__main__":
    main()
