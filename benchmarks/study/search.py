"""How the arms of a study are trained: which learning rates and how many epochs each is tried with."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Search:
    """What was measured of an arm on a task, with a seed that is not reported.

    Args:
        rates: Results by learning rate, at the fewest epochs.
        epochs: Results by the number of epochs, at the best learning rate.
    """

    rates: dict[float, float] = field(default_factory=dict)
    epochs: dict[int, float] = field(default_factory=dict)


def rates_to_try(rates: Sequence[float], values: Mapping[float, float]) -> list[float]:
    """The two rates in the middle, and from the better one on outwards until the result gets worse.

    Args:
        rates: All that a grid allows, in ascending order.
        values: Results by rate, as far as there are any.

    Returns:
        What the search needs, as far as the results tell. It is complete where all of it has results.
    """
    low = (len(rates) - 1) // 2
    high = min(low + 1, len(rates) - 1)
    while all(rate in values for rate in rates[low : high + 1]):
        best = max(rates[low : high + 1], key=values.__getitem__)
        if best == rates[low] and low > 0:
            low -= 1
        elif best == rates[high] and high < len(rates) - 1:
            high += 1
        else:
            break
    return list(rates[low : high + 1])


def choose_rate(rates: Sequence[float], values: Mapping[float, float]) -> float | None:
    """The best rate of a complete search, None of one that is not."""
    needed = rates_to_try(rates, values)
    return max(needed, key=values.__getitem__) if all(rate in values for rate in needed) else None


def epochs_to_try(epochs: Sequence[int], values: Mapping[int, float], gain: float) -> list[int]:
    """The shortest training, and longer ones until one is not better than the one before by enough.

    Args:
        epochs: All that a grid allows, in ascending order.
        values: Results by epochs, as far as there are any.
        gain: What is enough.

    Returns:
        What the search needs, as far as the results tell. It is complete where all of it has results.
    """
    needed = list(epochs[:1])
    for shorter, longer in itertools.pairwise(epochs):
        if shorter not in values or (len(needed) > 1 and values[shorter] - values[needed[-2]] < gain):
            break
        needed.append(longer)
    return needed


def choose_epochs(epochs: Sequence[int], values: Mapping[int, float], gain: float) -> int | None:
    """The epochs after which a longer training was not better by enough, or the most; None while that is not known."""
    needed = epochs_to_try(epochs, values, gain)
    if not all(count in values for count in needed):
        return None
    if len(needed) > 1 and values[needed[-1]] - values[needed[-2]] < gain:
        return needed[-2]
    return needed[-1]
