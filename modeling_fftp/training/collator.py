"""The training collator, with what the recipe turns on."""

import logging

from feature_extraction import FFTPFeatureExtractor, SpecAugment, SpecMask, SpecMaskDataCollator
from feature_extraction.spectrogram_augmentation import FilterAugment, RandomGain, Stretch, TimeRoll, UniformNoise
from feature_extraction.waveform_augmentation import ColoredNoise, Mixup, RandomCrop, SpeedPerturb
from modeling_fftp import FFTPConfig

from .arguments import AugmentationArguments
from .step_labels import EventLabels

logger = logging.getLogger(__name__)


def build_collator(
    arguments: AugmentationArguments,
    extractor: FFTPFeatureExtractor,
    config: FFTPConfig,
    max_seconds: float | None,
    label_smoothing: float,
    features_on_device: bool = False,
    is_framewise: bool = False,
) -> SpecMaskDataCollator:
    """The training collator with what the recipe turns on; no crop without `max_seconds`.

    Raises:
        ValueError: Masks are to have a stride of their own, and the model trains for several.
    """
    if config.time_strides and arguments.spec_mask_time_stride is not None:
        raise ValueError(
            f"the checkpoint trains for time_strides={config.time_strides}, and masks follow each batch's: drop "
            "--spec_mask_time_stride"
        )
    transforms = [
        (arguments.stretch_time or arguments.stretch_frequency)
        and Stretch(arguments.stretch_time, arguments.stretch_frequency),
        arguments.roll_frames and TimeRoll(arguments.roll_frames),
        arguments.gain and RandomGain(arguments.gain),
        arguments.filter_augment and FilterAugment(arguments.filter_augment),
        arguments.noise and UniformNoise(arguments.noise),
        (arguments.spec_augment_bins or arguments.spec_augment_frames)
        and SpecAugment(arguments.spec_augment_bins, arguments.spec_augment_frames),
    ]
    budget, full_share = arguments.spec_mask_budget, arguments.spec_mask_full_share
    if budget and (arguments.spec_augment_bins or arguments.spec_augment_frames):
        logger.warning("SpecMask and SpecAugment both mask; --spec_mask_budget 0 leaves SpecAugment alone")
    spec_mask = SpecMask.from_config(config, budget, full_share, arguments.spec_mask_time_stride) if budget else None
    min_snr, max_snr = arguments.colored_noise_snr
    noise = ColoredNoise(arguments.colored_noise, min_snr, max_snr) if arguments.colored_noise else None
    mixup = Mixup(arguments.mixup_alpha, arguments.mixup_probability) if arguments.mixup_probability else None
    return SpecMaskDataCollator(
        extractor,
        spec_mask,
        speed=SpeedPerturb(arguments.speed) if arguments.speed else None,
        crop=RandomCrop(round(max_seconds * extractor.sampling_rate)) if max_seconds else None,
        mixup=mixup,
        noise=noise,
        label_smoothing=label_smoothing,
        num_labels=config.num_labels,
        problem_type=config.problem_type,
        step_labels=EventLabels(config) if is_framewise else None,
        time_strides=config.time_strides,
        transforms=[transform for transform in transforms if transform],
        defer_features=features_on_device,
    )


def changes_sound(arguments: AugmentationArguments, longest_seconds: float, max_seconds: float) -> bool:
    """Whether training clips sound different each time."""
    on_sound = (arguments.speed, arguments.mixup_probability, arguments.colored_noise)
    return any(on_sound) or longest_seconds > max_seconds
