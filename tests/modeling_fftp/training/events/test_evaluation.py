"""`--task frames`: from tables of events to a folder that finds them, measured as it serves."""

import csv
import json
import shutil
from functools import partial

import numpy as np
import pytest
import soundfile
from datasets import ClassLabel, Dataset, Features, List, Value
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from transformers import AutoModelForAudioFrameClassification, EvalPrediction, pipeline

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.events_fftp import SOMEWHERE
from modeling_fftp.hub.push import files_to_push
from modeling_fftp.training.arguments import FFTPTrainingArguments
from modeling_fftp.training.data.clip_decoder import ClipDecoder
from modeling_fftp.training.data.labels import read_labels
from modeling_fftp.training.events import evaluation
from modeling_fftp.training.events.evaluation import score_steps, set_collars
from modeling_fftp.training.events.metrics import Collars, event_f1
from modeling_fftp.training.probing.probe import probe
from modeling_fftp.training.run import run
from tests.modeling_fftp.hub.hub_server import Hub
from tests.support import run_training

RATE = 16000
PITCHES = {"low": 300, "high": 3000}


def make_recording(rng, seconds, labels=(*PITCHES,)):
    """Beeps in faint noise, and when each sounds."""
    sound, events, time = 0.01 * rng.normal(size=int(seconds * RATE)), [], rng.uniform(0.1, 0.4)
    while (end := time + rng.uniform(0.3, 0.6)) < seconds:
        label = rng.choice([*labels])
        place = np.arange(round(time * RATE), round(end * RATE))
        sound[place] += 0.3 * np.sin(2 * np.pi * PITCHES[label] * place / RATE)
        events.append((round(time, 4), round(end, 4), str(label)))
        time = end + rng.uniform(0.3, 0.8)
    return sound.astype(np.float32), events


def write_table(folder, rows):
    """A table of events as DCASE has it, with a split."""
    with (folder / "events.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("filename", "onset", "offset", "event_label", "split"), *rows])


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A folder of recordings with a table of events; the last has none."""
    folder, rng = tmp_path_factory.mktemp("events"), np.random.default_rng(0)
    rows = []
    for index in range(24):
        split = "validation" if index % 4 == 3 else "train"
        sound, events = make_recording(rng, rng.uniform(2.0, 5.0))
        soundfile.write(folder / f"{index}.wav", sound, RATE)
        rows += [(f"{index}.wav", *event, split) for event in events]
    soundfile.write(folder / "silence.wav", 0.01 * rng.normal(size=2 * RATE), RATE)
    write_table(folder, [*rows, ("silence.wav", "", "", "", "train")])
    return folder


@pytest.fixture(scope="module")
def framewise(recordings, tmp_path_factory):
    """Folder of a run that tells when two beeps sound."""
    output = tmp_path_factory.mktemp("framewise")
    words = ["--task", "frames", "--dataset_name", recordings / "events.csv", "--max_seconds", 2]
    words += ["--num_train_epochs", 20, "--learning_rate", "3e-3", "--per_device_train_batch_size", 4]
    run_training(output, *words)
    return output


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def test_everything_that_is_measured_is_pushed(framewise):
    """But what is for a resumption, or stands in other files too."""
    left = {path.name for path in framewise.glob("*.json")} - {path.name for path in files_to_push(framewise)}
    assert left <= {"all_results.json", "arguments.json", "trainer_state.json"}


def test_the_folder_finds_events_as_it_was_measured(framewise, recordings):
    measured = read(framewise, "validation_events")
    assert measured["event_f1_macro"] > 0.9
    assert measured["psds1"] > 0.5
    assert read(framewise, "validation_results")["validation_event_f1_macro"] == measured["event_f1_macro"]
    tag = pipeline("audio-tagging", model=str(framewise), trust_remote_code=True)
    true, found = [], []
    for index in range(3, 24, 4):
        with (recordings / "events.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["filename"] == f"{index}.wav"]
        true.append([(float(row["onset"]), float(row["offset"]), row["event_label"]) for row in rows])
        timeline = tag(recordings / f"{index}.wav")["timeline"]
        found.append([(entry["start"], entry["end"], entry["label"]) for entry in timeline])
    again = event_f1(true, found, ["high", "low"], Collars())
    assert again["event_f1_macro"] == pytest.approx(measured["event_f1_macro"], abs=1e-9)


def test_beeps_are_found_by_what_only_knows_which_ones_a_clip_has(tmp_path, caplog):
    """No event to train on has times; the recordings that validate tell them, but for one."""
    rng, rows = np.random.default_rng(0), []
    for index in range(24):
        split = "validation" if index % 4 == 3 else "train"
        wanted = [*PITCHES] if split == "validation" else [["low"], ["high"], [*PITCHES]][index % 3]
        sound, events = make_recording(rng, rng.uniform(2.0, 5.0), wanted)
        soundfile.write(tmp_path / f"{index}.wav", sound, RATE)
        if split == "train" or index == 23:
            events = [("", "", label) for label in sorted({label for *_, label in events})]
        rows += [(f"{index}.wav", *event, split) for event in events]
    write_table(tmp_path, rows)
    words = ["--task", "frames", "--dataset_name", tmp_path / "events.csv", "--max_seconds", 2]
    words += ["--num_train_epochs", 20, "--learning_rate", "3e-3", "--per_device_train_batch_size", 4]
    with caplog.at_level("INFO"):
        run_training(tmp_path / "out", *words)
    assert "validation: 1 clips are not used, since some event has no times" in caplog.text
    assert read(tmp_path / "out", "validation_events")["event_f1_macro"] > 0.9


def test_two_long_recordings_are_learned_as_long_as_they_are(tmp_path):
    """A crop of each per epoch would be 40 s in all."""
    rng, rows = np.random.default_rng(0), []
    for split in ("train", "validation"):
        sound, events = make_recording(rng, 90.0)
        soundfile.write(tmp_path / f"{split}.wav", sound, RATE)
        rows += [(f"{split}.wav", *event, split) for event in events]
    write_table(tmp_path, rows)
    words = ["--task", "frames", "--dataset_name", tmp_path / "events.csv", "--max_seconds", 2]
    words += ["--num_train_epochs", 20, "--learning_rate", "3e-3", "--per_device_train_batch_size", 4]
    run_training(tmp_path / "out", *words)
    # Edges of pieces cut some events, but what is measured is those of the whole recording.
    assert read(tmp_path / "out", "validation_events")["event_f1_macro"] > 0.95


def test_a_checkpoint_that_hears_padding_learns_steps_with_a_mask(recordings, make_config, tmp_path):
    """As converted ones do; steps of padding would be labelled, scored and tagged."""
    FFTPForAudioClassification(make_config()).save_pretrained(tmp_path / "start")
    extractor = FFTPFeatureExtractor(
        max_length=100, padding="max_length", truncation=True, return_attention_mask=False, mean=-9.0, std=3.0
    )
    extractor.save_pretrained(tmp_path / "start")
    words = ["--task", "frames", "--dataset_name", recordings / "events.csv", "--max_seconds", 2]
    run_training(tmp_path / "out", *words, "--model_name_or_path", tmp_path / "start")
    settings = read(tmp_path / "out", "preprocessor_config")
    assert (settings["padding"], settings["return_attention_mask"]) == ("longest", True)


def test_steps_are_not_scored_by_events_without_times():
    score = score_steps(lambda prediction: {"steps": len(prediction.label_ids)})
    targets = np.array([[[0.0, 1.0], [1.0, 0.0], [-100.0, -100.0]]])
    assert score(EvalPrediction(np.zeros((1, 3, 2)), targets)) == {"steps": 2}
    with pytest.raises(ValueError, match="an event has no times"):
        score(EvalPrediction(np.zeros((1, 3, 2)), np.where(targets == 1.0, SOMEWHERE, targets)))


def test_what_the_folder_holds(framewise):
    config = FFTPConfig.from_pretrained(framewise)
    assert config.architectures == ["FFTPForAudioFrameClassification"]
    assert {*config.thresholds} == {*config.median_filter_seconds} == {"high", "low"}
    assert config.problem_type == "multi_label_classification"
    model = AutoModelForAudioFrameClassification.from_pretrained(framewise, trust_remote_code=True)
    assert type(model).__name__ == "FFTPForAudioFrameClassification"
    card = (framewise / "README.md").read_text(encoding="utf-8")
    assert "says when each of 2 kinds of sound begins and ends" in card
    assert "within 0.2 s and 0.2 s, or for the end 20 % of its length" in card
    assert 'pipeline("audio-classification"' not in card
    least = sorted(read(framewise, "validation_events")["per_class"].items(), key=lambda row: row[1])
    shown = ", ".join(f"{label} {value:.2f}" for label, value in least)
    assert f"F1 of the labels that are found least: {shown}." in card
    # Neither the task nor its metrics.
    assert (ModelCard(card).data.pipeline_tag, ModelCard(card).data.eval_results) == (None, None)
    state = read(framewise, "trainer_state")
    assert state["best_metric"] == min(entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry)
    assert read(framewise, "recipe")["task"] == "frames"
    assert read(framewise, "efficiency_results")["tokens"] > 10


def test_the_report_counts_events_of_each_class(framewise, recordings):
    report = (framewise / "data_report.md").read_text(encoding="utf-8")
    with (recordings / "events.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["onset"]]
    cells = ["low"]
    for split in ("train", "validation"):
        seconds = [
            float(row["offset"]) - float(row["onset"])
            for row in rows
            if (row["split"], row["event_label"]) == (split, "low")
        ]
        cells.append(f"{len(seconds)}: {min(seconds):.2f}, {np.median(seconds):.2f}, {max(seconds):.2f}")
    assert f"| {' | '.join(cells)} |" in report


def test_collars_of_a_checkpoint_on_the_hub(monkeypatch, tmp_path, caplog):
    with Hub() as hub:
        api = HfApi(endpoint=hub.url, token="hf_test")
        for name, files in (("notes", {"recipe.json": b'{"onset_collar": 0.05}'}), ("bare", {"config.json": b"{}"})):
            api.create_repo(f"tester/{name}")
            hub.commit(f"tester/{name}", "main", files)
        fetch = partial(hf_hub_download, endpoint=hub.url, cache_dir=tmp_path, token="hf_test")
        monkeypatch.setattr(evaluation, "hf_hub_download", fetch)
        for name, expected in (("notes", 0.05), ("bare", 0.2)):
            training = FFTPTrainingArguments(str(tmp_path / "out"), do_train=False, report_to="none")
            set_collars(training, f"tester/{name}")
            assert training.onset_collar == expected
            assert ("so the defaults count" in caplog.text) == (name == "bare")


def test_a_folder_is_evaluated_again_and_with_other_collars(framewise, recordings, tmp_path, capsys):
    words = ["--task", "frames", "--dataset_name", recordings / "events.csv", "--model_name_or_path", framewise]
    run([*map(str, words), "--do_train", "false", "--output_dir", str(tmp_path / "same")])
    assert read(tmp_path / "same", "validation_events") == read(framewise, "validation_events")
    again, before = (read(folder, "validation_results") for folder in (tmp_path / "same", framewise))
    # In pieces of 2 s, as it learned, though nothing says so.
    assert all(again[name] == before[name] for name in ("validation_loss", "validation_map"))
    run([*map(str, words), "--do_train", "false", "--output_dir", str(tmp_path / "strict"), "--onset_collar", "0.001"])
    assert read(tmp_path / "strict", "validation_events")["event_f1_macro"] < 0.5
    assert "collars of 0.001 and 0.2 s" in capsys.readouterr().out
    # Its own, where none are named.
    copy = shutil.copytree(framewise, tmp_path / "copy")
    (copy / "recipe.json").write_text('{"task": "frames", "offset_collar": 0.07}')
    run([*map(str, words[:-1]), str(copy), "--do_train", "false", "--output_dir", str(tmp_path / "own")])
    assert "collars of 0.2 and 0.07 s" in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds FFTPForAudioFrameClassification, which has no head for clips"):
        run([*map(str, words[2:]), "--do_train", "false", "--output_dir", str(tmp_path / "clips")])


@pytest.mark.parametrize("kind", ["class label", "index"])
def test_events_name_their_classes_in_any_way(kind):
    label = ClassLabel(names=["low", "high"]) if kind == "class label" else Value("int64")
    events = [[{"onset": 0.1, "offset": 0.5, "label": 1}], [{"onset": 0.0, "offset": 0.2, "label": 0}]]
    features = Features({"events": List({"onset": Value("float64"), "offset": Value("float64"), "label": label})})
    column = read_labels(Dataset.from_dict({"events": events}, features=features), "events")
    names = {name: name for name in column.classes}
    decoder = ClipDecoder("audio", "events", column, names, RATE, is_multi_label=True, keeps_events=True)
    expected = "high" if kind == "class label" else "1"
    assert decoder.name_events(events[0]) == [{"onset": 0.1, "offset": 0.5, "label": expected}]


def test_a_frame_classifier_is_no_model_to_probe(framewise, clip_folder, tmp_path):
    with pytest.raises(ValueError, match="is a frame classifier, whose state of a whole clip was never trained"):
        probe([str(clip_folder), "--model", str(framewise), "--output_dir", str(tmp_path)])


def test_a_frame_classifier_starts_from_a_clip_classifier(trained, recordings, tmp_path):
    words = ["--task", "frames", "--dataset_name", recordings / "events.csv", "--model_name_or_path", trained]
    run([*map(str, words), "--num_train_epochs", "1", "--output_dir", str(tmp_path), "--disable_tqdm", "true"])
    assert FFTPConfig.from_pretrained(tmp_path).architectures == ["FFTPForAudioFrameClassification"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "frames", "--stretch_time", "0.1"], "--stretch_time does not go with --task frames"),
        (["--task", "frames", "--teacher", "x"], "--teacher does not go with --task frames"),
        (["--onset_collar", "0.1"], "--onset_collar is about events; add --task frames"),
        (["--task", "frames", "--onset_collar", "-1"], r"--onset_collar -1.0 must lie in \[0, inf\)"),
        (["--exclude_labels", "low", "--none_labels", "low"], "both name 'low'"),
        (["--task", "frames"], "whose times are called 'onset' and 'offset'"),
    ],
)
def test_what_makes_no_sense_is_refused(clip_folder, tmp_path, words, message):
    with pytest.raises((SystemExit, ValueError), match=message):
        run_training(tmp_path, "--dataset_name", clip_folder, *words)


def test_an_unknown_task_is_refused(clip_folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_training(tmp_path, "--dataset_name", clip_folder, "--task", "words")
    assert "argument --task: invalid choice: 'words' (choose from" in capsys.readouterr().err
