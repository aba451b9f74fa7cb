"""What a command line names is found once."""

import os
import shutil
from pathlib import Path

import pytest

from modeling_fftp.serving.recordings import find_recordings


def test_files_folders_patterns_and_lists_are_found_once(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = str(archive / "low" / "0.wav")
    (tmp_path / "list.txt").write_text(f"{first}\n\n{archive / 'high'}\n", encoding="utf-8-sig")
    (tmp_path / "other.txt").write_text(first, encoding="utf-16")
    (tmp_path / "circle.txt").write_text("@circle.txt")
    found = find_recordings(["missing.wav", first, "@list.txt", "archive/n*/**/*.wav", str(archive)])
    assert found[:2] == ["missing.wav", first]
    # However their paths are spelled.
    assert len(found) == len({*map(os.path.abspath, found)}) == 2 + 4 + 4 + 4
    assert not [path for path in found if path.endswith(".txt")]
    assert find_recordings(["no[1].wav", "./list.txt", first]) == ["no[1].wav", "./list.txt", first]
    # Only lines end a name.
    (tmp_path / "odd.txt").write_text("a\u2028b.wav\r\n c\x0cd.wav \n", encoding="utf-8")
    assert find_recordings(["@odd.txt"]) == ["a\u2028b.wav", "c\x0cd.wav"]
    # Each list once, or twenty that name the next twice would be a million.
    for index in range(20):
        (tmp_path / f"{index}.txt").write_text(f"@{index + 1}.txt\n" * 2)
    (tmp_path / "20.txt").write_text("a.wav\n")
    assert find_recordings(["@0.txt", "@0.txt"]) == ["a.wav"]
    for source, message in (
        ("nothing/*.wav", "the pattern matches no sound files"),
        ("@nothing.txt", "the list cannot be read"),
        ("@other.txt", "@other.txt: the list is not UTF-8"),
        ("@circle.txt", "@circle.txt: the list names itself"),
        (str(tmp_path / "empty"), "no sound files in this folder"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=message):
            find_recordings([source])


def test_what_is_no_sound_is_counted(archive, capsys):
    (archive / "low" / "phone.m4a").write_bytes(b"x")
    (archive / "high" / "phone.m4a").write_bytes(b"x")
    find_recordings([str(archive)])
    assert capsys.readouterr().err.endswith("3 files are not read as sound: 2 with .m4a, 1 with .txt\n")


def test_a_pattern_may_match_folders(archive):
    assert find_recordings([f"{archive}/[hl]*"]) == find_recordings([f"{archive}/high", f"{archive}/low"])
    assert find_recordings([f"{archive}/**/high"]) == find_recordings([f"{archive}/high"])
    everything = [find_recordings([f"{archive}/{pattern}"]) for pattern in ("*", "**", "**/*.wav")]
    assert everything[0] == everything[1] == everything[2]
    # What systems leave behind is no archive.
    shutil.copytree(archive / "high", archive / "__MACOSX")
    assert find_recordings([f"{archive}/*"]) == everything[0]


@pytest.mark.parametrize("pattern", ["**/*.wav", "**", "**/h*", "**/**/0.wav"])
def test_a_pattern_visits_a_folder_once_though_links_go_in_circles(archive, pattern):
    before = find_recordings([f"{archive}/{pattern}"])
    assert before
    for name in ("p", "q"):
        (archive / "high" / name).symlink_to(archive)
    assert {*map(os.path.realpath, find_recordings([f"{archive}/{pattern}"]))} == {*map(os.path.realpath, before)}
    assert len(find_recordings([f"{archive}/{pattern}"])) == len(before)


def test_a_pattern_looks_into_what_systems_leave_behind_where_it_is_spelled_out(archive):
    shutil.copytree(archive / "high", archive / "$RECYCLE.BIN" / "S-1")
    everything = find_recordings([str(archive)])
    for pattern in ("**/*.wav", "*/**/*.wav", "*/*.wav", "*"):
        assert find_recordings([f"{archive}/{pattern}"]) == everything
    assert len(find_recordings([f"{archive}/$RECYCLE.BIN/*/*.wav"])) == len(find_recordings([f"{archive}/high"]))


def test_a_pattern_keeps_links_to_nothing(archive):
    """As of data that was not fetched: they are named with what cannot be read."""
    (archive / "high" / "absent.wav").symlink_to(archive / "nowhere.wav")
    assert str(archive / "high" / "absent.wav") in find_recordings([f"{archive}/high/*.wav"])


def test_a_folder_that_cannot_be_read_is_an_error(archive, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "low":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="low"):
        find_recordings([str(archive)])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_in_a_folder_keeps_nobody_waiting(archive):
    os.mkfifo(archive / "pipe.wav")
    (archive / "gone.wav").symlink_to(archive / "nowhere.wav")
    found = {Path(path).name for path in find_recordings([str(archive)])}
    assert "pipe.wav" not in found
    assert "gone.wav" in found
