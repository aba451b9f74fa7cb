"""From scores of steps to events: a threshold and a median filter per label, chosen on held-out recordings."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import pad

from modeling_fftp import FFTPConfig
from modeling_fftp.events_fftp import filter_lengths, find_segments, median_filter
from modeling_fftp.scores_fftp import label_names, label_thresholds
from modeling_fftp.times_fftp import frame_seconds

from .metrics import Collars, Recording, count_hits, times_of

# Lengths of the median filter in steps, and how many thresholds, of which recordings choose.
FILTER_STEPS = (1, 3, 5, 7, 11, 15, 21)
NUM_THRESHOLDS = 65
# Logits of the lowest and the highest threshold at most.
MAX_LOGIT = 6.0
# Score of what lies between two recordings, below every threshold.
SILENCE = -1.0


def fit_postprocessing(
    recordings: Sequence[Recording], config: FFTPConfig, collars: Collars
) -> tuple[dict[str, float], dict[str, float]]:
    """The threshold and the seconds of the filter with the highest event F1 of each label that has events.

    Of equal ones the shortest filter counts, and then the middle of the thresholds. A label of which no event is found
    has none, which stands for `DEFAULT_THRESHOLD`.
    """
    step = config.time_stride * frame_seconds(config.sampling_rate)[1]
    shifts, spans = lay_end_to_end(recordings, collars)
    thresholds, seconds = {}, {}
    for index, label in config.id2label.items():
        true = [times_of(recording.events, label) + shift for recording, shift in zip(recordings, shifts, strict=True)]
        true = np.concatenate(true)
        if not len(true):
            continue
        candidates = spread_thresholds(torch.cat([recording.scores[:, index] for recording in recordings]))
        best = 0.0
        for length in FILTER_STEPS:
            filtered = [median_filter(recording.scores[:, [index]], [length])[:, 0] for recording in recordings]
            scores = torch.cat([pad(column, (0, 1), value=SILENCE) for column in filtered])
            values = [_f1(true, find_stretches(scores, spans, threshold), collars) for threshold in candidates]
            if max(values) > best:
                best = max(values)
                places = np.flatnonzero(np.array(values) == best)
                thresholds[label] = candidates[places[len(places) // 2]]
                seconds[label] = length * step if length > 1 else 0.0
    return thresholds, seconds


def lay_end_to_end(recordings: Sequence[Recording], collars: Collars) -> tuple[list[float], torch.Tensor]:
    """Put recordings one after another, so far apart that no event is near one of another.

    Returns:
        When each begins, in seconds, and the spans of all steps, (steps, 2), with one of silence after each recording.
    """
    shifts, spans, shift = [], [], 0.0
    for recording in recordings:
        end = max(recording.spans[-1, 1].item(), *(offset for _, offset, _ in recording.events), 0.0)
        shifts.append(shift)
        spans += [recording.spans + shift, torch.full((1, 2), shift + end, dtype=recording.spans.dtype)]
        shift += end + 2 * collars.onset + 1.0
    return shifts, torch.cat(spans)


def spread_thresholds(scores: torch.Tensor) -> list[float]:
    """Thresholds from the lowest to the highest score of a label, evenly in logits.

    They follow the scores, since those of a label that is learned without times can lie within a hundredth.
    """
    low, high = scores.double().logit().clamp(-MAX_LOGIT, MAX_LOGIT).aminmax()
    return torch.linspace(low, high, NUM_THRESHOLDS, dtype=torch.float64).sigmoid().tolist()


def _f1(true: np.ndarray, found: np.ndarray, collars: Collars) -> float:
    """Event F1 of one label."""
    return 2 * count_hits(true, found, collars) / (len(found) + len(true))


def find_stretches(scores: torch.Tensor, spans: torch.Tensor, threshold: float) -> np.ndarray:
    """Start and end of each stretch of steps whose scores (steps,) are not below a threshold, (stretches, 2)."""
    edges = np.diff((scores >= threshold).numpy().astype(int), prepend=0, append=0)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    return np.stack((spans[starts, 0].numpy(), spans[ends, 1].numpy()), axis=1)


def find_events(recording: Recording, config: FFTPConfig) -> list[tuple[float, float, str]]:
    """Events of a recording, as the pipeline "audio-tagging" finds them."""
    names = label_names(config)
    scores = median_filter(recording.scores, filter_lengths(config))
    segments = find_segments(scores, recording.spans, label_thresholds(names, config.thresholds))
    return [(start, end, names[index]) for start, end, index, _ in segments]
