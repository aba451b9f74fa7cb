"""`fftp probe`: the folder answers as the probe was measured, and each part is what scikit-learn would do."""

import csv
import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from transformers import pipeline

from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.training.probing.classifiers import NEVER, fit_linear, neighbour_scores
from modeling_fftp.training.probing.probe import probe


@pytest.fixture(scope="module")
def probed(trained, clip_folder, tmp_path_factory):
    """Folder of a probe on the model that knows the three sounds."""
    folder = tmp_path_factory.mktemp("probed") / "new"
    probe([str(clip_folder), "--model", str(trained), "--output_dir", str(folder)])
    return folder


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def test_the_folder_answers_as_it_was_measured(probed, clip_folder):
    tag = pipeline("audio-tagging", model=str(probed), trust_remote_code=True)
    paths = sorted((clip_folder / "validation").rglob("*.wav"))
    hits = [tag(path, top_k=1)["labels"][0]["label"] == path.parent.name for path in paths]
    assert np.mean(hits) == read(probed, "validation_results")["validation_accuracy"] > 0.8
    results = read(probed, "probe_results")
    assert results["neighbours"]["validation"] > 0.8
    assert results["linear"]["C"] == float(
        min(results["linear"]["validation_loss"].items(), key=lambda item: item[1])[0]
    )
    card = (probed / "README.md").read_text(encoding="utf-8")
    assert f"regression with C = {results['linear']['C']:.3g}" in card
    assert "did best on validation" in card


def test_the_backbone_is_the_checkpoint_s(probed, trained):
    before, after = (FFTPForAudioClassification.from_pretrained(folder).state_dict() for folder in (trained, probed))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.dense.weight", "classifier.dense.bias"}


def test_several_labels_per_clip(trained, clip_folder, tmp_path):
    rows = [
        (path.relative_to(clip_folder), f"{path.parent.name};sound", path.parts[-3])
        for path in sorted(clip_folder.rglob("*.wav"))
    ]
    with (tmp_path / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "labels", "fold"])
        writer.writerows(rows)
    folder = tmp_path / "probed"
    words = [tmp_path / "clips.csv", "--dataset_data_dir", clip_folder, "--label_separator", ";"]
    words += ["--validation_column", "fold", "--validation_value", "validation"]
    probe([*map(str, words), "--model", str(trained), "--output_dir", str(folder)])
    assert read(folder, "validation_results")["validation_map"] > 0.8
    tag = pipeline("audio-tagging", model=str(folder), trust_remote_code=True)
    scores = {entry["label"]: entry["score"] for entry in tag(str(clip_folder / rows[0][0]), top_k=None)["labels"]}
    # What every training clip has.
    assert scores["sound"] > 0.999


@pytest.mark.parametrize("num_classes", [2, 4])
def test_logits_are_those_of_scikit_learn(num_classes):
    rng = np.random.default_rng(0)
    states = rng.normal(3.0, [[1.0, 5.0, 0.1]], size=(60, 3)).astype(np.float32)
    labels = rng.integers(0, num_classes, size=60)
    probes = fit_linear(states, labels, num_classes + 1)
    scaler = StandardScaler().fit(states)
    expected = LogisticRegression(C=1.0, max_iter=1000).fit(scaler.transform(states), labels)
    logits = torch.from_numpy(probes[1.0](states))
    known = logits[:, :num_classes].softmax(dim=1).numpy()
    np.testing.assert_allclose(known, expected.predict_proba(scaler.transform(states)), atol=2e-3)
    # A class without a clip is never the answer.
    assert (logits[:, -1] == NEVER).all()


@pytest.mark.parametrize("labels", [np.zeros(5, dtype=int), np.ones((5, 2))])
def test_clips_that_are_all_alike_are_refused(labels):
    with pytest.raises(ValueError, match="all training clips have the same labels"):
        fit_linear(np.random.default_rng(0).normal(size=(5, 3)), labels, 2)


def test_neighbours_are_the_closest_by_cosine():
    states = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.2]], dtype=np.float32)
    scores = neighbour_scores(states, np.array([0, 0, 1, 1]), 2, np.array([[9.0, 0.0]], dtype=np.float32))
    assert {count: values.tolist() for count, values in scores.items()} == {1: [[1.0, 0.0]], 3: [[2 / 3, 1 / 3]]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "DATA is missing"),
        (["DATA"], "--model is missing"),
        (["DATA", "--model", "M"], "--output_dir is missing"),
        (["DATA", "--model", "M", "--output_dir", "O", "--streaming", "true"], "--streaming is for training"),
        (["DATA", "--model=M"], "--output_dir is missing"),
        (["--model", "M", "--output_dir", "O", "DATA"], "'DATA' comes late: DATA must come first"),
        (["DATA", "--learning_rate", "1"], "unknown argument 'learning_rate'"),
        (["DATA", "--model", "M", "--output_dir", "O", "--max_seconds", "1"], "--max_seconds is for training"),
        (["DATA", "--model", "M", "--output_dir", "O", "--validation_value", "4"], "probe: --validation_column and"),
        (
            ["DATA", "--model", "M", "--output_dir", "O", "--exclude_labels", "a", "--none_labels", "a"],
            "both name 'a'",
        ),
        (["DATA", "--model", "M", "--output_dir", "O", "--target_precision", "90"], r"90.0 must lie in \(0, 1\]"),
    ],
)
def test_what_makes_no_sense_is_refused(words, message):
    with pytest.raises(SystemExit, match=message):
        probe(words)


def test_a_folder_with_a_model_is_left_alone(probed, trained, clip_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(probed.parent))
    with pytest.raises(SystemExit, match="holds a model already"):
        probe([str(clip_folder), "--model", str(trained), f"--output_dir=~/{probed.name}"])
    with pytest.raises(SystemExit, match="holds a model already"):
        probe([str(clip_folder), "--model", str(trained), "--output_dir", str(probed)])
