"""SpecMask: the budget, the grid, the share, the fill."""

import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

from feature_extraction import SpecAugment, SpecMask
from modeling_fftp import FFTPConfig

GEOMETRIES = {
    "audioset": (FFTPConfig(), 25600),
    "speech commands": (FFTPConfig(max_length=128, patch_size=(128, 8), time_stride=4), 1024),
    "stride above patch": (FFTPConfig(patch_size=(128, 2), time_stride=5), 0.5),
    "square": (FFTPConfig(max_length=1024, patch_size=16, frequency_stride=10, time_stride=10), 0.2),
    "nearly everything": (FFTPConfig(max_length=200), 0.97),
}


def batch_of_lengths(max_length, generator):
    """Spectrograms from one frame to beyond the table, and their mask."""
    lengths = torch.randint(1, max_length + 1, (32,), generator=generator)
    lengths[:4] = torch.tensor([max_length, 1, max_length + 37, 9])
    mask = (torch.arange(max_length + 50) < lengths[:, None]).long()
    return torch.randn(32, max_length + 50, 128, generator=generator), mask, lengths


@pytest.mark.parametrize("full_share", [0.0, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_budget_is_kept_to_less_than_one_frame(name, full_share, generator):
    config, budget = GEOMETRIES[name]
    spec_mask = SpecMask.from_config(config, budget=budget, full_share=full_share)
    features, attention_mask, lengths = batch_of_lengths(config.max_length, generator)
    masks = spec_mask.draw(features, attention_mask, generator)
    assert masks.shape == features.shape
    assert masks.dtype == torch.bool
    assert not masks[attention_mask == 0].any()
    budgets = spec_mask.budget * lengths.clamp(max=config.max_length) // config.max_length
    missing = budgets - masks.sum(dim=(1, 2))
    assert missing.min() >= 0
    assert missing.max() < 128


def test_paper_budgets():
    assert SpecMask.from_config(FFTPConfig()).budget == 25600 == 0.2 * 128 * 1000
    speech_commands = FFTPConfig(max_length=128)
    assert SpecMask.from_config(speech_commands, budget=0.0625).budget == 1024


@pytest.mark.parametrize("full_share", [0.5, 0.7, 0.9])
def test_share_of_full_frequency_masks(full_share, generator):
    masks = SpecMask.from_config(FFTPConfig(), full_share=full_share).draw(torch.zeros(16, 1000, 128), None, generator)
    full_frames = masks.all(dim=-1).sum(dim=1)
    assert (full_frames == int(25600 * full_share + 1e-6) // 128).all()
    # A localized mask covers at most half of the bins.
    heights = masks[~masks.all(dim=-1)].sum(dim=-1)
    assert heights.max() <= 64


def runs(frames):
    """Starts and ends of the runs of true values in a vector."""
    edges = torch.nn.functional.pad(frames.int(), (1, 1)).diff()
    return (edges == 1).nonzero().flatten().tolist(), (edges == -1).nonzero().flatten().tolist()


def test_masks_start_on_the_patch_grid_and_are_patches_wide(generator):
    config = FFTPConfig(patch_size=(128, 10), time_stride=5)
    masks = SpecMask.from_config(config).draw(torch.zeros(32, 1000, 128), None, generator)
    # Either phase of the places comes first at times.
    assert {start // 5 % 2 for mask in masks for start in runs(mask.all(dim=-1))[0]} == {0, 1}
    for mask in masks:
        starts, ends = runs(mask.all(dim=-1))
        assert all(start % 5 == 0 for start in starts)
        # 140 frames make 14 whole masks: neighbours may touch, none is cut.
        assert all((end - start) % 10 == 0 for start, end in zip(starts, ends, strict=True))
        local = mask & ~mask.all(dim=-1, keepdim=True)
        bands = [tuple(local[frame].nonzero()[[0, -1], 0].tolist()) for frame in local.any(dim=-1).nonzero().flatten()]
        assert len(set(bands)) > 3
        for frame in local.any(dim=-1).nonzero().flatten().tolist():
            bins = local[frame].nonzero().flatten()
            assert (bins.diff() == 1).all()


def test_localized_bands_lie_anywhere_at_any_height(generator):
    spec_mask = SpecMask.from_config(FFTPConfig(max_length=100), budget=0.1, full_share=0.0)
    masks = spec_mask.draw(torch.zeros(500, 100, 128), None, generator)
    rate, heights = masks.float().mean(dim=(0, 1)), masks.sum(dim=-1)[masks.any(dim=-1)]
    assert rate[0] > 0.001
    assert rate[-1] > 0.001
    assert (heights.min(), heights.max()) == (1, 64)
    assert heights.float().mean().item() == pytest.approx(32.5, abs=2)


def test_a_localized_mask_is_one_band_over_one_patch(generator):
    spec_mask = SpecMask.from_config(FFTPConfig(), budget=2560, full_share=0.0)
    for mask in spec_mask.draw(torch.zeros(32, 1000, 128), None, generator):
        changes = (mask[1:] != mask[:-1]).any(dim=1).nonzero().flatten() + 1
        # The last one, which shrinks, may end off the grid.
        assert (changes % 5 != 0).sum() <= 1


def test_a_whole_share_leaves_nothing_for_localized_masks(generator):
    spec_mask = SpecMask.from_config(FFTPConfig(), budget=25700, full_share=1.0)
    masks = spec_mask.draw(torch.zeros(4, 1000, 128), None, generator)
    assert torch.equal(masks.any(dim=-1), masks.all(dim=-1))


def test_last_full_mask_shrinks_to_what_is_left(generator):
    config = FFTPConfig(max_length=100, patch_size=(128, 10), time_stride=10)
    masks = SpecMask.from_config(config, budget=13 * 128, full_share=1.0).draw(
        torch.zeros(50, 100, 128), None, generator
    )
    widths = [sorted(end - start for start, end in zip(*runs(mask.all(dim=-1)), strict=True)) for mask in masks]
    assert all(sum(width) == 13 for width in widths)
    assert [3, 10] in widths


def test_every_place_is_masked_sometimes(generator):
    config = FFTPConfig(max_length=100, patch_size=(128, 10), time_stride=5)
    masks = SpecMask.from_config(config, budget=0.2).draw(torch.zeros(2000, 100, 128), None, generator)
    rate = masks.float().mean(dim=0)
    assert rate.min() > 0.02
    assert rate.max() < 0.6


def test_clips_draw_their_own_masks_and_the_generator_decides():
    spec_mask, features = SpecMask.from_config(FFTPConfig()), torch.zeros(4, 1000, 128)
    first = spec_mask.draw(features, generator=torch.Generator().manual_seed(1))
    again = spec_mask.draw(features, generator=torch.Generator().manual_seed(1))
    other = spec_mask.draw(features, generator=torch.Generator().manual_seed(2))
    assert (first == again).all()
    assert (first != other).any()
    assert len({mask.numpy().tobytes() for mask in first}) == 4


def test_masked_cells_take_the_mean_of_the_clips_own_frames(generator):
    spec_mask = SpecMask.from_config(FFTPConfig(max_length=100), budget=0.3)
    features = torch.randn(3, 120, 128) + torch.tensor([0.0, 5.0, -3.0])[:, None, None]
    attention_mask = torch.ones(3, 120, dtype=torch.long)
    attention_mask[1, 60:] = 0
    features[1, 60:] = 1e3
    before = features.clone()
    masks = spec_mask.draw(features, attention_mask, torch.Generator().manual_seed(3))
    masked = spec_mask(features, attention_mask, torch.Generator().manual_seed(3))
    assert (features == before).all()
    assert (masked[~masks] == features[~masks]).all()
    for index, length in enumerate((120, 60, 120)):
        mean = features[index, :length].mean()
        torch.testing.assert_close(masked[index][masks[index]], mean.expand(int(masks[index].sum())))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 128001}, r"budget=128001 .* 128000 cells"),
        ({"budget": -1}, "budget=-1"),
        ({"budget": 1.0}, "budget=1.0 must be a whole number of cells, or their share, below 1"),
        ({"budget": 1.5}, "budget=1.5 must be a whole number"),
        ({"full_share": 1.1}, r"full_share=1.1"),
        ({"time_stride": 0}, r"time_stride=0 must be a whole number of at least 1"),
        ({"time_stride": 2.5}, r"time_stride=2.5 must be a whole number of at least 1"),
        ({"budget": float("nan")}, r"budget=nan must lie between 0 and 128000 cells"),
    ],
)
def test_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        SpecMask.from_config(FFTPConfig(), **settings)


@pytest.mark.parametrize("time_stride", [20, 30, 60])
def test_what_no_patch_sees_is_not_masked(time_stride, generator):
    spec_mask = SpecMask.from_config(FFTPConfig()).at_stride(time_stride)
    masks = spec_mask.draw(torch.zeros(20, 1000, 128), generator=generator)
    assert not masks[:, torch.arange(1000) % time_stride >= 10].any()
    cells = masks.sum(dim=(1, 2))
    assert ((cells > spec_mask.budget - 128) & (cells <= spec_mask.budget)).all()


def test_bands_grow_before_what_no_patch_sees_is_masked(generator):
    masks = SpecMask(128, 1000, 10, 60, budget=0.15).draw(torch.zeros(20, 1000, 128), None, generator)
    assert not masks[:, torch.arange(1000) % 60 >= 10].any()


def test_no_stride_asks_for_more_than_the_spectrogram():
    # Half of the frames are in patches at 20, all are at 2.
    assert SpecMask(128, 1000, 10, 20, budget=0.6).at_stride(2).budget == 128000


@pytest.mark.parametrize("time_stride", [5, 20])
def test_a_mask_is_what_its_text_says(time_stride, generator):
    mask = SpecMask(128, 100, 10, 20, budget=0.2, stretches=True)
    again = eval(repr(mask))
    features = torch.zeros(2, 100, 128)
    drawn, redrawn = (
        each.at_stride(time_stride).draw(features, generator=torch.Generator().manual_seed(0))
        for each in (mask, again)
    )
    assert drawn.equal(redrawn)
    assert (mask.patch_frames, mask.mask_frames, mask.at_stride(5).mask_frames) == (10, 20, 10)


def test_another_budget_makes_another_mask(generator):
    mask = SpecMask(128, 100, 10.0, 5.0, budget=0.2)
    with pytest.raises(FrozenInstanceError):
        mask.budget = 0.4
    other = pickle.loads(pickle.dumps(replace(mask, budget=0.4)))
    assert (mask.budget, other.budget) == (2560, 5120)
    assert other.draw(torch.zeros(1, 100, 128), generator=generator).sum() == pytest.approx(5120, abs=127)
    with pytest.raises(ValueError, match="full_share=2"):
        replace(mask, full_share=2)


def test_masks_of_other_lengths_are_refused():
    for mask in (SpecMask(128, 1000, 10, 5), SpecAugment()):
        with pytest.raises(ValueError, match=r"attention_mask has shape \(2, 39\); expected \(2, 40\)"):
            mask.draw(torch.zeros(2, 40, 128), torch.ones(2, 39))
    with pytest.raises(ValueError, match="max_bins=-5 must be a whole number of at least 0"):
        SpecAugment(max_bins=-5)
    with pytest.raises(ValueError, match="max_bins=nan must be a whole number of at least 0"):
        SpecAugment(max_bins=float("nan"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mask", [SpecMask(128, 1000, 10, 5), SpecAugment(48, 192)])
def test_half_precision_fills_with_the_mean(dtype, mask):
    """The sum over a clip is beyond float16, and what stands in padding must not count."""
    features = 3 + torch.rand(2, 1000, 128)
    frames = torch.ones(2, 1000, dtype=torch.long)
    frames[1, 700:] = 0
    features[1, 700:] = torch.inf
    expected = mask(features, frames, torch.Generator().manual_seed(0))
    masked = mask(features.to(dtype), frames, torch.Generator().manual_seed(0))
    assert masked.dtype == dtype
    torch.testing.assert_close(masked.float(), expected, atol=0.03, rtol=0)


def test_wrong_shape():
    with pytest.raises(ValueError, match=r"\(1, 128, 1000\).*128 mel bins"):
        SpecMask.from_config(FFTPConfig()).draw(torch.zeros(1, 128, 1000))


def test_spec_augment_masks_one_band_of_each_axis(generator):
    lengths = torch.tensor([100, 60, 5, 1] * 50)
    attention_mask = (torch.arange(100) < lengths[:, None]).long()
    features = torch.randn(200, 100, 128, generator=generator)
    masks = SpecAugment(max_bins=48, max_frames=30).draw(features, attention_mask, generator)
    assert not masks[attention_mask == 0].any()
    for mask, length in zip(masks, lengths.tolist(), strict=True):
        in_time = mask[:length].all(dim=1)
        in_frequency = mask[:length].all(dim=0)
        assert len(runs(in_time)[0]) <= 1
        if not in_time.all():
            assert (mask[:length] == (in_time[:, None] | in_frequency)).all()
            assert in_frequency.sum() <= 48
            assert in_time.sum() <= 30
            assert len(runs(in_frequency)[0]) <= 1
    full = lengths == 100
    assert masks[full].all(dim=2).sum(dim=1).float().mean() == pytest.approx(15, abs=4)
    assert masks[full].all(dim=1).sum(dim=1).float().mean() == pytest.approx(24, abs=6)
    # They lie at the end of the clip, and at the highest bins, too.
    assert masks[full].all(dim=2)[:, 75:].float().mean() > 0.05
    assert masks[full].all(dim=1)[:, 96:].float().mean() > 0.05


def test_spec_augment_fills_as_spec_mask_does(generator):
    features = torch.randn(2, 50, 128, generator=generator)
    masked = SpecAugment(20, 20)(features, generator=torch.Generator().manual_seed(1))
    masks = SpecAugment(20, 20).draw(features, generator=torch.Generator().manual_seed(1))
    mean = features.mean(dim=(1, 2), keepdim=True).expand_as(features)
    assert masks.any()
    torch.testing.assert_close(masked, torch.where(masks, mean, features))


def test_spectrograms_that_are_no_tensor_are_refused(generator):
    with pytest.raises(ValueError, match="input_values is of type ndarray; expected a tensor"):
        SpecMask.from_config(FFTPConfig())(np.zeros((2, 100, 128), dtype=np.float32), generator=generator)
