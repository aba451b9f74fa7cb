"""Recordings in every form that people have them in, and their samples as floats."""

from collections.abc import Iterable, Sized
from os import PathLike
from typing import Any

import numpy as np
import torch

# One recording; also what `datasets` gives for it: torchcodec's AudioDecoder, or a dict with "array".
Waveform = np.ndarray | torch.Tensor | list[float] | dict[str, Any] | Any

# A 2-D array of more rows than this and at most this many columns is one recording laid out (samples, channels).
MAX_CHANNELS = 8
# Beyond LARGEST_FLOAT samples are probably integers that nobody divided; beyond LARGEST_SAMPLE their power is no
# float32.
LARGEST_FLOAT, LARGEST_SAMPLE = 8.0, 2.0**32


def has_own_rate(clip: Waveform) -> bool:
    """Whether a clip is an AudioDecoder of torchcodec, or a dict of samples and their rate."""
    if isinstance(clip, dict):
        return "sampling_rate" in clip and not clip.keys().isdisjoint(("array", "raw"))
    return hasattr(clip, "get_all_samples")


def read_samples(clip: Waveform, index: int, sampling_rate: int) -> np.ndarray | torch.Tensor | list[float]:
    """The samples of a clip that knows its own rate, or the clip itself.

    Raises:
        ValueError: It has another rate, or is a dict without one.
    """
    if not has_own_rate(clip):
        if isinstance(clip, dict):
            raise ValueError(f"clip {index} is a dict of {[*clip]}; expected 'array' and 'sampling_rate'")
        return clip
    if isinstance(clip, dict):
        samples, rate = clip.get("raw", clip.get("array")), clip["sampling_rate"]
    else:
        decoded = clip.get_all_samples()
        samples, rate = decoded.data.mean(dim=0), decoded.sample_rate
    if rate != sampling_rate:
        raise ValueError(
            f"clip {index} is at {rate} Hz, this feature extractor expects {sampling_rate} Hz; in `datasets` "
            f"cast_column(..., Audio(sampling_rate={sampling_rate})) resamples"
        )
    return samples


def as_clips(raw_speech: Waveform | list[Waveform]) -> list[Waveform]:
    """One recording or several, as a list.

    Raises:
        ValueError: What holds no samples, or holds them in channels.
    """
    if isinstance(raw_speech, (dict, str, bytes, bytearray, PathLike)) or has_own_rate(raw_speech):
        return [raw_speech]
    if hasattr(raw_speech, "__array__") and not isinstance(raw_speech, torch.Tensor):
        # pandas, pyarrow and jax have arrays of their own.
        raw_speech = np.asarray(raw_speech)
    if isinstance(raw_speech, (np.ndarray, torch.Tensor)) and raw_speech.ndim < 2 and raw_speech.dtype != object:
        return [raw_speech]
    if not isinstance(raw_speech, Iterable):
        raise ValueError(f"the sound is of type {type(raw_speech).__name__}; expected samples, or a list of clips")
    # A column of clips of unequal length is an array of arrays; a generator can be read once.
    clips = list(raw_speech)
    if clips and (isinstance(clips[0], (int, float, np.number)) or getattr(clips[0], "ndim", None) == 0):
        return [clips]
    _refuse_channels(clips)
    return clips


def _refuse_channels(clips: list[Waveform]) -> None:
    """Refuse the samples of one recording, each with its channels, in place of clips.

    Raises:
        ValueError: Many clips of a few samples each.
    """
    if len(clips) <= MAX_CHANNELS or np.ndim(clips[0]) != 1:
        return
    width = len(clips[0])
    if 1 <= width <= MAX_CHANNELS and all(isinstance(clip, Sized) and len(clip) == width for clip in clips):
        raise ValueError(
            f"sound of shape {(len(clips), width)} looks like (samples, channels); expected mono sound: (samples,) "
            "or (batch, samples)"
        )


def refuse_samples(waveform: torch.Tensor, index: int) -> None:
    """Say what is wrong with samples of which some are no numbers, or far too large.

    Raises:
        ValueError: Always.
    """
    bad = int((~waveform.isfinite()).sum())
    if bad:
        raise ValueError(f"clip {index} holds {bad} samples that are NaN or infinite")
    raise ValueError(f"clip {index} reaches {waveform.abs().max().item():.1e}; expected samples in [-1, 1]")


def pcm_to_float(samples: torch.Tensor, index: int) -> torch.Tensor:
    """Samples of the clip at `index` of its batch as float32; integer PCM is divided by its full range.

    Raises:
        ValueError: Another type of samples.
    """
    if samples.is_floating_point():
        return samples.float()
    if samples.dtype == torch.uint8:
        return (samples.float() - 128.0) / 128.0
    if samples.dtype in (torch.int8, torch.int16, torch.int32):
        # A power of two, so nothing is lost but what float32 cannot hold.
        return samples.float() / -float(torch.iinfo(samples.dtype).min)
    raise ValueError(
        f"clip {index} holds {samples.dtype} samples; expected floats in [-1, 1] or PCM as uint8, int8, int16 or "
        "int32. A column of these comes as plain numbers unless its data set is with_format('numpy')"
    )
