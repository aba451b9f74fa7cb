"""How a study chooses the learning rate of an arm."""

from collections.abc import Mapping, Sequence


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
