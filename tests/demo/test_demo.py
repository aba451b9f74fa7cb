"""The demo's sounds and pictures."""

import numpy as np
import pytest
import soundfile

from demo.plots import plot_patches
from demo.sounds import KINDS, SAMPLING_RATE, make_clip, write_sounds


@pytest.mark.parametrize("kind", KINDS)
def test_clips_are_loud_enough_and_differ(kind):
    clips = [make_clip(kind, np.random.default_rng(seed)) for seed in range(5)]
    for clip in clips:
        assert clip.dtype == np.float32
        assert SAMPLING_RATE <= len(clip) <= 2.5 * SAMPLING_RATE
        assert 0.09 < np.abs(clip).max() <= 0.9
    assert len({clip.tobytes() for clip in clips}) == 5


def test_same_seed_writes_the_same_files(tmp_path):
    for name in ("first", "second"):
        write_sounds(tmp_path / name, {"train": 2, "test": 1}, seed=5)
    files = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.wav"))
    assert len(files) == 3 * len(KINDS)
    assert all((tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes() for file in files)
    assert soundfile.info(tmp_path / "first" / files[0]).samplerate == SAMPLING_RATE


def test_the_picture_is_drawn(tmp_path, make_config, extractor, speech):
    plot_patches(speech, "speech", make_config(), extractor, tmp_path / "patches.png")
    assert (tmp_path / "patches.png").read_bytes().startswith(b"\x89PNG")
