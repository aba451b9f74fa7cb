"""Sound events in seconds, and the tokens that they fall on."""

import math
import operator
from collections.abc import Sequence

import torch
from transformers import SequenceFeatureExtractor

from .configuration_fftp import FFTPConfig

# Onset and offset in seconds, both None or NaN where nobody knows them, and the label's index or name.
Event = tuple[float | None, float | None, int | str]
# Target of steps in a clip that holds the label at a time that nobody knows.
SOMEWHERE = -1.0


def frame_seconds(sampling_rate: int) -> tuple[float, float]:
    """Length of a frame, and from one to the next: 25 and 10 ms, cut to whole samples as in Kaldi."""
    return sampling_rate * 25 // 1000 / sampling_rate, sampling_rate * 10 // 1000 / sampling_rate


def table_seconds(config: FFTPConfig) -> float:
    """Length of the position table, which is that of the clips that a model was trained with."""
    return config.max_length * frame_seconds(config.sampling_rate)[1]


def longest_frames(feature_extractor: SequenceFeatureExtractor) -> float:
    """Frames that an extractor lets through where calls say nothing else; infinite if it neither cuts nor pads."""
    has_limit = feature_extractor.truncation or feature_extractor.padding == "max_length"
    return feature_extractor.max_length if has_limit else math.inf


def token_spans(config: FFTPConfig, num_tokens: int, time_stride: int | None = None) -> torch.Tensor:
    """The stretch of a clip that each of its tokens speaks for.

    A token speaks for the `time_stride` frames around the middle of its patch; the first and the last also for the
    rest of their patch. So the spans meet and cover all that any patch sees.

    Args:
        config: Of the model.
        num_tokens: Of the clip.
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
    return spans


def events_to_labels(
    config: FFTPConfig,
    events: Sequence[Sequence[Event]],
    num_tokens: Sequence[int],
    time_stride: int | None = None,
) -> torch.Tensor:
    """Targets per token from the events of each clip.

    An event marks the tokens whose span it fills by half, or that hold half of it. Without times it marks all tokens
    of its clip that no other event of its label does, as `SOMEWHERE`.

    Args:
        config: Says what spans and labels the tokens have.
        events: Events of each clip.
        num_tokens: Real tokens of each clip.
        time_stride: Frames between patches; None is the model's.

    Returns:
        0, 1 and `SOMEWHERE`, (batch, most tokens, labels), float32.

    Raises:
        ValueError: Events of more or fewer clips than there are, an unknown label, or an event that does not end
            after it starts.
    """
    if len(events) != len(num_tokens):
        raise ValueError(f"events of {len(events)} clips; expected those of {len(num_tokens)}, one list per clip")
    labels = torch.zeros(len(events), max(num_tokens), config.num_labels, device="cpu")
    for row, clip, count in zip(labels, events, num_tokens, strict=True):
        start, end = token_spans(config, count, time_stride).unbind(dim=1)
        for onset, offset, label in clip:
            index = config.label2id.get(label, -1) if isinstance(label, str) else operator.index(label)
            if not 0 <= index < config.num_labels:
                raise ValueError(
                    f"event {(onset, offset, label)}: no such label; expected one of {[*config.label2id]}"
                )
            onset, offset = (math.nan if time is None else time for time in (onset, offset))
            if math.isnan(onset) and math.isnan(offset):
                row[:count, index] = row[:count, index].where(row[:count, index] == 1.0, SOMEWHERE)
                continue
            if not onset < offset:
                raise ValueError(f"event {(onset, offset, label)}: the offset must come after the onset, in seconds")
            overlap = end.clamp(max=offset) - start.clamp(min=onset)
            row[:count][overlap >= (end - start).clamp(max=offset - onset) / 2, index] = 1.0
    return labels


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
    for start, low, high, steps in zip(windows[:, 0].tolist(), lows, highs, spans, strict=True):
        middle = start + steps.mean(dim=1)
        is_kept = (middle >= low) & (middle < high)
        kept.append(is_kept)
        joined.append(start + steps[is_kept])
    joined = torch.cat(joined)
    joined[:-1, 1] = joined[1:, 0]
    # A patch that is wider than the sound sees what pads it.
    joined[-1, 1] = joined[-1, 1].clamp(max=windows[-1, 1])
    return kept, joined


def filter_lengths(config: FFTPConfig, time_stride: int | None = None) -> list[int]:
    """Steps that the median filter of each label spans, an odd number, by `config.median_filter_seconds`."""
    step = config.resolve_time_stride(time_stride) * frame_seconds(config.sampling_rate)[1]
    # The config of an older package, which one may give beside a model, knows no filters.
    seconds = getattr(config, "median_filter_seconds", None) or {}
    wanted = [seconds.get(config.id2label[index], 0.0) / step for index in range(config.num_labels)]
    return [max(1, 2 * round((steps - 1) / 2) + 1) for steps in wanted]


def median_filter(scores: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Scores in which what is shorter than half a filter is gone, and gaps that short are closed.

    Args:
        scores: Of the steps of a recording, (steps, labels).
        lengths: Steps of each label's filter, odd.

    Returns:
        Of each step and label the median over the steps around it, (steps, labels); beyond the ends stand the first
        and the last.
    """
    filtered = scores.clone()
    for length in {*lengths} - {1}:
        chosen = [label for label, own in enumerate(lengths) if own == length]
        columns = scores[:, chosen].T[None]
        padded = torch.nn.functional.pad(columns, (length // 2, length // 2), mode="replicate")[0]
        filtered[:, chosen] = padded.unfold(1, length, 1).median(dim=-1).values.T
    return filtered
