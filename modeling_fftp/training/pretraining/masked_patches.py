"""The collator of pretraining: crops and gain, and the patches to hide."""

from typing import Any

import torch

from feature_extraction import FFTPFeatureExtractor, SpecMaskDataCollator
from feature_extraction.collator import frames_of_batch
from feature_extraction.randomness import batch_seeds, seeded
from feature_extraction.spectrogram_augmentation import RandomGain
from feature_extraction.waveform_augmentation import RandomCrop
from modeling_fftp import FFTPConfig
from modeling_fftp.patch_grid_fftp import draw_patch_mask


class MaskedPatchCollator(SpecMaskDataCollator):
    """Adds `bool_masked_pos`, (batch, patches), to batches; no two of training hide alike, evaluation always does.

    Args:
        feature_extractor: Computes features.
        config: The model's config.
        max_seconds: Length of crops.
        gain: Largest offset in normalised log units.
        generator: See `SpecMaskDataCollator`.
    """

    def __init__(
        self,
        feature_extractor: FFTPFeatureExtractor,
        config: FFTPConfig,
        max_seconds: float,
        gain: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        super().__init__(
            feature_extractor,
            crop=RandomCrop(round(max_seconds * feature_extractor.sampling_rate)),
            transforms=[RandomGain(gain)] if gain else [],
            generator=generator,
        )
        self.config = config

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch to evaluate on: the crop of its start, and hidden patches that depend on nothing but the batch."""
        starts = [
            {**example, "audio": self.feature_extractor.to_waveform(example["audio"], index)[: self.crop.num_samples]}
            for index, example in enumerate(examples)
        ]
        return self._hide(starts, seeded(0))

    def augment(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch to train on."""
        sound_seed, feature_seed, mask_seed = batch_seeds(self.generator, self._process)
        return self._hide(examples, seeded(mask_seed), sound_seed, feature_seed)

    def _hide(
        self, examples: list[dict[str, Any]], generator: torch.Generator, *seeds: int
    ) -> dict[str, torch.Tensor]:
        batch = self._collate(examples, *seeds)
        time_patches = self.config.time_patches(batch["input_values"].shape[1])
        num_steps = self.config.time_patches(frames_of_batch(batch)).tolist()
        return batch | {"bool_masked_pos": draw_patch_mask(self.config, num_steps, time_patches, generator)}
