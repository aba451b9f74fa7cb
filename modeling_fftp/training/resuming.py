"""Checks that a resumed training continues the one that it resumes."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.utils import CONFIG_NAME

from modeling_fftp import FFTPConfig
from modeling_fftp.hub.run_files import ARGUMENTS, DATA, RECIPE, read_results
from modeling_fftp.modeling_fftp import FFTPPreTrainedModel
from modeling_fftp.scores_fftp import label_names

from .arguments import FFTPTrainingArguments, ModelArguments
from .checkpoints import last_whole_checkpoint, read_state
from .command_line import without_place
from .model_arguments import ADJUSTABLE
from .results import write_results

logger = logging.getLogger(__name__)

# Arguments that may be others from now on: how long to train, how to compute, what to measure, write and publish.
MAY_CHANGE = (
    "num_train_epochs", "max_steps", "bf16", "auto_bf16", "tf32", "per_device_eval_batch_size", "calibrate",
    "target_precision",
)  # fmt: skip
MAY_CHANGE_PREFIXES = (
    "eval_", "save_", "logging_", "hub_", "dataloader_", "torch_compile", "gradient_checkpointing",
    "activation_checkpointing",
)  # fmt: skip
# Begins like those that may, but changes how many steps an epoch has.
MUST_STAY = ("dataloader_drop_last",)
# Follows from other arguments unless it is given.
DERIVED = ("greater_is_better",)
# Where `arguments.json` keeps the number of devices.
WORLD_SIZE = "world_size"


@dataclass(frozen=True)
class Resumed:
    """A training to go on with.

    Args:
        folder: Its output folder.
        config: Config of its checkpoint.
        epoch: Epochs, and part of one, after which the checkpoint was written.
    """

    folder: Path
    config: FFTPConfig
    epoch: float

    def refuse_other_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Refuse arguments that would make another training of it: some would count from now on, others not at all.

        Raises:
            ValueError: An argument is another than it began with.
        """
        began = read_results(self.folder, RECIPE)
        if began is None:
            return
        began = without_place(began)
        names = {*began, *recipe}
        # What follows from others comes last, so that the message names what was given.
        for name in sorted(names, key=lambda name: (name in DERIVED, name)):
            may_change = name in MAY_CHANGE or name.startswith(MAY_CHANGE_PREFIXES)
            if name in MUST_STAY or not may_change:
                self._refuse_other(f"--{name}", recipe.get(name, "its default"), began.get(name, "its default"))

    def refuse_other_devices(self, count: int) -> None:
        """Refuse another number of devices: Trainer would take the steps that were made for other epochs.

        Raises:
            ValueError: The run began with more or fewer.
        """
        began = (read_results(self.folder, ARGUMENTS) or {}).get(WORLD_SIZE, count)
        self._refuse_other("the number of processes or GPUs", count, began)

    def refuse_other_workers(self, count: int) -> None:
        """Refuse another number of loader workers within an epoch of streamed clips, whose order follows from it.

        Raises:
            ValueError: The run began with more or fewer: some clips would come twice, others not at all.
        """
        began = (read_results(self.folder, ARGUMENTS) or {}).get("dataloader_num_workers", count)
        if not float(self.epoch).is_integer() and max(1, count) != max(1, began):
            raise ValueError(
                f"--dataloader_num_workers {count} would change the order of streamed clips within an epoch; "
                f"the resumed run has {began}"
            )

    def refuse_fewer_epochs(self, training: FFTPTrainingArguments) -> None:
        """Refuse to end before where it stands: recipe and card would tell of a shorter training.

        Raises:
            ValueError: It has trained for longer.
        """
        # A part of an epoch ends with a whole step, a little later.
        if training.max_steps <= 0 and training.num_train_epochs < math.floor(self.epoch + 1e-6):
            raise ValueError(
                f"--num_train_epochs {training.num_train_epochs:g}: the resumed run has trained for {self.epoch:.4g}"
            )

    def refuse_other_classes(self, classes: Iterable[str]) -> None:
        """Refuse classes that it does not learn.

        Raises:
            ValueError: The data have others, or others more.
        """
        own, theirs = [*classes], label_names(self.config)
        if own != theirs:
            raise ValueError(
                f"the resumed run tells apart {theirs}, the data {own}; choose another --output_dir, and "
                "start from the trained model with --model_name_or_path"
            )

    def refuse_other_data(self, described: Mapping[str, Any]) -> None:
        """Refuse data that changed: what validates, and what features are normalised by, would be others.

        Raises:
            ValueError: A split has more or fewer clips, or other ones or other labels, than when it began.
        """
        began = read_results(self.folder, DATA)
        if began is None:
            return
        for split in sorted({*began["splits"], *described["splits"]}):
            own, theirs = ({**(splits.get(split) or {})} for splits in (described["splits"], began["splits"]))
            digests = own.pop("digest", None), theirs.pop("digest", None)
            self._refuse_other(f"split {split}", own, theirs)
            if None not in digests and digests[0] != digests[1]:
                raise ValueError(
                    f"the clips of split {split} or their labels have changed since the resumed run began; choose "
                    "another --output_dir"
                )

    def refuse_other_model(self, arguments: ModelArguments, model: FFTPPreTrainedModel) -> None:
        """Refuse a model of another shape, or for another task.

        Raises:
            ValueError: A field that says what weights there are, where their tokens stand or what they learn.
        """
        config = model.config
        names = [item.name for item in fields(arguments) if hasattr(config, item.name) and item.name not in ADJUSTABLE]
        for name in (*names, "max_length", "position_stride", "problem_type"):
            self._refuse_other(name, getattr(config, name), getattr(self.config, name))
        self._refuse_other("architecture", [type(model).__name__], self.config.architectures)

    def _refuse_other(self, name: str, own: Any, theirs: Any) -> None:
        if own != theirs:
            raise ValueError(f"{name} is {own}, and the resumed run has {theirs}; choose another --output_dir")


def find_resumed(training: FFTPTrainingArguments, recipe: Mapping[str, Any]) -> Resumed | None:
    """Find the run that a training goes on from, if it does.

    Raises:
        FileNotFoundError: There is no whole checkpoint.
        ValueError: What is named is none, has another recipe or number of devices, or is further than this is to go.
    """
    checkpoint = training.resume_from_checkpoint if training.do_train else None
    if checkpoint is True:
        checkpoint = last_whole_checkpoint(training.output_dir)
    if not checkpoint:
        return None
    if not Path(checkpoint, CONFIG_NAME).is_file():
        raise ValueError(f"--resume_from_checkpoint {checkpoint} is not the folder of a checkpoint")
    if not Path(checkpoint, SCHEDULER_NAME).is_file():
        raise ValueError(
            f"{checkpoint} has no {SCHEDULER_NAME}, as --save_only_model leaves it: there is nothing to go on from; "
            "start anew from its weights with --model_name_or_path"
        )
    state = read_state(Path(checkpoint))
    if state is None:
        raise ValueError(f"{checkpoint} has no whole {TRAINER_STATE_NAME}: it was not written to its end")
    logger.info("Going on from %s, after %.4g epochs", checkpoint, state["epoch"])
    resumed = Resumed(Path(checkpoint).absolute().parent, FFTPConfig.from_pretrained(checkpoint), state["epoch"])
    resumed.refuse_other_recipe(recipe)
    resumed.refuse_other_devices(count_devices(training))
    resumed.refuse_fewer_epochs(training)
    return resumed


def count_devices(training: FFTPTrainingArguments) -> int:
    """Processes, or GPUs where one process has several, that share a batch."""
    return training.world_size * max(1, training.n_gpu)


def write_beginning(
    training: FFTPTrainingArguments, groups: Sequence[Any], recipe: dict[str, Any], described: dict[str, Any]
) -> None:
    """Keep what a resumption is held to in the folder of a training: its recipe, data, arguments and devices.

    Args:
        training: Its last group of arguments.
        groups: The others.
        recipe: What `find_recipe` gives.
        described: What its data are.
    """
    write_results(training, RECIPE, recipe)
    write_results(training, DATA, described)
    given = {name: value for group in groups for name, value in vars(group).items()}
    write_results(training, ARGUMENTS, given | training.to_dict() | {WORLD_SIZE: count_devices(training)})


def measured_of_all(metrics: Mapping[str, float], training: FFTPTrainingArguments) -> dict[str, float]:
    """What is known of a whole training: after a resumption, time and loss are those of its last part alone."""
    return {"epoch": metrics["epoch"]} if training.resume_from_checkpoint else dict(metrics)
