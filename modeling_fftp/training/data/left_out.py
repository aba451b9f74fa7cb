"""Clips that cannot be used: named in a file, counted in the log, and too many for a training to go on."""

import csv
import logging
from pathlib import Path

from transformers import TrainingArguments

from modeling_fftp.atomic_write import atomic_write

logger = logging.getLogger(__name__)

# The file that names them.
LEFT_OUT = "left_out_clips.csv"


def left_out_clip(row: int, source: str | None, problem: str) -> dict:
    """A clip that is left out: its row in the data set, where it comes from if that is known, and why."""
    return {"row": row, "source": source or f"row {row}", "problem": problem}


def report_left_out(
    left_out: dict[str, list[dict]], shares: dict[str, float], largest_share: float, training: TrainingArguments
) -> None:
    """Name the clips that are left out in a CSV file, and count them in the log; the first process does.

    Args:
        left_out: `left_out_clip` of each clip, by split.
        shares: Share of each split that is left out.
        largest_share: Share of a split that may be left out.
        training: Its `output_dir` holds the file, which is removed where nothing is left out.

    Raises:
        ValueError: More than that share is left out of a split.
    """
    path = Path(training.output_dir, LEFT_OUT)
    if is_first := training.process_index == 0:
        write_left_out(left_out, path)
    for split, clips in left_out.items():
        message = f"{split}: {len(clips)} clips ({shares[split]:.1%}) cannot be used; {path} names them and says why"
        if shares[split] > largest_share:
            first = clips[0]["problem"]
            raise ValueError(f"{message}, the first: {first}. At most {largest_share:.1%} may be left out")
        if clips and is_first:
            logger.warning("%s. They are left out", message)


def write_left_out(left_out: dict[str, list[dict]], path: Path) -> None:
    """Write the file of the clips that are left out, or remove that of a run before where there are none."""
    if not any(left_out.values()):
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=["split", "row", "source", "problem"])
        writer.writeheader()
        writer.writerows({"split": split, **clip} for split, clips in left_out.items() for clip in clips)
