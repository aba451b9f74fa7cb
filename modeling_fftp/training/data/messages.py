"""What messages of data sets have in common."""

from collections.abc import Iterable


def name_some(names: Iterable[str], most: int = 5) -> str:
    """The first of some names, and dots in place of the others."""
    names = [*names]
    return ", ".join(names[:most] + ["..."] * (len(names) > most))
