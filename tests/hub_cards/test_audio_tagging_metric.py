"""The metric module: scikit-learn's numbers, and what is not defined is left out."""

import evaluate
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score, top_k_accuracy_score

from tests.support import ROOT

METRIC = str(ROOT / "hub_cards" / "metrics" / "audio_tagging")


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    return evaluate.load(METRIC, cache_dir=str(tmp_path_factory.mktemp("metrics")), keep_in_memory=True)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_several_classes_per_clip(metric, rng):
    targets = (rng.random((200, 12)) < 0.2).astype(int)
    scores = rng.normal(size=targets.shape) + targets
    results = metric.compute(predictions=scores, references=targets)
    assert results["map"] == pytest.approx(average_precision_score(targets, scores), abs=1e-6)
    area = roc_auc_score(targets, scores)
    assert results["mauc"] == pytest.approx(area, abs=1e-6)
    assert results["d_prime"] == pytest.approx(2**0.5 * norm.ppf(area), abs=1e-6)
    assert "accuracy" not in results
    assert results["left_out"] == []


def test_one_class_per_clip(metric, rng):
    labels = rng.integers(0, 8, 300)
    scores = rng.normal(size=(300, 8)) + np.eye(8)[labels]
    results = metric.compute(predictions=scores, references=labels, class_names=list("abcdefgh"))
    assert results["accuracy"] == pytest.approx((scores.argmax(axis=1) == labels).mean(), abs=1e-6)
    assert results["top5_accuracy"] == pytest.approx(top_k_accuracy_score(labels, scores, k=5), abs=1e-6)
    assert top_k_accuracy_score(labels, scores, k=5) < top_k_accuracy_score(labels, scores, k=6)
    assert results["map"] == pytest.approx(average_precision_score(np.eye(8)[labels], scores), abs=1e-6)
    assert results["per_class"]["c"]["positives"] == (labels == 2).sum()
    is_c = labels == 2
    assert results["per_class"]["c"]["recall"] == pytest.approx((scores[is_c].argmax(axis=1) == 2).mean())


def test_classes_without_positives_are_named_and_left_out(metric):
    scores = [[0.9, 0.1, 0.5], [0.2, 0.8, 0.5], [0.6, 0.4, 0.5]]
    results = metric.compute(predictions=scores, references=[[1, 0, 0], [1, 1, 0], [1, 0, 0]], class_names=list("abc"))
    assert results["left_out"] == ["c"]
    assert results["map"] == 1.0
    # Every clip has class a: its precision is defined, the area under its ROC curve is not.
    assert results["per_class"]["a"]["auc"] is None
    assert results["mauc"] == 1.0
    assert results["d_prime"] is None


def test_errors(metric):
    with pytest.raises(ValueError, match="not finite"):
        metric.compute(predictions=[[np.nan, 0.0]], references=[1])
    with pytest.raises(ValueError, match="class_names holds 1 different names; predictions have 2 classes"):
        metric.compute(predictions=[[1.0, 0.0]], references=[1], class_names=["a", "a"])
    for wrong in (-1, 2):
        with pytest.raises(ValueError, match=r"references must lie in \[0, 2\)"):
            metric.compute(predictions=[[1.0, 0.0]], references=[wrong])
    with pytest.raises(ValueError, match=r"references has shape \(1, 3\)"):
        metric.compute(predictions=[[1.0, 0.0]], references=[[1, 0, 0]])
