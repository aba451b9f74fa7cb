"""A file is there when it is complete, and what was there before stays until then."""

import pytest

from modeling_fftp.atomic_write import atomic_write


def test_a_file_takes_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with atomic_write(path) as part:
        assert part.suffix == ".csv"
        part.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [*path.parent.iterdir()] == [path]


def test_what_fails_changes_nothing(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("before")

    def write_half():
        with atomic_write(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "before"
    assert [*tmp_path.iterdir()] == [path]
