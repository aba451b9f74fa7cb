"""What a run leaves beside the model: JSON files of arguments, metrics and results per class."""

import json
from pathlib import Path

from modeling_fftp.atomic_write import atomic_write
from modeling_fftp.hub.run_files import OF_WEIGHTS, per_class_of

from .arguments import FFTPTrainingArguments


def write_per_class(training: FFTPTrainingArguments, name: str, results: dict) -> None:
    """Write of the results of a split those of each class."""
    write_results(training, per_class_of(name), {key: results[key] for key in ("per_class", "left_out")})


def forget_results(training: FFTPTrainingArguments) -> None:
    """Delete what was measured and drawn of earlier weights in the output folder; the first process does."""
    if training.process_index == 0:
        for name in OF_WEIGHTS:
            Path(training.output_dir, name).unlink(missing_ok=True)


def write_results(training: FFTPTrainingArguments, name: str, results: dict) -> None:
    """Write `NAME.json` into the output folder, whole or not at all; the first process does."""
    if training.process_index == 0:
        with atomic_write(Path(training.output_dir, f"{name}.json")) as part:
            part.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
