"""How well events are found: F1 with collars, and the polyphonic sound detection score (PSDS)."""

import itertools
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from feature_extraction.events import Event, cut_events
from modeling_fftp.events_fftp import ROUNDING_SECONDS

logger = logging.getLogger(__name__)

# Of PSDS, as in DCASE 2021 to 2023, task 4 (Bilen et al. 2020): tolerance criteria and weights of both scenarios.
SCENARIOS = {
    "psds1": {"dtc_threshold": 0.7, "gtc_threshold": 0.7, "cttc_threshold": None, "alpha_ct": 0.0, "alpha_st": 1.0},
    "psds2": {"dtc_threshold": 0.1, "gtc_threshold": 0.1, "cttc_threshold": 0.3, "alpha_ct": 0.5, "alpha_st": 1.0},
}
MAX_FALSE_ALARMS = 100.0
# Its memory grows with a recording's steps times its events: an hour of notes takes some 20 GB.
STRETCH_SECONDS = 60.0


@dataclass(frozen=True)
class Collars:
    """How near an event must be to be right.

    Args:
        onset: Greatest distance of the beginnings, in seconds.
        offset: Collar of the ends, in seconds.
        offset_share: Collar of the ends as a share of the true event's length, where that is more.
    """

    onset: float = 0.2
    offset: float = 0.2
    offset_share: float = 0.2


@dataclass
class Recording:
    """A model's answer about a recording, and what is true.

    Args:
        scores: Score of each step and label, (steps, labels).
        spans: Start and end of each step in seconds, (steps, 2).
        events: The true events, labels by name.
        seconds: Length.
    """

    scores: torch.Tensor
    spans: torch.Tensor
    events: list[Event]
    seconds: float


def count_hits(true: np.ndarray, found: np.ndarray, collars: Collars) -> int:
    """Most pairs of a true and a found event of one label, (events, 2) each, in seconds, that are near enough."""
    if not len(true) or not len(found):
        return 0
    # Of each true event those whose beginnings are near: few, in however long a sound.
    found = found[found[:, 0].argsort()]
    reach = collars.onset + ROUNDING_SECONDS
    first = np.searchsorted(found[:, 0], true[:, 0] - reach, side="left")
    count = np.searchsorted(found[:, 0], true[:, 0] + reach, side="right") - first
    rows = np.repeat(np.arange(len(true)), count)
    columns = np.arange(count.sum()) + np.repeat(first - (count.cumsum() - count), count)
    most = np.maximum(collars.offset, collars.offset_share * (true[rows, 1] - true[rows, 0])) + ROUNDING_SECONDS
    is_near = np.abs(true[rows, 1] - found[columns, 1]) <= most
    pairs = np.ones(is_near.sum(), dtype=bool), (rows[is_near], columns[is_near])
    return int((maximum_bipartite_matching(csr_array(pairs, shape=(len(true), len(found)))) >= 0).sum())


def times_of(events: Sequence[Event], label: str) -> np.ndarray:
    """Onset and offset of the events of a label, (events, 2)."""
    return np.array([event[:2] for event in events if event[2] == label], dtype=float).reshape(-1, 2)


def event_f1(
    true: Sequence[Sequence[Event]], found: Sequence[Sequence[Event]], labels: Sequence[str], collars: Collars
) -> dict[str, float | dict[str, float | None] | None]:
    """F1 of the events of recordings.

    Returns:
        "event_f1_micro", over all events; "event_f1_macro", the mean over the labels that have any; and "per_class".
    """
    counts = np.zeros((len(labels), 3), dtype=int)
    for one, other in zip(true, found, strict=True):
        for row, label in zip(counts, labels, strict=True):
            pair = times_of(one, label), times_of(other, label)
            row += (count_hits(*pair, collars), *map(len, pair))
    per_class = {
        label: 2 * hits / (real + said) if real else None
        for label, (hits, real, said) in zip(labels, counts.tolist(), strict=True)
    }
    known = [value for value in per_class.values() if value is not None]
    hits, real, said = counts.sum(axis=0).tolist()
    return {
        "event_f1_micro": 2 * hits / (real + said) if real else None,
        "event_f1_macro": float(np.mean(known)) if known else None,
        "per_class": per_class,
    }


class WritableFrame(pd.DataFrame):
    """A table whose arrays may be written to: sed_scores_eval 0.0.4 asks for that, and pandas 3 gives others."""

    @property
    def _constructor(self) -> type["WritableFrame"]:
        return WritableFrame

    def to_numpy(self, *args, **kwargs) -> np.ndarray:
        """A copy."""
        return super().to_numpy(*args, **kwargs).copy()


def psds(recordings: Sequence[Recording], labels: Sequence[str]) -> dict[str, float]:
    """PSDS of both scenarios by sed_scores_eval, over all thresholds and over the labels that have events.

    Empty where that is not installed, or there are no events. Events of one label that meet or overlap are one. Long
    recordings are measured in stretches, see `cut_between_events`.
    """
    try:
        # Here, since it brings half a second of imports and a warning about one of them.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            from sed_scores_eval.base_modules.scores import create_score_dataframe
            from sed_scores_eval.intersection_based import psds as measure_psds
    except ImportError as error:
        logger.info("PSDS is not measured: pip install sed_scores_eval 'setuptools<81' (%s)", error)
        return {}
    known = [
        index for index, label in enumerate(labels) if any(len(times_of(one.events, label)) for one in recordings)
    ]
    if not known:
        return {}
    # Plain names: it cannot take all that a label, or a file, may be called.
    columns = {labels[index]: f"label_{index:06d}" for index in known}
    scores, truth, seconds = {}, {}, {}
    stretches = [stretch for recording in recordings for stretch in cut_between_events(recording, STRETCH_SECONDS)]
    for number, recording in enumerate(stretches):
        name = f"recording_{number:06d}"
        edges = np.append(recording.spans[:, 0].numpy(), recording.spans[-1, 1].item())
        values = recording.scores[:, known].double().numpy()
        scores[name] = WritableFrame(create_score_dataframe(values, edges, [*columns.values()]))
        truth[name] = [
            (onset, offset, column)
            for label, column in columns.items()
            for onset, offset in join_times(times_of(recording.events, label))
        ]
        seconds[name] = recording.seconds
    # One label has no others to be taken for.
    alone = {"cttc_threshold": None, "alpha_ct": 0.0} if len(known) == 1 else {}
    return {
        name: float(measure_psds(scores, truth, seconds, max_efpr=MAX_FALSE_ALARMS, **settings | alone)[0])
        for name, settings in SCENARIOS.items()
    }


def cut_between_events(recording: Recording, most_seconds: float) -> list[Recording]:
    """Stretches of a recording of at most so many seconds, cut where a step begins and no event sounds.

    Where something sounds all that time, the events are cut too.
    """
    starts = recording.spans[:, 0].numpy()
    onsets, offsets = (np.sort([event[end] for event in recording.events]) for end in (0, 1))
    is_silent = np.searchsorted(onsets, starts, side="left") == np.searchsorted(offsets, starts, side="right")
    edges = [0]
    while recording.seconds - starts[edges[-1]] > most_seconds and edges[-1] + 1 < len(starts):
        first, last = edges[-1] + 1, int(np.searchsorted(starts, starts[edges[-1]] + most_seconds, side="right")) - 1
        silent = np.flatnonzero(is_silent[first : last + 1])
        edges.append(first + int(silent[-1]) if len(silent) else max(first, last))
    if len(edges) == 1:
        return [recording]
    steps = [*itertools.pairwise([*edges, len(starts)])]
    times = [*itertools.pairwise([*starts[edges].tolist(), recording.seconds])]
    return [
        Recording(recording.scores[first:last], recording.spans[first:last] - start, events, end - start)
        for (first, last), (start, end), events in zip(steps, times, cut_events(recording.events, times), strict=True)
    ]


def join_times(times: np.ndarray) -> list[list[float]]:
    """Events (events, 2) in order, of which those that meet or overlap are one."""
    joined: list[list[float]] = []
    for onset, offset in sorted(times.tolist()):
        if joined and onset <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], offset)
        else:
            joined.append([onset, offset])
    return joined
