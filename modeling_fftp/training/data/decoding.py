"""Decoded clips, once for all trainings, in the cache of `datasets`."""

import logging
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow.compute
from datasets import Dataset, concatenate_datasets
from datasets.fingerprint import Hasher

from modeling_fftp.audio_stream_fftp import sound_seconds

from .clip_decoder import EXCLUDED, PROBLEM, SOURCE, ClipDecoder, find_file, locate
from .left_out import left_out_clip

logger = logging.getLogger(__name__)

# Clips that are decoded before they are written, and what they last at most if each is no longer: `datasets` would
# hold a thousand.
WRITER_BATCH, WRITER_SECONDS = 16, 600.0
# Clips whose headers say how long clips are, and what no header is believed beyond.
PROBED_CLIPS, LONGEST_SECONDS = 100, 24 * 3600


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
        left_out_clip(row, source, problem)
        for row, (source, problem) in enumerate(zip(sources, problems, strict=True))
        if problem not in (None, EXCLUDED)
    ]
    if excluded := problems.count(EXCLUDED):
        hint = "; their other events are lost, which --none_labels would keep" if decoder.keeps_events else ""
        logger.warning("%d of %d clips hold a class of --exclude_labels%s", excluded, len(problems), hint)
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
    for row in range(0, len(dataset), max(1, len(dataset) // PROBED_CLIPS)):
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
    paths = [find_file(Path(decoder.folder), path or "") for path in written]
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


def clip_lengths(dataset: Dataset) -> list[int]:
    """Samples of each decoded clip."""
    batches = dataset.select_columns("audio").with_format("arrow").iter(batch_size=256)
    return [length for batch in batches for length in pyarrow.compute.list_value_length(batch["audio"]).to_pylist()]
