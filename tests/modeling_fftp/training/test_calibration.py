"""Calibration: what is chosen is the best there is, the saved model has it, and everything that serves obeys."""

import csv
import json

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from sklearn.metrics import f1_score, precision_score, recall_score
from transformers import pipeline

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.configuration_fftp import SILENT_THRESHOLD
from modeling_fftp.events_fftp import find_segments
from modeling_fftp.scores_fftp import label_names, label_thresholds
from modeling_fftp.training.calibration import (
    Calibration,
    fit_calibration,
    fit_threshold,
    measure_calibration,
    measure_scores,
)
from modeling_fftp.training.run import run
from tests.support import run_training

SINGLE, MULTI = "single_label_classification", "multi_label_classification"


def make_logits(problem_type, scale=1.0, count=4000):
    """Logits that are as right as they say, times a scale, and the labels drawn from them."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2.0, size=(count, 5)).astype(np.float32)
    if problem_type == MULTI:
        return scale * logits, (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    scores = torch.from_numpy(logits).softmax(dim=1).numpy()
    return scale * logits, (scores.cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_scale(problem_type, scale):
    config = FFTPConfig(num_labels=5, problem_type=problem_type)
    calibration = fit_calibration(*make_logits(problem_type, scale), config)
    assert calibration.temperature == pytest.approx(scale, rel=0.05)
    assert bool(calibration.thresholds) == (problem_type == MULTI)


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
def test_no_number_of_right_answers_makes_certain(problem_type):
    labels = np.arange(20) % 4
    targets = np.eye(4, dtype=np.float32)[labels]
    config = FFTPConfig(num_labels=4, problem_type=problem_type)
    logits = 8 * targets - 4
    temperature = fit_calibration(logits, labels if problem_type == SINGLE else targets, config).temperature
    highest = torch.tensor(logits / temperature).sigmoid().max()
    assert highest < 0.98


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_are_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    targets = (rng.random(60) < 0.3).astype(int)
    targets[0] = 1
    scores = np.round(np.clip(rng.normal(0.3 + 0.3 * targets, 0.15), 0.01, 0.99), 2)
    every = [-1.0, *scores, 2.0]
    # What says nothing of other sound is no threshold.
    chosen = fit_threshold(scores, targets) or -1.0
    assert f1_score(targets, scores >= chosen) == max(f1_score(targets, scores >= other) for other in every)
    chosen = fit_threshold(scores, targets, target_precision=0.7) or -1.0
    precise = [
        recall_score(targets, scores >= other)
        for other in every
        if precision_score(targets, scores >= other, zero_division=0) >= 0.7
    ]
    if not precise:
        assert chosen == SILENT_THRESHOLD
    else:
        assert precision_score(targets, scores >= chosen) >= 0.7
        assert recall_score(targets, scores >= chosen) == max(precise)


def test_a_threshold_lies_half_way():
    assert fit_threshold(np.array([0.9, 0.7, 0.3, 0.1]), np.array([1, 1, 0, 0])) == pytest.approx(0.5)
    assert fit_threshold(np.array([0.9, 0.2]), np.array([0, 1]), target_precision=0.9) == SILENT_THRESHOLD
    # No number of float32 is between the two.
    below = np.float32(0.7)
    above = np.nextafter(below, np.float32(1))
    assert float(below) < fit_threshold(np.array([above, below]), np.array([1, 0])) < float(above)


def test_a_silent_label_is_not_heard_however_sure_the_model_is(make_config):
    # A softmax of float32 reaches 1.
    config = make_config(num_labels=2, id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1})
    logits = np.array([[90.0, 0.0], [90.0, 0.0], [0.0, 1.0], [0.0, 1.0]], np.float32)
    calibration = fit_calibration(logits, np.array([0, 1, 1, 1]), config, target_precision=0.9)
    assert calibration.thresholds["a"] == SILENT_THRESHOLD
    config.thresholds = calibration.thresholds
    config.validate()
    scores = torch.tensor([[1.0, 0.0]] * 2)
    spans = torch.tensor([[0.0, 1.0], [0.5, 1.5]], dtype=torch.float64)
    thresholds = label_thresholds(label_names(config), config.thresholds)
    assert not [segment for segment in find_segments(scores, spans, thresholds) if segment[2] == 0]


def test_the_calibration_error_is_that_of_a_few_scores():
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    measured = measure_scores(scores, np.array([0, 1, 1, 1]), [0.5, 0.5])
    assert measured["ece"] == pytest.approx((2 * abs(0.9 - 0.5) + 2 * abs(0.6 - 1.0)) / 4)
    assert [(row["count"], row["right"]) for row in measured["bins"]] == [(2, 1.0), (2, 0.5)]
    assert measured["recall"] == pytest.approx((1 + 2 / 3) / 2)


def test_means_are_those_of_the_label_that_is_there():
    """One column is two classes to scikit-learn."""
    scores = np.array([[0.9], [0.8], [0.2], [0.6]])
    measured = measure_scores(scores, np.array([[1.0], [0.0], [0.0], [1.0]]), [0.5])
    assert (measured["precision"], measured["recall"]) == (pytest.approx(2 / 3), 1.0)
    both = np.hstack((scores, np.full((4, 1), 0.9)))
    measured = measure_scores(both, np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), [0.5, 0.5])
    assert measured["f1"] == pytest.approx(0.8)


def test_a_label_that_tells_nothing_is_not_always_heard():
    assert fit_threshold(np.array([0.1, 0.3, 0.2]), np.array([1, 0, 1])) is None
    logits = np.array([[5.0, 0.1], [-5.0, 0.3], [5.0, 0.2], [-5.0, 0.1]], dtype=np.float32)
    labels = np.array([[1, 1], [0, 0], [1, 0], [0, 1]], dtype=np.float32)
    config = FFTPConfig(num_labels=2, problem_type=MULTI)
    assert [*fit_calibration(logits, labels, config).thresholds] == ["LABEL_0"]


@pytest.fixture(scope="module")
def none_of_these(clip_folder, tmp_path_factory):
    """Folder of a run on clips of which the noise is none of the classes, and some have no label at all."""
    folder = tmp_path_factory.mktemp("none")
    rows = [
        (path.relative_to(clip_folder), "" if path.stem == "0" and path.parent.name == "noise" else path.parent.name)
        for path in sorted((clip_folder / "train").rglob("*.wav"))
    ]
    with (folder / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *rows])
    words = ["--dataset_name", folder / "clips.csv", "--dataset_data_dir", clip_folder, "--none_labels", "noise", ""]
    words += ["--validation_fraction", 0.3, "--num_train_epochs", 20, "--learning_rate", "2e-3"]
    run_training(folder / "model", *words)
    return folder / "model"


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def test_the_saved_model_answers_as_it_was_measured(trained, clip_folder):
    results = read(trained, "calibration_results")
    assert results["temperature"] != 1.0
    model = FFTPForAudioClassification.from_pretrained(trained).eval()
    tag = pipeline("audio-tagging", model=model, feature_extractor=FFTPFeatureExtractor.from_pretrained(trained))
    best = [tag(path, top_k=1)["labels"][0]["score"] for path in sorted((clip_folder / "validation").rglob("*.wav"))]
    bins = results["validation"]["after"]["bins"]
    measured = sum(row["score"] * row["count"] for row in bins) / sum(row["count"] for row in bins)
    # Training evaluates in bfloat16.
    assert np.mean(best) == pytest.approx(measured, abs=0.02)


def test_clips_of_no_class_learn_that_all_scores_are_low(none_of_these, clip_folder):
    config = FFTPConfig.from_pretrained(none_of_these)
    assert config.problem_type == MULTI
    assert sorted(config.label2id) == ["high", "low"] == sorted(config.thresholds)
    tag = pipeline("audio-tagging", model=str(none_of_these), trust_remote_code=True)
    for kind, expected in (("noise", []), ("low", ["low"]), ("high", ["high"])):
        found = [
            [entry["label"] for entry in tag(path)["timeline"]]
            for path in sorted((clip_folder / "validation" / kind).glob("*.wav"))
        ]
        assert sum(labels == expected for labels in found) >= 3
    card = (none_of_these / "README.md").read_text(encoding="utf-8")
    assert "`config.thresholds`, chosen there too" in card
    assert (none_of_these / "reliability.png").exists()


def test_what_a_temperature_changes_is_measured_on_the_scores_of_before_too():
    logits, labels = make_logits(SINGLE, 3.0)
    measured = measure_calibration(logits / 3.0, labels, FFTPConfig(num_labels=5), Calibration(3.0))
    assert measured["before"]["ece"] > 3 * measured["after"]["ece"]
    assert len(measured["after"]["bins"]) > 10


def test_every_server_takes_a_label_s_own_threshold(none_of_these, speech):
    model = FFTPForAudioClassification.from_pretrained(none_of_these).eval()
    extractor = FFTPFeatureExtractor.from_pretrained(none_of_these)
    tag = pipeline("audio-tagging", model=model, feature_extractor=extractor)
    scores = {entry["label"]: entry["score"] for entry in tag(speech, top_k=None)["labels"]}
    label = max(scores, key=scores.get)
    for threshold, is_heard in ((1e-9, True), (1.0, False)):
        model.config.thresholds = {label: threshold}
        assert (label in {entry["label"] for entry in tag(speech)["timeline"]}) == is_heard
        changes = [change for answer in model.stream(extractor).push(speech) for change in answer.changes]
        assert (label in {change.label for change in changes}) == is_heard
    model.config.thresholds = {label: 1.0}
    assert label in {entry["label"] for entry in tag(speech, threshold=0.0)["timeline"]}


def test_what_learns_on_chooses_anew(none_of_these, clip_folder, tmp_path):
    words = ["--dataset_name", clip_folder, "--none_labels", "noise", "--model_name_or_path", none_of_these]
    run([*map(str, words), "--calibrate", "false", "--num_train_epochs", "1", "--output_dir", str(tmp_path / "on")])
    assert FFTPConfig.from_pretrained(tmp_path / "on").thresholds is None
    assert not (tmp_path / "on" / "calibration_results.json").exists()
    words = [*words, "--do_train", "false", "--output_dir", tmp_path / "evaluated"]
    run([*map(str, words)])
    assert read(tmp_path / "evaluated", "validation_results")["validation_map"] > 0.9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--none_labels", "silence"], "--none_labels 'silence' is not among the classes"),
        (["--target_precision", "1.5"], r"--target_precision 1.5 must lie in \(0, 1\]"),
        (["--target_precision", "0.9", "--calibrate", "false"], "drop it or --calibrate false"),
    ],
)
def test_what_makes_no_sense_is_refused(clip_folder, tmp_path, words, message):
    with pytest.raises((SystemExit, ValueError), match=message):
        run_training(tmp_path, "--dataset_name", clip_folder, *words)


def test_a_threshold_is_a_score():
    with pytest.raises(StrictDataclassError, match=r"thresholds\['a'\]=1.5 must lie in \(0, 1\]"):
        FFTPConfig(thresholds={"a": 1.5})
