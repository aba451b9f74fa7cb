"""Clips of a data set as decoded waveforms with targets, or as features, in the cache of `datasets`."""

import csv
import hashlib
import logging
import os
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets
from datasets.fingerprint import Hasher

import modeling_fftp
from feature_extraction import FFTPFeatureExtractor
from feature_extraction.events import read_events
from modeling_fftp.audio_stream_fftp import read_audio, sound_format, sound_seconds
from modeling_fftp.sound_file_fftp import is_sound

from .folders import PROBLEM
from .labels import LabelColumn
from .strong_labels import EVENT, EVENTS, count_events

logger = logging.getLogger(__name__)

SAMPLING_RATE = 16000
# Longest clip that a model is shown in training unless --max_seconds says otherwise.
MAX_SECONDS = 10.0
# Columns that decoded clips have until they are reported, and the problem of a clip that is not wanted.
SOURCE, FACTS, EXCLUDED = "__source__", "__facts__", "excluded"
FACT_TYPES = {
    "seconds": Value("float64"), "rate": Value("int64"), "channels": Value("int64"), "peak": Value("float32"),
    "clipped": Value("float32"), "digest": Value("string"), "events": Value("int64"), "untimed": Value("int64"),
}  # fmt: skip
# What names without a suffix may lack.
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
# A sample this loud is at the end of the range.
FULL_SCALE = 0.999
# Clips that are decoded before they are written, and what they last at most if each is no longer: `datasets` would
# hold a thousand.
WRITER_BATCH, WRITER_SECONDS = 16, 600.0
# Clips whose headers say how long clips are, and what no header is believed beyond.
SAMPLED_CLIPS, LONGEST_SECONDS = 100, 24 * 3600


@dataclass
class ClipDecoder:
    """Decodes, resamples and labels one clip of a data set.

    Args:
        audio_column: Column of undecoded audio or of paths.
        label_column: Column of labels.
        label_kind: How the column writes the classes.
        labels: Names of all classes in their order, by what stands for them in the data.
        sampling_rate: Wanted rate in Hz.
        is_multi_label: Whether targets are vectors over the classes.
        excluded: Classes, as the data writes them, whose clips are not wanted.
        none_labels: What the data writes for none of the classes.
        folder: What relative paths start from.
        keeps_events: Whether the events of a clip are wanted, and not only which classes it has.
        keeps_sound: Whether the sound is wanted, and not only what is found out about it.
        version: Version of this package: what another one decoded is not taken from the cache.
    """

    audio_column: str
    label_column: str
    label_kind: LabelColumn
    labels: dict[str, str]
    sampling_rate: int
    is_multi_label: bool = False
    excluded: Sequence[str] = ()
    none_labels: Sequence[str] = ()
    folder: Path = Path()
    keeps_events: bool = False
    keeps_sound: bool = True
    version: str = getattr(modeling_fftp, "__version__", "")

    def __post_init__(self):
        self.positions = {label: position for position, label in enumerate(self.labels)}

    @property
    def features(self) -> Features:
        """Types of what a call gives."""
        labels = List(Value("float32")) if self.is_multi_label else Value("int64")
        sound = {"audio": List(Value("float32"))} if self.keeps_sound else {}
        sound |= {EVENTS: List(EVENT)} if self.keeps_events else {}
        return Features(
            {**sound, "labels": labels, SOURCE: Value("string"), PROBLEM: Value("string"), FACTS: FACT_TYPES}
        )

    def __call__(self, example: dict[str, Any]) -> dict[str, Any]:
        """`audio` and `labels`; in `SOURCE`, `PROBLEM` and `FACTS` origin, what is wrong, and how it sounds."""
        source = locate(example[self.audio_column], self.folder)
        name = source.get("path") if isinstance(source, dict) else source
        name = name if isinstance(name, str) else None
        no_labels = np.zeros(len(self.labels), dtype=np.float32) if self.is_multi_label else -1
        result = {"labels": no_labels, SOURCE: name, PROBLEM: example.get(PROBLEM), FACTS: None}
        sound = {"audio": np.zeros(0, dtype=np.float32)} if self.keeps_sound else {}
        sound |= {EVENTS: []} if self.keeps_events else {}
        if result[PROBLEM] is not None:
            return sound | result
        try:
            labels = self.encode(example[self.label_column])
            if labels is None:
                return sound | result | {PROBLEM: EXCLUDED}
            if source is None:
                raise ValueError("no sound")
            waveform = read_audio(source, self.sampling_rate)
            facts = find_facts(source, waveform, self.sampling_rate)
            if self.label_kind.has_events:
                facts |= count_events(example[self.label_column], facts["seconds"])
        except ValueError as error:
            return sound | result | {PROBLEM: str(error)}
        result |= {"labels": labels, FACTS: facts}
        if self.keeps_events:
            result[EVENTS] = self.name_events(example[self.label_column])
        return result | ({"audio": waveform} if self.keeps_sound else {})

    def encode(self, label: Any) -> int | np.ndarray | None:
        """A class index, or a float32 vector over the classes, which may be zero; None for an excluded class.

        Raises:
            ValueError: No label, or an unknown one.
        """
        is_empty = label is None or label == "" or label != label
        if is_empty and "" in self.excluded:
            return None
        written = [] if is_empty and "" in self.none_labels else self.label_kind.read(label)
        written = [name for name in written if name not in self.none_labels]
        if not set(self.excluded).isdisjoint(written):
            return None
        unknown = [label for label in written if label not in self.positions]
        if unknown:
            raise ValueError(f"label {unknown[0]!r} is not among the {len(self.labels)} classes")
        positions = [self.positions[label] for label in written]
        if not self.is_multi_label:
            return positions[0]
        target = np.zeros(len(self.labels), dtype=np.float32)
        target[positions] = 1.0
        return target

    def name_events(self, events: Any) -> list[dict[str, Any]]:
        """Events of known classes, by the classes' names."""
        names = {**self.labels, **dict.fromkeys(self.none_labels)}
        written = [(onset, offset, self.label_kind.write(label)) for onset, offset, label in read_events(events)]
        named = [(onset, offset, names[label]) for onset, offset, label in written]
        return [dict(zip(EVENT, event, strict=True)) for event in named if event[2] is not None]


def locate(source: Any, folder: Path) -> Any:
    """A source with its path below a folder."""
    if isinstance(source, str):
        return str(find_file(folder / source))
    if isinstance(source, dict) and source.get("bytes") is None and source.get("path") is not None:
        return source | {"path": str(find_file(folder / source["path"]))}
    return source


def find_file(path: Path) -> Path:
    """The file of a path, which may lack the suffix, as names in FSD50K and Warblr do."""
    if is_sound(path) or os.path.exists(path):
        return path
    found = (path.with_name(path.name + suffix) for suffix in SUFFIXES)
    return next((candidate for candidate in found if os.path.exists(candidate)), path)


def find_facts(source: Any, waveform: np.ndarray, sampling_rate: int) -> dict[str, Any]:
    """What a report says about a clip: where it came at what rate, how loud it is, and what it equals.

    Args:
        source: Anything that `read_audio` takes.
        waveform: What that made of it.
        sampling_rate: The waveform's, in Hz.
    """
    loudness = np.abs(waveform)
    rate, channels = sound_format(source, sampling_rate)
    return {
        "seconds": len(waveform) / sampling_rate,
        "rate": rate,
        "channels": channels,
        "peak": loudness.max(),
        "clipped": np.mean(loudness >= FULL_SCALE),
        "digest": hashlib.blake2b(waveform.tobytes(), digest_size=16).hexdigest(),
        "events": 0,
        "untimed": 0,
    }


def decode_dataset(
    dataset: Dataset, decoder: ClipDecoder, *, keep_columns: Sequence[str] = (), num_proc: int | None = None
) -> tuple[Dataset, list[dict[str, Any]]]:
    """Decode and resample every clip once; the result stays in the cache of `datasets`.

    Args:
        dataset: One split, its sound not decoded.
        decoder: What to do with a clip.
        keep_columns: Other columns to keep.
        num_proc: Processes.

    Returns:
        The clips, with `audio`, float32 waveforms (samples,), `labels`, an index or a float32 vector over the classes,
        `SOURCE`, `FACTS` and the kept columns; and what is left out of them because its sound cannot be decoded or its
        label is missing or unknown: `row`, `source` and `problem` of each. Excluded classes are in neither.
    """
    decoded = dataset.map(
        decoder,
        remove_columns=dataset.column_names,
        features=decoder.features,
        num_proc=num_proc,
        writer_batch_size=clips_to_hold(dataset, decoder),
        desc="Decoding",
        **cache_of_files(dataset, decoder, [decoder.label_column]),
    )
    if keep_columns:
        # Beside what is kept on disk, which is the same whatever stands there.
        decoded = concatenate_datasets([decoded, dataset.select_columns([*keep_columns])], axis=1)
    sources, problems = decoded[SOURCE][:], decoded[PROBLEM][:]
    left_out = [
        {"row": row, "source": source or f"row {row}", "problem": problem}
        for row, (source, problem) in enumerate(zip(sources, problems, strict=True))
        if problem not in (None, EXCLUDED)
    ]
    decoded = decoded.remove_columns(PROBLEM)
    whole = [row for row, problem in enumerate(problems) if problem is None]
    return decoded if len(whole) == len(decoded) else decoded.select(whole), left_out


def announce_cache(splits: dict[str, Dataset], decoder: ClipDecoder) -> None:
    """Say how much disk the decoded sound will take, by the length of some clips."""
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    seconds = 0.0
    for split in splits.values():
        believable = [length for length in _some_seconds(split, decoder) if length < LONGEST_SECONDS]
        seconds += len(split) * statistics.mean(believable or [0.0])
    wanted = seconds * decoder.sampling_rate * 4
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    logger.log(
        logging.WARNING if wanted > free else logging.INFO,
        "Decoded sound takes about %.2f GiB in %s, where it is kept; %.2f GiB are free there",
        wanted / 2**30, cache, free / 2**30,
    )  # fmt: skip


def clips_to_hold(dataset: Dataset, decoder: ClipDecoder) -> int:
    """Number of decoded clips to hold in memory before they are written, by the longest of some."""
    longest = max(_some_seconds(dataset, decoder), default=0.0)
    return max(1, int(min(WRITER_BATCH, WRITER_SECONDS / max(longest, 1.0))))


def _some_seconds(dataset: Dataset, decoder: ClipDecoder) -> list[float]:
    """Lengths of a few clips by their headers."""
    lengths = []
    for row in range(0, len(dataset), max(1, len(dataset) // SAMPLED_CLIPS)):
        try:
            lengths.append(
                sound_seconds(locate(dataset[row][decoder.audio_column], decoder.folder), decoder.sampling_rate)
            )
        except ValueError:
            continue
    return lengths


def cache_of_files(dataset: Dataset, decoder: Any, columns: Sequence[str]) -> dict[str, str]:
    """Cache file of the decoded sound of a column of paths: `datasets` knows the paths, but not when files change.

    Args:
        dataset: One split, its sound not decoded.
        decoder: What `map` calls, with `audio_column` and `folder` of a `ClipDecoder`.
        columns: Other columns that it reads.
    """
    first = next((source for source in dataset[decoder.audio_column] if source is not None), None)
    if isinstance(first, dict) and first.get("bytes") is None and first.get("path") is not None:
        written = [source and source["path"] for source in dataset[decoder.audio_column]]
    elif isinstance(first, str):
        written = dataset[decoder.audio_column]
    elif _lies_outside(dataset):
        # Of what `save_to_disk` left `datasets` would write beside it.
        return _cache_file(Hasher.hash((dataset._fingerprint, decoder)))
    else:
        return {}
    paths = [find_file(Path(decoder.folder, path or "")) for path in written]
    states = [_state(path) for path in paths]
    files = [(str(path), state) for path, state in zip(paths, states, strict=True)]
    return _cache_file(Hasher.hash((files, {name: dataset[name][:] for name in columns}, decoder)))


def _lies_outside(dataset: Dataset) -> bool:
    """Whether files of a data set lie outside of the cache of `datasets`."""
    cache = Path(datasets.config.HF_DATASETS_CACHE).resolve()
    return any(cache not in Path(file["filename"]).resolve().parents for file in dataset.cache_files)


def _cache_file(fingerprint: str) -> dict[str, str]:
    """Arguments of `map` that say where its result lies."""
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "fftp"
    cache.mkdir(parents=True, exist_ok=True)
    return {"cache_file_name": str(cache / f"{fingerprint}.arrow"), "new_fingerprint": fingerprint}


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of a file, or None where there is none."""
    try:
        state = path.stat()
    except (OSError, ValueError):
        return None
    return state.st_size, state.st_mtime_ns


def report_left_out(
    left_out: dict[str, list[dict]], shares: dict[str, float], largest_share: float, path: Path
) -> None:
    """Name the clips that are left out in a CSV file, and count them in the log.

    Args:
        left_out: What `decode_dataset` left out of each split.
        shares: Share of each split that is left out.
        largest_share: Share of a split that may be left out.
        path: The file; removed where nothing is left out.

    Raises:
        ValueError: More than that share is left out of a split.
    """
    path.unlink(missing_ok=True)
    if not any(left_out.values()):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=["split", "row", "source", "problem"])
        writer.writeheader()
        writer.writerows({"split": split, **clip} for split, clips in left_out.items() for clip in clips)
    for split, clips in left_out.items():
        message = f"{split}: {len(clips)} clips ({shares[split]:.1%}) cannot be used; {path} names them and says why"
        if shares[split] > largest_share:
            first = clips[0]["problem"]
            raise ValueError(f"{message}, the first: {first}. At most {largest_share:.1%} may be left out")
        if clips:
            logger.warning("%s. They are left out", message)


def clip_lengths(dataset: Dataset) -> list[int]:
    """Samples of each decoded clip."""
    batches = dataset.select_columns("audio").with_format("arrow").iter(batch_size=256)
    return [length for batch in batches for length in pyarrow.compute.list_value_length(batch["audio"]).to_pylist()]


class FeatureClips(torch.utils.data.Dataset):
    """Clips with features in place of sound.

    They are flat in the table, which `datasets` reads much faster than two dimensions.

    Args:
        clips: `input_values` (frames * mel bins,) and other columns, in NumPy's format.
        num_mel_bins: Mel bins.
    """

    def __init__(self, clips: Dataset, num_mel_bins: int):
        self.clips = clips
        self.num_mel_bins = num_mel_bins

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._reshape(self.clips[index])

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [self._reshape(clip) for clip in self.clips.__getitems__(indices)]

    def _reshape(self, clip: dict[str, Any]) -> dict[str, Any]:
        return clip | {"input_values": clip["input_values"].reshape(-1, self.num_mel_bins)}


def compute_features(dataset: Dataset, extractor: FFTPFeatureExtractor) -> FeatureClips:
    """Clips with features in place of sound; they stay in the cache of `datasets`.

    Args:
        dataset: `audio` at the extractor's rate, and `labels`.
        extractor: Computes the features.

    Returns:
        `input_values` (frames, mel bins) and the other columns of each clip.
    """

    def extract(batch: dict) -> dict:
        clips = [np.asarray(clip, dtype=np.float32) for clip in batch["audio"]]
        features = extractor(clips, sampling_rate=extractor.sampling_rate, padding=False)["input_values"]
        return {"input_values": [np.ravel(clip) for clip in features]}

    kept = {name: feature for name, feature in dataset.features.items() if name != "audio"}
    table = dataset.map(
        extract,
        batched=True,
        batch_size=64,
        remove_columns="audio",
        features=Features({"input_values": List(Value("float32"))} | kept),
        desc="Extracting features",
    )
    return FeatureClips(table.with_format("numpy"), extractor.feature_size)


def spread(length: int, most: int | None) -> list[int]:
    """At most so many places, evenly over a length."""
    count = length if most is None else min(length, most)
    return np.linspace(0, length - 1, count).round().astype(int).tolist()
