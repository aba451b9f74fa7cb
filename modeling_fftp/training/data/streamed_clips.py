"""Clips that are decoded when a batch needs them, in the workers of the loader, and are never written decoded."""

import copy
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Features
from torch.utils.data import Dataset as TorchDataset

from modeling_fftp.memory import give_back_freed_memory

from .clip_decoder import FACTS, PROBLEM, SOURCE, ClipDecoder
from .left_out import left_out_clip
from .parquet_rows import ParquetRows
from .row_group_sampler import RowGroupSampler
from .sampling import spread

logger = logging.getLogger(__name__)

# Clips that are decoded beforehand to estimate what all are like, and from how many places of the data they come.
SAMPLED_CLIPS, SAMPLED_PLACES = 512, 16
# Standard deviations by which the unusable clips that a worker meets may exceed their share.
DEVIATIONS = 3.0
# Batches after which freed memory goes back to the system: sound comes in many sizes, whose gaps would add up.
TRIMMED_BATCHES = 8


class StreamedClips(TorchDataset):
    """Clips of a split, decoded one batch at a time; those that cannot be are named in the log and left out.

    Args:
        source: Rows with undecoded sound.
        decoder: What to do with a row.
        rows: Numbers of the rows that are clips, in rising order.
        labels: Class index of each, (clips,), or a vector of 0 and 1, (clips, classes).
        largest_share: Share of the clips that may turn out to be unusable.

    Attributes:
        facts: What is known of some clips, by their row.
        may_repeat: Whether another clip may take the place of a batch of which none can be decoded. Where clips are
            measured, none counts twice.
    """

    def __init__(
        self,
        source: ParquetRows | Dataset,
        decoder: ClipDecoder,
        rows: np.ndarray,
        labels: np.ndarray,
        largest_share: float = 0.05,
    ):
        self.source, self.decoder, self.rows, self.largest_share = source, decoder, rows, largest_share
        self.facts: dict[int, dict[str, Any]] = {}
        self.may_repeat = True
        self.num_classes = labels.shape[1] if labels.ndim == 2 else None
        # Two million vectors of AudioSet fit into memory as bits.
        self._labels = labels if self.num_classes is None else np.packbits(labels.astype(bool), axis=1)
        self.batches, self.seen, self.unusable = 0, 0, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | str) -> Any:
        """A clip, or a column: the labels, or one of the source."""
        if key == "labels":
            return self.labels
        if isinstance(key, str):
            column = self.source[key]
            return [column[row] for row in self.rows.tolist()]
        result = self.examine(key)
        if result[PROBLEM] is not None:
            raise ValueError(f"row {self.rows[key]}: {result[PROBLEM]}")
        return {"audio": result["audio"], "labels": result["labels"]}

    def __getitems__(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Clips of a batch, as torch's loader asks for them, without those that cannot be decoded.

        Raises:
            ValueError: More clips than may be are unusable, or all.
        """
        self.batches += 1
        if self.batches % TRIMMED_BATCHES == 0:
            give_back_freed_memory()
        if clips := self._decode(places):
            return clips
        if not self.may_repeat:
            raise ValueError(
                f"none of the {len(places)} clips of a batch to measure on can be decoded; larger batches "
                "(--per_device_eval_batch_size) hold some that can"
            )
        # An empty batch would fail: the next clip takes its place.
        for step in range(1, len(self) + 1):
            if clips := self._decode([(places[-1] + step) % len(self)]):
                return clips
        raise ValueError(f"none of the {len(self)} clips can be decoded")

    def _decode(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Clips that can be decoded.

        Raises:
            ValueError: More clips than may be are unusable.
        """
        clips = []
        for place in places:
            self.seen += 1
            try:
                clips.append(self[place])
            except ValueError as error:
                logger.warning("A clip is left out: %s", error)
                self.unusable += 1
                # Every worker counts what it meets alone: more than chance brings where the share is just allowed.
                expected = self.largest_share * max(self.seen, SAMPLED_CLIPS)
                if self.unusable > expected + DEVIATIONS * expected**0.5:
                    raise ValueError(
                        f"{self.unusable} of {self.seen} clips cannot be used, the last since {error}. At most "
                        f"{self.largest_share:.1%} may be left out"
                    ) from error
        return clips

    @property
    def features(self) -> Features:
        """Types of the columns of the source."""
        return self.source.features

    @property
    def labels(self) -> np.ndarray:
        """Class indices, (clips,), or vectors of 0 and 1, (clips, classes)."""
        if self.num_classes is None:
            return self._labels
        return np.unpackbits(self._labels, axis=1, count=self.num_classes)

    def examine(self, place: int) -> dict[str, Any]:
        """Let the decoder look at a clip."""
        return self.decoder(self.source[int(self.rows[place])])

    def select(self, places: Sequence[int]) -> "StreamedClips":
        """Some of the clips, in the order of the source; both know the same facts."""
        places, chosen = np.sort(np.asarray(places, dtype=np.intp)), copy.copy(self)
        chosen.rows, chosen._labels = self.rows[places], self._labels[places]
        chosen.batches = chosen.seen = chosen.unusable = 0
        return chosen

    def look(self, at_all: bool = False) -> tuple["StreamedClips", list[dict[str, Any]]]:
        """Decode clips from several places to know what all are like.

        Args:
            at_all: Decode all clips.

        Returns:
            The clips without those that turned out to be unusable, and these, as `decode_dataset` names them.
        """
        unusable, problems = [], []
        for place in range(len(self)) if at_all else self._sampled_places():
            row, result = int(self.rows[place]), self.examine(place)
            if result[PROBLEM] is None:
                self.facts[row] = {"source": result[SOURCE] or f"row {row}", **result[FACTS]}
            else:
                unusable.append(place)
                problems.append(left_out_clip(row, result[SOURCE], result[PROBLEM]))
        if isinstance(self.source, ParquetRows):
            self.source.forget()
        return self.select(np.setdiff1d(np.arange(len(self)), unusable)), problems

    def _sampled_places(self) -> list[int]:
        """Places of clips that stand for all: some from each of some row groups."""
        groups = self.groups or np.array_split(np.arange(len(self)), min(SAMPLED_PLACES, len(self)))
        chosen = [groups[index] for index in spread(len(groups), SAMPLED_PLACES)]
        count = max(1, SAMPLED_CLIPS // len(chosen))
        return np.concatenate([group[spread(len(group), count)] for group in chosen]).tolist()

    @property
    def sample(self) -> "StreamedClips":
        """The clips that were looked at."""
        return self.select([place for place, row in enumerate(self.rows.tolist()) if row in self.facts])

    @property
    def groups(self) -> list[np.ndarray]:
        """Places of the clips of each row group; none where the source has no row groups."""
        if not isinstance(self.source, ParquetRows):
            return []
        ends = [group.stop for group in self.source.groups]
        parts = np.split(np.arange(len(self)), np.searchsorted(self.rows, ends))
        return [part for part in parts if len(part)]

    def sampler(self, batch_size: int, streams: int, seed: int) -> RowGroupSampler | None:
        """An order that reads each row group once; None where any order does."""
        groups = self.groups
        if not groups:
            return None
        return RowGroupSampler(groups, batch_size, streams, self.source.groups_in_memory, seed)
