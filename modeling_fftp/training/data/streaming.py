"""Clips that are decoded when a batch needs them, in the workers of the loader, and are never written decoded."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, load_dataset_builder
from datasets.packaged_modules.parquet.parquet import Parquet
from torch.utils.data import Dataset as TorchDataset
from transformers import TrainingArguments

from modeling_fftp import FFTPConfig
from modeling_fftp.memory import give_back_freed_memory
from modeling_fftp.sound_file_fftp import is_sound, walk

from .arguments import DataArguments
from .clips import FACTS, PROBLEM, SAMPLING_RATE, SOURCE, ClipDecoder, report_left_out, spread
from .decoders import build_decoder, decoders_of, find_roles, roles_to_read
from .held_out import hold_out
from .hub_source import find_builder, find_converted
from .loading import Clips
from .parquet_rows import ParquetRows
from .report import SplitFacts, count_classes, refuse_unusable, write_report
from .row_group_sampler import RowGroupSampler
from .sources import (
    USUAL,
    Columns,
    features_of,
    find_shards,
    lists_events,
    load_splits,
    read_names,
    refuse_unread,
    split_column,
)
from .splits import role_of

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
        facts: What is known of some clips, by their row.
    """

    def __init__(
        self,
        source: ParquetRows | Dataset,
        decoder: ClipDecoder,
        rows: np.ndarray,
        labels: np.ndarray,
        largest_share: float = 0.05,
        facts: dict[int, dict[str, Any]] | None = None,
    ):
        self.source, self.decoder, self.rows, self.largest_share = source, decoder, rows, largest_share
        self.facts = facts or {}
        self.num_classes = labels.shape[1] if labels.ndim == 2 else None
        # Two million vectors of AudioSet fit into memory as bits.
        self._labels = labels if self.num_classes is None else np.packbits(labels.astype(bool), axis=1)
        self.batches, self.seen, self.unusable = 0, 0, 0
        # Where clips are measured, none counts twice.
        self.may_repeat = True

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
            ValueError: More clips than may be are unusable.
        """
        self.batches += 1
        if self.batches % TRIMMED_BATCHES == 0:
            give_back_freed_memory()
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
        # An empty batch would fail: the next clip takes its place.
        if not clips and not self.may_repeat:
            raise ValueError(
                f"none of the {len(places)} clips of a batch to measure on can be decoded; larger batches "
                "(--per_device_eval_batch_size) hold some that can"
            )
        return clips or self.__getitems__([(places[-1] + 1) % len(self)])

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
        """Some of the clips, in the order of the source."""
        places = np.sort(np.asarray(places))
        rows, labels = self.rows[places], self.labels[places]
        return StreamedClips(self.source, self.decoder, rows, labels, self.largest_share, self.facts)

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
                problems.append({"row": row, "source": result[SOURCE] or f"row {row}", "problem": result[PROBLEM]})
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


def open_splits(
    source: str,
    config_name: str | None = None,
    data_dir: str | None = None,
    revision: str | None = None,
    columns: Columns = USUAL,
) -> dict[str, ParquetRows | Dataset]:
    """Splits of a data set by their names, of which nothing is copied; otherwise like `load_splits`."""
    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() == ".parquet" and not lists_events(features_of(path), columns):
        rows = ParquetRows([str(path)])
        if len(roles_in_column(rows)) < 2:
            return {"train": rows}
    if path.exists():
        shards = path.is_dir() and find_shards(path)
        if not shards or any(map(is_sound, walk(path))):
            return load_splits(source, config_name, data_dir, revision, columns)
        if not (config_name or data_dir):
            refuse_unread(path, shards)
        builder = load_dataset_builder(str(path), config_name, data_dir=data_dir)
    else:
        builder = find_builder(source, config_name, data_dir, revision)
        if not isinstance(builder, Parquet) and revision is None:
            builder = find_converted(source, config_name, data_dir)
    if not isinstance(builder, Parquet):
        raise ValueError(f"{source} is not a data set of parquet files; without --streaming it may load")
    files = builder.config.data_files
    splits = {str(name): ParquetRows(paths, builder.info.features) for name, paths in files.items()}
    if len(splits) == 1:
        refuse_split_column(*splits.values())
    return splits


def roles_in_column(rows: ParquetRows) -> set[str]:
    """The roles of the splits that a column names, if there is one."""
    column = split_column(rows.column_names)
    return {role for name in read_names(rows, column) if (role := role_of(str(name)))} if column is not None else set()


def refuse_split_column(rows: ParquetRows) -> None:
    """Stop where a column would divide the only split, since clips to test on would train."""
    roles = roles_in_column(rows)
    if len(roles) > 1:
        raise ValueError(
            f"the column {split_column(rows.column_names)!r} divides the data into {sorted(roles)}, which --streaming "
            "does not; drop it, or give each split files of its own"
        )


def stream_clips(
    arguments: DataArguments,
    training: TrainingArguments,
    config: FFTPConfig | None = None,
    check_classes: Callable[[Sequence[str]], None] = lambda classes: None,
    sampling_rate: int = SAMPLING_RATE,
) -> Clips:
    """Like `load_clips`, but labels alone are read, and some clips decoded to tell what all are like."""
    splits, names = find_roles(
        arguments, ["train"] if training.do_train else ["validation", "test", "train"], open_splits
    )
    decoder = build_decoder(arguments, next(iter(splits.values())), config, sampling_rate)
    check_classes([*decoder.labels.values()])
    splits = {role: splits[role] for role in roles_to_read(splits, arguments, training)}
    clips, left_out = {}, {}
    for role, own_decoder in decoders_of(splits, decoder).items():
        clips[role], left_out[role] = read_clips(splits[role], own_decoder, arguments.max_left_out)
    labelled = {role: len(split) / (len(split) + len(left_out[role])) for role, split in clips.items()}
    # Where clips of each role come from: those that are held out, from those to train on.
    source_of = {role: role for role in clips} | ({} if "validation" in clips else {"validation": "train"})
    clips = hold_out(clips, arguments, training.seed)
    if arguments.max_train_samples and "train" in clips:
        order = np.random.default_rng(training.seed).permutation(len(clips["train"]))
        clips["train"] = clips["train"].select(order[: arguments.max_train_samples])
    looked, broken = dict.fromkeys(left_out, 0), dict.fromkeys(left_out, 0)
    for role, split in clips.items():
        # Processes gather as many results each: a clip that only one of them leaves out would end the evaluation.
        clips[role], unusable = split.look(at_all=role != "train" and training.world_size > 1)
        clips[role].may_repeat = role == "train"
        left_out[source_of[role]] += unusable
        broken[source_of[role]] += len(unusable)
        looked[source_of[role]] += len(unusable) + len(clips[role].sample)
    # All labels were read, but only some clips decoded.
    shares = {role: 1 - labelled[role] * (1 - broken[role] / looked[role]) for role in left_out}
    classes = [*decoder.labels.values()]
    facts = {role: find_sampled_facts(split, classes, left_out.get(role, [])) for role, split in clips.items()}
    with training.main_process_first(desc="report"):
        report_left_out(left_out, shares, arguments.max_left_out, Path(training.output_dir, "left_out_clips.csv"))
        write_report(facts, arguments.dataset_name, training, sampling_rate)
        refuse_unusable(facts, decoder.is_multi_label)
    lengths = {
        role: [round(seconds * decoder.sampling_rate) for seconds in split.values("seconds")]
        for role, split in facts.items()
    }
    counts = {role: len(split) for role, split in left_out.items() if split}
    sample = clips["train"].sample if training.do_train else None
    return Clips(
        clips,
        classes,
        decoder.is_multi_label,
        counts,
        lengths,
        sample,
        sampling_rate=decoder.sampling_rate,
        split_names={role: names.get(role) for role in clips},
    )


def read_clips(
    source: ParquetRows | Dataset, decoder: ClipDecoder, largest_share: float
) -> tuple[StreamedClips, list[dict[str, Any]]]:
    """The clips whose labels can be used, and those that are left out, as `decode_dataset` names them."""
    rows, labels, left_out = [], [], []
    for row, label in enumerate(source[decoder.label_column][:]):
        try:
            encoded = decoder.encode(label)
        except ValueError as error:
            left_out.append({"row": row, "source": f"row {row}", "problem": str(error)})
            continue
        if encoded is not None:
            rows.append(row)
            labels.append(encoded)
    if not rows:
        problem = left_out[0]["problem"] if left_out else "their classes are excluded"
        raise ValueError(f"no clips are left of {len(source)}: {problem}")
    return StreamedClips(source, decoder, np.array(rows), np.stack(labels), largest_share), left_out


def find_sampled_facts(clips: StreamedClips, classes: Sequence[str], left_out: list[dict[str, Any]]) -> SplitFacts:
    """What is known of clips: classes of all, and facts of those that were looked at."""
    rows = [clips.facts[row] for row in clips.rows.tolist() if row in clips.facts]
    return SplitFacts(count_classes(clips.labels, classes), rows, left_out, len(clips))
