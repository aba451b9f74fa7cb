"""The collator: pads examples to a batch, and for training mixes, augments and masks them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from transformers.utils import logging

from .events import TOLERANCE_SECONDS, Event, has_times, read_events
from .examples import all_have, name_labels, real_frames, soften, stack_labels
from .feature_extraction_fftp import FFTPFeatureExtractor
from .log_mel_fftp import hop_length
from .randomness import batch_seeds, integers, process_index, seeded
from .spec_mask import SpectrogramMask
from .spectrogram_augmentation import SpectrogramTransform
from .waveform_augmentation import ColoredNoise, Mixup, RandomCrop, SpeedPerturb
from .waveforms_fftp import has_own_rate

logger = logging.get_logger(__name__)


class SpecMaskDataCollator(TrainerCallback):
    """Turns a list of examples into a batch: `collator` pads them, `collator.augment` augments them as well.

    So no evaluation is augmented unless somebody hands `augment` to it. In transformers' Trainer the collator stands
    for evaluation; as a callback it puts `augment` into the loader of the training clips, and into no other:

        trainer = Trainer(..., data_collator=collator, callbacks=[collator])

    Without the callback nothing is augmented. `FFTPTrainer` needs none. A loop of your own takes
    `DataLoader(train_clips, collate_fn=collator.augment)`.

    An example holds either sound, `{"audio": ..., "labels": ...}`, in any form that the extractor takes, or features,
    `{"input_values": (frames, mel bins), "labels": ...}`, as the extractor makes them, with their mask if they are
    padded; where that was lost, what equals padding at the end counts as such. Labels, `labels` or `label`, are an
    index, or a vector over the labels, or what `step_labels` takes. Mixup, crops, noise and changes of speed need
    sound. What else an example holds, such as a weight, is left out; a subclass may add it to what `__call__` and
    `augment` return.

    Args:
        feature_extractor: Computes features from sound, and pads by its own settings.
        spec_mask: Masks to apply, `SpecMask` or `SpecAugment`, or None.
        speed: Change of speed of sound, or None.
        crop: Random crop of long sound, or None.
        mixup: Mixing of sound, or None.
        noise: Noise added to sound at the end, or None.
        label_smoothing: Share of the targets that is spread evenly: over all classes where a clip has one, and
            between "there" and "not there" where it can have several.
        num_labels: Length of the label vectors that mixup and smoothing make from indices.
        problem_type: That of the model. With "single_label_classification" label vectors are distributions, which
            smoothing spreads over all classes; None takes vectors for those of clips that can have several.
        transforms: Changes to the spectrogram, in this order, before the masks: called with `input_values` (batch,
            frames, mel bins), `attention_mask` (batch, frames) or None, and the generator, they return the first.
        step_labels: Makes a batch of the labels of a frame classifier, `StepLabels(config)` or `EventLabels(config)`
            of `modeling_fftp.training.step_labels`. Events move with the sound in crops, changes of speed, mixup and
            `TimeRoll`; labels per step cannot. Not with `Stretch` along time, nor with `defer_features`.
        time_strides: Strides of a model that learns several: every batch to train on draws one of them, which it holds
            as `time_stride`, and its masks lie on that grid.
        generator: Source of randomness; None is torch's default generator. No two batches draw alike, in whatever
            epoch, loader worker or process: in workers the seed that the loader gives them counts as well. Trainer's
            checkpoints hold torch's, but not one of your own, from whose beginning a resumed run would draw again.
        defer_features: Whether calls return sound, changed and padded, and leave features, their changes and masks to
            `featurize`, which `FFTPTrainer` calls on its device.

    Raises:
        ValueError: Another extractor, mixup or smoothing without `num_labels`, a share outside [0, 1), or
            `step_labels`, or smoothing of numbers, with what they exclude.
    """

    def __init__(
        self,
        feature_extractor: FFTPFeatureExtractor,
        spec_mask: SpectrogramMask | None = None,
        *,
        speed: SpeedPerturb | None = None,
        crop: RandomCrop | None = None,
        mixup: Mixup | None = None,
        noise: ColoredNoise | None = None,
        label_smoothing: float = 0.0,
        num_labels: int | None = None,
        problem_type: str | None = None,
        transforms: Sequence[SpectrogramTransform] = (),
        step_labels: Callable[..., torch.Tensor] | None = None,
        time_strides: Sequence[int] = (),
        generator: torch.Generator | None = None,
        defer_features: bool = False,
    ):
        if not hasattr(feature_extractor, "extract_batch"):
            kind = type(feature_extractor).__name__
            raise ValueError(
                f"feature_extractor is of type {kind}; expected an FFTPFeatureExtractor: with padding='max_length', "
                "truncation=True and return_attention_mask=False it serves other models too"
            )
        if ((mixup is not None and step_labels is None) or label_smoothing) and num_labels is None:
            raise ValueError("mixup and label smoothing make distributions over the labels; pass num_labels")
        if min(time_strides, default=1) < 1:
            raise ValueError(f"time_strides={time_strides} must be frames, each at least 1")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing} must lie in [0, 1)")
        if label_smoothing and problem_type == "regression":
            raise ValueError("label_smoothing spreads shares of classes; the numbers of a regression have none")
        self.takes_events = getattr(step_labels, "takes_events", False)
        moves = [
            transform
            for transform in transforms
            if getattr(transform, "moves_in_time", False)
            and not (self.takes_events and getattr(transform, "moves_events", False))
        ]
        if step_labels is not None and any((label_smoothing, defer_features, moves)):
            raise ValueError(
                "step_labels goes without label_smoothing and defer_features, and without what moves spectrograms in "
                f"time, unless events can follow: {moves}"
            )
        if step_labels is not None and any((speed, crop, mixup)) and not self.takes_events:
            raise ValueError("labels per step cannot follow speed, crop and mixup; EventLabels can")
        if step_labels is not None and time_strides and not self.takes_events:
            raise ValueError("labels per step are those of one stride, not of time_strides; EventLabels knows all")
        self.feature_extractor = feature_extractor
        self.spec_mask = spec_mask
        self.speed = speed
        self.crop = crop
        self.mixup = mixup
        self.noise = noise
        self.label_smoothing = label_smoothing
        self.num_labels = num_labels
        self.problem_type = problem_type
        self.transforms = tuple(transforms)
        self.step_labels = step_labels
        self.time_strides = tuple(time_strides)
        self.generator = generator
        self.defer_features = defer_features
        self._process: int | None = None

    def __getstate__(self):
        # Loader workers that are spawned have no process group to ask which of several processes they serve, and torch
        # cannot send them a generator.
        generator = None if self.generator is None else self.generator.get_state().numpy()
        return self.__dict__ | {"_process": process_index(self._process), "generator": generator}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        if self.generator is not None:
            self.generator = torch.Generator().set_state(torch.from_numpy(self.generator))

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate examples to evaluate on.

        Returns:
            `input_values` (batch, frames, mel bins), `attention_mask` (batch, frames) where the extractor masks, and
            `labels`, (batch,) int64, (batch, labels) float32, or what `step_labels` makes, where the examples have
            any. With `defer_features` and sound, in place of the first two `audio` (batch, samples) and `num_samples`
            (batch,).
        """
        return self._collate(examples)

    def augment(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate examples to train on.

        Returns:
            What a call returns, augmented; with `defer_features` also `feature_seed`, (batch,), for `featurize`; and
            with `time_strides` also `time_stride`, a number.

        Raises:
            ValueError: Examples without sound where an augmentation needs it.
        """
        sound_seed, feature_seed, stride_seed = batch_seeds(self.generator, self._process)
        if not self.time_strides:
            return self._collate(examples, sound_seed, feature_seed)
        time_stride = self.time_strides[int(integers((), seeded(stride_seed), 0, len(self.time_strides)))]
        return self._collate(examples, sound_seed, feature_seed, time_stride) | {"time_stride": time_stride}

    def featurize(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Turn a batch of `defer_features` into what a call without it gives, on the device of the sound."""
        rest = dict(batch)
        sound, lengths, seed = rest.pop("audio"), rest.pop("num_samples").tolist(), rest.pop("feature_seed", None)
        waveforms = [wave[:length] for wave, length in zip(sound, lengths, strict=True)]
        # Processes may share a batch, whose rows accelerate deals out, and with it a seed.
        seed = None if seed is None else int(seed[0]) + process_index(self._process)
        features = self.feature_extractor.extract_batch(waveforms, _needs_mask(seed))
        return self._change_features(features, seed, rest.get("time_stride"))[0] | rest

    def on_train_begin(self, args, state, control, model=None, train_dataloader=None, **kwargs):
        """Augment the batches of the training loader, which only `train()` uses.

        Raises:
            ValueError: The extractor's features are not those that the model expects, or Trainer would smooth labels
                that are mixed.
        """
        config = getattr(model, "config", None)
        for name in ("sampling_rate", "num_mel_bins"):
            given, expected = getattr(self.feature_extractor, name), getattr(config, name, None)
            if expected not in (None, given):
                raise ValueError(f"the feature extractor has {name}={given}; the model's config {expected}")
        if self.mixup is not None and getattr(args, "label_smoothing_factor", 0):
            raise ValueError("label_smoothing_factor cannot smooth mixed labels; this collator's label_smoothing can")
        replace_collator(train_dataloader, self, self.augment)

    def _collate(
        self,
        examples: list[dict[str, Any]],
        sound_seed: int | None = None,
        feature_seed: int | None = None,
        time_stride: int | None = None,
    ) -> dict[str, torch.Tensor]:
        """A batch, augmented where there are seeds."""
        if not examples:
            raise ValueError("no examples: expected at least one")
        examples = name_labels(examples)
        is_training = feature_seed is not None
        labels, events = self._read_targets(examples, is_training)
        if all_have(examples, "audio"):
            if "input_values" in examples[0]:
                logger.warning_once(
                    "The examples hold 'audio' and 'input_values': features are computed from the sound"
                )
            waveforms = [self._read_sound(example, index) for index, example in enumerate(examples)]
            self._refuse_late(events, [len(wave) for wave in waveforms])
            if is_training:
                waveforms, labels, events = self._change_sound(waveforms, labels, events, seeded(sound_seed))
            if self.defer_features:
                batch = _pad_sound(waveforms)
            else:
                batch = self.feature_extractor.extract_batch(waveforms, _needs_mask(feature_seed))
        else:
            self._check_features(examples, is_training)
            padding_value = self.feature_extractor.padding_value
            features = [real_frames(example, index, padding_value) for index, example in enumerate(examples)]
            batch = self.feature_extractor.pad_batch(features, _needs_mask(feature_seed))
        if "audio" not in batch:
            batch, events = self._change_features(batch, feature_seed, time_stride, events)
        elif is_training:
            # For each clip, since accelerate may deal out the rows of a batch.
            batch["feature_seed"] = torch.full((len(examples),), feature_seed, device="cpu")
        if all_have(examples, "teacher_logits"):
            batch["teacher_logits"] = self._read_answers(examples, is_training)
        if self.step_labels is not None and all_have(examples, "labels"):
            steps = [example["labels"] for example in examples] if events is None else events
            labels = self._label_steps(steps, batch, time_stride)
        return batch if labels is None else {**batch, "labels": labels}

    def _read_sound(self, example: dict[str, Any], index: int) -> torch.Tensor:
        """Samples of an example, (samples,), whose rate may stand beside them."""
        rate = example.get("sampling_rate")
        # A column beside sound that knows its own rate may say what it was before.
        is_told = rate is not None and not has_own_rate(example["audio"])
        if is_told and rate != self.feature_extractor.sampling_rate:
            raise ValueError(
                f"example {index} has sampling_rate={rate}; the feature extractor expects "
                f"{self.feature_extractor.sampling_rate} Hz: resample it first (for example with soxr.resample)"
            )
        return self.feature_extractor.to_waveform(example["audio"], index)

    def _read_targets(
        self, examples: list[dict[str, Any]], is_training: bool
    ) -> tuple[torch.Tensor | None, list[list[Event]] | None]:
        """Labels of the clips, or their events where steps are labelled by these; what there is not is None."""
        if not all_have(examples, "labels"):
            return None, None
        if self.step_labels is not None:
            return None, [read_events(example["labels"]) for example in examples] if self.takes_events else None
        labels = stack_labels(examples)
        softens = is_training and (self.mixup is not None or self.label_smoothing)
        return soften(labels, self.label_smoothing, self.num_labels, self.problem_type) if softens else labels, None

    def _refuse_late(self, events: list[list[Event]] | None, lengths: list[int]) -> None:
        """Refuse events that begin after their clip (samples), as those do whose times are no seconds.

        Raises:
            ValueError: There is one.
        """
        for index, (clip, length) in enumerate(zip(events or [], lengths, strict=bool(events))):
            seconds = length / self.feature_extractor.sampling_rate
            for event in clip:
                if has_times(event) and event[0] >= seconds + TOLERANCE_SECONDS:
                    raise ValueError(
                        f"event {event} of example {index} begins after its clip, which has {seconds:g} s"
                    )

    def _read_answers(self, examples: list[dict[str, Any]], is_training: bool) -> torch.Tensor:
        """The teacher's answers about the clips, (batch, labels)."""
        if is_training and self._changes_sound():
            raise ValueError(
                "examples with 'teacher_logits' hold what a teacher said of the sound as it was, which speed, crop, "
                "mixup and noise change"
            )
        return torch.from_numpy(np.stack([np.asarray(example["teacher_logits"], np.float32) for example in examples]))

    def _label_steps(self, steps: list, batch: dict[str, torch.Tensor], time_stride: int | None) -> torch.Tensor:
        """Let `step_labels` make targets of the labels or events of each clip."""
        stride = {} if time_stride is None else {"time_stride": time_stride}
        return self.step_labels(steps, frames_of_batch(batch).tolist(), **stride)

    def _change_features(
        self,
        batch: dict[str, torch.Tensor],
        seed: int | None,
        time_stride: int | None = None,
        events: list[list[Event]] | None = None,
    ) -> tuple[dict[str, torch.Tensor], list[list[Event]] | None]:
        """Spectrograms, changed and masked where there is a seed, and their mask if they have one; and the events."""
        batch = dict(batch)
        if "attention_mask" in batch:
            batch["attention_mask"] = batch["attention_mask"].long()
        if seed is not None:
            generator = seeded(seed)
            spec_mask = self.spec_mask
            if time_stride is not None and spec_mask is not None:
                spec_mask = spec_mask.at_stride(time_stride)
            for transform in (*self.transforms, spec_mask):
                if transform is None:
                    continue
                # Padding that the model hears as sound changes like sound, but masks there would hide nothing.
                knows_padding = transform is spec_mask or self.feature_extractor.masks_batches
                mask = batch.get("attention_mask") if knows_padding else None
                given = batch["input_values"], mask, generator
                if events is not None and getattr(transform, "moves_in_time", False):
                    rate = self.feature_extractor.sampling_rate
                    batch["input_values"], events = transform.with_events(*given, events, hop_length(rate) / rate)
                else:
                    batch["input_values"] = transform(*given)
        if not self.feature_extractor.masks_batches:
            batch.pop("attention_mask", None)
        return batch, events

    def _change_sound(
        self,
        waveforms: list[torch.Tensor],
        labels: torch.Tensor | None,
        events: list[list[Event]] | None,
        generator: torch.Generator,
    ) -> tuple[list[torch.Tensor], torch.Tensor | None, list[list[Event]] | None]:
        """Waveforms (samples,), changed in speed, cropped, mixed and made noisy, and their labels or events."""
        for transform in (self.speed, self.crop):
            if transform is not None and events is None:
                waveforms = transform(waveforms, generator)
            elif transform is not None:
                parameters = transform.draw([len(wave) for wave in waveforms], generator)
                waveforms = transform.apply(waveforms, parameters)
                events = transform.move(events, parameters, self.feature_extractor.sampling_rate)
        if self.mixup is not None:
            parameters = self.mixup.draw(len(waveforms), generator)
            if events is not None:
                seconds = [len(wave) / self.feature_extractor.sampling_rate for wave in waveforms]
                events = self.mixup.move(events, seconds, *parameters)
            waveforms, labels = self.mixup.apply(waveforms, labels, *parameters)
        if self.noise is not None:
            waveforms = self.noise(waveforms, generator)
        return waveforms, labels, events

    def _changes_sound(self) -> bool:
        return any(change is not None for change in (self.speed, self.crop, self.mixup, self.noise))

    def _check_features(self, examples: list[dict[str, Any]], is_training: bool) -> None:
        if not all_have(examples, "input_values"):
            raise ValueError(
                f"the examples hold {[*examples[0]]}; expected 'audio' or 'input_values'. Trainer drops 'audio' "
                "unless its arguments have remove_unused_columns=False"
            )
        if is_training and self._changes_sound():
            raise ValueError(
                "speed, crop, mixup and noise work on sound; the examples hold 'input_values' but no 'audio'"
            )


def replace_collator(loader: DataLoader, collator: Callable, other: Callable) -> None:
    """Let a loader that Trainer prepared, and that nobody has iterated yet, collate by `other`.

    Args:
        loader: The loader as accelerate wraps it.
        collator: What it collates by now, or Trainer's wrapper that drops columns does.
        other: What takes its place.

    Raises:
        ValueError: The loader collates by something else.
    """
    loader = getattr(loader, "base_dataloader", loader)
    present = getattr(loader, "collate_fn", None)
    if present in (collator, other):
        loader.collate_fn = other
    elif getattr(present, "data_collator", None) in (collator, other):
        present.data_collator = other
    else:
        raise ValueError(f"the training loader collates by {present!r}; expected data_collator={collator!r}")


def _pad_sound(waveforms: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Waveforms (samples,) as `audio` (batch, samples) and `num_samples` (batch,)."""
    lengths = torch.tensor([len(waveform) for waveform in waveforms], device="cpu")
    return {"audio": pad_sequence(waveforms, batch_first=True), "num_samples": lengths}


def frames_of_batch(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Frames of each clip that count as sound, (batch,), int64: all of them without a mask."""
    features = batch["input_values"]
    return batch.get("attention_mask", features.new_ones(features.shape[:2])).long().sum(dim=1)


def _needs_mask(seed: int | None) -> bool | None:
    """Whether features need a mask: those that will be changed do, also where the model hears padding as sound."""
    return None if seed is None else True
