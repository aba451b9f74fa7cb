"""An average of the weights, as the result of a training."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel
from transformers import TrainerCallback, TrainerState

from modeling_fftp.atomic_write import atomic_write

AVERAGED_WEIGHTS = "averaged_weights.safetensors"


class WeightAveraging(TrainerCallback):
    """An average of the weights beside those in training: evaluations inside `train()` use it, and it is the result.

    Checkpoints hold both. Exactly one of the two arguments is set.

    Args:
        ema_decay: Decay per step of an exponential moving average; in the first n steps at most (1 + n) / (10 + n), so
            that the random start does not stay in it. With `load_best_model_at_end` the result is the average that
            was best when it was measured.
        last_epochs: Epochs at the end of training whose final weights are averaged evenly (AST's recipe). Before
            them, evaluations use the weights in training.
    """

    def __init__(self, ema_decay: float | None = None, last_epochs: int | None = None):
        if (ema_decay is None) == (last_epochs is None):
            raise ValueError(f"set ema_decay or last_epochs, not both; got {ema_decay} and {last_epochs}")
        if ema_decay is not None and not 0 < ema_decay < 1:
            raise ValueError(f"ema_decay={ema_decay} must lie between 0 and 1")
        if last_epochs is not None and last_epochs < 1:
            raise ValueError(f"last_epochs={last_epochs} must be at least 1")
        self.ema_decay = ema_decay
        self.last_epochs = last_epochs
        self.checkpoint: str | None = None
        self._averaged: AveragedModel | None = None

    def _update_ema(self, averaged: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor) -> None:
        decay = min(self.ema_decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    @property
    def has_average(self) -> bool:
        """Whether training is under way and anything is averaged yet."""
        return self._averaged is not None and bool(self._averaged.n_averaged)

    @contextmanager
    def averaged_weights(self, model: nn.Module) -> Iterator[None]:
        """Put the average into the model for a while."""
        pairs = [*zip(model.parameters(), self._averaged.module.parameters(), strict=True)]
        self._swap(pairs)
        try:
            yield
        finally:
            self._swap(pairs)

    @staticmethod
    def _swap(pairs: list[tuple[nn.Parameter, nn.Parameter]]) -> None:
        for one, other in pairs:
            one.data, other.data = other.data, one.data

    def on_train_begin(self, args, state, control, model, **kwargs):
        """Start an average, or take up that of the checkpoint."""
        self._averaged = AveragedModel(model, multi_avg_fn=self._update_ema if self.ema_decay else None)
        if self.checkpoint is not None:
            self.load(self.checkpoint)
            if self.last_epochs is not None:
                self._forget_earlier_epochs(state)

    def on_step_end(self, args, state, control, model, **kwargs):
        """Update the moving average."""
        if self.ema_decay is not None:
            self._averaged.update_parameters(model)

    def on_epoch_end(self, args, state, control, model, **kwargs):
        """Add the weights of one of the last epochs."""
        if self.last_epochs is not None and math.ceil(state.epoch - 1e-6) > state.num_train_epochs - self.last_epochs:
            self._averaged.update_parameters(model)

    def _forget_earlier_epochs(self, state: TrainerState) -> None:
        """Drop an average of epochs that are no longer among the last, since training goes on for longer.

        Raises:
            ValueError: Some of them are.
        """
        done, count = math.ceil(state.epoch - 1e-6), int(self._averaged.n_averaged)
        first = state.num_train_epochs - self.last_epochs + 1
        if done < first:
            self._averaged.n_averaged.zero_()
        elif done - count + 1 < first:
            raise ValueError(
                f"the checkpoint holds the mean of epochs {done - count + 1} to {done}, of which those before {first} "
                f"would stay in that of the last {self.last_epochs} of {state.num_train_epochs}; expected at least "
                f"{done + self.last_epochs} epochs"
            )

    def save(self, folder: str) -> None:
        """Write the average into a checkpoint; after a training there is none."""
        if self._averaged is None:
            return
        weights = {"n_averaged": self._averaged.n_averaged, **self._averaged.module.state_dict()}
        with atomic_write(Path(folder, AVERAGED_WEIGHTS)) as part:
            save_file(weights, part)

    def load(self, folder: str) -> None:
        """Take the average of a checkpoint in place of the one so far."""
        weights = load_file(Path(folder, AVERAGED_WEIGHTS))
        self._averaged.n_averaged.copy_(weights.pop("n_averaged"))
        self._averaged.module.load_state_dict(weights)

    def on_train_end(self, args, state, control, model, **kwargs):
        """Leave the average in the model."""
        if self.has_average:
            model.load_state_dict(self._averaged.module.state_dict())
        self.forget()

    def forget(self) -> None:
        """Drop the average: from now on the weights of the model count."""
        self._averaged = None
