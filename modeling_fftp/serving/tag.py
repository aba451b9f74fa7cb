"""The command `fftp tag`: labels and timelines of recordings, printed or as an archive's table."""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modeling_fftp import FFTPForAudioClassification, FFTPForAudioFrameClassification
from modeling_fftp.audio_tagging_fftp import FFTPAudioTaggingPipeline
from modeling_fftp.scores_fftp import label_names

from .archive import CHUNK, answer_archive, answer_recordings
from .budget import choose_time_stride, real_time_factors
from .load import load_pipeline, warn_of_gaps
from .parts import Part
from .tables import FOLDERS, ROWS, TABLES, common_folder, find_writer, list_rows, schema_of, with_text_names
from .texts import in_one_line, printable

DECIMALS = 4
# What can be printed as it comes.
PRINTED = ("text", "jsonl", "csv")


def load_tagger(model: str | Path) -> FFTPAudioTaggingPipeline:
    """The pipeline "audio-tagging" of a folder or Hub id, by the code of this package and none from the Hub.

    Raises:
        OSError: There is no such model.
        ValueError: It is no classifier of this package.
    """
    classes = (FFTPForAudioClassification, FFTPForAudioFrameClassification)
    return load_pipeline(FFTPAudioTaggingPipeline, classes, model)


def choose_format(form: str | None, as_json: bool, output: Path | None, rows: str) -> str:
    """The format of answers: as asked for, or by the name of the output.

    Raises:
        ValueError: An unknown one, or one that needs an output, or cannot be one.
    """
    if as_json and form not in (None, "jsonl"):
        raise ValueError(f"--json and --format {form}: drop one of the two")
    form = form or ("jsonl" if as_json else None)
    if form is None:
        form = "text" if output is None else output.suffix.removeprefix(".")
    known = PRINTED if output is None else (*TABLES, *FOLDERS)
    if form not in known:
        where = "without --output" if output is None else f"for --output {output}"
        raise ValueError(f"format {form!r} {where}: expected one of {', '.join(known)} (--format)")
    if rows not in ROWS:
        raise ValueError(f"--rows {rows}: expected one of {', '.join(ROWS)}")
    if rows != "events" and form in ("text", *FOLDERS):
        raise ValueError(f"--rows {rows} is for tables; {form} has events")
    if rows == "files" and form == "jsonl":
        raise ValueError("--rows files is for csv and parquet; a line of jsonl is a file with all of it")
    return form


def choose_stride(
    tagger: FFTPAudioTaggingPipeline,
    time_stride: int | None,
    real_time_factor: float | None,
    part: Part,
    resume: bool,
    **options: Any,
) -> int | None:
    """The stride that is asked for, or that a budget allows, which is said on standard error; None is the model's.

    What patches skip at that stride is said too.

    Args:
        tagger: The pipeline "audio-tagging".
        time_stride: The stride that is asked for.
        real_time_factor: The budget.
        part: The share of the recordings that is meant.
        resume: Whether to go on where a run stopped.
        **options: Options of the pipeline that its cost depends on.

    Raises:
        ValueError: Both are given, the budget allows none, or parts of one output might choose differently.
    """
    if real_time_factor is None:
        warn_of_gaps(tagger.model.config, time_stride)
        return time_stride
    if time_stride is not None:
        raise ValueError("--real_time_factor chooses the stride; drop --time_stride")
    if part.count > 1:
        raise ValueError("--real_time_factor measures each process for itself; name one --time_stride for all parts")
    if resume:
        raise ValueError("--real_time_factor measures anew; name the --time_stride that it chose before")
    factors = real_time_factors(tagger, **options)
    chosen = choose_time_stride(factors, real_time_factor)
    measured = ", ".join(f"{stride}: {factor:.2g}" for stride, factor in factors.items())
    print(f"fftp: stride {chosen}; seconds per second of sound by stride: {measured}", file=sys.stderr)
    warn_of_gaps(tagger.model.config, chosen)
    return chosen


def print_answers(
    tagger: FFTPAudioTaggingPipeline, recordings: Sequence[str], form: str, rows: str, **options: Any
) -> int:
    """Print answers as they come; what cannot be read is named on standard error.

    Returns:
        Recordings that could not be read.
    """
    if sys.stdout is None:
        raise ValueError("standard output is closed; expected it to be open, or --output")
    failed, table = 0, csv.writer(sys.stdout, lineterminator="\n")
    if form == "csv":
        table.writerow(schema_of(rows, label_names(tagger.model.config)).names)
    # A person reads along; a program gets more at a time, which is faster.
    for answers in answer_recordings(tagger, recordings, round_numbers, 1 if form == "text" else CHUNK, **options):
        for answer in map(with_text_names, answers):
            if "error" in answer:
                failed += 1
                print(f"fftp: {printable(answer['error'])}", file=sys.stderr)
            elif form == "csv":
                table.writerows(list_rows(answer, rows))
            else:
                print(render_table(answer) if form == "text" else render_json(answer))
        sys.stdout.flush()
    return failed


def write_answers(
    tagger: FFTPAudioTaggingPipeline,
    recordings: Sequence[str],
    output: Path,
    part: Part,
    resume: bool,
    form: str,
    rows: str,
    **options: Any,
) -> int:
    """Write answers into a file or folder.

    Args:
        tagger: The pipeline "audio-tagging".
        recordings: All of the archive.
        output: See `answer_archive`.
        part: See `answer_archive`.
        resume: See `answer_archive`.
        form: Format of the file or folder, from `choose_format`.
        rows: What a row of a table is.
        **options: Options of the pipeline.

    Returns:
        As `answer_archive`.

    Raises:
        FileExistsError, ValueError: As `answer_archive` and `find_writer`.
    """
    if form in FOLDERS and common_folder(recordings) in map(str, output.absolute().parents):
        print(
            f"fftp: {output} lies among the recordings; a training on these would take what is heard for labels",
            file=sys.stderr,
        )
    rate = tagger.feature_extractor.sampling_rate
    write = find_writer(form, rows, label_names(tagger.model.config), rate, recordings)
    return answer_archive(tagger, recordings, round_numbers, output, write, part, resume, **options)


def round_numbers(value: Any) -> Any:
    """Times and scores to a tenth of a millisecond and of a thousandth: the rest depends on what shared a batch."""
    if isinstance(value, float):
        return round(value, DECIMALS)
    if isinstance(value, dict):
        return {name: round_numbers(item) for name, item in value.items()}
    return [round_numbers(item) for item in value] if isinstance(value, list) else value


def render_table(answer: dict[str, Any]) -> str:
    """Render the answer about a file as two tables in plain text."""
    best, timeline = (
        [entry | {"label": printable(in_one_line(entry["label"]))} for entry in answer[part]]
        for part in ("labels", "timeline")
    )
    width = max(map(len, ("label", *(entry["label"] for entry in (*best, *timeline)))))
    lines = [f"{printable(answer['file'])}: {answer['duration']:.2f} s", f"  {'label':<{width}}  score"]
    lines += [f"  {entry['label']:<{width}}  {entry['score']:.3f}" for entry in best]
    if timeline:
        lines.append(f"  {'start':>9}  {'end':>9}  {'label':<{width}}  score")
        lines += [
            f"  {entry['start']:>7.2f} s  {entry['end']:>7.2f} s  {entry['label']:<{width}}  {entry['score']:.3f}"
            for entry in timeline
        ]
    return "\n".join(lines)


def render_json(answer: dict[str, Any]) -> str:
    """An answer as one line of JSON."""
    return json.dumps(answer, ensure_ascii=False)
