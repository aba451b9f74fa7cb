"""Sound without labels: every recording of a folder, a table or a Hub data set, cut to pieces of a bounded length."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Audio, Dataset, Features, List, Value, concatenate_datasets
from transformers import TrainingArguments

import modeling_fftp
from feature_extraction.log_mel_fftp import window_length
from modeling_fftp.audio_stream_fftp import read_audio
from modeling_fftp.sound_folders import is_sound, walk

from .arguments import MAX_SECONDS, SAMPLING_RATE, SourceArguments
from .clip_decoder import PROBLEM, SOURCE, locate
from .decoding import WRITER_BATCH, cache_of_files, clip_lengths
from .file_names import as_text
from .left_out import left_out_clip, report_left_out
from .sampling import spread
from .sources import (
    FOLDER,
    SAVED,
    Columns,
    add_folders,
    base_folder,
    find_column,
    find_folder,
    find_shards,
    load_splits,
    read_names,
)
from .splits import role_in

logger = logging.getLogger(__name__)

# Recordings that another step is given as a sample.
SAMPLED_RECORDINGS = 512
# Of the recording that a piece comes from.
ROW = "__row__"


@dataclass
class SoundArguments(SourceArguments):
    """Where sound without labels comes from, and what is done to it."""

    dataset_name: str | None = field(
        default=None, metadata={"help": "Folder of sound or parquet files at any depth, table, or Hub id."}
    )
    validation_fraction: float = field(
        default=0.05, metadata={"help": "Share of the recordings to measure on where there is no validation split."}
    )
    max_seconds: float = field(default=MAX_SECONDS, metadata={"help": "Length of the crops that are learned."})
    gain: float = field(default=0.1, metadata={"help": "Largest offset in normalised log units; 0.1 is about 4 dB."})


@dataclass
class Pieces:
    """Sound to learn and to measure on.

    Args:
        splits: Pieces with `audio`, float32 waveforms (samples,), by role: "train" and "validation".
        lengths: Samples of each piece, by role.
        left_out: Number of recordings of each role that cannot be used.
        sampling_rate: Rate of the waveforms in Hz.
    """

    splits: dict[str, Dataset]
    lengths: dict[str, list[int]]
    left_out: dict[str, int]
    sampling_rate: int

    @property
    def longest_seconds(self) -> float:
        """Length of the longest piece to learn."""
        return max(self.lengths["train"]) / self.sampling_rate

    def hours(self, role: str) -> float:
        """Length of all pieces of a role."""
        return sum(self.lengths[role]) / self.sampling_rate / 3600


@dataclass
class RecordingCutter:
    """Decodes recordings and cuts each into equal pieces.

    Args:
        audio_column: Column of undecoded audio or of paths.
        max_seconds: Longest piece.
        sampling_rate: Wanted rate in Hz.
        folder: What relative paths start from.
        version: Version of this package: what another one decoded is not taken from the cache.
    """

    audio_column: str
    max_seconds: float
    sampling_rate: int
    folder: Path = Path()
    version: str = getattr(modeling_fftp, "__version__", "")

    features = Features(
        {"audio": List(Value("float32")), ROW: Value("int64"), SOURCE: Value("string"), PROBLEM: Value("string")}
    )

    def __call__(self, batch: dict[str, list]) -> dict[str, list]:
        """Pieces of a batch of recordings, or one empty piece and its problem where a recording cannot be read."""
        pieces = {name: [] for name in self.features}
        for row, source in zip(batch[ROW], batch[self.audio_column], strict=True):
            source = locate(source, self.folder)
            name = source.get("path") if isinstance(source, dict) else source
            for sound, problem in self._cut(source):
                pieces["audio"].append(sound)
                pieces[ROW].append(row)
                pieces[SOURCE].append(name if isinstance(name, str) else None)
                pieces[PROBLEM].append(problem)
        return pieces

    def _cut(self, source: Any) -> list[tuple[np.ndarray, str | None]]:
        try:
            if source is None:
                raise ValueError("no sound")
            waveform = read_audio(source, self.sampling_rate)
        except ValueError as error:
            return [(np.zeros(0, dtype=np.float32), str(error))]
        if not np.any(waveform):
            return [(np.zeros(0, dtype=np.float32), "silence: every sample is 0")]
        if len(waveform) < window_length(self.sampling_rate):
            return [(np.zeros(0, dtype=np.float32), f"{len(waveform)} samples: shorter than one frame of 25 ms")]
        count = ceil(len(waveform) / round(self.max_seconds * self.sampling_rate))
        return [(piece, None) for piece in np.array_split(waveform, count)]


def load_pieces(
    arguments: SoundArguments,
    piece_seconds: float,
    training: TrainingArguments,
    sampling_rate: int = SAMPLING_RATE,
) -> Pieces:
    """Decode all recordings, and set some apart to measure on.

    Splits for testing are left alone. Measured on are the recordings of `validation_value` and those of splits for
    validation, or without either a share that the seed draws.

    Args:
        arguments: Which sound.
        piece_seconds: Longest piece.
        training: Its seed draws the share; unusable recordings are named in its `output_dir`.
        sampling_rate: Rate in Hz that sound is resampled to.

    Raises:
        ValueError: No sound to learn, or more unusable recordings than `max_left_out`.
    """
    parts: dict[str, list[Dataset]] = {}
    num_recordings = 0
    folder = base_folder(arguments.dataset_name, arguments.dataset_data_dir)
    for role, recordings in assign_roles(number(find_recordings(arguments)), arguments, training.seed):
        column = audio_column(recordings, arguments.audio_column_name)
        cutter = RecordingCutter(column, piece_seconds, sampling_rate, folder)
        pieces = recordings.map(
            cutter,
            batched=True,
            batch_size=1,
            remove_columns=recordings.column_names,
            features=cutter.features,
            num_proc=arguments.num_proc,
            writer_batch_size=WRITER_BATCH,
            desc="Decoding",
            **cache_of_files(recordings, cutter, []),
        )
        parts.setdefault(role, []).append(pieces)
        num_recordings += len(recordings)
    splits, left_out = {}, {}
    for role, pieces in parts.items():
        splits[role], left_out[role] = leave_out_unusable(concatenate_datasets(pieces))
    sizes = {role: len(split) for role, split in splits.items()}
    # One limit for all: a few recordings to measure on are too few for a share of their own.
    everything = [clip for clips in left_out.values() for clip in clips]
    share = len(everything) / num_recordings
    report_left_out({"all": everything}, {"all": share}, arguments.max_left_out, training)
    if not splits.get("train"):
        raise ValueError(f"no sound to learn in {arguments.dataset_name}; found {sizes}")
    lengths = {role: clip_lengths(split) for role, split in splits.items()}
    found = Pieces(splits, lengths, {role: len(clips) for role, clips in left_out.items() if clips}, sampling_rate)
    for role, size in sizes.items():
        logger.info("%s: %d pieces, %.2f hours", role, size, found.hours(role))
    return found


def leave_out_unusable(pieces: Dataset) -> tuple[Dataset, list[dict[str, Any]]]:
    """The pieces that can be used, and the others as `report_left_out` names them."""
    rows, sources, problems = pieces[ROW][:], pieces[SOURCE][:], pieces[PROBLEM][:]
    left_out = [
        left_out_clip(row, source, problem)
        for row, source, problem in zip(rows, sources, problems, strict=True)
        if problem is not None
    ]
    whole = [row for row, problem in enumerate(problems) if problem is None]
    return pieces.select(whole).select_columns("audio").with_format("numpy"), left_out


def find_recordings(arguments: SoundArguments) -> list[tuple[str | None, Dataset]]:
    """Recordings that are not decoded, with the role of their split if that has one; those to test on are left alone.

    Raises:
        ValueError: There are no recordings.
    """
    path = Path(arguments.dataset_name).expanduser()
    if path.is_dir() and not any((path / name).is_file() for name in SAVED):
        found = list(_walk(find_folder(path, arguments.dataset_data_dir), arguments.audio_column_name))
    else:
        splits = load_splits(
            arguments.dataset_name,
            arguments.dataset_config_name,
            arguments.dataset_data_dir,
            arguments.dataset_revision,
            Columns(audio=arguments.audio_column_name),
        )
        found = [(role_in(str(name)), split) for name, split in splits.items()]
    if not found:
        raise ValueError(f"no sound in {path}: no files that libsndfile reads, and no parquet files of sound")
    tested = sum(len(recordings) for role, recordings in found if role == "test")
    if tested:
        logger.warning("%d recordings of test splits are not used", tested)
    kept = [(role, recordings) for role, recordings in found if role != "test"]
    if not any(len(recordings) for _, recordings in kept):
        raise ValueError(f"no sound in {path} but in splits for testing, which are not used")
    return kept


def number(parts: list[tuple[str | None, Dataset]]) -> list[tuple[str | None, Dataset]]:
    """The recordings of all parts with their rows in the data set, which name those that have no path."""
    numbered, start = [], 0
    for role, table in parts:
        numbered.append((role, table.add_column(ROW, np.arange(start, start + len(table)))))
        start += len(table)
    return numbered


def audio_column(table: Dataset, wanted: str | None) -> str:
    """The column of sound: the wanted one where this part of a folder has it, and else found as usual.

    Raises:
        ValueError: There is no column of sound.
    """
    return find_column(table, "audio", wanted if wanted in table.column_names else None)


def _walk(folder: Path, wanted: str | None) -> Iterator[tuple[str | None, Dataset]]:
    """The sound below a folder, by the role that a folder's name, or the name of a parquet file, gives it."""
    files, found = [*walk(folder)], {}
    for file in files:
        if is_sound(file):
            parents = file.relative_to(folder).parts[:-1]
            role = next((role for part in parents if (role := role_in(part))), None)
            name, problem = as_text(file.absolute())
            if problem is not None:
                logger.warning("%s is passed over: %s", name, problem)
                continue
            found.setdefault(role, []).append(name)
    for role, names in found.items():
        yield role, Dataset.from_dict({"audio": names})
    for shard in find_shards(files):
        table = Dataset.from_parquet(str(shard))
        for name, feature in table.features.items():
            if isinstance(feature, Audio):
                table = table.cast_column(name, Audio(decode=False))
        try:
            audio_column(table, wanted)
        except ValueError as error:
            logger.warning("%s is passed over: %s", shard, error)
            continue
        yield role_in(str(shard.relative_to(folder))), table


def assign_roles(
    parts: list[tuple[str | None, Dataset]], arguments: SoundArguments, seed: int
) -> list[tuple[str, Dataset]]:
    """The recordings as "train" and "validation".

    Raises:
        ValueError: The wanted group is nowhere.
    """
    column = arguments.validation_column
    if column == FOLDER:
        name = arguments.audio_column_name
        parts = [
            (role, add_folders(part, audio_column(part, name), arguments.validation_value)) for role, part in parts
        ]
    if column is not None:
        divided = [part for role, table in parts for part in _divide(role, table, column, arguments.validation_value)]
        if not any(role == "validation" for role, _ in divided):
            raise ValueError(f"no recording has {column}={arguments.validation_value!r}")
        return divided
    if any(role == "validation" for role, _ in parts):
        return [(role or "train", table) for role, table in parts]
    total = sum(len(table) for _, table in parts)
    count = round(arguments.validation_fraction * total)
    if arguments.validation_fraction and not count:
        logger.warning("%d recordings are too few to measure on a share of %g", total, arguments.validation_fraction)
    is_held_out = np.zeros(total, dtype=bool)
    is_held_out[np.random.default_rng(seed).permutation(total)[:count]] = True
    divided, start = [], 0
    for _, table in parts:
        divided += _split(table, is_held_out[start : start + len(table)])
        start += len(table)
    return divided


def _divide(role: str | None, table: Dataset, column: str, value: str | None) -> list[tuple[str, Dataset]]:
    """A part as it is, if it is measured on anyway or has no such column, or else divided by a group."""
    if role == "validation" or column not in table.column_names:
        return [(role or "train", table)]
    return _split(table, np.array([str(group) == value for group in read_names(table, column)]))


def _split(table: Dataset, is_held_out: np.ndarray) -> list[tuple[str, Dataset]]:
    """The recordings to learn and those to measure on, as far as there are any."""
    parts = (("train", ~is_held_out), ("validation", is_held_out))
    return [(role, table.select(np.flatnonzero(chosen))) for role, chosen in parts if chosen.any()]


def read_sound(source: str | Path, sampling_rate: int = SAMPLING_RATE) -> Iterator[np.ndarray]:
    """Waveforms (samples,) of some recordings, spread over all; those that cannot be read are passed over.

    Raises:
        ValueError: No recording can be read.
    """
    parts = [*find_recordings(SoundArguments(str(source)))]
    share = min(1.0, SAMPLED_RECORDINGS / sum(len(recordings) for _, recordings in parts))
    is_any = False
    for _, recordings in parts:
        column = find_column(recordings, "audio")
        count = max(1, round(share * len(recordings)))
        for row in spread(len(recordings), count):
            try:
                yield read_audio(locate(recordings[row][column], base_folder(str(source))), sampling_rate)
                is_any = True
            except ValueError as error:
                logger.warning("A recording is passed over: %s", error)
    if not is_any:
        raise ValueError(f"{source}: no recording can be read")
