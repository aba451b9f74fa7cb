"""From files to decoded clips: what is found out about them before a training, and what stops it."""

import csv
import json
import shutil
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

import modeling_fftp
from modeling_fftp.training.data.arguments import DataArguments
from modeling_fftp.training.data.decoding import clips_to_hold
from modeling_fftp.training.data.description import describe_data
from modeling_fftp.training.data.left_out import LEFT_OUT, left_out_clip, report_left_out
from modeling_fftp.training.data.loading import Clips
from modeling_fftp.training.inspect import inspect
from tests.support import run_training

RATE = 16000


def tone(frequency, seconds=0.5, gain=0.3, rate=RATE):
    return gain * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)


def write(path, sound, rate=RATE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate, **options)


@pytest.fixture
def folder(tmp_path):
    """A folder with two splits of two classes, four clips each."""
    for split, offset in (("train", 0), ("val", 40)):
        for label, frequency in (("low", 300), ("high", 3000)):
            for index in range(4):
                write(tmp_path / "data" / split / label / f"{index}.wav", tone(frequency + offset + 10 * index))
    return tmp_path / "data"


def train(folder, output, *arguments):
    run_training(output, "--dataset_name", folder, "--max_left_out", 0.9, *arguments)
    return json.loads((output / "config.json").read_text())


def test_a_training_reports_its_data(folder, tmp_path, caplog):
    caplog.set_level("INFO")
    write(folder / "train" / "low" / "long.wav", np.stack([tone(350, 2, rate=44100)] * 2, axis=1), 44100)
    write(folder / "train" / "low" / "silent.wav", np.zeros(4000))
    write(folder / "train" / "high" / "clipped.wav", np.clip(tone(3100, gain=4), -1, 1))
    write(folder / "train" / "high" / "loud.wav", tone(3200, gain=2e4), subtype="FLOAT")
    (folder / "train" / "low" / "text.wav").write_text("no sound")
    shutil.copy(folder / "train" / "low" / "1.wav", folder / "val" / "low" / "same.wav")
    train(folder, tmp_path / "out")
    report = (tmp_path / "out" / "data_report.md").read_text()
    assert report in caplog.text
    for line in (
        "| clips | 12 | 9 |", "| rates in Hz | 16000 (11), 44100 (1) | 16000 |", "| channels | 1 (11), 2 (1) | 1 |",
        "| seconds: shortest, median, longest | 0.25, 0.50, 2.00 | 0.50, 0.50, 0.50 |", "| silent | 1 | 0 |",
        "| left out | 1 | 0 |", "| low | 6 | 5 |", "| high | 6 | 4 |", "- train: silent clips: low/silent.wav.",
        "- train: floats far beyond [-1, 1], up to 19021, in high/loud.wav.",
        "- train: clips of which more than 0.1% is at full scale: high/clipped.wav.",
        "- train: left out, since cannot decode: Format not recognised: low/text.wav.",
        "- The same sound in train and validation: low/1.wav = low/same.wav.",
    ):  # fmt: skip
        assert line in report, line
    assert inspect([str(folder)]).replace(str(folder), "data") == report


def test_an_inspection_names_low_rates_and_rows_of_events(folder, tmp_path):
    write(folder / "train" / "low" / "phone.wav", tone(300, rate=8000), 8000)
    report = inspect([str(folder)])
    assert "- 1 of 17 clips are at less than 16000 Hz, down to 8000 Hz, and lack what others hold above" in report
    table = tmp_path / "data" / "events.csv"
    table.write_text("path,label\n" + 2 * "train/low/1.wav,low\n" + "train/high/1.wav,high\n")
    report = inspect([str(table)])
    assert "clips with the same sound" in report
    for path in folder.rglob("*.wav"):
        sound, rate = soundfile.read(path)
        soundfile.write(path, sound[:: rate // 8000], 8000)
    assert "- All clips are at 8000 Hz or less: at 16000 Hz the bins above 4000 Hz stay empty" in inspect(
        [str(folder)]
    )


def test_an_inspection_keeps_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    assert "| clips | 8 | 8 |" in inspect([str(folder)])
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) < 20000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "inspect: DATA is missing"),
        (["data", "--max_left_out", "7"], r"inspect: --max_left_out 7.0 must lie in \[0, 1\]"),
        (["data", "--validation_column", "fold"], "go together"),
        (["data", "--exclude_labels", "a", "--none_labels", "a"], "both name 'a'"),
    ],
)
def test_an_inspection_refuses_what_a_training_does(words, message):
    with pytest.raises(SystemExit, match=message):
        inspect(words)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("license: mit", "mit"),
        ("license: [mit, cc0-1.0]", "mit, cc0-1.0"),
        ("license: [1, 2]", None),
        ("license: {a: b}", None),
        ("1: x", None),
        ("- a", None),
    ],
)
def test_a_card_of_data_stops_nothing(tmp_path, head, expected):
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\n")
    described = describe_data(DataArguments(str(tmp_path)), Clips({}, [], False, {}, {}))
    assert described["license"] == expected


def test_the_command_inspects(folder, capsys):
    from modeling_fftp.cli import app

    app(["inspect", str(folder), "--label_column_name", "label"], standalone_mode=False)
    assert "| low | 4 | 4 |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="fftp: no label column 'kind'"):
        app(["inspect", str(folder), "--label_column_name", "kind"], standalone_mode=False)


def test_names_without_a_suffix_are_those_of_files(folder, tmp_path):
    """FSD50K: a table of ids, classes with commas between them, and a column that divides it."""
    rows = ["fname,labels,mids,split"]
    (tmp_path / "clips").mkdir()
    for number, path in enumerate(sorted(folder.rglob("*.wav"))):
        shutil.copy(path, tmp_path / "clips" / f"{number}.wav")
        rows.append(f'{number},"{path.parent.name},tone",/m/0,{path.parent.parent.name}')
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "dev.csv").write_text("\n".join(rows))
    source = [str(tmp_path / "truth" / "dev.csv"), "--dataset_data_dir", "../clips", "--label_separator", ","]
    report = inspect(source)
    assert "| clips | 8 | 8 |" in report
    assert "| tone | 8 | 8 |" in report
    with pytest.raises(ValueError, match=r"100\.0%.*the first: .*0: cannot decode: No such file"):
        train(tmp_path / "truth" / "dev.csv", tmp_path / "out", *source[1:2], "../nowhere", *source[3:])


def test_names_as_other_systems_write_them_are_those_of_files(folder, tmp_path):
    """Of AudioMoth without their suffix, with the separators of Windows, and in the form that macOS gives them."""
    sounds, decomposed = sorted(folder.rglob("*.wav")), unicodedata.normalize("NFD", "H\u00fcndin")
    for source, path in zip(sounds, ("20240501.WAV", "dog/1.wav", f"{decomposed}.wav"), strict=False):
        (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, tmp_path / "data" / path)
    names = ("20240501", "dog\\1.wav", "H\u00fcndin.wav")
    rows = [f"{name},{label}" for name, label in zip(names, "aab", strict=True)]
    (tmp_path / "data" / "clips.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    assert "| clips | 3 |" in inspect([str(tmp_path / "data" / "clips.csv")])


def test_errors_of_the_data_are_one_line(tmp_path, monkeypatch):
    from modeling_fftp.cli import app

    (tmp_path / "clips.csv").write_text("path,label\na.wav,dog\nb.wav,dog\n")
    arguments = ["train", "--dataset_name", str(tmp_path / "clips.csv"), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=r"^fftp: all clips have one class"):
        app(arguments, standalone_mode=False)
    monkeypatch.setenv("FFTP_TRACEBACK", "1")
    with pytest.raises(ValueError, match="all clips have one class"):
        app(arguments, standalone_mode=False)


COLUMNS = {
    "objects": lambda path: {"array": soundfile.read(path)[0].tolist(), "sampling_rate": RATE},
    "bytes": lambda path: path.read_bytes(),
    "files": lambda path: {"bytes": path.read_bytes(), "path": path.name},
    "paths beside the folder": lambda path: str(path.relative_to(path.parents[2])),
    "paths in objects": lambda path: {"bytes": None, "path": str(path.relative_to(path.parents[2]))},
}


@pytest.mark.parametrize("form", COLUMNS)
def test_columns_of_sound(folder, tmp_path, form):
    for split, name in (("train", "train"), ("val", "validation")):
        paths = sorted((folder / split).rglob("*.wav"))
        rows = {"audio": [*map(COLUMNS[form], paths)], "label": [path.parent.name for path in paths]}
        Dataset.from_dict(rows).to_parquet(folder / f"{name}.parquet")
    report = inspect([str(folder)])
    assert "| clips | 8 | 8 |" in report
    assert "| left out | 0 | 0 |" in report


@pytest.mark.parametrize("values", [[[0.1, 0.2]] * 2, [0, 1], [3.5, 4.5]], ids=["floats", "numbers", "fractions"])
def test_columns_of_no_sound_are_refused(tmp_path, values):
    Dataset.from_dict({"audio": values, "label": ["a", "b"]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(
        ValueError, match=r"the column 'audio' holds .*; expected paths, the bytes of files, or objects"
    ):
        inspect([str(tmp_path)])


def test_paths_that_are_missing_or_numbers_are_left_out(folder, tmp_path):
    rows = [f"{path},{path.parent.name}" for path in sorted((folder / "train").rglob("*.wav"))]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label", *rows, ",low", "1,low", "nan,high"]))
    train(tmp_path / "clips.csv", tmp_path / "out")
    problems = {
        row["source"]: row["problem"] for row in csv.DictReader((tmp_path / "out" / "left_out_clips.csv").open())
    }
    assert problems["row 8"] == "no sound"
    assert all(problems[str(tmp_path / name)].endswith("No such file or directory") for name in ("1", "nan"))


def test_labels_in_text_are_names(folder, tmp_path):
    names = {"low": "None", "high": "01"}
    rows = [f"{path},{names[path.parent.name]}" for path in sorted((folder / "train").rglob("*.wav"))]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label", *rows, f"{rows[0].split(',')[0]},"]))
    assert train(tmp_path / "clips.csv", tmp_path / "out")["label2id"] == {"01": 0, "None": 1}


def test_a_split_that_lacks_a_column_is_named(tmp_path):
    (tmp_path / "train.csv").write_text("path,label\na.wav,dog\nb.wav,cat\n")
    (tmp_path / "val.csv").write_text("path,class\na.wav,dog\n")
    with pytest.raises(ValueError, match=r"the validation split has no column 'label'; it has \['path', 'class'\]"):
        inspect([str(tmp_path)])


def vector_rows(folder, split):
    paths = sorted((folder / split).rglob("*.wav"))
    return [{"audio": str(path), "labels": [int(path.parent.name == "low"), 1, 0]} for path in paths]


def test_vectors_are_several_labels(folder, tmp_path):
    for split in ("train", "val"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, vector_rows(folder, split))))
    config = train(tmp_path, tmp_path / "out")
    assert config["label2id"] == {"label_0": 0, "label_1": 1, "label_2": 2}
    assert config["problem_type"] == "multi_label_classification"
    (tmp_path / "names.csv").write_text("index,mid,display_name\n0,a,Low\n1,b,Tone\n2,c,Rest\n")
    with pytest.raises(FileNotFoundError, match=r"--class_names_file nowhere.csv: no such file; paths begin in the w"):
        inspect([str(tmp_path), "--class_names_file", "nowhere.csv"])
    config = train(tmp_path, tmp_path / "named", "--class_names_file", tmp_path / "names.csv")
    assert config["label2id"] == {"Low": 0, "Tone": 1, "Rest": 2}


def test_what_would_end_after_an_epoch_ends_before(folder, tmp_path):
    rows = vector_rows(folder, "train"), [row | {"labels": [0, 0, 0]} for row in vector_rows(folder, "val")]
    for split, lines in zip(("train", "val"), rows, strict=True):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match="validation: none of its 8 clips has a label"):
        train(tmp_path, tmp_path / "out")
    for path in (folder / "train").rglob("*.wav"):
        write(path, np.zeros(4000))
    with pytest.raises(ValueError, match="train: all 8 clips are silent"):
        train(folder, tmp_path / "out")
    for path in (folder / "train").rglob("*.wav"):
        write(path, np.full(4000, 0.5))
    with pytest.raises(ValueError, match="the clips have the same energy everywhere"):
        train(folder, tmp_path / "out")
    shutil.rmtree(folder / "train" / "low")
    with pytest.raises(ValueError, match=r"all clips have one class, \['high'\]; expected two"):
        train(folder, tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_class_that_is_in_validation_only(folder, tmp_path):
    shutil.copytree(folder / "val" / "low", folder / "val" / "unheard")
    config = train(folder, tmp_path / "out")
    assert config["label2id"] == {"high": 0, "low": 1}
    report = (tmp_path / "out" / "data_report.md").read_text()
    problem = "validation: left out, since label 'unheard' is not among the 2 classes"
    assert f"{problem}: unheard/0.wav, unheard/1.wav, unheard/2.wav and 1 more" in report


def test_a_changed_version_decodes_anew(folder, tmp_path, monkeypatch):
    from modeling_fftp.training.data.clip_decoder import ClipDecoder

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    assert ClipDecoder.version == modeling_fftp.__version__
    inspect([str(folder)])
    files = {*(tmp_path / "cache").rglob("*.arrow")}
    inspect([str(folder)])
    assert {*(tmp_path / "cache").rglob("*.arrow")} == files
    defaults = (*ClipDecoder.__init__.__defaults__[:-1], "another")
    monkeypatch.setattr(ClipDecoder.__init__, "__defaults__", defaults)
    inspect([str(folder)])
    assert len({*(tmp_path / "cache").rglob("*.arrow")}) == 2 * len(files)


def test_the_disk_that_decoding_takes_is_said_before(folder, tmp_path, caplog):
    caplog.set_level("INFO")
    train(folder, tmp_path / "out")
    assert "Decoded sound takes about 0.00 GiB in " in caplog.text


def test_indices_are_those_of_the_names_of_each_split(folder, tmp_path):
    """A test split that has its classes in another order, as two builders wrote it."""
    splits = {}
    for split, role, names in (("train", "train", ["high", "low"]), ("val", "test", ["low", "high"])):
        paths = sorted((folder / split).rglob("*.wav"))[: 7 if role == "test" else 8]
        features = Features({"audio": Value("string"), "label": ClassLabel(names=names)})
        rows = {"audio": [*map(str, paths)], "label": [names.index(path.parent.name) for path in paths]}
        splits[role] = Dataset.from_dict(rows, features=features)
    DatasetDict(splits).save_to_disk(tmp_path / "saved")
    report = inspect([str(tmp_path / "saved")])
    assert "| high | 4 | 4 |" in report
    assert "| low | 4 | 3 |" in report
    for role, split in splits.items():
        split.to_parquet(tmp_path / "shards" / f"{role}.parquet")
    # `datasets` would give both splits the names of one.
    with pytest.raises(ValueError, match=r"train\.parquet has the columns .* has "):
        inspect([str(tmp_path / "shards")])
    assert "| low | 4 | 3 |" in inspect([str(tmp_path / "shards"), "--streaming", "true"])


def test_lists_beside_single_labels_are_refused(folder, tmp_path):
    for split, wrap in (("train", str), ("val", lambda name: [name])):
        rows = [{"path": str(path), "label": wrap(path.parent.name)} for path in (folder / split).rglob("*.wav")]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match="the validation split has lists of labels, another split has one per clip"):
        inspect([str(tmp_path)])


def test_an_unlabelled_test_split_is_passed_over(folder, tmp_path, caplog):
    for name in ("train", "val"):
        paths = sorted((folder / name).rglob("*.wav"))
        (tmp_path / f"{name}.csv").write_text("path,label\n" + "".join(f"{p},{p.parent.name}\n" for p in paths))
    test = Dataset.from_dict({"path": [str(paths[0])]})
    DatasetDict(
        train=Dataset.from_csv(str(tmp_path / "train.csv")), val=Dataset.from_csv(str(tmp_path / "val.csv")), test=test
    ).save_to_disk(tmp_path / "saved")
    assert "| clips | 8 | 8 |" in inspect([str(tmp_path / "saved")])
    assert "The test split has no column 'label' and is not used" in caplog.text


@pytest.mark.parametrize(
    ("kind", "hidden"),
    [(ClassLabel(names=["high", "low"]), -1), (Value("string"), None), (Value("null"), None)],
    ids=["index", "name", "null"],
)
def test_a_test_split_with_hidden_labels_is_passed_over(folder, tmp_path, kind, hidden, caplog):
    paths = sorted((folder / "train").rglob("*.wav"))
    train = {"path": [*map(str, paths)], "label": [path.parent.name for path in paths]}
    if isinstance(kind, ClassLabel):
        train["label"] = kind.str2int(train["label"])
    test = {"path": [str(paths[0])] * 2, "label": [hidden] * 2}
    kinds = {"path": Value("string"), "label": kind if kind != Value("null") else Value("string")}
    DatasetDict(
        train=Dataset.from_dict(train, features=Features(kinds)),
        test=Dataset.from_dict(test, features=Features(kinds | {"label": kind})),
    ).save_to_disk(tmp_path / "saved")
    assert "| clips | 8 |\n" in inspect([str(tmp_path / "saved")])
    assert "The test split has no labels and is not used" in caplog.text


def test_columns_are_named_and_not_guessed(folder, tmp_path, caplog):
    caplog.set_level("INFO")
    paths = sorted((folder / "train").rglob("*.wav"))
    rows = {"path": [*map(str, paths)], "speaker": [0, 1] * 4, "label": [path.parent.name for path in paths]}
    rows |= {"start": [0.0] * 8, "region": [1, 0] * 4}
    kinds = {"path": Value("string"), "speaker": ClassLabel(names=["a", "b"]), "label": Value("string")}
    kinds |= {"start": Value("float64"), "region": ClassLabel(names=["x", "y"])}
    data = Dataset.from_dict(rows, features=Features(kinds))
    data.save_to_disk(tmp_path / "saved")
    assert "| high | 4 |" in inspect([str(tmp_path / "saved")])
    assert "Sound is in the column 'path', labels in 'label'" in caplog.text
    assert "The columns ['start'] are not read: each row is a whole clip" in caplog.text
    data.remove_columns("label").save_to_disk(tmp_path / "other")
    with pytest.raises(ValueError, match=r"\['speaker', 'region'\] could all be for label; .* --label_column_name"):
        inspect([str(tmp_path / "other")])


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_a_column_to_validate_by_is_checked(folder, tmp_path, streaming, caplog):
    source = ["--validation_column", "nosuch", "--validation_value", "1", "--streaming", streaming]
    with pytest.raises(ValueError, match="no column 'nosuch' to validate by; the data has"):
        train(folder, tmp_path / "out", *source)
    with pytest.raises(ValueError, match="label='none' holds 0 of 8 clips"):
        train(folder, tmp_path / "out", "--validation_column", "label", "--validation_value", "none")
    source = [str(folder), "--validation_column", "label", "--streaming", streaming, "--validation_value"]
    with pytest.raises(ValueError, match="label='none' holds 0 of 8 clips"):
        inspect([*source, "none"])
    report = inspect([*source, "low"])
    assert "| clips | 4 | 4 |" in report
    assert "| low | 0 | 4 |" in report
    assert "The split 'val' is not used: a group of 'label' validates" in caplog.text


def test_an_inspection_of_what_cannot_be_used_says_why(tmp_path):
    (tmp_path / "clips.csv").write_text("path,label\n0.flac,a\n1.flac,b\n")
    report = inspect([str(tmp_path / "clips.csv")])
    assert "| clips | 0 |" in report
    assert "left out, since cannot decode: No such file or directory" in report


def test_long_paths_and_broken_bytes_are_left_out(folder, tmp_path):
    paths = sorted((folder / "train").rglob("*.wav"))
    rows = [f"{path},{path.parent.name}" for path in paths]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label", *rows, "x" * 300 + ",low"]))
    assert "File name too long" in inspect([str(tmp_path / "clips.csv")])
    data = {
        "audio": [*(path.read_bytes() for path in paths), b"x" * 5000],
        "label": [p.parent.name for p in paths] + ["low"],
    }
    Dataset.from_dict(data).to_parquet(tmp_path / "bytes" / "train.parquet")
    report = inspect([str(tmp_path / "bytes")])
    assert "row 8" in report
    assert "xxx" not in report


def test_changed_files_are_decoded_anew(folder, tmp_path):
    rows = [
        {"audio": {"bytes": None, "path": str(path)}, "label": path.parent.name}
        for path in sorted((folder / "train").rglob("*.wav"))
    ]
    Dataset.from_list(rows).to_parquet(tmp_path / "data" / "train.parquet")
    assert "0.50, 0.50, 0.50" in inspect([str(tmp_path / "data")])
    for row in rows:
        write(Path(row["audio"]["path"]), tone(500, 0.9))
    assert "0.90, 0.90, 0.90" in inspect([str(tmp_path / "data")])


def test_bars_in_names_stay_in_their_cell(folder):
    (folder / "train" / "low").rename(folder / "train" / "a|b")
    (folder / "val" / "low").rename(folder / "val" / "a|b")
    assert r"| a\|b | 4 | 4 |" in inspect([str(folder)])


@pytest.mark.parametrize(
    ("seconds", "most"),
    [((), 16), ((0.1, 5.0), 16), ((60.0,), 10), ((5.0, 3600.0), 1), ((float("inf"), 1.0), 1)],
)
def test_of_long_clips_fewer_are_held_in_memory(monkeypatch, seconds, most):
    monkeypatch.setattr("modeling_fftp.training.data.decoding.sound_seconds", lambda source, rate: source)
    rows = [{"audio": length} for length in seconds]
    assert clips_to_hold(rows, SimpleNamespace(audio_column="audio", folder=Path(), sampling_rate=RATE)) == most


def test_the_first_process_alone_names_what_is_left_out(tmp_path):
    first, second = (SimpleNamespace(output_dir=tmp_path, process_index=index) for index in (0, 1))
    left_out = {"train": [left_out_clip(3, "owl.wav", "broken")]}
    report_left_out(left_out, {"train": 0.1}, 0.5, first)
    written = (tmp_path / LEFT_OUT).read_text()
    report_left_out({"train": []}, {"train": 0.0}, 0.5, second)
    assert (tmp_path / LEFT_OUT).read_text() == written
    with pytest.raises(ValueError, match=r"train: 1 clips \(10.0%\) cannot be used; .* the first: broken"):
        report_left_out(left_out, {"train": 0.1}, 0.05, second)
    report_left_out({"train": []}, {"train": 0.0}, 0.5, first)
    assert not [*tmp_path.iterdir()]
