"""What every benchmark reports: the machine, and its results as files."""

import json
from pathlib import Path

import transformers

from modeling_fftp import efficiency

RESULTS = Path(__file__).parent / "results"


def describe_machine() -> dict[str, str | int]:
    """Processor, threads and versions."""
    return efficiency.describe_machine() | {"transformers": transformers.__version__}


def keep(name: str, results: dict, table: str) -> None:
    """Print a table, and write it and the raw results to `results/NAME.md` and `results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(table, encoding="utf-8")
    print(table)
