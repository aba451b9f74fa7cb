"""Decoding and resampling of sound files with soundfile and soxr: no ffmpeg, no torchcodec, no torchaudio."""

from io import BytesIO
from os import PathLike
from typing import Any

import numpy as np
import soundfile
import soxr


def resample(waveform: np.ndarray, orig_rate: float, sampling_rate: float) -> np.ndarray:
    """Resample along the first axis.

    Args:
        waveform: (samples,) or (samples, channels), float.
        orig_rate: Rate of `waveform` in Hz.
        sampling_rate: Wanted rate in Hz.

    Returns:
        float32, of length `samples * sampling_rate / orig_rate`.
    """
    if orig_rate == sampling_rate:
        return waveform.astype(np.float32, copy=False)
    return soxr.resample(waveform, orig_rate, sampling_rate, quality="HQ").astype(np.float32, copy=False)


def read_audio(source: str | PathLike | bytes | dict[str, Any], sampling_rate: int) -> np.ndarray:
    """Read sound as one channel at the wanted rate; channels are averaged.

    Args:
        source: A path, the bytes of a sound file, or an undecoded entry of a `datasets` audio column
            (`{"bytes": ..., "path": ...}`). WAV, FLAC, Ogg (Vorbis, Opus), MP3 and whatever else libsndfile reads.
        sampling_rate: Wanted rate in Hz.

    Returns:
        Samples in [-1, 1], (samples,), float32.

    Raises:
        ValueError: The sound cannot be decoded, or holds no samples or some that are not finite; the message names the
            source.
    """
    if isinstance(source, dict):
        name = source.get("path") or "audio bytes"
        data = source["path"] if source.get("bytes") is None else source["bytes"]
    else:
        name = "audio bytes" if isinstance(source, bytes) else source
        data = source
    try:
        samples, rate = soundfile.read(
            BytesIO(data) if isinstance(data, bytes) else data, dtype="float32", always_2d=True
        )
    except (soundfile.SoundFileError, TypeError) as error:
        raise ValueError(f"cannot decode {name}: {error}") from error
    waveform = resample(samples.mean(axis=1), rate, sampling_rate) if len(samples) else samples
    if not len(waveform):
        raise ValueError(f"{name} holds no samples")
    if not np.isfinite(waveform).all():
        raise ValueError(f"{name} holds samples that are not finite")
    return waveform
