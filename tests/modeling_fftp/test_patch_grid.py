"""Patches are cut from spectrograms and pasted where they were."""

import pytest
import torch

from modeling_fftp.patch_grid_fftp import cut_patches, paste_patches
from tests.support import GEOMETRIES


@pytest.mark.parametrize(
    ("geometry", "frames", "seen"),
    [("full-frequency", 100, 100), ("full-frequency", 103, 100), ("square", 100, 96), ("square", 106, 106)],
)
def test_what_is_cut_and_pasted_is_the_spectrogram_as_often_as_patches_see_it(make_config, geometry, frames, seen):
    config = make_config(**GEOMETRIES[geometry])
    images = torch.rand(2, frames, 128)
    patches = cut_patches(images, config)
    counts = paste_patches(torch.ones_like(patches), config, frames)
    torch.testing.assert_close(paste_patches(patches, config, frames), images * counts)
    # Frames 10 to 14 are in the first two patches of each row; the last may be in none.
    assert (counts[:, 12] == 2).all()
    assert counts[:, :seen].all()
    assert not counts[:, seen:].any()


def test_a_clip_that_is_shorter_than_a_patch_has_what_it_has(make_config):
    config = make_config()
    patches = torch.ones(1, 1, 1280)
    assert paste_patches(patches, config, 7).equal(torch.ones(1, 7, 128))
