"""Commands of `fftp` as benchmarks run them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What a training does not need that nobody looks at.
PLAIN = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "disable_tqdm": True}


def slug(*parts: str | int | None) -> str:
    """A name for files."""
    text = " ".join(str(part) for part in parts if part is not None)
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def call(command: str, source: Path, output: Path, arguments: dict) -> None:
    """Run a command of `fftp` on one thread.

    Raises:
        RuntimeError: It failed.
    """
    words = [sys.executable, "-m", "modeling_fftp", command]
    if command == "train":
        recipe = output.with_suffix(".json")
        recipe.parent.mkdir(parents=True, exist_ok=True)
        recipe.write_text(json.dumps(arguments), encoding="utf-8")
        words += [recipe, "--dataset_name", source]
    else:
        words += [source]
        for name, value in arguments.items():
            words += [f"--{name}", *(value if isinstance(value, list) else [value])]
    words += ["--output_dir", output]
    done = subprocess.run(
        [*map(str, words)], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{output.name} failed:\n{done.stderr[-2000:]}")
