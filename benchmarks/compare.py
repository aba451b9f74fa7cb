"""Whether a change made models slower: saved folders, each with the code that it was saved with, in turn.

    python -m benchmarks.compare BEFORE AFTER [...] --clip_seconds 10 --dtype bfloat16

A folder is what `save_pretrained` or `fftp train` wrote; its own code runs. Calls alternate one by one. Two folders of
the same code differ by the noise: name one twice to see it.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from benchmarks.efficiency import make_sound
from benchmarks.report import describe_machine, name_machine, render_table
from benchmarks.timing import time_call
from modeling_fftp.memory import keep_freed_memory

CLASSES = ("modeling_fftp.FFTPForAudioClassification", "feature_extraction_fftp.FFTPFeatureExtractor")


def load(folder: str, clip_seconds: float, batch_size: int, dtype: str) -> Callable[[], object]:
    """A forward pass of a saved model, by the code in its folder."""
    # The Auto classes would take the classes of this checkout, which importing it registers.
    model_class, extractor_class = (get_class_from_dynamic_module(name, folder) for name in CLASSES)
    model = model_class.from_pretrained(folder, dtype=dtype).eval()
    extractor = extractor_class.from_pretrained(folder)
    sound = [make_sound(clip_seconds)] * batch_size
    inputs = extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    return torch.inference_mode()(partial(model, **{name: tensor.to(model.dtype) for name, tensor in inputs.items()}))


def measure(folders: Sequence[str], clip_seconds: float, batch_size: int, dtype: str, rounds: int) -> list[float]:
    """Median milliseconds of each folder's model."""
    calls = [load(folder, clip_seconds, batch_size, dtype) for folder in folders]
    times: list[list[float]] = [[] for _ in calls]
    warm_up = rounds // 5
    for _ in range(warm_up + rounds):
        for call, taken in zip(calls, times, strict=True):
            taken.append(time_call(call))
    return [1000 * statistics.median(taken[warm_up:]) for taken in times]


def render(folders: Sequence[str], medians: Sequence[float]) -> str:
    """Markdown."""
    rows = [
        [folder, f"{median:.2f} ms", f"{median / medians[0]:.3f}"]
        for folder, median in zip(folders, medians, strict=True)
    ]
    return f"{name_machine(describe_machine())}\n\n{render_table(['folder', 'median', 'ratio'], rows)}"


def main() -> None:
    """Measure and print; two versions of the code are no result to keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="saved models; the first is what the others are compared with")
    parser.add_argument("--clip_seconds", type=float, default=10.0)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=100)
    given = parser.parse_args()
    keep_freed_memory()
    medians = measure(given.folders, given.clip_seconds, given.batch_size, given.dtype, given.rounds)
    print(render(given.folders, medians))


if __name__ == "__main__":
    main()
