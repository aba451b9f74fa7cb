"""What transformers' Trainer lacks for these models."""

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import SaveStrategy

# Parameters beside biases and norms that weight decay would only pull away from where they belong: the scan's decay
# rates and skip weights (mamba-ssm marks them so), positions and class tokens.
UNDECAYED = ("A_log", "A_log_reverse", "D", "position_embeddings.weight", "cls_token", "distillation_token")
AVERAGED_WEIGHTS = "averaged_weights.safetensors"
# Trainer writes this file of a checkpoint last.
LAST_OF_CHECKPOINT = "trainer_state.json"


def gains_from_bfloat16(on_cpu: bool) -> bool:
    """Whether products in bfloat16 take less time than those in float32.

    Without instructions for them they are emulated, several times slower. Of the processors with `avx512_bf16` Intel's
    are an exception: they gain only with AMX, which virtual machines often hide, and otherwise take longer than in
    float32 (`benchmarks/results/training.md`).

    Args:
        on_cpu: Whether the CPU computes, or else the current CUDA device.
    """
    if not on_cpu:
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    is_intel = capabilities.get("cpu_name", "").startswith("Intel")
    useful = ("amx_bf16",) if is_intel else ("amx_bf16", "avx512_bf16", "bf16")
    return any(capabilities.get(name, False) for name in useful)


class ClassBalancedSampler(Sampler[int]):
    """Draws clips with replacement, those of rare classes more often (AST's recipe for the full AudioSet).

    The weight of a clip is the sum over its classes of 1 / (clips of that class). Every process draws the same clips;
    accelerate deals them out.

    Args:
        labels: Class indices, (clips,), or vectors of 0 and 1, (clips, classes).
        seed: Decides the clips of each epoch, together with its number.

    Raises:
        ValueError: A clip without a class, which could never be drawn.
    """

    def __init__(self, labels: torch.Tensor, seed: int = 0):
        targets = nn.functional.one_hot(labels) if labels.ndim == 1 else labels
        targets = targets.double()
        self.weights = (targets / targets.sum(dim=0).clamp(min=1)).sum(dim=1)
        if not self.weights.all():
            raise ValueError(f"{int((self.weights == 0).sum())} of {len(labels)} clips have no class")
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[int]:
        seed = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64).item()
        generator = torch.Generator().manual_seed(seed % 2**63)
        return iter(torch.multinomial(self.weights, len(self), replacement=True, generator=generator).tolist())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose clips the next iteration gives."""
        self.epoch = epoch


class WeightAveraging(TrainerCallback):
    """An average of the weights beside those in training: evaluations inside `train()` use it, and it is the result.

    Checkpoints hold both. Exactly one of the two arguments is set.

    Args:
        ema_decay: Decay per step of an exponential moving average; in the first n steps at most (1 + n) / (10 + n), so
            that the random start does not stay in it.
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
            weights = load_file(Path(self.checkpoint, AVERAGED_WEIGHTS))
            self._averaged.n_averaged.copy_(weights.pop("n_averaged"))
            self._averaged.module.load_state_dict(weights)

    def on_step_end(self, args, state, control, model, **kwargs):
        """Update the moving average."""
        if self.ema_decay is not None:
            self._averaged.update_parameters(model)

    def on_epoch_end(self, args, state, control, model, **kwargs):
        """Add the weights of one of the last epochs."""
        if self.last_epochs is not None and math.ceil(state.epoch - 1e-6) > state.num_train_epochs - self.last_epochs:
            self._averaged.update_parameters(model)

    def save(self, folder: str) -> None:
        """Write the average into a checkpoint."""
        path = Path(folder, AVERAGED_WEIGHTS)
        weights = {"n_averaged": self._averaged.n_averaged, **self._averaged.module.state_dict()}
        save_file(weights, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def on_train_end(self, args, state, control, model, **kwargs):
        """Leave the average in the model."""
        if self.has_average:
            model.load_state_dict(self._averaged.module.state_dict())
        self._averaged = None


class FFTPTrainer(Trainer):
    """Trainer that decays weights only, draws rare classes more often, and averages weights, as asked.

    Sound that `SpecMaskDataCollator` leaves to it becomes features on the training device.

    Args:
        *args: As for `Trainer`.
        class_balanced: Whether a `ClassBalancedSampler` draws the training clips, by their "labels".
        averaging: Averages weights; the result of training is the average. Not with `load_best_model_at_end`.
        **kwargs: As for `Trainer`.
    """

    def __init__(self, *args, class_balanced: bool = False, averaging: WeightAveraging | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.class_balanced = class_balanced
        self.averaging = averaging
        if averaging is not None:
            if self.args.load_best_model_at_end:
                raise ValueError("load_best_model_at_end would put one epoch's weights in place of the average")
            if averaging.last_epochs is not None and self.args.save_strategy == SaveStrategy.STEPS:
                raise ValueError("a checkpoint inside an epoch would miss its end: save_strategy must not be 'steps'")
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise ValueError("weights cannot be averaged where FSDP or DeepSpeed keep only a part of them")
            self.add_callback(averaging)

    def _prepare_inputs(self, inputs):
        if "audio" in inputs:
            # A collator that defers features leaves sound; it becomes features in float32, whatever the model's type.
            inputs = {name: value.to(self.args.device) for name, value in inputs.items()}
            inputs = self.data_collator.featurize(inputs)
        return super()._prepare_inputs(inputs)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that weight decay applies to."""
        names = super().get_decay_parameter_names(model)
        return [name for name in names if not f".{name}".endswith(tuple(f".{ending}" for ending in UNDECAYED))]

    def _get_train_sampler(self, train_dataset=None):
        if not self.class_balanced:
            return super()._get_train_sampler(train_dataset)
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return ClassBalancedSampler(torch.as_tensor(dataset["labels"][:]), self.args.seed)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Train; `resume_from_checkpoint=True` goes on from the last checkpoint that was written to its end."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_whole_checkpoint(self.args.output_dir)
        if self.averaging is not None:
            self.averaging.checkpoint = resume_from_checkpoint or None
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        # Before the last file of a checkpoint, so that a whole checkpoint holds the average.
        super()._save_optimizer_and_scheduler(output_dir)
        if self.averaging is not None and self.args.should_save:
            self.averaging.save(output_dir)

    def evaluation_loop(self, *args, **kwargs):
        """Evaluate, with the averaged weights where there are any."""
        if self.averaging is None or not self.averaging.has_average:
            return super().evaluation_loop(*args, **kwargs)
        with self.averaging.averaged_weights(self.model):
            return super().evaluation_loop(*args, **kwargs)


def last_whole_checkpoint(folder: str) -> str:
    """The last checkpoint in a folder that a killed run did not leave half-written.

    Raises:
        FileNotFoundError: There is none.
    """
    checkpoints = [path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    for path in sorted(checkpoints, key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            json.loads((path / LAST_OF_CHECKPOINT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return str(path)
    raise FileNotFoundError(f"no whole checkpoint in {folder}; it holds {sorted(path.name for path in checkpoints)}")
