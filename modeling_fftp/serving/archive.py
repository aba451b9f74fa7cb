"""Answers for an archive: many recordings, written as they come, resumed where they stopped, split over processes.

Every finished recording is one line of a journal beside the output. When the journals of all parts are complete they
become the output, in the order of the recordings, and are removed.
"""

import csv
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm import tqdm

from modeling_fftp.atomic_write import alone
from modeling_fftp.audio_stream_fftp import UnreadableSoundError, sound_seconds
from modeling_fftp.window_pipeline_fftp import FFTPWindowPipeline

from .journal import Journal, journals_of, read_in_order, refuse_other_settings
from .load import hash_model
from .parts import WHOLE, Part
from .row_groups import group_rows
from .tables import failures_path

# Recordings at a time, between two writes to the disk, and how much sound they have together at most.
CHUNK = 32
CHUNK_SECONDS = 3600.0


def answer_recordings(
    pipeline: FFTPWindowPipeline,
    recordings: Sequence[str],
    as_record: Callable[[dict[str, Any]], dict[str, Any]],
    chunk: int = CHUNK,
    **options: Any,
) -> Iterator[list[dict[str, Any]]]:
    """Answers for recordings, some at a time, in their order; memory does not grow with their number.

    Args:
        pipeline: The pipeline that answers.
        recordings: Paths.
        as_record: Makes of an answer what JSON can hold.
        chunk: Most recordings at a time; they share batches, sorted by length.
        **options: Options of the pipeline.

    Yields:
        Of each recording "file" and the record, or "error".
    """
    for files in chunk_recordings(recordings, chunk, pipeline.feature_extractor.sampling_rate):
        try:
            records = [as_record(answer) for answer in pipeline(files, **options)]
        except UnreadableSoundError as error:
            if len(files) > 1:
                # One of them cannot be read: each on its own tells which.
                yield [one for (one,) in answer_recordings(pipeline, files, as_record, chunk=1, **options)]
                continue
            # Not again: a pipe can be read once.
            records = [{"error": str(error)}]
        yield [{"file": file, **record} for file, record in zip(files, records, strict=True)]


def chunk_recordings(recordings: Sequence[str], most: int, sampling_rate: int) -> Iterator[list[str]]:
    """Some recordings at a time, of so many files and of `CHUNK_SECONDS` at most, or one that is longer."""
    lengths = (_seconds(recording, sampling_rate) if most > 1 else 0.0 for recording in recordings)
    for rows in group_rows(lengths, CHUNK_SECONDS, most):
        yield [recordings[row] for row in rows]


def _seconds(recording: str, sampling_rate: int) -> float:
    # What cannot be read fails where it is read.
    with suppress(ValueError, OSError):
        return sound_seconds(recording, sampling_rate)
    return 0.0


def answer_archive(
    pipeline: FFTPWindowPipeline,
    recordings: Sequence[str],
    as_record: Callable[[dict[str, Any]], dict[str, Any]],
    output: Path,
    write: Callable[[Iterator[dict[str, Any]], Path], None],
    part: Part = WHOLE,
    resume: bool = False,
    chunk: int = CHUNK,
    **options: Any,
) -> int:
    """Answer for a part of an archive, and write the output if it is the last.

    Args:
        pipeline: The pipeline that answers.
        recordings: All of the archive.
        as_record: See `answer_recordings`.
        output: File or folder that the answers of all parts become; it appears only when it is complete.
        write: Writes answers there.
        part: The share of the recordings that is meant.
        resume: Whether to go on where a run stopped.
        chunk: Recordings between two writes to the disk.
        **options: Options of the pipeline.

    Returns:
        Recordings that could not be read: of all parts once the output is there, and else of this one.

    Raises:
        FileExistsError: The output is there, or a journal, and `resume` is not asked for; or another run writes it.
        ValueError: A journal, of this part or another, of other settings, weights or recordings; or options that make
            no sense.
    """
    # Before a journal is begun with options that no run could go on with.
    pipeline.check_windows(**options)
    output.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal.of(output, part)
    with alone(journal.path):
        if output.exists():
            if not resume:
                raise FileExistsError(f"{output} is there already; choose another --output")
            return finish(output)
        # How many windows share a batch does not count, and machines may have room for different numbers.
        lasting = {name: value for name, value in options.items() if name != "batch_size"}
        settings = {**lasting, **digests(pipeline, recordings)}
        refuse_other_parts(output, part, settings)
        done = journal.begin(settings, resume)
        left = [file for file in part.of(recordings) if file not in done]
        answer_left(pipeline, left, as_record, journal, chunk, **options)
        # Once the last part has ended, any of them may make the output of the journals and remove them.
        failed = sum(entry.has_failed for entry in journal.entries().values())
        journal.end()
        if merge(output, part.count, recordings, write, settings):
            failed = count_failures(output)
            state, place = "is complete", f": {failures_path(output).name}"
        else:
            state, place = "waits for the other parts", ""
    unread = f"; {failed} recordings could not be read{place}" if failed else ""
    print(f"{output} {state}{unread}", file=sys.stderr)
    return failed


def digests(pipeline: FFTPWindowPipeline, recordings: Sequence[str]) -> dict[str, str]:
    """Digests of what answers depend on beside options; a model's is of its weights, as its place may differ."""
    return {
        "recordings": hashlib.sha256(b"\0".join(map(os.fsencode, recordings))).hexdigest(),
        "extractor": hashlib.sha256(pipeline.feature_extractor.to_json_string().encode()).hexdigest(),
        "weights": hash_model(pipeline.model),
    }


def refuse_other_parts(output: Path, part: Part, settings: dict[str, Any]) -> None:
    """Refuse journals of other parts that do not go with one.

    Raises:
        ValueError: They are of another number of parts, or of other settings.
    """
    own, ending = Journal.of(output, part).path, f"-of-{part.count:05d}.jsonl"
    for path in journals_of(output):
        if not path.name.endswith(ending):
            raise ValueError(
                f"{path.name} is of a run in another number of parts than {part.count}; repeat that or delete it"
            )
        if path != own:
            refuse_other_settings(path, settings)


def answer_left(
    pipeline: FFTPWindowPipeline,
    recordings: Sequence[str],
    as_record: Callable[[dict[str, Any]], dict[str, Any]],
    journal: Journal,
    chunk: int,
    **options: Any,
) -> None:
    """Write the answers for what is left of a part into its journal, and say how far that is."""
    with tqdm(total=len(recordings), unit="file", disable=None) as bar:
        seconds, began = 0.0, time.monotonic()
        for records in answer_recordings(pipeline, recordings, as_record, chunk, **options):
            journal.append(*records)
            seconds += sum(record.get("duration", 0.0) for record in records)
            hours, minutes = seconds / 3600, (time.monotonic() - began) / 60
            # Clocks may stand still for 15 ms.
            bar.set_postfix_str(f"{hours:.2f} h of sound, {hours / max(minutes, 1e-3):.2f} h a minute")
            bar.update(len(records))


def finish(output: Path) -> int:
    """Remove what a run left that ended when its output was complete; how many recordings it could not read.

    Raises:
        ValueError: There are journals of a run that did not end, so the output is of something else.
    """
    journals = journals_of(output)
    for path in journals:
        if not Journal(path).is_complete():
            raise ValueError(f"{output} is there, and {path.name} of a run that did not end; move one of them away")
    for path in (*journals, Path(f"{output}.lock")):
        path.unlink(missing_ok=True)
    failed = count_failures(output)
    unread = f", but for {failed} recordings in {failures_path(output).name}" if failed else ""
    print(f"{output} is there already{unread}; to answer anew, also for what is new, delete it", file=sys.stderr)
    return failed


def count_failures(output: Path) -> int:
    """Recordings that a complete output lacks."""
    failures = failures_path(output)
    if not failures.exists():
        return 0
    with failures.open(newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.DictReader(file))


def merge(
    output: Path,
    count: int,
    recordings: Sequence[str],
    write: Callable[[Iterator[dict[str, Any]], Path], None],
    settings: dict[str, Any],
) -> bool:
    """Make the output of the journals of all parts, if they are complete; they are removed then.

    Returns:
        Whether the output is there.

    Raises:
        ValueError: A part of other settings.
    """
    journals = [Journal.of(output, Part(index, count)) for index in range(count)]
    # Several processes may end at once.
    with FileLock(f"{output}.lock"):
        if not output.exists():
            if not all(journal.is_complete() for journal in journals):
                return False
            for journal in journals:
                refuse_other_settings(journal.path, settings)
            write(read_in_order(journals, recordings), output)
    for path in (*(journal.path for journal in journals), Path(f"{output}.lock")):
        path.unlink(missing_ok=True)
    return True
