"""Rows of unlike length in groups that fit into memory."""

from collections.abc import Iterable, Iterator


def group_rows(lengths: Iterable[float], most: float, most_rows: int | None = None) -> Iterator[list[int]]:
    """Rows in their order, so many at a time that their lengths together are at most that, or one that is longer.

    Args:
        lengths: Of each row; each is asked for when its turn comes.
        most: Length of a group.
        most_rows: Rows of a group; default: any number.
    """
    rows, total = [], 0.0
    for row, length in enumerate(lengths):
        if rows and (len(rows) == most_rows or total + length > most):
            yield rows
            rows, total = [], 0.0
        rows.append(row)
        total += length
    if rows:
        yield rows
