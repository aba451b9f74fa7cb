"""The training collator: pads, mixes, augments and masks; evaluation only pads."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import TrainerCallback

from .feature_extraction_fftp import FFTPFeatureExtractor, pcm_to_float
from .spec_mask import SpectrogramMask
from .spectrogram_augmentation import SpectrogramTransform
from .waveform_augmentation import ColoredNoise, Mixup, RandomCrop, SpeedPerturb


class SpecMaskDataCollator(TrainerCallback):
    """Turns a list of examples into a batch, augmented while training.

    An example holds either sound, `{"audio": waveform at the extractor's rate, "labels": ...}`, or features,
    `{"input_values": (frames, mel bins), "labels": ...}`, as the extractor makes them. Labels are an index, or a
    vector over the labels. Mixup, crops, noise and changes of speed need sound.

    Trainer has one collator for training and evaluation, so this one is a callback too and follows the Trainer:

        trainer = Trainer(..., data_collator=collator, callbacks=[collator])

    Outside a Trainer, set `collator.training`.

    Args:
        feature_extractor: Computes features from sound and pads.
        spec_mask: Masks to apply, `SpecMask` or `SpecAugment`, or None.
        speed: Change of speed of sound, or None.
        crop: Random crop of long sound, or None.
        mixup: Mixing of sound, or None.
        noise: Noise added to sound at the end, or None.
        label_smoothing: Share of the targets that is spread evenly: over all classes where a clip has one, and
            between "there" and "not there" where it can have several.
        num_labels: Length of the label vectors that mixup and smoothing make from indices.
        transforms: Changes to the spectrogram, in this order, before the masks.
        generator: Source of randomness; None is torch's default generator, which differs between the workers of a
            `DataLoader` and between epochs and which Trainer saves in its checkpoints; each of several training
            processes gets a seed of its own.
        defer_features: Whether calls return sound, changed and padded, and leave features, their changes and masks to
            `featurize`, which `FFTPTrainer` calls on its device.
        training: Whether to augment.

    Raises:
        ValueError: Mixup or smoothing without `num_labels`, or a share outside [0, 1).
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
        transforms: Sequence[SpectrogramTransform] = (),
        generator: torch.Generator | None = None,
        defer_features: bool = False,
        training: bool = True,
    ):
        if (mixup is not None or label_smoothing) and num_labels is None:
            raise ValueError("mixup and label smoothing make distributions over the labels; pass num_labels")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing} must lie in [0, 1)")
        self.feature_extractor = feature_extractor
        self.spec_mask = spec_mask
        self.speed = speed
        self.crop = crop
        self.mixup = mixup
        self.noise = noise
        self.label_smoothing = label_smoothing
        self.num_labels = num_labels
        self.transforms = tuple(transforms)
        self.generator = generator
        self.defer_features = defer_features
        self.training = training
        self._in_train = False

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate examples.

        Returns:
            `input_values` (batch, frames, mel bins), `attention_mask` (batch, frames), and `labels`, (batch,) int64 or
            (batch, labels) float32, where the examples have any. With `defer_features` and sound, in place of the
            first two `audio` (batch, samples) and `num_samples` (batch,).
        """
        labels = _stack_labels(examples)
        if self.training and labels is not None and (self.mixup is not None or self.label_smoothing):
            labels = self._soften(labels)
        if "audio" in examples[0]:
            waveforms, labels = self._change_sound([example["audio"] for example in examples], labels)
            if self.defer_features:
                lengths = torch.tensor([len(wave) for wave in waveforms])
                batch = {"audio": pad_sequence(waveforms, batch_first=True), "num_samples": lengths}
            else:
                batch = self._change_features(self.feature_extractor.extract_batch(waveforms))
        else:
            self._refuse_features()
            features = [np.asarray(example["input_values"], dtype=np.float32) for example in examples]
            batch = self.feature_extractor.pad(
                {"input_values": features},
                padding="longest",
                pad_to_multiple_of=self.feature_extractor.pad_to_multiple_of,
                return_attention_mask=True,
                return_tensors="pt",
            )
            batch = self._change_features(batch)
        return batch if labels is None else {**batch, "labels": labels}

    def featurize(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Features of a batch of sound, augmented while training, on the device that the sound is on.

        Args:
            batch: `audio` (batch, samples), `num_samples` (batch,), and anything else.

        Returns:
            What a call without `defer_features` gives.
        """
        rest = dict(batch)
        sound, lengths = rest.pop("audio"), rest.pop("num_samples").tolist()
        waveforms = [wave[:length] for wave, length in zip(sound, lengths, strict=True)]
        return self._change_features(self.feature_extractor.extract_batch(waveforms)) | rest

    def _change_features(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Spectrograms, changed and masked while training, and their mask."""
        input_values, attention_mask = batch["input_values"], batch["attention_mask"].long()
        if self.training:
            for transform in (*self.transforms, self.spec_mask):
                if transform is not None:
                    input_values = transform(input_values, attention_mask, self.generator)
        return {"input_values": input_values, "attention_mask": attention_mask}

    def _soften(self, labels: torch.Tensor) -> torch.Tensor:
        """Smoothed vectors over the labels; mixed afterwards they are what a smoothed mixture would be."""
        has_one_class = labels.ndim == 1
        if has_one_class:
            labels = torch.nn.functional.one_hot(labels, self.num_labels).float()
        rest = torch.full_like(labels, 1 / self.num_labels if has_one_class else 1 / 2)
        return torch.lerp(labels, rest, self.label_smoothing)

    def _change_sound(
        self, clips: list[Any], labels: torch.Tensor | None
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Waveforms (samples,), changed in speed, cropped, mixed and made noisy while training, and their labels."""
        sounds = [torch.from_numpy(np.require(clip, requirements="CW")) for clip in clips]
        waveforms = [pcm_to_float(sound, index) for index, sound in enumerate(sounds)]
        for transform in (self.speed, self.crop):
            if self.training and transform is not None:
                waveforms = transform(waveforms, self.generator)
        if self.training and self.mixup is not None:
            if labels is None:
                raise ValueError("mixup needs labels; the examples hold none")
            waveforms, labels = self.mixup(waveforms, labels, self.generator)
        if self.training and self.noise is not None:
            waveforms = self.noise(waveforms, self.generator)
        return waveforms, labels

    def _refuse_features(self) -> None:
        if self.training and any(x is not None for x in (self.speed, self.crop, self.mixup, self.noise)):
            raise ValueError(
                "speed, crop, mixup and noise work on sound; the examples hold 'input_values' but no 'audio'"
            )

    # Trainer announces the end of an evaluation but not its start: `training` is taken back wherever one is due.

    def on_init_end(self, args, state, control, **kwargs):
        """A Trainer owns the collator now: augment only inside `train()`."""
        self.training = False

    def on_train_begin(self, args, state, control, **kwargs):
        """Augment, unless an evaluation comes first."""
        self._in_train = True
        self.training = not args.eval_on_start
        if args.world_size > 1:
            # The processes start with one seed, and would draw the same masks for their different clips.
            torch.manual_seed(args.seed + args.process_index)

    def on_step_end(self, args, state, control, **kwargs):
        """Stop augmenting for the evaluation that Trainer has decided on."""
        self.training = not control.should_evaluate

    def on_epoch_end(self, args, state, control, **kwargs):
        """Stop augmenting for the evaluation that Trainer has decided on."""
        self.training = not control.should_evaluate

    def on_evaluate(self, args, state, control, **kwargs):
        """Go on augmenting after an evaluation inside `train()`."""
        self.training = self._in_train

    def on_train_end(self, args, state, control, **kwargs):
        """Stop augmenting."""
        self.training = self._in_train = False


def _stack_labels(examples: list[dict[str, Any]]) -> torch.Tensor | None:
    """Indices as (batch,) int64, vectors over the labels as (batch, labels) float32; None without labels."""
    if "labels" not in examples[0]:
        return None
    labels = torch.as_tensor(np.stack([np.asarray(example["labels"]) for example in examples]))
    return labels.long() if labels.ndim == 1 and not labels.is_floating_point() else labels.float()
