"""Small classifiers on the states of a frozen model: a linear one, and nearest neighbours."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

# Inverse strengths of the L2 penalty, on states of unit variance, and numbers of neighbours, of which validation
# chooses.
REGULARISATIONS = tuple(10.0**power for power in np.arange(-4, 2.5, 0.5))
NEIGHBOURS = (1, 3, 5, 10, 20, 50)
MAX_ITERATIONS = 1000
# Logit of a class that no training clip has, or, with the other sign, that all have.
NEVER = -30.0


@dataclass
class LinearProbe:
    """A linear map from states to logits.

    Args:
        weight: (classes, hidden), float32.
        bias: (classes,), float32.
    """

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, states: np.ndarray) -> np.ndarray:
        """(clips, hidden) to logits (clips, classes)."""
        return states @ self.weight.T + self.bias


def fit_linear(states: np.ndarray, labels: np.ndarray, num_classes: int) -> dict[float, LinearProbe]:
    """Logistic regression.

    Args:
        states: States of the training clips, (clips, hidden).
        labels: Indices (clips,), or 0 and 1, (clips, classes).
        num_classes: Classes of the model.

    Returns:
        A probe for each of `REGULARISATIONS`, the strongest first.

    Raises:
        ValueError: Nothing to tell apart.
    """
    if (labels == labels[0]).all():
        raise ValueError("all training clips have the same labels; expected clips with and without each class")
    scaler = StandardScaler().fit(states)
    path = _softmax_path if labels.ndim == 1 else _sigmoid_path
    probes = {}
    for strength, weight, bias in path(scaler.transform(states), labels, num_classes):
        weight = weight / scaler.scale_
        probes[strength] = LinearProbe(weight.astype(np.float32), (bias - weight @ scaler.mean_).astype(np.float32))
    return probes


def neighbour_scores(
    states: np.ndarray, labels: np.ndarray, num_classes: int, queries: np.ndarray
) -> dict[int, np.ndarray]:
    """Scores by the labels of the nearest training clips, by cosine between states of unit variance.

    Args:
        states: See `fit_linear`.
        labels: See `fit_linear`.
        num_classes: See `fit_linear`.
        queries: States of other clips, (queries, hidden).

    Returns:
        Shares of the classes among so many neighbours, (queries, classes), for each of `NEIGHBOURS` that there are.
    """
    scaler = StandardScaler().fit(states)
    targets = labels if labels.ndim > 1 else np.eye(num_classes)[labels]
    counts = [count for count in NEIGHBOURS if count <= len(states)]
    search = NearestNeighbors(n_neighbors=counts[-1], metric="cosine").fit(scaler.transform(states))
    nearest = search.kneighbors(scaler.transform(queries), return_distance=False)
    return {count: targets[nearest[:, :count]].mean(axis=1) for count in counts}


def _softmax_path(
    states: np.ndarray, labels: np.ndarray, num_classes: int
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """Weights of one classifier over all classes, for every regularisation, the strongest first."""
    for strength, model in _fit_path(states, labels):
        weight, bias = np.zeros((num_classes, states.shape[1])), np.full(num_classes, NEVER)
        if len(model.classes_) == 2:
            # One row, for the second class.
            weight[model.classes_] = np.stack((-model.coef_[0], model.coef_[0])) / 2
            bias[model.classes_] = np.array((-model.intercept_[0], model.intercept_[0])) / 2
        else:
            weight[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
        yield strength, weight, bias


def _sigmoid_path(
    states: np.ndarray, labels: np.ndarray, num_classes: int
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """Weights of one classifier per class, for every regularisation, the strongest first."""
    is_constant = (labels == labels[0]).all(axis=0)
    learned = np.flatnonzero(~is_constant)
    constant = np.where(labels[0] > 0.5, -NEVER, NEVER)
    for models in zip(*(_fit_path(states, labels[:, index]) for index in learned), strict=True):
        weight, bias = np.zeros((num_classes, states.shape[1])), constant.copy()
        for index, (_, model) in zip(learned, models, strict=True):
            weight[index], bias[index] = model.coef_[0], model.intercept_[0]
        yield models[0][0], weight, bias


def _fit_path(states: np.ndarray, labels: np.ndarray) -> Iterator[tuple[float, LogisticRegression]]:
    """Each fit begins where the last ended."""
    model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)
    for strength in REGULARISATIONS:
        with warnings.catch_warnings():
            # Weak penalties need not reach their end: validation judges what came of it.
            warnings.simplefilter("ignore", ConvergenceWarning)
            yield strength, model.set_params(C=strength).fit(states, labels)
