"""What every benchmark reports: the machine, and its results as files."""

import json
import platform
from pathlib import Path

import torch
import transformers

RESULTS = Path(__file__).parent / "results"


def describe_machine() -> dict[str, str | int]:
    """Processor, threads and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "precision": "float32",
    }


def keep(name: str, results: dict, table: str) -> None:
    """Print a table, and write it and the raw results to `results/NAME.md` and `results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(table, encoding="utf-8")
    print(table)
