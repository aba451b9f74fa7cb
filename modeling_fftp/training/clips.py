"""Clips of a data set as decoded waveforms with targets, or as features, in the cache of `datasets`."""

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute
from datasets import Array2D, Audio, Dataset, Features, List, Value
from datasets.fingerprint import Hasher

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp.audio_stream_fftp import read_audio

from .sources import label_values

logger = logging.getLogger(__name__)

# Columns that a decoded split has until its unusable clips are out, and the problem of a clip that is not wanted.
SOURCE, PROBLEM, EXCLUDED = "__source__", "__problem__", "excluded"


@dataclass
class ClipDecoder:
    """Decodes, resamples and labels one clip of a data set.

    Args:
        audio_column: Column of undecoded audio or of paths.
        label_column: Column of class indices or names, or of lists of them.
        labels: Names of all classes in their order, by what stands for them in the data.
        sampling_rate: Wanted rate in Hz.
        index_names: Names by index where the label column holds indices; a negative index means no label.
        is_multi_label: Whether a clip can have several classes.
        separator: What stands between the names where one string holds several.
        excluded: Classes, as the data writes them, whose clips are not wanted.
        folder: What relative paths start from.
    """

    audio_column: str
    label_column: str
    labels: dict[str, str]
    sampling_rate: int
    index_names: Sequence[str] | None = None
    is_multi_label: bool = False
    separator: str | None = None
    excluded: Sequence[str] = ()
    folder: Path = Path()

    def __post_init__(self):
        self.positions = {label: position for position, label in enumerate(self.labels)}

    def __call__(self, example: dict[str, Any]) -> dict[str, Any]:
        """`audio` and `labels`, and in `SOURCE` and `PROBLEM` where the sound came from and what is wrong with it."""
        source, label = example[self.audio_column], example[self.label_column]
        name = source.get("path") if isinstance(source, dict) else source
        no_labels = np.zeros(len(self.labels), dtype=np.float32) if self.is_multi_label else -1
        nothing = {"audio": np.zeros(0, dtype=np.float32), "labels": no_labels, SOURCE: name}
        try:
            written = [self._as_written(value) for value in label_values(label, self.separator)]
            if not set(self.excluded).isdisjoint(written):
                return nothing | {PROBLEM: EXCLUDED}
            labels = self._encode(written, is_missing=label is None)
            waveform = read_audio(self.folder / source if isinstance(source, str) else source, self.sampling_rate)
        except ValueError as error:
            return nothing | {PROBLEM: str(error)}
        return {"audio": waveform, "labels": labels, SOURCE: name, PROBLEM: None}

    def _as_written(self, value: Any) -> str:
        """A class as `labels` has it."""
        if self.index_names is None:
            return str(value)
        if value < 0:
            raise ValueError("no label")
        return self.index_names[value]

    def _encode(self, written: list[str], is_missing: bool) -> int | np.ndarray:
        """A class index, or a float32 vector over the classes, which may be zero."""
        if is_missing or not (written or self.is_multi_label):
            raise ValueError("no label")
        unknown = [label for label in written if label not in self.positions]
        if unknown:
            raise ValueError(f"label {unknown[0]!r} is not among the {len(self.labels)} classes")
        positions = [self.positions[label] for label in written]
        if not self.is_multi_label:
            return positions[0]
        target = np.zeros(len(self.labels), dtype=np.float32)
        target[positions] = 1.0
        return target


def decode_dataset(
    dataset: Dataset, decoder: ClipDecoder, *, keep_columns: Sequence[str] = (), num_proc: int | None = None
) -> tuple[Dataset, list[dict[str, Any]]]:
    """Decode and resample every clip once; the result stays in the cache of `datasets`.

    Args:
        dataset: One split.
        decoder: What to do with a clip.
        keep_columns: Other columns to keep.
        num_proc: Processes.

    Returns:
        The clips, with `audio`, float32 waveforms (samples,), `labels`, an index or a float32 vector over the classes,
        and the kept columns; and what is left out of them because its sound cannot be decoded or its label is missing
        or unknown: `row`, `source` and `problem` of each. Excluded classes are in neither.
    """
    if isinstance(dataset.features[decoder.audio_column], Audio):
        dataset = dataset.cast_column(decoder.audio_column, Audio(decode=False))
    kept = {name: dataset.features[name] for name in keep_columns}
    features = {"audio": List(Value("float32")), SOURCE: Value("string"), PROBLEM: Value("string"), **kept}
    features["labels"] = List(Value("float32")) if decoder.is_multi_label else Value("int64")
    decoded = dataset.map(
        decoder,
        remove_columns=[name for name in dataset.column_names if name not in kept],
        features=Features(features),
        num_proc=num_proc,
        desc="Decoding",
        **_cache_of_files(dataset, decoder, keep_columns),
    )
    sources, problems = decoded[SOURCE][:], decoded[PROBLEM][:]
    left_out = [
        {"row": row, "source": source, "problem": problem}
        for row, (source, problem) in enumerate(zip(sources, problems, strict=True))
        if problem not in (None, EXCLUDED)
    ]
    decoded = decoded.remove_columns([SOURCE, PROBLEM])
    whole = [row for row, problem in enumerate(problems) if problem is None]
    return decoded if len(whole) == len(decoded) else decoded.select(whole), left_out


def _cache_of_files(dataset: Dataset, decoder: ClipDecoder, keep_columns: Sequence[str]) -> dict[str, str]:
    """Where the decoded sound of a column of paths is kept: `datasets` knows the paths, but not when files change."""
    if not isinstance(dataset[0][decoder.audio_column], str):
        return {}
    paths = [decoder.folder / path for path in dataset[decoder.audio_column]]
    states = [path.stat() if path.exists() else None for path in paths]
    files = [
        (str(path), state and (state.st_size, state.st_mtime_ns)) for path, state in zip(paths, states, strict=True)
    ]
    columns = {name: dataset[name][:] for name in (decoder.label_column, *keep_columns)}
    fingerprint = Hasher.hash((files, columns, decoder))
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "fftp"
    cache.mkdir(parents=True, exist_ok=True)
    return {"cache_file_name": str(cache / f"{fingerprint}.arrow"), "new_fingerprint": fingerprint}


def report_left_out(left_out: dict[str, list[dict]], sizes: dict[str, int], largest_share: float, path: Path) -> None:
    """Name the clips that are left out in a CSV file, and count them in the log.

    Args:
        left_out: What `decode_dataset` left out of each split.
        sizes: Number of clips that each split keeps.
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
        share = len(clips) / max(1, sizes[split] + len(clips))
        message = f"{split}: {len(clips)} clips ({share:.1%}) cannot be used; {path} names them and says why"
        if share > largest_share:
            raise ValueError(f"{message}. At most {largest_share:.1%} may be left out")
        if clips:
            logger.warning("%s. They are left out", message)


def clip_lengths(dataset: Dataset) -> list[int]:
    """Samples of each decoded clip."""
    batches = dataset.select_columns("audio").with_format("arrow").iter(batch_size=256)
    return [length for batch in batches for length in pyarrow.compute.list_value_length(batch["audio"]).to_pylist()]


def compute_features(dataset: Dataset, extractor: FFTPFeatureExtractor) -> Dataset:
    """Clips with features in place of sound; they stay in the cache of `datasets`.

    Args:
        dataset: `audio` at the extractor's rate, and `labels`.
        extractor: Computes the features.

    Returns:
        `input_values` (frames, mel bins) and `labels`.
    """

    def extract(batch: dict) -> dict:
        clips = [np.asarray(clip, dtype=np.float32) for clip in batch["audio"]]
        return {"input_values": extractor(clips, sampling_rate=extractor.sampling_rate, padding=False)["input_values"]}

    spectrogram = Array2D(shape=(None, extractor.feature_size), dtype="float32")
    return (
        dataset.select_columns(["audio", "labels"])
        .map(
            extract,
            batched=True,
            batch_size=64,
            remove_columns="audio",
            features=Features({"input_values": spectrogram, "labels": dataset.features["labels"]}),
            desc="Extracting features",
        )
        .with_format("numpy")
    )
