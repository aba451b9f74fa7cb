"""A file is there when it is complete, and what was there before stays until then; one run at a time writes it."""

import os

import pytest
from filelock import FileLock

from modeling_fftp.atomic_write import alone, atomic_folder, atomic_write


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


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_link_leads_nowhere_else(tmp_path):
    """As somebody may leave one in a folder that others fetch."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "file").write_text("mine")
    for name in ("README.md", ".README.part.md", ".model.part"):
        (tmp_path / name).symlink_to(tmp_path / "private" / ("file" if name.endswith("md") else ""))
    with atomic_write(tmp_path / "README.md") as part:
        part.write_text("a card")
    with atomic_folder(tmp_path / "model") as part:
        (part / "file").write_text("a model")
    assert (tmp_path / "private" / "file").read_text() == "mine"
    assert ((tmp_path / "README.md").read_text(), (tmp_path / "model" / "file").read_text()) == ("a card", "a model")


def test_a_file_is_on_the_disk_before_it_takes_the_place_of_what_made_it(tmp_path, monkeypatch):
    """Whoever removes a journal afterwards would lose both to a power cut."""
    steps, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (steps.append(os.fstat(file).st_ino), sync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (steps.append("replace"), replace(*paths)))
    with atomic_write(tmp_path / "table.csv") as part:
        part.write_text("whole")
    assert steps[:2] == [(tmp_path / "table.csv").stat().st_ino, "replace"]
    if os.name == "posix":
        assert steps[2:] == [tmp_path.stat().st_ino]


@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_takes_its_name_when_it_is_complete(tmp_path, is_there):
    path = tmp_path / "new" / "model"
    if is_there:
        path.mkdir(parents=True)
    # What a run left that was killed.
    left = (path if is_there else path.parent) / ".model.part"
    left.mkdir(parents=True)
    (left / "half").touch()
    with atomic_folder(path) as part:
        (part / "config.json").write_text("{}")
        assert not (path / "config.json").exists()
    assert [*path.iterdir()] == [path / "config.json"]
    assert [*path.parent.iterdir()] == [path]

    def fill_again(folder):
        with atomic_folder(folder) as part:
            (part / "other").touch()
            raise KeyboardInterrupt

    with pytest.raises(FileExistsError, match="exists and is not an empty folder"):
        fill_again(path)
    with atomic_folder(tmp_path / "third"), pytest.raises(FileExistsError, match="is being written by another run"):
        fill_again(tmp_path / "third")
    (tmp_path / "third").rmdir()
    with pytest.raises(KeyboardInterrupt):
        fill_again(tmp_path / "third")
    assert [*tmp_path.iterdir()] == [path.parent]


def test_one_run_at_a_time_writes(tmp_path):
    path = tmp_path / "output"
    with alone(path), pytest.raises(FileExistsError, match="output is being written by another run"), alone(path):
        pass
    with alone(path):
        pass
    assert [*tmp_path.iterdir()] == []


def test_a_run_that_begins_as_another_ends_is_alone(tmp_path, monkeypatch):
    path, release, second = tmp_path / "output", FileLock.release, alone(tmp_path / "output")

    def release_and_begin(lock, *args, **kwargs):
        release(lock, *args, **kwargs)
        monkeypatch.undo()
        second.__enter__()

    monkeypatch.setattr(FileLock, "release", release_and_begin)
    with alone(path):
        pass
    with pytest.raises(FileExistsError), alone(path):
        pass
    second.__exit__(None, None, None)
