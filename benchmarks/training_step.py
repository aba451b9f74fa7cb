"""Times of the parts of one training step, as JSON; `training.py` runs this file of every checkout it compares.

The step is that of the recipe fftp-ast-tiny-speech-commands-ar on 64 clips of 1 s; noise stands in for speech.
"""

import json
import sys
import tempfile

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from torch import nn

from benchmarks.timing import Stopwatch
from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.memory import keep_freed_memory
from modeling_fftp.training.collator import build_collator
from modeling_fftp.training.command_line import parse_arguments

RECIPE = "fftp-ast-tiny-speech-commands-ar"
BATCH, SAMPLES, LABELS = 64, 16000, 40
WARM_UP = 3


def make_clips(folder: str, number: int = BATCH) -> Dataset:
    """Noise, kept on disk as a training keeps decoded sound."""
    rng = np.random.default_rng(0)
    clips = [(0.1 * rng.normal(size=SAMPLES)).astype(np.float32) for _ in range(number)]
    features = Features({"audio": List(Value("float32")), "labels": Value("int64")})
    labels = [index % LABELS for index in range(number)]
    Dataset.from_dict({"audio": clips, "labels": labels}, features=features).save_to_disk(folder)
    return Dataset.load_from_disk(folder).with_format("numpy")


def build(folder: str) -> tuple:
    """Model, collator and training arguments of the recipe."""
    shape, _, augmentation, _, training = parse_arguments([RECIPE, "--dataset_name", folder, "--output_dir", folder])
    config = FFTPConfig(max_length=98, num_labels=LABELS, **shape.given)
    collator = build_collator(augmentation, FFTPFeatureExtractor(), config, None, 0.0)
    return FFTPForAudioClassification(config).train(), collator, training


def run_step(watch: Stopwatch, clips: Dataset, model: nn.Module, collator, optimizer, has_bfloat16: bool) -> None:
    """One step; features and masks are computed once more by themselves, to tell them from the rest of the data."""
    watch.start()
    examples = clips.__getitems__([*range(BATCH)])
    watch.take("reading")
    batch = collator.augment(examples)
    watch.take("collator")
    waveforms = [torch.from_numpy(np.array(example["audio"])) for example in examples]
    watch.start()
    features = collator.feature_extractor(waveforms, sampling_rate=16000, return_tensors="pt")
    watch.take("features")
    collator.spec_mask(features["input_values"], features["attention_mask"])
    watch.take("masks")
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16):
        loss = model(**batch).loss
    watch.take("forward")
    loss.backward()
    watch.take("backward")
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    watch.take("clipping")
    optimizer.step()
    optimizer.zero_grad()
    watch.take("optimizer")


def main(rounds: int) -> None:
    """Print the precision that the recipe chooses, and times by precision and part, milliseconds of every round."""
    # As a training does.
    keep_freed_memory()
    torch.manual_seed(0)
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        clips = make_clips(folder)
        model, collator, arguments = build(folder)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        for precision in ("float32", "bfloat16"):
            watch = Stopwatch()
            for _ in range(WARM_UP + rounds):
                run_step(watch, clips, model, collator, optimizer, precision == "bfloat16")
            times[precision] = {part: taken[WARM_UP:] for part, taken in watch.milliseconds.items()}
    print(json.dumps({"chosen": "bfloat16" if arguments.bf16 else "float32", "times": times}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
