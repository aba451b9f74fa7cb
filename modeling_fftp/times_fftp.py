"""Where frames, tokens and windows lie in time, in seconds."""

import math
from collections.abc import Sequence

import torch
from transformers import SequenceFeatureExtractor

from .configuration_fftp import FFTPConfig


def frame_seconds(sampling_rate: int) -> tuple[float, float]:
    """Length of a frame, and from one to the next: 25 and 10 ms, cut to whole samples as in Kaldi."""
    return sampling_rate * 25 // 1000 / sampling_rate, sampling_rate * 10 // 1000 / sampling_rate


def count_frames(num_samples: torch.Tensor, sampling_rate: int) -> torch.Tensor:
    """Whole frames in clips of so many samples; at least one, to which the extractor pads what is shorter."""
    length, shift = (round(seconds * sampling_rate) for seconds in frame_seconds(sampling_rate))
    return ((num_samples - length) // shift + 1).clamp(min=1)


def table_seconds(config: FFTPConfig) -> float:
    """Length of the position table, which is that of the clips that a model was trained with."""
    return config.max_length * frame_seconds(config.sampling_rate)[1]


def longest_frames(feature_extractor: SequenceFeatureExtractor) -> float:
    """Frames that an extractor lets through where calls say nothing else; infinite if it neither cuts nor pads."""
    has_limit = feature_extractor.truncation or feature_extractor.padding == "max_length"
    return feature_extractor.max_length if has_limit else math.inf


def window_seconds(config: FFTPConfig, feature_extractor: SequenceFeatureExtractor) -> float:
    """Length of what a model looks at by default: that of its table, and no more than its extractor keeps."""
    return min(table_seconds(config), longest_frames(feature_extractor) * frame_seconds(config.sampling_rate)[1])


def refuse_wide_stride(config: FFTPConfig, time_stride: int, window: float) -> None:
    """Refuse a stride that is no shorter than what the model hears at once, unless it is the model's own.

    Args:
        config: The model's config.
        time_stride: Frames between patches.
        window: Seconds that the model hears at once.

    Raises:
        ValueError: The stride is no shorter, or no whole number of frames.
    """
    stride = config.resolve_time_stride(time_stride)
    seconds = stride * frame_seconds(config.sampling_rate)[1]
    if stride != config.time_stride and seconds >= window:
        raise ValueError(f"time_stride={stride} frames are {seconds:g} s; expected less than a window, {window:g} s")


def token_spans(config: FFTPConfig, num_tokens: int, time_stride: int | None = None) -> torch.Tensor:
    """The stretch of a clip that each of its tokens speaks for.

    A token speaks for the `time_stride` frames around the middle of its patch; the first and the last also for the
    rest of their patch. So the spans meet and cover all that any patch sees.

    Args:
        config: The model's config.
        num_tokens: Tokens of the clip.
        time_stride: Frames between patches; None is the model's.

    Returns:
        Start and end in seconds, (tokens, 2), float64.
    """
    length, shift = frame_seconds(config.sampling_rate)
    time_stride = config.resolve_time_stride(time_stride)
    frames = config.patch_frames(time_stride)
    first_frame = time_stride * torch.arange(num_tokens, dtype=torch.float64, device="cpu")
    middle = (first_frame + (frames - 1) / 2) * shift + length / 2
    half = time_stride * shift / 2
    spans = torch.stack((middle - half, middle + half), dim=1)
    spans[0, 0] = 0.0
    spans[-1, 1] = (first_frame[-1] + frames - 1) * shift + length
    # Sums round differently, and what does not meet exactly has gaps.
    spans[:-1, 1] = spans[1:, 0]
    return spans


def join_steps(windows: torch.Tensor, spans: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The steps of a recording, of those of overlapping windows: each from the window whose middle is nearest.

    Args:
        windows: Start and end of each window in seconds, in order, (windows, 2), float64.
        spans: Start and end of each step from the start of its window, (steps, 2) for each window.

    Returns:
        Which steps of each window count, (steps,), and the spans of all that do, (steps of the recording, 2), which
        meet.
    """
    borders = (windows[1:, 0] + windows[:-1, 1]) / 2
    lows, highs = [-torch.inf, *borders.tolist()], [*borders.tolist(), torch.inf]
    kept, joined = [], []
    for (start, end), low, high, steps in zip(windows.tolist(), lows, highs, spans, strict=True):
        # A patch may be longer than its window, and the last stands for all that is left of it.
        heard = steps.clamp(max=end - start)
        heard[-1, 1] = end - start
        middle = start + heard.mean(dim=1)
        is_kept = (middle >= low) & (middle < high)
        kept.append(is_kept)
        joined.append(start + steps[is_kept])
    joined = torch.cat(joined)
    joined[:-1, 1] = joined[1:, 0]
    # A patch that is wider than the sound sees what pads it.
    joined[-1, 1] = joined[-1, 1].clamp(max=windows[-1, 1])
    return kept, joined
