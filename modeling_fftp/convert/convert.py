"""The command `fftp convert`: weights from elsewhere as a folder, in their own patch geometry or in another."""

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp.atomic_write import atomic_folder
from modeling_fftp.heads_fftp import HEADLESS, HEADS
from modeling_fftp.label_fields_fftp import drop_fields_of_labels

from .converted import Converted
from .patch_geometry import change_geometry, change_patches
from .sources import load


def adapt(
    converted: Converted,
    patch_size: tuple[int, int] | None = None,
    frequency_stride: int | None = None,
    time_stride: int | None = None,
    patch_init: str | None = None,
    spectrograms: Iterable[torch.Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Converted:
    """A converted model with other patches, if others are asked for.

    Its extractor then masks padding and pads to the longest clip, as models of this package do, and thresholds that
    were chosen for the source go: its answers are lost anyway.

    Args:
        converted: The model as it is.
        patch_size: See `change_geometry`.
        frequency_stride: See `change_geometry`.
        time_stride: See `change_geometry`.
        patch_init: See `change_patches`.
        spectrograms: See `change_patches`.
        generator: See `change_patches`.

    Raises:
        ValueError: The cases of these two.
    """
    model, extractor = converted.model, copy.deepcopy(converted.extractor)
    config = change_geometry(model.config, patch_size, frequency_stride, time_stride)
    has_new_patches = config.patch_size != model.config.patch_size
    if patch_init is not None and not has_new_patches:
        raise ValueError(f"patch_init={patch_init!r} is for other patches; the source has these already")
    if config.to_dict() == model.config.to_dict():
        return converted
    config = drop_fields_of_labels(config, "were chosen for the source's patches")
    model = change_patches(model, config, patch_init, spectrograms, generator)
    mask_padding(extractor)
    return Converted(model, extractor, converted.knows_sound, has_new_patches)


def mask_padding(extractor: FFTPFeatureExtractor) -> None:
    """Let an extractor pad to the longest clip and mask that, as those of this package do."""
    extractor.padding, extractor.truncation, extractor.return_attention_mask = "longest", False, True
    extractor.padding_value = 0.0


def convert(
    source: str | Path,
    output_folder: str | Path,
    kind: str | None = None,
    geometry: dict[str, Any] | None = None,
    sound: Callable[[int], Iterable[np.ndarray]] | None = None,
    seed: int | None = None,
    **options: Any,
) -> None:
    """Convert a source into a folder, which appears only when it is complete.

    Args:
        source: Folder, Hub id, or checkpoint file.
        output_folder: Folder to create.
        kind: See `load`.
        geometry: Arguments of `adapt`.
        sound: Gives waveforms (samples,) at a rate in Hz, for "least_squares".
        seed: Draws a "random" patch embedding; default: 0.
        **options: Those of the kind's loader.

    Raises:
        FileExistsError: `output_folder` exists and is not empty.
        ValueError: As `load`, `adapt` and `refuse_lost_head`.
    """
    geometry = geometry or {}
    if sound is not None and geometry.get("patch_init") != "least_squares":
        raise ValueError("--sound is for --patch_init least_squares; nothing else looks at it")
    if seed is not None and geometry.get("patch_init") != "random":
        raise ValueError("--seed is for --patch_init random; nothing else is drawn")
    with atomic_folder(Path(output_folder)) as folder:
        converted = load(source, kind, **options)
        refuse_lost_head(source, converted)
        spectrograms = None if sound is None else spectrograms_of(converted, sound(converted.extractor.sampling_rate))
        generator = torch.Generator().manual_seed(seed or 0)
        converted = adapt(converted, **geometry, spectrograms=spectrograms, generator=generator)
        converted.model.save_pretrained(folder)
        converted.extractor.save_pretrained(folder)


def refuse_lost_head(source: str | Path, converted: Converted) -> None:
    """Stop where a class that is not of this package saved a model, whose head would be gone.

    Raises:
        ValueError: There is one.
    """
    saved = converted.model.config.architectures or ()
    if unknown := sorted({*saved} - {*HEADS, *HEADLESS}):
        raise ValueError(
            f"{source} was saved by {unknown[0]}, whose head is not known here: load the folder by the class that it "
            "derives from, such as FFTPForAudioClassification, and save that"
        )


def spectrograms_of(converted: Converted, sound: Iterable[np.ndarray]) -> Iterable[torch.Tensor]:
    """Each waveform's normalised spectrogram, (frames, mel bins), without padding."""
    for waveform in sound:
        features = converted.extractor(
            waveform, sampling_rate=converted.extractor.sampling_rate, padding="longest", return_tensors="pt"
        )
        yield features["input_values"][0]
