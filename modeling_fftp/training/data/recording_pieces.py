"""Recordings with events as pieces of a bounded length, so that each is learned as long as it is."""

import itertools
from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from feature_extraction.events import cut_events, has_times, read_events

# How many crops a piece that trains is at most as long as. An epoch hears one crop of each.
CROPS = 3


class RecordingPieces(torch.utils.data.Dataset):
    """Equal pieces of recordings, each with the events in it; nothing is copied.

    Pieces that overlap by a crop are such that random crops of them begin anywhere in the recording. `is_timed` is
    whether it is known of all events when they sound.

    Args:
        recordings: "audio" and "labels", the events.
        lengths: Samples of each recording.
        piece_seconds: Longest piece.
        overlap_seconds: What two pieces share.
        sampling_rate: Of the sound, in Hz.
    """

    def __init__(
        self,
        recordings: Dataset,
        lengths: Sequence[int],
        piece_seconds: float,
        overlap_seconds: float,
        sampling_rate: int,
    ):
        self.recordings = recordings
        # A slice of a row in Arrow's format is read from disk alone.
        self._sound = recordings.select_columns("audio").with_format("arrow")
        self._places, self._events = [], []
        # Whole samples: in floats 1.001 s at 16 kHz is a little less than 16,016, and a clip of as many would be two.
        piece, overlap = (round(seconds * sampling_rate) for seconds in (piece_seconds, overlap_seconds))
        events = recordings.select_columns("labels").with_format(None)["labels"]
        self.is_timed = True
        for row, (length, clip) in enumerate(zip(lengths, map(read_events, events), strict=True)):
            self.is_timed &= all(map(has_times, clip))
            count = max(1, ceil((length - overlap) / (piece - overlap)))
            edges = np.linspace(0, length - overlap, count + 1).round().astype(int).tolist()
            places = [(start, end + overlap) for start, end in itertools.pairwise(edges)]
            self._places += [(row, start, end) for start, end in places]
            seconds = [(start / sampling_rate, end / sampling_rate) for start, end in places]
            self._events += cut_events(clip, seconds)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, start, end = self._places[index]
        samples = self._sound[row]["audio"][0].values.slice(start, end - start)
        return {"audio": samples.to_numpy(), "labels": self._events[index]}
