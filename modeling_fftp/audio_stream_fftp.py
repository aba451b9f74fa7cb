"""Sound of any length in bounded memory: decoded by soundfile, mixed down, resampled by soxr, cut into windows."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from .configuration_fftp import LOWEST_RATE
from .sound_file_fftp import decode_file, is_pipe, open_file

try:
    import soxr
except ImportError:
    soxr = None

BLOCK_SECONDS = 10
# The shorter axis of a 2-D array holds channels, if it is no longer than this.
MAX_CHANNELS = 8
# Types of integer samples, which are divided by their full range.
PCM = ("uint8", "int8", "int16", "int32")
# What may hold the bytes of a sound file.
BUFFERS = (bytes, bytearray, memoryview)
# Floats beyond this are no sound; the extractor has the same limit.
LARGEST_SAMPLE = 2.0**32


class UnreadableSoundError(ValueError):
    """Sound that cannot be read, or holds what is no sound; its message begins with its path."""


def read_blocks(source: Any, sampling_rate: int) -> Iterator[np.ndarray]:
    """Sound as one channel at the wanted rate, about ten seconds at a time.

    Args:
        source: A path; the bytes of a sound file in any buffer, or a binary file object; a waveform (samples,),
            (samples, channels) or (channels, samples) at `sampling_rate`, of floats or integer PCM; an `AudioDecoder`
            of torchcodec; or a dict with "raw" or "array" and "sampling_rate", or with "bytes" or "path".
        sampling_rate: Wanted rate in Hz.

    Yields:
        (samples,), float32.

    Raises:
        ValueError: The sound cannot be decoded, or is of an unknown form.
        ImportError: A file or another rate, where soundfile or soxr is not installed.
    """
    sound, rate = _parse(source, sampling_rate)
    yield from resampled(decode_file(sound, BLOCK_SECONDS) if rate is None else _cut(sound, rate), sampling_rate)


def read_audio(source: Any, sampling_rate: int) -> np.ndarray:
    """A whole sound as one channel at the wanted rate.

    Args:
        source: See `read_blocks`; an undecoded entry of a `datasets` audio column is one.
        sampling_rate: Wanted rate in Hz.

    Returns:
        (samples,), float32.

    Raises:
        ValueError: As `read_blocks`, or the sound holds no samples or some that are not finite; the message names the
            source.
        ImportError: As `read_blocks`.
    """
    with path_in_errors(source):
        waveform = np.concatenate([np.zeros(0, np.float32), *read_blocks(source, sampling_rate)])
        if not len(waveform):
            raise ValueError("no samples")
        # NaN is passed on by both.
        peak = max(waveform.max(), -waveform.min())
        if not np.isfinite(peak):
            raise ValueError("samples that are not finite")
        if peak > LARGEST_SAMPLE:
            raise ValueError(f"samples that reach {peak:.1e}; expected [-1, 1]")
    return waveform


def sound_seconds(source: Any, sampling_rate: int) -> float:
    """Length in seconds of what `read_blocks` takes, without decoding a file; raises as that does.

    Of a file it is what the header claims, so a FLAC of unknown length is endless; of an MP3 it is what there is. A
    pipe, or a file object that cannot go back, can be read once only; it is endless as well.
    """
    if hasattr(source, "read") and not _is_seekable(source):
        return math.inf
    samples = source.get("raw", source.get("array")) if isinstance(source, dict) else source
    if isinstance(samples, (np.ndarray, torch.Tensor)):
        # Channels are the shorter axis; whatever else is wrong with it, reading says.
        rate = source.get("sampling_rate") if isinstance(source, dict) else sampling_rate
        return max(samples.shape, default=0) / (rate or sampling_rate)
    sound, rate = _parse(source, sampling_rate)
    if rate is not None:
        return len(sound) / rate
    if not isinstance(sound, bytes) and is_pipe(sound):
        return math.inf
    with open_file(sound) as file:
        return file.frames / file.samplerate


def sound_format(source: Any, sampling_rate: int) -> tuple[int, int]:
    """Rate in Hz and number of channels of what `read_blocks` takes; waveforms count as one channel."""
    sound, rate = _parse(source, sampling_rate)
    if rate is not None:
        return rate, 1
    with open_file(sound) as file:
        return file.samplerate, file.channels


@contextmanager
def path_in_errors(source: Any) -> Iterator[None]:
    """Put the path of a source of `read_blocks` in front of a ValueError, since it may be one of many.

    Raises:
        UnreadableSoundError: In its place.
    """
    try:
        yield
    except ValueError as error:
        raise UnreadableSoundError(f"{source_name(source)}: {error}") from error


def source_name(source: Any) -> str:
    """The name of a source in messages."""
    data = source.get("bytes") if isinstance(source, dict) else source
    path = source.get("path") if isinstance(source, dict) else source
    if isinstance(path, (str, os.PathLike)):
        return os.fspath(path)
    return "audio bytes" if isinstance(data, BUFFERS) else "the sound"


def sliding_windows(
    blocks: Iterator[np.ndarray], window: int, hop: int, slack: int = 0
) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Overlapping windows over the whole sound; the last one ends where the sound ends.

    Args:
        blocks: The sound, (samples,) each.
        window: Samples per window; shorter sound is one window of its own length.
        hop: Samples from one window to the next, at most `window`.
        slack: Samples by which the last window may be longer, rather than be followed by another.

    Yields:
        First sample, samples, and whether this is the last window.

    Raises:
        ValueError: The sound holds no samples.
    """
    passed, start = np.zeros(0, np.float32), 0
    # Not one array, which would be copied with every block.
    waiting, length = [passed], 0
    for block in blocks:
        waiting.append(block)
        length += len(block)
        # A window is the last one until there is sound behind it.
        if length <= window + slack:
            continue
        rest = np.concatenate(waiting)
        while len(rest) > window + slack:
            yield start, rest[:window], False
            passed, rest = rest[:hop], rest[hop:]
            start += hop
        waiting, length = [rest], len(rest)
    rest = np.concatenate(waiting)
    if not len(rest):
        raise ValueError("no samples")
    missing = min(max(0, window - len(rest)), len(passed))
    yield start - missing, np.concatenate((passed[len(passed) - missing :], rest)), True


def _parse(source: Any, sampling_rate: int) -> tuple[np.ndarray | str | bytes | os.PathLike, int | None]:
    """Samples (samples,) and their rate, or a file, as path or bytes, and None."""
    if hasattr(source, "get_all_samples"):
        decoded = source.get_all_samples()
        # (channels, samples), however many there are.
        return _as_mono(decoded.data.mean(dim=0)), int(decoded.sample_rate)
    if hasattr(source, "read"):
        source = _read_file(source)
    if isinstance(source, dict):
        waveform = source.get("raw", source.get("array"))
        if waveform is not None:
            rate = source.get("sampling_rate")
            if not rate or rate != int(rate):
                raise ValueError(f"a dict of {[*source]} has 'sampling_rate' {rate}; expected whole Hz")
            return _as_mono(waveform), int(rate)
        if source.get("bytes") is None and source.get("path") is None:
            raise ValueError(f"a dict of {[*source]}; expected 'raw', 'array', 'bytes' or 'path'")
        source = source["path"] if source.get("bytes") is None else source["bytes"]
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return _as_mono(source), sampling_rate
    if isinstance(source, BUFFERS):
        # As of sockets, whose content may change.
        source = bytes(source)
    if isinstance(source, (str, bytes, os.PathLike)):
        return source, None
    raise ValueError(f"a {type(source).__name__}; expected a path, bytes, a file object, an array or a dict")


def _is_seekable(file: Any) -> bool:
    """Whether a file object can go back; downloads and uploads of web services may not even say."""
    return hasattr(file, "seekable") and file.seekable()


def _read_file(file: Any) -> bytes:
    """Everything in a binary file object, from its start where it can go there."""
    if _is_seekable(file):
        file.seek(0)
    data = file.read()
    if not isinstance(data, bytes):
        raise ValueError(f"a {type(file).__name__} gives {type(data).__name__}; expected bytes of a sound file")
    return data


def _as_mono(waveform: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(waveform, torch.Tensor):
        waveform = waveform.detach().cpu()
        waveform = waveform.float() if waveform.is_floating_point() else waveform
    samples = np.asarray(waveform)
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    if samples.dtype in PCM:
        half = 2.0 ** (8 * samples.itemsize - 1)
        samples = (samples - half * (samples.dtype == np.uint8)) / half
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"samples are {samples.dtype}; expected floats in [-1, 1] or PCM as {', '.join(PCM)}")
    if samples.ndim == 2 and min(samples.shape) <= MAX_CHANNELS:
        samples = samples.mean(axis=int(np.argmin(samples.shape)))
    if samples.ndim != 1:
        raise ValueError(f"shape {samples.shape}; expected (samples,), or that with up to {MAX_CHANNELS} channels")
    return samples.astype(np.float32, copy=False)


def _cut(samples: np.ndarray, rate: int) -> Iterator[tuple[np.ndarray, int]]:
    step = BLOCK_SECONDS * rate
    for start in range(0, len(samples), step):
        yield samples[start : start + step], rate


def resampled(blocks: Iterator[tuple[np.ndarray, int]], sampling_rate: int) -> Iterator[np.ndarray]:
    """Blocks (samples,) at the rate that each comes with, as one sound at the wanted rate in Hz.

    Raises:
        ValueError: A rate that no sound has.
        ImportError: Another rate than the wanted, where soxr is not installed.
    """
    resampler = None
    for block, rate in blocks:
        if rate < LOWEST_RATE:
            # A damaged header, by which a short file would become weeks of sound.
            raise ValueError(f"a rate of {rate} Hz; expected at least {LOWEST_RATE} Hz")
        if rate != sampling_rate and resampler is None:
            if soxr is None:
                raise ImportError(f"the sound is at {rate} Hz, not {sampling_rate} Hz: pip install soxr")
            resampler = soxr.ResampleStream(rate, sampling_rate, 1, dtype="float32", quality="HQ")
        yield block if resampler is None else resampler.resample_chunk(block)
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


__all__ = [
    "UnreadableSoundError",
    "path_in_errors",
    "read_audio",
    "read_blocks",
    "resampled",
    "sliding_windows",
    "sound_format",
    "sound_seconds",
    "source_name",
]
