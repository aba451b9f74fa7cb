"""Make sounds, train on them, say when which of them sounds in a recording, draw pictures; all in demo_output/."""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from transformers import pipeline

from demo.plots import plot_patches
from demo.sounds import write_recording, write_sounds
from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig
from modeling_fftp.audio_stream_fftp import read_audio
from modeling_fftp.serving.tag import render_table

# Emptied at the start of each run.
OUTPUT = Path("demo_output")
ROOT = Path(__file__).resolve().parent.parent
CLIPS_PER_KIND = {"train": 60, "validation": 20, "test": 20}
KINDS_IN_RECORDING = ("bird", "siren", "rain")
TEST_CLIP = Path("sounds", "test", "siren", "000.wav")


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.perf_counter()
    sounds, model = OUTPUT / "sounds", OUTPUT / "model"
    shutil.rmtree(OUTPUT, ignore_errors=True)

    print(f"Making {sum(CLIPS_PER_KIND.values())} clips of each of 10 kinds of sound in {sounds}", flush=True)
    write_sounds(sounds, CLIPS_PER_KIND, arguments.seed)
    command = ["train.py", "demo/recipe.json", "--dataset_name", str(sounds), "--output_dir", str(model)]
    print(f"Training: python {' '.join(command)}", flush=True)
    command[:2] = [str(ROOT / name) for name in command[:2]]
    subprocess.run([sys.executable, *command, "--seed", str(arguments.seed)], check=True)

    recording = OUTPUT / "recording.wav"
    write_recording(recording, KINDS_IN_RECORDING, 8.0, arguments.seed)
    tag = pipeline("audio-tagging", model=str(model), trust_remote_code=True)
    print(f"\npipeline('audio-tagging', model='{model}')('{recording}')")
    print(render_table({"file": str(recording), **tag(str(recording), top_k=3)}))

    config, extractor = FFTPConfig.from_pretrained(model), FFTPFeatureExtractor.from_pretrained(model)
    sound = read_audio(OUTPUT / TEST_CLIP, extractor.sampling_rate)
    plot_patches(sound, TEST_CLIP.parent.name, config, extractor, OUTPUT / "patches.png", arguments.seed)
    results = json.loads((model / "test_results.json").read_text(encoding="utf-8"))
    print(f"\nTest accuracy {results['test_accuracy']:.1%} on clips it did not train on.")
    print(f"Pictures: {OUTPUT / 'patches.png'}, {model / 'training.png'}. Card: {model / 'README.md'}.")
    print(f"{time.perf_counter() - started:.0f} s in all.")


if __name__ == "__main__":
    main()
