"""A run trains with what its arguments turn on, each with its own numbers, and with nothing that they turn off."""

import pytest

from feature_extraction import FFTPFeatureExtractor, SpecAugment
from feature_extraction.spectrogram_augmentation import FilterAugment, RandomGain, Stretch, TimeRoll, UniformNoise
from feature_extraction.waveform_augmentation import ColoredNoise, Mixup, RandomCrop, SpeedPerturb
from modeling_fftp.training.arguments import AugmentationArguments
from modeling_fftp.training.class_balanced_sampler import ClassBalancedSampler
from modeling_fftp.training.collator import build_collator
from modeling_fftp.training.trainer import FFTPTrainer
from tests.support import run_training

EVERYTHING = AugmentationArguments(
    mixup_probability=0.3, mixup_alpha=7.0, speed=0.12, colored_noise=0.4, colored_noise_snr=[5.0, 25.0],
    roll_frames=8, stretch_time=0.11, stretch_frequency=0.13, gain=0.21, filter_augment=0.22, noise=0.09,
    spec_mask_budget=0.15, spec_mask_full_share=0.6, spec_mask_time_stride=1, spec_augment_bins=33,
    spec_augment_frames=44,
)  # fmt: skip
NOTHING = AugmentationArguments(mixup_probability=0, roll_frames=0, noise=0, spec_mask_budget=0)


class ReachedError(Exception):
    """A run has come as far as its training."""


def test_everything_that_is_turned_on_has_its_numbers(make_config):
    config = make_config()
    collator = build_collator(EVERYTHING, FFTPFeatureExtractor(), config, 1.5, label_smoothing=0.1)
    assert (collator.mixup, collator.speed) == (Mixup(7.0, 0.3), SpeedPerturb(0.12))
    assert (collator.noise, collator.crop) == (ColoredNoise(0.4, 5.0, 25.0), RandomCrop(24000))
    assert (collator.label_smoothing, collator.num_labels, collator.defer_features) == (0.1, 4, False)
    # Shape first, then loudness and noise, then masks.
    assert collator.transforms == (
        Stretch(0.11, 0.13), TimeRoll(8), RandomGain(0.21), FilterAugment(0.22), UniformNoise(0.09),
        SpecAugment(33, 44),
    )  # fmt: skip
    assert (collator.spec_mask.budget, collator.spec_mask.full_share) == (round(0.15 * 100 * 128), 0.6)
    assert (collator.spec_mask.time_stride, collator.spec_mask.patch_frames) == (1, config.patch_size[1])


def test_nothing_that_is_turned_off_is_there(make_config):
    collator = build_collator(NOTHING, FFTPFeatureExtractor(), make_config(), None, label_smoothing=0.0)
    assert collator.transforms == ()
    for name in ("mixup", "speed", "noise", "crop", "spec_mask"):
        assert getattr(collator, name) is None, name
    assert collator.label_smoothing == 0


def test_a_run_hands_it_all_to_its_trainer(clip_folder, tmp_path, monkeypatch):
    trainers = []

    def train(trainer, **kwargs):
        trainers.append(trainer)
        raise ReachedError

    monkeypatch.setattr(FFTPTrainer, "train", train)
    words = [
        part
        for name, value in vars(EVERYTHING).items()
        if name != "colored_noise_snr"
        for part in (f"--{name}", value)
    ]
    with pytest.raises(ReachedError):
        run_training(
            tmp_path, "--dataset_name", clip_folder, *words, "--colored_noise_snr", 5.0, 25.0, "--max_seconds", 0.4,
            "--label_smoothing_factor", 0.1, "--class_balanced", "true", "--max_train_samples", 12,
        )  # fmt: skip
    (trainer,) = trainers
    expected = build_collator(EVERYTHING, FFTPFeatureExtractor(), trainer.model.config, 0.4, label_smoothing=0.1)
    for name, value in vars(expected).items():
        if name not in ("feature_extractor", "spec_mask"):
            assert getattr(trainer.data_collator, name) == value, name
    assert repr(trainer.data_collator.spec_mask) == repr(expected.spec_mask)
    # Ours smooths what mixup mixed too; transformers' own must not smooth again.
    assert trainer.args.label_smoothing_factor == 0
    sampler = trainer._get_train_sampler()
    assert isinstance(sampler, ClassBalancedSampler)
    # The clips lie class by class: the first 12 are all of one.
    assert len(trainer.train_dataset) == 12
    assert set(trainer.train_dataset["labels"][:].tolist()) == {0, 1, 2}
