"""Where a result flattens along the strides: level up to a knee, and a straight line over the logarithm beyond it."""

import numpy as np
from scipy import stats

# Places where a knee may be, between the smallest and the largest stride; times that residuals are drawn anew.
PLACES, ROUNDS = 200, 2000


def fit_knees(strides: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The knees of least squares of several curves.

    Args:
        strides: (points,).
        values: Results, (points, curves).

    Returns:
        The stride at each knee, (curves,), and the fitted values, (points, curves).
    """
    places = np.geomspace(strides.min(), strides.max(), PLACES)[:-1]
    slopes = np.log2(np.maximum(strides / places[:, None], 1.0))
    # A basis of the curves of each place: what it leaves of the values is the error.
    basis = np.linalg.qr(np.stack([np.ones_like(slopes), slopes], axis=2)).Q
    explained = ((basis.transpose(0, 2, 1) @ values) ** 2).sum(axis=1)
    best = explained.argmax(axis=0)
    fitted = [basis[place] @ basis[place].T @ values[:, curve] for curve, place in enumerate(best)]
    return places[best], np.stack(fitted, axis=1)


def find_changes(strides: np.ndarray, knees: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """What each doubling of the stride beyond the knee changes, (curves,)."""
    ends = fitted[strides.argmax()] - fitted[strides.argmin()]
    return ends / np.log2(strides.max() / knees)


def find_knee(
    strides: np.ndarray, values: np.ndarray, seed: int = 0
) -> tuple[float, tuple[float, float], float, tuple[float, float]]:
    """The knee of one curve and what each doubling of the stride beyond it changes, each with its 95 % interval.

    The intervals are those of fits to the fitted values with their residuals drawn anew.
    """
    knees, fitted = fit_knees(strides, values[:, None])
    residuals = values - fitted[:, 0]
    drawn = np.random.default_rng(seed).choice(residuals, (len(values), ROUNDS))
    many, others = fit_knees(strides, fitted + drawn)
    changes = find_changes(strides, many, others)
    intervals = [tuple(np.quantile(found, (0.025, 0.975))) for found in (many, changes)]
    return knees[0], intervals[0], find_changes(strides, knees, fitted)[0], intervals[1]


def describe_knee(values: dict[int, list[float]]) -> str:
    """What a report says of a knee, and of the straight line that does without one.

    Args:
        values: Results of the seeds by stride.
    """
    strides = np.array([stride for stride, found in values.items() for _ in found], dtype=float)
    results = np.array([value for found in values.values() for value in found])
    knee, (low, high), change, (least, most) = find_knee(strides, results)
    beyond = sum(stride > knee for stride in values)
    # One stride makes no line; and a knee at the first is none.
    if least <= 0 <= most or beyond < 2 or low <= strides.min():
        return "The curve has no knee: no part of it is level, or none falls by more than chance makes it.\n"
    return (
        f"The result is level up to stride {knee:.1f} (95 % interval {low:.1f} to {high:.1f}) and changes by "
        f"{100 * change:+.2f} points ({100 * least:+.2f} to {100 * most:+.2f}) with each doubling beyond it. "
        + describe_line(strides, results)
    )


def describe_line(strides: np.ndarray, values: np.ndarray) -> str:
    """How a straight line over the stride, with a parameter fewer than a knee, fits against that."""
    line = stats.linregress(strides, values)
    half_width = stats.t.ppf(0.975, len(values) - 2) * line.stderr
    _, fitted = fit_knees(strides, values[:, None])
    left, by_knee = ((values - fit) ** 2 for fit in (line.intercept + line.slope * strides, fitted[:, 0]))
    return (
        f"A straight line, with one parameter fewer, changes by {100 * line.slope:+.2f} +- {100 * half_width:.2f} "
        f"points a frame of stride and leaves {left.sum() / by_knee.sum():.2f} times the squared error.\n"
    )
