"""Sound events: the targets of steps that follow from them, and events that follow from scores."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from transformers.utils import logging

from .configuration_fftp import FFTPConfig
from .times_fftp import frame_seconds, token_spans

logger = logging.get_logger(__name__)

# Onset and offset in seconds, both None or NaN where nobody knows them, and the label's index or name.
Event = tuple[float | None, float | None, int | str]
# Target of steps in a clip that holds the label at a time that nobody knows.
SOMEWHERE = -1.0
# So long after the last token of a clip no sound of it is left.
FAR_SECONDS = 1.0
# Less than a sample, more than the rounding of seconds.
ROUNDING_SECONDS = 1e-6
# More than the rounding of a mean of scores.
ROUNDING_SCORES = 1e-6
# An event of a stream goes on until its score falls below this share of the threshold, so that it does not flicker.
RELEASE = 0.8


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
        ValueError: Events of more or fewer clips than there are, an unknown label, or an event that starts before
            its clip or does not end after it starts.
    """
    if len(events) != len(num_tokens):
        raise ValueError(f"events of {len(events)} clips; expected those of {len(num_tokens)}, one list per clip")
    labels = torch.zeros(len(events), max(num_tokens), config.num_labels, device="cpu")
    # A config takes long over an attribute.
    label2id, num_labels = config.label2id, config.num_labels
    for row, clip, count in zip(labels, events, num_tokens, strict=True):
        read = [_read_event(event, label2id, num_labels) for event in clip]
        for index in {index for onset, _, index in read if math.isnan(onset)}:
            row[:count, index] = SOMEWHERE
        if timed := [event for event in read if not math.isnan(event[0])]:
            onset, offset, index = torch.tensor(timed, dtype=torch.float64, device="cpu").T.contiguous()
            spans = token_spans(config, count, time_stride)
            if onset.max() >= spans[-1, 1] + FAR_SECONDS:
                logger.warning_once(f"An event begins more than {FAR_SECONDS:g} s after its clip: times are seconds")
            token, event = find_overlaps(spans, onset, offset)
            row[token, index[event].long()] = 1.0
    return labels


def find_overlaps(spans: torch.Tensor, onset: torch.Tensor, offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and events that belong together: one fills or holds half of the other.

    Args:
        spans: Start and end of tokens that follow each other, (tokens, 2), in seconds.
        onset: Of events, (events,), in seconds.
        offset: Like `onset`.

    Returns:
        Index of the token and of the event of each pair.
    """
    start, end = spans.T.contiguous()
    # Not all by all: an hour has many of both.
    first = torch.searchsorted(end, onset, right=True)
    counts = (torch.searchsorted(start, offset) - first).clamp(min=0)
    event = torch.arange(len(onset), device="cpu").repeat_interleave(counts)
    token = torch.arange(len(event), device="cpu") + (first - counts.cumsum(0) + counts)[event]
    overlap = end[token].minimum(offset[event]) - start[token].maximum(onset[event])
    is_half = overlap >= (end - start)[token].minimum((offset - onset)[event]) / 2
    return token[is_half], event[is_half]


def _read_event(event: Event, label2id: Mapping[str, int], num_labels: int) -> tuple[float, float, int]:
    """Onset and offset, NaN where nobody knows them, and the label's index."""
    onset, offset, label = event
    # In arrays of events, labels are floats as times are.
    index = label2id.get(label, -1) if isinstance(label, str) else float(label)
    if not 0 <= index < num_labels or index != int(index):
        raise ValueError(f"event {(onset, offset, label)}: no such label; expected one of {[*label2id]}")
    onset, offset = (math.nan if time is None else time for time in (onset, offset))
    if not (0 <= onset < offset or (math.isnan(onset) and math.isnan(offset))):
        raise ValueError(f"event {(onset, offset, label)}: expected 0 <= onset < offset, in seconds")
    return onset, offset, int(index)


def filter_lengths(config: FFTPConfig, time_stride: int | None = None) -> list[int]:
    """Steps that the median filter of each label spans, an odd number, by `config.median_filter_seconds`."""
    step = config.resolve_time_stride(time_stride) * frame_seconds(config.sampling_rate)[1]
    seconds = config.median_filter_seconds or {}
    wanted = [seconds.get(config.id2label[index], 0.0) / step for index in range(config.num_labels)]
    return [max(1, 2 * round((steps - 1) / 2) + 1) for steps in wanted]


def median_filter(scores: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Scores in which what is shorter than half a filter is gone, and gaps that short are closed.

    Args:
        scores: Scores of the steps of a recording, (steps, labels).
        lengths: Steps of each label's filter, odd.

    Returns:
        Of each step and label the median over the steps around it, (steps, labels); beyond the ends stand the first
        and the last.
    """
    if max(lengths) == 1:
        return scores
    filtered = scores.clone()
    # One at a time: each takes its filter's length times the memory of its scores.
    for label, length in enumerate(lengths):
        if length > 1:
            column, ends = scores[None, None, :, label], (length // 2, length // 2)
            padded = torch.nn.functional.pad(column, ends, mode="replicate")[0, 0]
            filtered[:, label] = padded.unfold(0, length, 1).median(dim=-1).values
    return filtered


def find_segments(
    scores: torch.Tensor, spans: torch.Tensor, thresholds: Sequence[float], max_gap: float = 0.0
) -> list[tuple[float, float, int, float]]:
    """Stretches of time in which a label's score is not below its threshold; short gaps are closed.

    Args:
        scores: Scores of each window, (windows, labels).
        spans: Start and end of each window in seconds, (windows, 2), float64.
        thresholds: Lowest score of each label.
        max_gap: Longest gap to close in seconds; none is closed that takes the mean score below the threshold.

    Returns:
        Start, end, label and mean score of each stretch, in order of start, then label.
    """
    edges = spans.unique()
    first, last = torch.searchsorted(edges, spans.T.contiguous())
    limits = torch.tensor(thresholds, dtype=torch.float64, device=scores.device)
    # A mean of scores is not above all of them. Few labels are heard, and hours have many steps.
    heard = (scores.amax(dim=0).double() > limits - ROUNDING_SCORES).nonzero()[:, 0]
    segments = []
    for label in heard.tolist():
        moments = mean_over_windows(scores[:, label].double(), first, last, len(edges))
        area = torch.nn.functional.pad((moments * edges.diff()).cumsum(dim=0), (1, 0))
        turns = torch.nn.functional.pad((moments >= limits[label]).int(), (1, 1)).diff()
        starts, ends = (turns.eq(turn).nonzero()[:, 0] for turn in (1, -1))
        # As lists, which take much more memory, only what turns.
        columns = (values[places].tolist() for values in (edges, area) for places in (starts, ends))
        stretches = zip(*columns, strict=True)
        segments += [
            (start, end, label, score) for start, end, score in close_gaps(stretches, thresholds[label], max_gap)
        ]
    return sorted(segments, key=lambda segment: (segment[0], segment[2]))


def mean_over_windows(scores: torch.Tensor, first: torch.Tensor, last: torch.Tensor, num_edges: int) -> torch.Tensor:
    """Mean score of the windows that hold the time between one edge and the next, 0 where none does; (edges - 1,).

    Args:
        scores: Scores of each window, (windows,), float64.
        first: Edge at which each window starts, (windows,).
        last: Edge at which it ends, (windows,).
        num_edges: All edges.
    """
    counted = torch.stack((scores, torch.ones_like(scores)), dim=1)
    # Added where they start, taken off where they end.
    change = counted.new_zeros(num_edges, 2).index_add(0, first, counted).index_add(0, last, -counted)
    total, count = change.cumsum(dim=0)[:-1].unbind(dim=1)
    return total / count.clamp(min=1)


def close_gaps(
    stretches: Iterable[tuple[float, float, float, float]], threshold: float, max_gap: float
) -> list[tuple[float, float, float]]:
    """Join stretches of time as long as their mean score, gaps included, is not below the threshold.

    Args:
        stretches: Start and end in seconds, in order, and the integral of the score over time up to each.
        threshold: Lowest mean score.
        max_gap: Longest gap in seconds.

    Returns:
        Start, end and mean score of each.
    """
    joined = []
    for start, end, before, after in stretches:
        if joined and start - joined[-1][1] <= max_gap + ROUNDING_SECONDS:
            first, _, begun, _ = joined[-1]
            if (after - begun) / (end - first) >= threshold:
                joined[-1] = (first, end, begun, after)
                continue
        joined.append((start, end, before, after))
    return [(start, end, (after - before) / (end - start)) for start, end, before, after in joined]


class EventChange(NamedTuple):
    """An event that begins or ends.

    Args:
        kind: "begin" or "end".
        label: What sounds.
        seconds: When, since the stream began.
        score: At a beginning its score, at an end the highest since.
    """

    kind: str
    label: str
    seconds: float
    score: float


class EventTracker:
    """Events in the scores of a stream: each begins at a threshold, and ends below a lower one.

    Args:
        labels: Names in the order of the scores.
        thresholds: Score of each at which an event begins.
    """

    def __init__(self, labels: list[str], thresholds: Sequence[float]):
        self.labels, self.thresholds = labels, thresholds
        self.highest: dict[str, float] = {}

    def update(self, seconds: float, scores: torch.Tensor) -> list[EventChange]:
        """Take the scores (labels,) of one hop; gives the events that begin or end with them."""
        changes = []
        for label, threshold, score in zip(self.labels, self.thresholds, scores.tolist(), strict=True):
            if label in self.highest:
                if score < RELEASE * threshold:
                    changes.append(EventChange("end", label, seconds, self.highest.pop(label)))
                else:
                    self.highest[label] = max(score, self.highest[label])
            elif score >= threshold:
                self.highest[label] = score
                changes.append(EventChange("begin", label, seconds, score))
        return changes

    def finish(self, seconds: float) -> list[EventChange]:
        """End what still sounds, as the stream does."""
        changes = [EventChange("end", label, seconds, score) for label, score in self.highest.items()]
        self.highest = {}
        return changes
