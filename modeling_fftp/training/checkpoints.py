"""The checkpoints in a folder of training."""

import json
import re
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


def last_whole_checkpoint(folder: str) -> str:
    """The last checkpoint in a folder that a killed run did not leave half-written.

    Raises:
        FileNotFoundError: The folder has no whole checkpoint.
    """
    found = {}
    for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if number := re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", path.name):
            found[int(number[1])] = path
    for step in sorted(found, reverse=True):
        if read_state(found[step]) is not None:
            return str(found[step])
    names = sorted(path.name for path in found.values())
    raise FileNotFoundError(f"no whole checkpoint in {folder}; it holds {names}")


def read_state(checkpoint: Path) -> dict[str, Any] | None:
    """What Trainer writes last into a checkpoint; None where a killed run did not write it, or half of it."""
    try:
        return json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
