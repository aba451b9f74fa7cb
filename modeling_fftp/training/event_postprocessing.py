"""From scores of steps to events: a threshold and a median filter per label, chosen on held-out recordings."""

from collections.abc import Sequence

import numpy as np
import torch

from modeling_fftp import FFTPConfig
from modeling_fftp.audio_tagging_fftp import find_segments
from modeling_fftp.events_fftp import filter_lengths, frame_seconds, median_filter
from modeling_fftp.loss_fftp import label_names, label_thresholds

from .event_metrics import Collars, Recording, count_hits, times_of

# Lengths of the median filter in steps, and how many thresholds, of which recordings choose.
FILTER_STEPS = (1, 3, 5, 7, 11, 15, 21)
NUM_THRESHOLDS = 65
# Logits of the lowest and the highest threshold at most.
MAX_LOGIT = 6.0


def fit_postprocessing(
    recordings: Sequence[Recording], config: FFTPConfig, collars: Collars
) -> tuple[dict[str, float], dict[str, float]]:
    """The threshold and the seconds of the filter with the highest event F1 of each label that has events.

    Of equal ones the shortest filter counts, and then the middle of the thresholds. A label of which no event is found
    has none, which stands for `DEFAULT_THRESHOLD`.
    """
    step = config.time_stride * frame_seconds(config.sampling_rate)[1]
    thresholds, seconds = {}, {}
    for index, label in config.id2label.items():
        true = [times_of(recording.events, label) for recording in recordings]
        if not any(map(len, true)):
            continue
        candidates = spread_thresholds(torch.cat([recording.scores[:, index] for recording in recordings]))
        best = 0.0
        for length in FILTER_STEPS:
            filtered = [median_filter(recording.scores[:, [index]], [length])[:, 0] for recording in recordings]
            values = [_f1(true, filtered, recordings, threshold, collars) for threshold in candidates]
            if max(values) > best:
                best = max(values)
                places = np.flatnonzero(np.array(values) == best)
                thresholds[label] = candidates[places[len(places) // 2]]
                seconds[label] = length * step if length > 1 else 0.0
    return thresholds, seconds


def spread_thresholds(scores: torch.Tensor) -> list[float]:
    """Thresholds from the lowest to the highest score of a label, evenly in logits.

    They follow the scores, since those of a label that is learned without times can lie within a hundredth.
    """
    low, high = scores.double().logit().clamp(-MAX_LOGIT, MAX_LOGIT).aminmax()
    return torch.linspace(low, high, NUM_THRESHOLDS, dtype=torch.float64).sigmoid().tolist()


def _f1(
    true: Sequence[np.ndarray],
    scores: Sequence[torch.Tensor],
    recordings: Sequence[Recording],
    threshold: float,
    collars: Collars,
) -> float:
    """Event F1 of one label at a threshold."""
    hits = said = 0
    for events, column, recording in zip(true, scores, recordings, strict=True):
        found = find_stretches(column, recording.spans, threshold)
        hits += count_hits(events, found, collars)
        said += len(found)
    return 2 * hits / (said + sum(map(len, true)))


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
