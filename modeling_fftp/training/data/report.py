"""What the clips are like, before anybody trains on them: counts, lengths, rates, and what looks wrong."""

import logging
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import TrainingArguments

from feature_extraction.events import has_times, read_events
from feature_extraction.waveforms_fftp import LARGEST_FLOAT
from modeling_fftp.atomic_write import atomic_write

from .clip_decoder import FACTS, SOURCE
from .strong_labels import EVENTS

logger = logging.getLogger(__name__)

# The file that says what the clips are like, and how many classes the log counts.
REPORT, LOGGED_CLASSES = "data_report.md", 20
# A peak below which nothing is heard: -100 dB.
SILENT = 1e-5
# Share of a clip's samples at the end of the range that makes it a clipped one.
CLIPPED_SHARE = 0.001
# How many names a line has.
NAMED = 3


@dataclass
class SplitFacts:
    """Facts about the clips of a split.

    Args:
        counts: Clips of each class.
        clips: Source and facts of each clip that is kept.
        left_out: What `decode_dataset` left out.
        total: Number of clips, where those are a sample.
        events: Seconds of the events of each class, where these are learned.
    """

    counts: dict[str, int]
    clips: list[dict[str, Any]]
    left_out: list[dict[str, Any]] = field(default_factory=list)
    total: int | None = None
    events: dict[str, list[float]] = field(default_factory=dict)

    def values(self, name: str) -> list:
        """One fact of every clip."""
        return [clip[name] for clip in self.clips]

    @property
    def silent(self) -> list[str]:
        """Sources of clips in which nothing is heard."""
        return [clip["source"] for clip in self.clips if clip["peak"] <= SILENT]

    @property
    def loud(self) -> list[str]:
        """Sources of clips whose floats are those of integer samples."""
        return [clip["source"] for clip in self.clips if clip["peak"] >= LARGEST_FLOAT]

    @property
    def clipped(self) -> list[str]:
        """Sources of clips that are cut off at the end of the range."""
        return [
            clip["source"] for clip in self.clips if clip["clipped"] >= CLIPPED_SHARE and clip["peak"] < LARGEST_FLOAT
        ]


def find_split_facts(clips: Dataset, classes: Sequence[str], left_out: list[dict[str, Any]]) -> SplitFacts:
    """Facts of decoded clips.

    Args:
        clips: With `labels` and the columns of `decode_dataset`.
        classes: Names in their order.
        left_out: What is not among the clips.
    """
    counts = count_classes(np.asarray(clips.with_format("numpy")["labels"][:]), classes)
    table = clips.with_format(None)
    rows = [
        {"source": source or "a clip without a path", **facts}
        for source, facts in zip(table[SOURCE], table[FACTS], strict=True)
    ]
    events = {name: [] for name in classes} if EVENTS in clips.column_names else {}
    for onset, offset, label in chain.from_iterable(map(read_events, table[EVENTS] if events else ())):
        if has_times((onset, offset, label)):
            events[label].append(offset - onset)
    return SplitFacts(counts, rows, left_out, events=events)


def count_classes(labels: np.ndarray, classes: Sequence[str]) -> dict[str, int]:
    """Clips of each class, by indices (clips,) or vectors (clips, classes)."""
    if not len(labels):
        return dict.fromkeys(classes, 0)
    per_class = np.bincount(labels, minlength=len(classes)) if labels.ndim == 1 else labels.sum(axis=0, dtype=np.int64)
    return {name: int(count) for name, count in zip(classes, per_class, strict=True)}


def write_report(facts: dict[str, SplitFacts], source: str, training: TrainingArguments, sampling_rate: int) -> None:
    """Say in the log and in a file what the clips are like; the first process does."""
    if training.process_index == 0:
        logger.info("\n%s", render_report(facts, Path(source).name, sampling_rate, LOGGED_CLASSES))
        with atomic_write(Path(training.output_dir, REPORT)) as part:
            part.write_text(render_report(facts, Path(source).name, sampling_rate), encoding="utf-8")


def refuse_unusable(facts: dict[str, SplitFacts], is_multi_label: bool) -> None:
    """Stop on what would end a training after its first epoch, or make its results mean nothing.

    Raises:
        ValueError: A split without a clip, without sound, or in which no clip has a label.
    """
    for role, split in facts.items():
        if not split.clips:
            raise ValueError(f"{role}: no clips are left; {len(split.left_out)} cannot be used")
        if len(split.silent) == len(split.clips):
            raise ValueError(f"{role}: all {len(split.clips)} clips are silent")
        if is_multi_label and not any(split.counts.values()):
            raise ValueError(f"{role}: none of its {len(split.clips)} clips has a label; no score can be computed")


def render_report(
    splits: dict[str, SplitFacts], source: str, sampling_rate: int, max_classes: int | None = None
) -> str:
    """The report as Markdown.

    Args:
        splits: Splits by name.
        source: Name of the data.
        sampling_rate: Rate in Hz that a model hears.
        max_classes: Classes to count, from the most frequent on; default: all, in their order.
    """
    names = [*next(iter(splits.values())).counts]
    shown = names[:max_classes]
    if len(shown) < len(names):
        shown = sorted(names, key=lambda name: -max(split.counts[name] for split in splits.values()))[:max_classes]
    counts = {name: [str(split.counts[name]) for split in splits.values()] for name in shown}
    parts = [
        f"# Data: {source}\n\n{_describe_clips(splits)}",
        f"{len(names)} classes{f', the {len(shown)} largest' * (len(shown) < len(names))}, and the clips of each:\n\n"
        f"{_table(['class', *splits], counts)}",
    ]
    if any(any(split.events.values()) for split in splits.values()):
        events = {name: [_describe_events(split.events.get(name, [])) for split in splits.values()] for name in shown}
        title = "Their events: how many, and the seconds of the shortest, median and longest"
        parts.append(f"{title}:\n\n{_table(['class', *splits], events)}")
    if problems := "".join(f"- {problem}\n" for problem in find_warnings(splits, sampling_rate)):
        parts.append(f"To look at:\n\n{problems}")
    return "\n".join(parts)


def _describe_clips(splits: dict[str, SplitFacts]) -> str:
    """A table with a column per split."""
    describe = {
        "clips": lambda split: split.total or len(split.clips),
        "clips looked at": lambda split: len(split.clips),
        "hours": lambda split: f"{sum(split.values('seconds')) / 3600:.2f}",
        "events": lambda split: sum(split.values("events")),
        "events without times": lambda split: sum(split.values("untimed")),
        "seconds: shortest, median, longest": lambda split: _describe_range(split.values("seconds")),
        "rates in Hz": lambda split: _tally(split.values("rate")),
        "channels": lambda split: _tally(split.values("channels")),
        "silent": lambda split: len(split.silent),
        "clipped": lambda split: len(split.clipped),
        "left out": lambda split: len(split.left_out),
    }
    rows = {name: [str(function(split)) for split in splits.values()] for name, function in describe.items()}
    # A sample says nothing of the length of all.
    del rows["hours" if any(split.total for split in splits.values()) else "clips looked at"]
    for name, fact in (("events", "events"), ("events without times", "untimed")):
        if not any(any(split.values(fact)) for split in splits.values()):
            del rows[name]
    return _table(["", *splits], rows)


def find_warnings(splits: dict[str, SplitFacts], sampling_rate: int) -> Iterator[str]:
    """List what a reader should look at, one sentence each."""
    highest = max((rate for split in splits.values() for rate in split.values("rate")), default=0)
    if highest > sampling_rate:
        yield (
            f"Sound of up to {highest} Hz is resampled to {sampling_rate} Hz: what is above {sampling_rate // 2} Hz "
            "is lost; --sampling_rate of `fftp train` keeps more."
        )
    rates = [rate for split in splits.values() for rate in split.values("rate")]
    lower = [rate for rate in rates if rate < sampling_rate]
    if lower and len(lower) < len(rates):
        yield (
            f"{len(lower)} of {len(rates)} clips are at less than {sampling_rate} Hz, down to {min(lower)} Hz, and "
            "lack what others hold above: if some classes have more of them, a model learns recorders, not sounds."
        )
    elif lower:
        yield (
            f"All clips are at {max(lower)} Hz or less: at {sampling_rate} Hz the bins above {max(lower) // 2} Hz "
            "stay empty; a new model may have a lower --sampling_rate."
        )
    for name, split in splits.items():
        absent = [label for label, count in split.counts.items() if not count]
        if absent and split.clips:
            yield f"{name}: no clips of {_some(absent)}."
        if split.silent:
            yield f"{name}: silent clips: {_some(split.silent)}."
        if split.loud:
            yield (
                f"{name}: floats far beyond [-1, 1], up to {max(split.values('peak')):.0f}, in {_some(split.loud)}. "
                "Samples of int16 as floats must be divided by 32768."
            )
        if split.clipped:
            yield f"{name}: clips of which more than {CLIPPED_SHARE:.1%} is at full scale: {_some(split.clipped)}."
        for problem, clips in _by_problem(split.left_out).items():
            yield f"{name}: left out, since {problem}: {_some(clips)}."
    yield from _duplicates(splits)


def _duplicates(splits: dict[str, SplitFacts]) -> Iterator[str]:
    """Clips with the same sound, in one split or, worse, on both sides of an evaluation."""
    places: dict[str, list[tuple[str, str]]] = {}
    for name, split in splits.items():
        for clip in split.clips:
            places.setdefault(clip["digest"], []).append((name, clip["source"]))
    shared: dict[tuple[str, ...], list[str]] = {}
    for found in places.values():
        if len(found) > 1:
            names = tuple(name for name in splits if name in {name for name, _ in found})
            shared.setdefault(names, []).append(" = ".join(_short(source) for _, source in found[:2]))
    for names, pairs in shared.items():
        where = (
            f"{names[0]}: clips with the same sound" if len(names) == 1 else f"The same sound in {' and '.join(names)}"
        )
        yield f"{where}: {_some(pairs)}."


def _by_problem(left_out: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Sources by what is wrong with them, without the names of the files, which differ."""
    problems: dict[str, list[str]] = {}
    for clip in left_out:
        problem = clip["problem"].removeprefix(f"{clip['source']}: ")
        problems.setdefault(problem.rstrip("."), []).append(clip["source"])
    return problems


def _some(names: Sequence[str]) -> str:
    """The first names, and how many there are."""
    shown = ", ".join(map(_short, names[:NAMED]))
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"


def _short(source: str) -> str:
    """The end of a path."""
    return source if " = " in source else "/".join(Path(source).parts[-2:])


def _describe_range(values: list[float]) -> str:
    return f"{min(values):.2f}, {statistics.median(values):.2f}, {max(values):.2f}" if values else "none"


def _describe_events(seconds: list[float]) -> str:
    return f"{len(seconds)}: {_describe_range(seconds)}" if seconds else "0"


def _tally(values: list[int]) -> str:
    """Values from the most frequent on, with their counts where there are several."""
    counts = Counter(values).most_common()
    return ", ".join(str(value) if len(counts) == 1 else f"{value} ({count})" for value, count in counts) or "none"


def _table(header: list[str], rows: dict[str, list[str]]) -> str:
    lines = [header, ["---"] * len(header), *([name, *cells] for name, cells in rows.items())]
    escaped = ([" ".join(cell.replace("|", r"\|").split()) for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)
