"""What transformers' Trainer lacks for these models."""

import copy
from typing import Any

import numpy as np
import torch
from datasets import Dataset, List
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import has_length

from feature_extraction import SpecMaskDataCollator
from feature_extraction.collator import replace_collator
from modeling_fftp.modeling_fftp import NO_WEIGHT_DECAY
from modeling_fftp.scores_fftp import is_multi_label

from .checkpoints import BestBesideResumed, last_whole_checkpoint
from .class_balanced_sampler import ClassBalancedSampler, each_of, labels_of
from .data.decoding import clip_lengths
from .data.features import FeatureClips
from .data.row_group_sampler import RowGroupSampler
from .data.streamed_clips import StreamedClips
from .layer_decay import split_by_depth
from .processes import let_exchanges_end
from .teaching.distillation import Distillation, Teacher
from .trainer_contradictions import refuse_contradictions_of_trainer, refuse_losses_beside_answers
from .weight_averaging import WeightAveraging

# Values of `train_sampling_strategy` that need lengths.
GROUPING = ("group_by_length", "batch_rebalance")


class EpochsOfSampler(TrainerCallback):
    """Tells one of our samplers which epoch begins.

    Trainer does so too, but not where a run goes on in the middle of an epoch in several processes: what accelerate
    wraps a sampler in to skip batches there passes nothing on.
    """

    sampler: RowGroupSampler | ClassBalancedSampler | None = None

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Set the epoch, also that in the middle of which a run goes on."""
        if self.sampler is not None:
            self.sampler.set_epoch(int(state.epoch + 1e-6))


class FFTPTrainer(Trainer):
    """Trainer that decays weights only, draws rare classes more often, and averages weights, as asked.

    A `SpecMaskDataCollator` augments the batches of training, and no others. Sound that it leaves to the trainer
    becomes features on the training device.

    Args:
        *args: As for `Trainer`.
        class_balanced: Whether a `ClassBalancedSampler` draws the training clips, by their "labels".
        averaging: Averages weights; the result of training is the average. That of the last epochs does not go with
            `load_best_model_at_end`.
        teacher: Answers for training clips that have no `teacher_logits` yet; the collator must defer features.
        distillation: How the student learns from these answers, in place of its labels or beside them.
        stride_distillation: How batches with a `time_stride` learn from the model's own answer at the densest of its
            `config.time_strides` (in-place distillation, Yu and Huang 2019); None: not at all.
        layer_decay: The learning rate of a block as a multiple of that of the next; that of the head is the one given.
        **kwargs: See `Trainer`.

    Raises:
        ValueError: Arguments that do not go together, or a collator whose extractor is for another model.
    """

    def __init__(
        self,
        *args,
        class_balanced: bool = False,
        averaging: WeightAveraging | None = None,
        teacher: Teacher | None = None,
        distillation: Distillation | None = None,
        stride_distillation: Distillation | None = None,
        layer_decay: float | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        let_exchanges_end()
        self.class_balanced, self.averaging, self.layer_decay = class_balanced, averaging, layer_decay
        self.teacher, self.distillation = teacher, distillation or Distillation()
        self.stride_distillation = stride_distillation
        refuse_contradictions_of_trainer(self)
        # Where Trainer keeps loaders whose workers stay; it would make one, which a copy does not share.
        self._eval_dataloaders: dict[str, DataLoader] = {}
        self.epochs = EpochsOfSampler()
        self.add_callback(self.epochs)
        self.best_beside_resumed = BestBesideResumed()
        self.add_callback(self.best_beside_resumed)
        if averaging is not None:
            self.add_callback(averaging)

    def _prepare_inputs(self, inputs):
        if "audio" in inputs:
            # A collator that defers features leaves sound; it becomes features in float32, whatever the model's type.
            inputs = {
                name: value.to(self.args.device) if isinstance(value, torch.Tensor) else value
                for name, value in inputs.items()
            }
            # Batches to train on have a seed.
            if self.teacher is not None and "feature_seed" in inputs and "teacher_logits" not in inputs:
                pairs = zip(inputs["audio"], inputs["num_samples"].tolist(), strict=True)
                inputs["teacher_logits"] = self.teacher([wave[:length] for wave, length in pairs])
            inputs = self.data_collator.featurize(inputs)
        return super()._prepare_inputs(inputs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of the labels, and where a teacher answered, that of its answers in their share."""
        inputs, distillation = dict(inputs), self.distillation
        teacher_logits = inputs.pop("teacher_logits", None)
        if teacher_logits is None and self.stride_distillation is not None and "time_stride" in inputs:
            teacher_logits, distillation = self._answer_densely(model, inputs), self.stride_distillation
        if teacher_logits is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        refuse_losses_beside_answers(self)
        share = distillation.share
        labels = inputs.pop("labels", None)
        if labels is None and share < 1:
            raise ValueError(f"a batch has a teacher's answers and no labels, of which share={share:g} takes the rest")
        outputs = model(**inputs, **({"labels": labels} if share < 1 else {}))
        loss = share * distillation.loss(outputs.logits, teacher_logits, is_multi_label(self.model.config))
        if share < 1:
            loss = loss + (1 - share) * outputs.loss
        return (loss, outputs) if return_outputs else loss

    def _answer_densely(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor | None:
        """Logits at the model's densest stride, for the others to learn from; None where the batch is at that."""
        densest = min(self.model.config.time_strides)
        if inputs["time_stride"] == densest:
            return None
        heard = {name: value for name, value in inputs.items() if name != "labels"}
        with torch.no_grad():
            return model(**heard | {"time_stride": densest}).logits

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that weight decay applies to."""
        names = super().get_decay_parameter_names(model)
        return [name for name in names if not f".{name}".endswith(NO_WEIGHT_DECAY)]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer; with `layer_decay` every block has a learning rate of its own."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(*(() if model is None else (model,)))
        if self.layer_decay is not None and is_new:
            names = {id(parameter): name for name, parameter in self.model.named_parameters()}
            num_layers = self.model.config.num_hidden_layers
            optimizer.param_groups[:] = split_by_depth(optimizer.param_groups, names, num_layers, self.layer_decay)
        return optimizer

    def get_train_dataloader(self) -> DataLoader:
        """The only loader whose batches are augmented."""
        loader = super().get_train_dataloader()
        if isinstance(self.data_collator, SpecMaskDataCollator):
            replace_collator(loader, self.data_collator, self.data_collator.augment)
        return loader

    def _get_dataloader(self, *args, is_training: bool = False, **kwargs) -> DataLoader:
        """A loader; `dataloader_drop_last` is for training, since a score is of every clip."""
        trainer = self
        if self.args.dataloader_drop_last and not is_training:
            trainer = copy.copy(self)
            trainer.args = copy.copy(self.args)
            trainer.args.dataloader_drop_last = False
        return super(FFTPTrainer, trainer)._get_dataloader(*args, is_training=is_training, **kwargs)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        # What the collator makes input_values of, and checks, and what `compute_loss` takes.
        self._signature_columns += [
            name for name in ("audio", "sampling_rate", "teacher_logits") if name not in self._signature_columns
        ]

    def _get_train_sampler(self, train_dataset=None):
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if isinstance(dataset, StreamedClips):
            streams = self.args.world_size * max(1, self.args.dataloader_num_workers)
            sampler = dataset.sampler(self.args.train_batch_size, streams, seed)
        elif self.class_balanced:
            labels = labels_of(dataset.clips if isinstance(dataset, FeatureClips) else dataset)
            sampler = ClassBalancedSampler(torch.as_tensor(np.asarray(labels)), seed)
        else:
            sampler = None
        self.epochs.sampler = sampler
        return super()._get_train_sampler(self._only_lengths(dataset)) if sampler is None else sampler

    def _get_eval_sampler(self, eval_dataset):
        return super()._get_eval_sampler(self._only_lengths(eval_dataset))

    def _only_lengths(self, dataset):
        """Lengths in place of clips, for samplers that group by them; what has lengths, or needs none, as it is."""
        column = self.args.length_column_name
        if self.args.train_sampling_strategy not in GROUPING or not has_length(dataset):
            return dataset
        if isinstance(dataset, Dataset):
            if column in dataset.column_names:
                return dataset
            if isinstance(dataset.features.get("audio"), List):
                return Dataset.from_dict({column: clip_lengths(dataset)})
        return Dataset.from_dict({column: [*map(self._length, each_of(dataset))]})

    def _length(self, example: dict[str, Any]) -> int:
        """Frames of features, or samples of sound in any form that the collator takes."""
        if "audio" not in example:
            return len(example["input_values"])
        extractor = getattr(self.data_collator, "feature_extractor", None)
        return len(example["audio"] if extractor is None else extractor.to_waveform(example["audio"]))

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Train; `resume_from_checkpoint=True` goes on from the last checkpoint that was written to its end."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_whole_checkpoint(self.args.output_dir)
        self.best_beside_resumed.checkpoint = resume_from_checkpoint or None
        if self.averaging is not None:
            self.averaging.checkpoint = resume_from_checkpoint or None
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        finally:
            if self.averaging is not None:
                # Also where a training is interrupted, after which the model itself is what counts.
                self.averaging.forget()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, and into a checkpoint the average beside it."""
        super().save_model(output_dir, _internal_call)
        if self.averaging is not None and self.is_in_train and self.args.should_save:
            self.averaging.save(output_dir or self.args.output_dir)

    def _load_best_model(self) -> None:
        # What was measured is the average, and not the weights in training beside it.
        if self.averaging is None:
            super()._load_best_model()
        else:
            self.averaging.load(self.state.best_model_checkpoint)

    def evaluation_loop(self, *args, **kwargs):
        """Evaluate, with the averaged weights where there are any."""
        if self.averaging is None or not self.averaging.has_average:
            return super().evaluation_loop(*args, **kwargs)
        with self.averaging.averaged_weights(self.model):
            return super().evaluation_loop(*args, **kwargs)
