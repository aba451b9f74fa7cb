"""The checkpoints in a folder of training."""

import json
import re
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


class BestBesideResumed(TrainerCallback):
    """Lets a resumed run find its best checkpoint beside the one that it goes on from.

    Trainer keeps the path that it had, which leads elsewhere or nowhere once the folder is moved or copied.
    """

    checkpoint: str | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Look for it, where a run is resumed."""
        if self.checkpoint is not None and state.best_global_step is not None:
            best = Path(self.checkpoint).parent / f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}"
            if best.is_dir():
                state.best_model_checkpoint = str(best)


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
    raise FileNotFoundError(
        f"no whole checkpoint in {folder}; it holds {names}. Without --resume_from_checkpoint a training begins anew"
    )


def holds_checkpoint(folder: Path) -> bool:
    """Whether a folder has a checkpoint that a training can go on from."""
    return any(read_state(path) is not None for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))


def read_state(checkpoint: Path) -> dict[str, Any] | None:
    """What Trainer writes last into a checkpoint; None where a killed run did not write it, or half of it."""
    try:
        return json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
