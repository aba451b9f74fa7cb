"""An archive for tests of what answers for many recordings."""

import shutil

import pytest


@pytest.fixture
def archive(clip_folder, tmp_path):
    """Twelve clips in folders, one of them twice, and a file that is no sound."""
    folder = tmp_path / "archive"
    shutil.copytree(clip_folder / "validation", folder)
    (folder / "low" / "broken.wav").write_text("no sound")
    (folder / "notes.txt").write_text("not a sound file")
    return folder
