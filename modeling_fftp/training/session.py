"""What every kind of training has: the process, its log, and how it goes on after it was stopped."""

import copy
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from datasets import disable_progress_bars
from torch.optim import SGD
from transformers import Trainer, set_seed
from transformers.trainer_utils import TrainOutput
from transformers.utils.logging import disable_progress_bar

from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.atomic_write import alone
from modeling_fftp.memory import keep_freed_memory

from .arguments import FFTPTrainingArguments
from .checkpoints import last_whole_checkpoint
from .publishing import set_repository
from .trainer import FFTPTrainer
from .weight_averaging import WeightAveraging

logger = logging.getLogger(__name__)

# A model to try a Trainer out with.
TINY = {"hidden_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 2, "max_length": 10}


@contextmanager
def begin(training: FFTPTrainingArguments) -> Iterator[None]:
    """Set up the process, find the repository to push to, and keep other runs from writing to the output folder.

    Raises:
        FileExistsError: Another run writes there.
    """
    keep_freed_memory()
    if training.disable_tqdm:
        disable_progress_bar()
        disable_progress_bars()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if training.push_when_done:
        set_repository(training)
    set_seed(training.seed)
    # The other processes of this run write to the same folder.
    with alone(lock_place(training.output_dir)) if training.process_index == 0 else nullcontext():
        yield


def lock_place(folder: str) -> Path:
    """What to lock so that one run writes to a folder: that, or where nothing can be made beside it, a name inside."""
    path = Path(folder).absolute()
    beside = next(place for place in path.parents if place.exists())
    return path if os.access(beside, os.W_OK) else path / ".training"


def try_out(training: FFTPTrainingArguments) -> None:
    """Make a Trainer of next to nothing, its optimizer and its schedule: what they refuse is known at once.

    Raises:
        ValueError: They refuse something.
    """
    # What is drawn here changes nothing that is drawn later.
    with TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        given = copy.copy(training)
        given.output_dir = folder
        try:
            model = FFTPForAudioClassification(FFTPConfig(**TINY))
            trainer = Trainer(model, given, train_dataset=[{}], eval_dataset=[{}])
            # Some optimizers look for modules that only the real model has.
            optimizer = SGD(model.parameters()) if given.optim_target_modules else trainer.create_optimizer()
            trainer.create_scheduler(num_training_steps=100, optimizer=optimizer)
        # Also of packages for logs or optimizers, whatever they raise.
        except Exception as error:
            raise ValueError(f"transformers' Trainer cannot be made: {error}") from error


def report_setting(training: FFTPTrainingArguments) -> None:
    """Say how the weights learn."""
    # Also what `accelerate launch` asks for.
    autocast = {"bf16": "bfloat16 autocast", "fp16": "float16 autocast"}
    precision = autocast.get(training.mixed_precision, "float32")
    batch = training.train_batch_size * training.gradient_accumulation_steps
    # Processes that split a batch share it.
    batch *= 1 if training.accelerator_config.split_batches else training.world_size
    logger.info(
        "Precision %s, effective batch %d clips (%d processes), learning rate %g",
        precision,
        batch,
        training.world_size,
        training.learning_rate,
    )


def build_averaging(training: FFTPTrainingArguments) -> WeightAveraging | None:
    """Build what averages weights, if the arguments ask for it."""
    if training.ema_decay or training.average_last_epochs:
        return WeightAveraging(training.ema_decay, training.average_last_epochs)
    return None


def measure_no_epoch(training: FFTPTrainingArguments) -> None:
    """Turn off evaluation by epoch and keep the last epoch, where there are no clips to measure on."""
    training.eval_strategy, training.load_best_model_at_end = "no", False


def train_or_go_on(trainer: FFTPTrainer) -> TrainOutput:
    """Train as the arguments say; where somebody interrupts that, the log says how it goes on."""
    try:
        return trainer.train(resume_from_checkpoint=trainer.args.resume_from_checkpoint)
    except KeyboardInterrupt:
        with suppress(FileNotFoundError):
            checkpoint = last_whole_checkpoint(trainer.args.output_dir)
            logger.warning("The same command with --resume_from_checkpoint true goes on from %s", checkpoint)
        raise
