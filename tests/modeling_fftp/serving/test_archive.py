"""Archives: what is found, written as it comes, resumed where it stopped, split and merged without loss or doubles."""

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from pyarrow import parquet
from typer.testing import CliRunner

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.atomic_write import alone
from modeling_fftp.cli import app
from modeling_fftp.serving import archive as archiving
from modeling_fftp.serving import tables
from modeling_fftp.serving.archive import answer_recordings
from modeling_fftp.serving.journal import COMPLETE, Journal, read_in_order
from modeling_fftp.serving.parts import Part
from modeling_fftp.serving.recordings import find_recordings
from modeling_fftp.serving.tables import ROWS, schema_of, write_audacity, write_raven
from modeling_fftp.serving.tag import load_tagger, render_table, write_answers
from tests.support import ROOT


def tag(*words, **variables):
    """`fftp tag` in this process: its status, output and errors. What is no exit is raised."""
    result = CliRunner().invoke(app, ["tag", *map(str, words)], env=variables)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    said = f"{result.exception}\n" if result.exception is not None and str(result.exception) != "1" else ""
    output = result.stdout_bytes.decode()
    return SimpleNamespace(returncode=result.exit_code, stdout=output, stderr=f"{result.stderr}{said}")


def tag_alone(*words):
    """The same in a process of its own."""
    command = [sys.executable, "-m", "modeling_fftp", "tag", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def read_table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [*csv.DictReader(file)]


@pytest.mark.parametrize("rows", ROWS)
def test_tables_hold_the_same_in_every_format(trained, archive, tmp_path, rows):
    outputs = [tmp_path / f"tags.{form}" for form in ("csv", "parquet")]
    for output in outputs:
        done = tag(archive, "--model", trained, "--output", output, "--rows", rows, "--threshold", 0.1)
        # One recording could not be read.
        assert done.returncode == 1, done.stderr
    (failure,) = read_table(tmp_path / "tags.csv.failed.csv")
    assert failure["file"].endswith("broken.wav")
    assert "cannot decode" in failure["error"]
    table, columns = read_table(outputs[0]), parquet.read_table(outputs[1]).to_pylist()
    assert [*table[0]] == [*columns[0]]
    assert len(table) == len(columns) >= 12
    for row, other in zip(table, columns, strict=True):
        assert {name: str(value) for name, value in other.items()} == row
    assert {row["file"] for row in table} == {path for path in find_recordings([str(archive)]) if "broken" not in path}
    # Nothing else is left.
    left = {path.name for path in tmp_path.iterdir()} - {"archive"}
    assert left == {"tags.csv", "tags.parquet", "tags.csv.failed.csv", "tags.parquet.failed.csv"}


def test_rows_of_several_groups_are_all_written_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP", 3)
    answers = [
        {"file": f"{index}.wav", "duration": 1.0, "labels": [{"label": "a", "score": 0.5}]} for index in range(8)
    ]
    tables.write_parquet(iter(answers), tmp_path / "tags.parquet", "files", schema_of("files", ["a"]))
    assert parquet.read_table(tmp_path / "tags.parquet")["file"].to_pylist() == [answer["file"] for answer in answers]


def test_a_recording_is_on_the_disk_before_it_counts_as_done(tmp_path, monkeypatch):
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_ino), sync(file)))
    journal = Journal(tmp_path / "journal")
    journal.append({"file": "a.wav"})
    assert synced == [journal.path.stat().st_ino]


def test_lines_of_json_are_those_that_are_printed(trained, archive, tmp_path):
    options = ("--model", trained, "--top_k", 2)
    printed = tag(archive / "high", *options, "--json")
    assert printed.returncode == 0, printed.stderr
    tag(archive / "high", *options, "--output", tmp_path / "tags.jsonl")
    written = (tmp_path / "tags.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for line in written.splitlines()] == [
        json.loads(line) for line in printed.stdout.splitlines()
    ]
    table = tag(archive / "high", *options, "--format", "csv", "--rows", "files").stdout.splitlines()
    assert table[0] == "file,duration,label,score"
    assert len(table) == 1 + 2 * 4


def test_windows_are_as_long_as_the_command_says(trained, archive):
    options = ("--model", trained, "--format", "csv", "--rows", "windows")
    words = (*options, "--window_seconds", 0.25, "--hop_seconds", 0.125)
    done = tag(archive / "high" / "0.wav", *words)
    assert done.returncode == 0, done.stderr
    rows = [row.split(",") for row in done.stdout.splitlines()[1:]]
    assert [float(row[1]) for row in rows[:3]] == [0.0, 0.125, 0.25]
    assert float(rows[0][2]) == 0.25
    wrong = tag(archive / "high" / "0.wav", "--model", trained, "--window_seconds", -1)
    assert (wrong.returncode, "window_seconds=-1.0 must be positive" in wrong.stderr) == (1, True)


def test_a_label_stays_in_its_place_of_a_label_track(tmp_path):
    entry = {"start": 0.0, "end": 1.0, "label": "new\nline\tand tab", "score": 0.5}
    write_audacity({"timeline": [entry]}, tmp_path / "track")
    assert (tmp_path / "track.txt").read_text() == "0.000000\t1.000000\tnew line and tab\n"
    write_raven({"timeline": [entry]}, tmp_path / "table", 16000)
    _, row = (tmp_path / "table.Table.1.selections.txt").read_text().splitlines()
    assert "\tnew line and tab\t0.5000" in row
    shown = render_table({"file": "a.wav", "duration": 1.0, "labels": [entry], "timeline": [entry]}).splitlines()
    assert len(shown) == 5


def test_a_name_does_not_command_the_terminal():
    entry = {"start": 0.0, "end": 1.0, "label": "k\u00e9z\x1b[2J", "score": 0.5}
    shown = render_table({"file": "a\r\x1b[31m.wav", "duration": 1.0, "labels": [entry], "timeline": [entry]})
    assert "a\\r\\x1b[31m.wav: 1.00 s" in shown
    assert shown.count("k\u00e9z\\x1b[2J") == 2


def test_folders_for_audacity_and_raven_mirror_the_archive(trained, archive, tmp_path):
    for form, ending in (("audacity", ".txt"), ("raven", ".Table.1.selections.txt")):
        done = tag(archive, "--model", trained, "--format", form, "--output", tmp_path / form, "--threshold", 0.1)
        assert done.returncode == 1, done.stderr
        files = sorted((tmp_path / form).rglob(f"*{ending}"))
        assert len(files) == 12
        assert (tmp_path / form / "low" / f"1.wav{ending}").read_text(encoding="utf-8").count("\t") >= 2
        assert len(read_table(tmp_path / f"{form}.failed.csv")) == 1
        assert f"{form} is complete; 1 recordings could not be read: {form}.failed.csv" in done.stderr
        assert "lies among the recordings" not in done.stderr
    start, end, label = (tmp_path / "audacity" / "low" / "1.wav.txt").read_text().splitlines()[0].split("\t")
    assert (float(start), label in ("low", "high", "noise")) == (0.0, True)
    with (tmp_path / "raven" / "low" / "1.wav.Table.1.selections.txt").open(newline="") as file:
        row = next(csv.DictReader(file, delimiter="\t"))
    assert (row["Selection"], row["End Time (s)"], row["High Freq (Hz)"]) == ("1", end, "8000.0")


def test_files_lie_where_they_would_if_all_could_be_read(trained, archive):
    (archive / "site").mkdir()
    (archive / "site" / "broken.wav").write_bytes(b"no sound")
    # What a run that was killed left.
    (archive / ".tables.part").mkdir()
    (archive / ".tables.part" / "old").touch()
    words = (archive / "high", archive / "site", "--model", trained, "--output", archive / "tables")
    done = tag(*words, "--format", "audacity")
    assert done.returncode == 1
    assert "tables lies among the recordings; a training on these would take what is heard for labels" in done.stderr
    assert [path.name for path in (archive / "tables").iterdir()] == ["high"]
    assert not (archive / ".tables.part").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux")
def test_folders_whose_names_are_no_text(trained, archive, tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    shutil.copytree(archive / "high", folder)
    done = tag_alone(folder, "--model", trained, "--output", tmp_path / "tracks", "--format", "audacity")
    assert done.returncode == 0, done.stderr
    assert len([*(tmp_path / "tracks").glob("*.wav.txt")]) == 4


def test_options_that_make_no_sense_begin_nothing(trained, archive, tmp_path):
    words = (archive / "high", "--model", trained, "--output", tmp_path / "tags.csv")
    for option in (("--time_stride", 1000), ("--window_seconds", -1)):
        assert tag(*words, *option).returncode == 1
    assert not [path for path in tmp_path.iterdir() if path != archive]
    assert tag(*words).returncode == 0


def test_killed_and_resumed_is_the_same_table(trained, archive, tmp_path):
    for index in range(40):
        shutil.copytree(archive / "high", archive / f"high{index}")
    whole, broken = tmp_path / "whole.csv", tmp_path / "broken.csv"
    tag(archive, "--model", trained, "--output", whole)
    command = [
        sys.executable,
        "-m",
        "modeling_fftp",
        "tag",
        str(archive),
        "--model",
        str(trained),
        "--output",
        str(broken),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    journal, deadline = Journal.of(broken, Part()).path, time.monotonic() + 120
    while not journal.exists() or journal.read_bytes().count(b"\n") < 33:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not broken.exists()
    finished = journal.read_bytes().count(b"\n")
    # As if the power had gone in the middle of a line.
    with journal.open("ab") as file:
        file.write(b'{"file": "half')
    refused = tag(archive, "--model", trained, "--output", broken)
    assert "is of a run that did not end: --resume goes on" in refused.stderr
    other = tag(archive, "--model", trained, "--output", broken, "--resume", "--threshold", 0.9)
    assert "was begun with other settings: threshold None, now 0.9. Repeat those" in other.stderr
    assert journal.read_bytes().count(b"\n") == finished
    resumed = tag(archive, "--model", trained, "--output", broken, "--resume")
    assert resumed.returncode == 1, resumed.stderr
    assert broken.read_bytes() == whole.read_bytes()
    assert (tmp_path / "broken.csv.failed.csv").read_bytes() == (tmp_path / "whole.csv.failed.csv").read_bytes()
    assert not journal.exists()
    assert "is there already" in tag(archive, "--model", trained, "--output", broken).stderr
    # As if it had ended before it could tidy up.
    Journal(journal).end()
    again = tag(archive, "--model", trained, "--output", broken, "--resume")
    unread = "but for 1 recordings in broken.csv.failed.csv; to answer anew, also for what is new, delete it"
    assert again.returncode == 1
    assert again.stderr.endswith(f"{broken} is there already, {unread}\n")
    assert not journal.exists()
    # What somebody else put there, while a run is half done.
    Journal(journal).append({"settings": {}})
    mixed = tag(archive, "--model", trained, "--output", broken, "--resume")
    assert f"{broken} is there, and {journal.name} of a run that did not end" in mixed.stderr
    assert journal.exists()


def test_what_could_not_be_read_is_tried_again(trained, archive, tmp_path):
    options = ("--model", trained, "--output", tmp_path / "tags.csv")
    broken = archive / "low" / "broken.wav"
    place = find_recordings([str(archive)]).index(str(broken)) % 2
    assert tag(archive, *options, "--shard", f"{place + 1}/2").returncode == 1
    shutil.copy(archive / "low" / "0.wav", broken)
    again = tag(archive, *options, "--shard", f"{place + 1}/2", "--resume")
    assert (again.returncode, "waits for the other parts" in again.stderr) == (0, True)
    assert tag(archive, *options, "--shard", f"{2 - place}/2").returncode == 0
    assert tag(archive, "--model", trained, "--output", tmp_path / "whole.csv").returncode == 0
    rows, whole = (read_table(tmp_path / name) for name in ("tags.csv", "whole.csv"))
    assert [row["file"] for row in rows] == [row["file"] for row in whole]
    assert not (tmp_path / "tags.csv.failed.csv").exists()


def test_another_format_goes_on(trained, archive, tmp_path, monkeypatch):
    """Where the files of one cannot be written, which hours of computing show."""

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tables, "write_raven", fail)
    recordings, output = find_recordings([str(archive / "high")]), tmp_path / "tags"
    options = {"top_k": 5, "threshold": None, "batch_size": 8, "time_stride": None, "return_windows": False}
    with pytest.raises(OSError, match="No space left on device"):
        write_answers(load_tagger(trained), recordings, output, Part(), False, "raven", "events", **options)
    words = ("--model", trained, "--output", output, "--format", "csv", "--rows", "files", "--resume")
    done = tag(archive / "high", *words)
    assert done.returncode == 0, done.stderr
    assert {row["file"] for row in read_table(output)} == {*recordings}


def test_recordings_share_a_chunk_up_to_an_hour(tmp_path, monkeypatch):
    monkeypatch.setattr(archiving, "CHUNK_SECONDS", 10.0)
    paths = []
    for name, seconds in (("a", 4), ("b", 5), ("c", 12), ("d", 1), ("e", 1), ("f", 1)):
        paths.append(str(tmp_path / f"{name}.wav"))
        soundfile.write(paths[-1], np.zeros(seconds * 8000, np.float32), 8000)
    paths.insert(3, str(tmp_path / "missing.wav"))
    chunks = [[Path(path).stem for path in chunk] for chunk in archiving.chunk_recordings(paths, 3, 16000)]
    assert chunks == [["a", "b"], ["c"], ["missing", "d", "e"], ["f"]]


def test_other_batches_go_on_and_the_last_part_says_what_all_could_not_read(trained, archive, tmp_path):
    options = ("--model", trained, "--output", tmp_path / "tags.csv")
    place = find_recordings([str(archive)]).index(str(archive / "low" / "broken.wav")) % 2
    first = tag(archive, *options, "--shard", f"{place + 1}/2", "--batch_size", 2)
    assert first.stderr.endswith("waits for the other parts; 1 recordings could not be read\n")
    last = tag(archive, *options, "--shard", f"{2 - place}/2", "--batch_size", 4)
    assert (last.returncode, "could not be read: tags.csv.failed.csv" in last.stderr) == (1, True)


def test_another_process_may_merge_first(trained, archive, tmp_path, monkeypatch):
    def merge_elsewhere(journal):
        journal.append(COMPLETE)
        journal.path.unlink()
        output.write_text("merged")

    tagger, output = load_tagger(trained), tmp_path / "tags.csv"
    monkeypatch.setattr(Journal, "end", merge_elsewhere)
    recordings = find_recordings([str(archive / "high")])
    assert write_answers(tagger, recordings, output, Part(0, 2), False, "csv", "events") == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["tags.csv"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux lists them")
def test_many_parts_do_not_need_many_open_files(tmp_path):
    journals = [Journal.of(tmp_path / "tags.csv", Part(index, 50)) for index in range(50)]
    for index, journal in enumerate(journals):
        journal.append({"file": str(index)})
    before = len(os.listdir("/proc/self/fd"))
    for index, record in enumerate(read_in_order(journals, [*map(str, range(50))])):
        assert record == {"file": str(index)}
        assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_processes_print_their_shares(trained, archive):
    printed = [
        tag(
            archive / "high", "--model", trained, "--format", "csv", "--rows", "files", RANK=rank, WORLD_SIZE="2"
        ).stdout
        for rank in ("0", "1")
    ]
    files = [{row["file"] for row in csv.DictReader(text.splitlines())} for text in printed]
    assert not files[0] & files[1]
    assert len(files[0] | files[1]) == len([*(archive / "high").iterdir()])
    # As other lines that commands print end.
    assert "\r" not in printed[0]


def test_a_reader_who_has_enough_is_no_error(trained, archive):
    words = [sys.executable, "-m", "modeling_fftp", "tag", archive / "high", "--model", trained, "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


def test_a_part_is_written_by_one_run(trained, archive, tmp_path):
    options = ("--model", trained, "--output", tmp_path / "tags.csv", "--resume")
    journal = Journal.of(tmp_path / "tags.csv", Part()).path
    with alone(journal):
        refused = tag(archive, *options)
    assert (refused.returncode, f"{journal} is being written by another run" in refused.stderr) == (1, True)
    assert "is complete" in tag(archive, *options).stderr


@pytest.mark.parametrize("change", ["threshold", "recordings", "weights", "extractor", None])
def test_parts_that_do_not_belong_together_are_not_merged(trained, archive, tmp_path, change):
    model = shutil.copytree(trained, tmp_path / "model")
    files, output = archive / "high", tmp_path / "tags.csv"
    tag(files, "--model", model, "--output", output, "--shard", "1/2")
    if change == "recordings":
        shutil.copy(files / "0.wav", files / "new.wav")
    if change == "weights":
        other = FFTPForAudioClassification.from_pretrained(model)
        torch.nn.init.normal_(other.classifier.dense.weight)
        other.save_pretrained(model)
    if change == "extractor":
        FFTPFeatureExtractor.from_pretrained(model, mean=0.0).save_pretrained(model)
    if change is None:
        # As on another machine.
        model = model.rename(tmp_path / "elsewhere")
    options = ("--threshold", 0.9) if change == "threshold" else ()
    refused = tag(files, "--model", model, "--output", output, "--shard", "2/2", *options)
    if change is None:
        assert "is complete" in refused.stderr
        return
    assert refused.returncode == 1
    assert f"tags.csv.part-00001-of-00002.jsonl was begun with other settings: {change}" in refused.stderr
    assert not output.exists()


@pytest.mark.parametrize("begun", ["", '{"settings": {"thr'])
def test_a_part_that_another_process_just_begins_is_no_other(trained, archive, tmp_path, begun):
    output = tmp_path / "tags.csv"
    for index in (0, 1):
        Journal.of(output, Part(index, 2)).path.write_text(begun)
    options = ("--model", trained, "--output", output, "--resume")
    assert "waits for the other parts" in tag(archive / "high", *options, "--shard", "1/2").stderr
    assert "is complete" in tag(archive / "high", *options, "--shard", "2/2").stderr


def test_a_name_that_is_not_utf8_stops_nothing(trained, archive, tmp_path):
    folder = os.fsencode(archive / "high")
    os.rename(os.path.join(folder, b"0.wav"), os.path.join(folder, b"caf\xe9.wav"))
    for name in ("tags.csv", "tags.parquet", "labels"):
        form = ("--format", "audacity") if name == "labels" else ()
        done = tag_alone(archive / "high", "--model", trained, "--output", tmp_path / name, *form)
        assert f"{name} is complete" in done.stderr, done.stderr
    rows = read_table(tmp_path / "tags.csv")
    assert "caf\\xe9.wav" in {Path(row["file"]).name for row in rows}


def test_a_list_of_failures_goes_with_its_output(trained, archive, tmp_path):
    output, failures = tmp_path / "tags.csv", tmp_path / "tags.csv.failed.csv"
    tag(archive, "--model", trained, "--output", output)
    assert failures.exists()
    output.unlink()
    tag(archive / "high", "--model", trained, "--output", output)
    assert output.exists()
    assert not failures.exists()


def test_a_run_in_another_number_of_parts_is_refused(trained, archive, tmp_path):
    options = ("--model", trained, "--output", tmp_path / "tags.csv")
    tag(archive / "high", *options, "--shard", "1/2")
    refused = tag(archive / "high", *options)
    assert "tags.csv.part-00001-of-00002.jsonl is of a run in another number of parts than 1" in refused.stderr
    assert not (tmp_path / "tags.csv").exists()


def test_a_label_that_is_called_like_a_column_is_refused():
    assert schema_of("windows", ["go", "stop"]).names == ["file", "start", "end", "go", "stop"]
    assert schema_of("events", ["start"]).names[0] == "file"
    with pytest.raises(ValueError, match="the label 'start' is called like a column"):
        schema_of("windows", ["start", "stop"])


def test_shards_and_processes_become_the_whole_table(trained, archive, tmp_path):
    options = ("--model", trained, "--output")
    tag(archive, *options, tmp_path / "whole.csv")
    split = tmp_path / "split.csv"
    for shard, rank in (("2/2", 0), ("1/2", 1), ("2/2", 1)):
        done = tag(archive, *options, split, "--shard", shard, RANK=str(rank), WORLD_SIZE="2")
        assert "waits for the other parts" in done.stderr
        assert not split.exists()
    tag(archive, *options, split, "--shard", "1/2", RANK="0", WORLD_SIZE="2")
    for row, other in zip(read_table(split), read_table(tmp_path / "whole.csv"), strict=True):
        # What shared a batch decides the last digit.
        assert float(row.pop("score")) == pytest.approx(float(other.pop("score")), abs=1.5e-4)
        assert row == other
    assert not [path for path in tmp_path.iterdir() if "part-" in path.name or path.suffix == ".lock"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "tags.xyz"], "format 'xyz' for --output tags.xyz: expected one of csv, parquet, jsonl"),
        (["--format", "raven"], "format 'raven' without --output: expected one of text, jsonl, csv"),
        (["--rows", "words"], "--rows words: expected one of events, files, windows"),
        (["--rows", "windows"], "--rows windows is for tables; text has events"),
        (["--rows", "files", "--json"], "--rows files is for csv and parquet"),
        (["--shard", "3/2"], "--shard 3/2: expected a number"),
        (["--real_time_factor", "1", "--time_stride", "2"], "--real_time_factor chooses the stride"),
        (["--real_time_factor", "1", "--shard", "1/2"], "name one --time_stride for all parts"),
        (["--json", "--format", "csv"], "--json and --format csv: drop one of the two"),
        (["--resume"], "--resume goes on with an output"),
    ],
)
def test_what_makes_no_sense_is_refused(trained, archive, words, message):
    done = tag(archive, "--model", trained, *words)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_read_once(trained, tmp_path):
    """What it held is gone then: to open it again would wait for a writer without an end."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"no sound" * 100,), daemon=True)
    writer.start()
    done = tag_alone(tmp_path / "pipe", "--model", trained)
    assert done.returncode == 1
    assert "pipe: cannot decode: Format not recognised" in done.stderr


def test_a_name_without_room_is_refused_before_the_run(trained, archive, tmp_path):
    shutil.copy(next(archive.rglob("*.wav")), archive / f"{'a' * 240}.wav")
    done = tag(archive, "--model", trained, "--output", tmp_path / "tables", "--format", "raven")
    assert done.returncode == 1
    assert "the name is too long for raven, which adds .Table.1.selections.txt; rename it" in done.stderr
    assert not [*tmp_path.glob("tables*")]


def test_what_is_wrong_with_the_model_is_no_fault_of_the_recordings(trained, archive):
    tagger = load_tagger(trained)
    tagger.feature_extractor = FFTPFeatureExtractor(num_mel_bins=64)
    with pytest.raises(ValueError, match="64"):
        next(answer_recordings(tagger, [str(archive / "low" / "0.wav")], dict))
