"""What every benchmark reports: the machine, and its results as files."""

import json
import os
from pathlib import Path

import transformers

from modeling_fftp.hub import efficiency

RESULTS = Path(__file__).parent / "results"


def describe_machine() -> dict[str, str | int]:
    """Processor, threads and versions."""
    return efficiency.describe_machine() | {"transformers": transformers.__version__}


def keep(name: str, results: dict, table: str) -> None:
    """Print a table, and write it and the raw results to `results/NAME.md` and `results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / f"{name}.json", results)
    write_text(RESULTS / f"{name}.md", table)
    print(table)


def write_json(path: Path, results: dict) -> None:
    """Write results in place of those before, whole or not at all."""
    write_text(path, json.dumps(results, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text in place of the one before, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
