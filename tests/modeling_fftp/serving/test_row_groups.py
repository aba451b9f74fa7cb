"""Rows in groups that fit into memory."""

import pytest

from modeling_fftp.serving.row_groups import group_rows


@pytest.mark.parametrize(
    ("lengths", "groups"),
    [([], []), ([9, 1, 1, 1], [[0], [1, 2, 3]]), ([1, 2, 1, 3], [[0, 1], [2], [3]]), ([9, 9], [[0], [1]])],
)
def test_long_recordings_are_heard_alone_and_short_ones_together(lengths, groups):
    assert [*group_rows(lengths, 3.0)] == groups
