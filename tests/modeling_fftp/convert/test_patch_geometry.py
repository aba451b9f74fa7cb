"""Other patches for a model that is there: kernels, positions, and what stays as it is."""

import pytest
import torch
from torch import nn

from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.convert.patch_embedding import fit_kernel, pi_resize_kernel
from modeling_fftp.convert.patch_geometry import PATCH_INITS, change_geometry, change_patches, resample_positions

SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
SQUARE = {"patch_size": 16, "frequency_stride": 16, "time_stride": 16, "max_length": 320}


def make_model(**fields):
    torch.manual_seed(0)
    model = FFTPForAudioClassification(FFTPConfig(**{**SMALL, **fields})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("size", [(128, 10), (128, 3), (130, 2)])
def test_pi_resize_gives_resized_patches_the_tokens_of_the_old_ones(size):
    kernel, patches = torch.randn(5, 1, 128, 2), torch.randn(7, 1, 128, 2)
    resized = nn.functional.interpolate(patches, size=size, mode="bilinear", align_corners=False)
    expected = torch.einsum("dcft,ncft->nd", kernel, patches)
    tokens = torch.einsum("dcft,ncft->nd", pi_resize_kernel(kernel, size), resized)
    torch.testing.assert_close(tokens, expected, atol=1e-3, rtol=1e-4)


def test_least_squares_find_the_mean_of_the_old_tokens_where_new_patches_see_all_of_them():
    kernel, bias = torch.randn(4, 1, 16, 3), torch.randn(4)
    sounds = torch.randn(100, 150, 128)
    fitted, fitted_bias = fit_kernel(kernel, bias, 16, (128, 5), sounds)
    windows = sounds[0].unfold(0, 5, 1)[:50]
    # The old patch stands in the middle of the new one, which is two frames wider.
    rows = nn.functional.conv2d(windows[:, None, :, 1:4], kernel, bias, stride=(16, 1))
    tokens = torch.einsum("dft,nft->nd", fitted[:, 0], windows) + fitted_bias
    torch.testing.assert_close(tokens, rows.mean(dim=2)[..., 0], atol=0.05, rtol=0)


def test_least_squares_are_nearer_than_a_resized_kernel_where_new_patches_see_less():
    kernel, bias = torch.randn(4, 1, 16, 16), torch.randn(4)
    # Sound is smooth along time, so what a patch does not see can be guessed.
    sound = torch.randn(12000, 128).cumsum(dim=0).unfold(0, 20, 1).mean(dim=2)
    sound = (sound - sound.mean(dim=0)) / sound.std()
    # Of each clip only some windows are looked at.
    fitted, fitted_bias = fit_kernel(kernel, bias, 16, (128, 10), sound.split(200))
    rows = nn.functional.conv2d(sound.T[None, None], kernel, bias, stride=(16, 1))[0].mean(dim=1)
    windows = sound.unfold(0, 10, 1)
    errors = {}
    for name, weight, offset in (
        ("fitted", fitted, fitted_bias),
        ("resized", nn.functional.interpolate(kernel, size=(128, 10), mode="bilinear"), bias),
    ):
        tokens = torch.einsum("dft,nft->nd", weight[:, 0], windows) + offset
        # The window of 16 that is centred on a window of 10 begins 3 frames before.
        errors[name] = (tokens[3 : 3 + rows.shape[1]] - rows.T).square().mean()
    assert errors["fitted"] < 0.01 * errors["resized"]


def test_least_squares_need_sound_and_patches_of_all_bins():
    with pytest.raises(ValueError, match="no clip has 16 frames"):
        fit_kernel(torch.zeros(2, 1, 16, 16), torch.zeros(2), 16, (128, 10), [torch.zeros(15, 128)])
    with pytest.raises(ValueError, match="only patches of all 128 mel bins can be fitted, not of 64"):
        fit_kernel(torch.zeros(2, 1, 16, 16), torch.zeros(2), 16, (64, 10), [torch.zeros(90, 128)])
    model = make_model(**SQUARE)
    with pytest.raises(ValueError, match="none was given"):
        change_patches(model, change_geometry(model.config, (128, 10)), "least_squares")
    with pytest.raises(ValueError, match="patch_init='nearest' is unknown"):
        change_patches(model, change_geometry(model.config, (128, 10)), "nearest")


def test_positions_follow_time_and_are_averaged_over_frequency():
    old = FFTPConfig(**SMALL, **SQUARE)
    times = torch.arange(20) * 16 + 7.5
    # A position that says when it is, and in which row.
    table = torch.stack((times.repeat(8), torch.arange(8.0).repeat_interleave(20)), dim=1)
    new = change_geometry(old, (128, 10), time_stride=5)
    moved = resample_positions(table, old, new)
    centres = torch.arange(new.patch_grid[1]) * 5 + 4.5
    torch.testing.assert_close(moved[:, 0], centres.clamp(7.5, times[-1]))
    torch.testing.assert_close(moved[:, 1], torch.full((len(moved),), 3.5))
    assert resample_positions(table, old, old).equal(table)


def test_positions_of_rows_are_read_at_their_centres():
    old = FFTPConfig(**SMALL, patch_size=16, frequency_stride=10, time_stride=10, max_length=320)
    rows, steps = old.patch_grid
    bins = (torch.arange(rows) * 10 + 7.5).repeat_interleave(steps)[:, None]
    for size, stride in ((16, 16), (8, 8), (40, 10)):
        new = change_geometry(old, (size, 16), frequency_stride=stride, time_stride=10)
        moved = resample_positions(bins, old, new).unflatten(0, new.patch_grid)[:, 0, 0]
        centres = torch.arange(new.patch_grid[0]) * stride + (size - 1) / 2
        torch.testing.assert_close(moved, centres.clamp(7.5, bins.max().item()))


def test_a_new_embedding_is_drawn_from_the_generator():
    model = make_model(**SQUARE)
    config = change_geometry(model.config, (128, 10))
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    models = [change_patches(model, config, "random", generator=generator) for generator in generators]
    kernels = [changed.get_input_embeddings().projection for changed in models]
    assert kernels[0].weight.equal(kernels[1].weight)
    assert not kernels[0].weight.equal(kernels[2].weight)
    assert kernels[0].weight.detach().std() == pytest.approx(config.initializer_range, rel=0.05)


@pytest.mark.parametrize("patch_init", [None, *PATCH_INITS])
@pytest.mark.parametrize("fields", [{}, {"backbone": "mamba"}, {"pooling": "mean"}], ids=str)
def test_everything_but_the_embedding_stays(patch_init, fields):
    model = make_model(**SQUARE, **fields)
    config = change_geometry(model.config, (128, 10), time_stride=5)
    spectrograms = torch.randn(40, 100, 128)
    assert (config.frequency_stride, config.num_patches) == (128, 63)
    changed = change_patches(model, config, patch_init, spectrograms)
    before, after = model.state_dict(), changed.state_dict()
    assert before.keys() == after.keys()
    for name in before:
        if "patch_embeddings" not in name and "position_embeddings" not in name:
            assert before[name].equal(after[name]), name
    logits = changed(torch.randn(2, 320, 128)).logits
    logits.sum().backward()
    assert logits.isfinite().all()


def test_another_stride_alone_keeps_the_embedding():
    model = make_model(max_length=200, time_stride=5)
    changed = change_patches(model, change_geometry(model.config, time_stride=10))
    assert changed.fftp.embeddings.patch_embeddings.projection.weight.equal(
        model.fftp.embeddings.patch_embeddings.projection.weight
    )
    # Every second token of the denser model, with the same position.
    clip = torch.randn(1, 200, 128)
    with torch.no_grad():
        dense, wide = (each.fftp.embeddings(clip)[0][:, 2:] for each in (model, changed))
    torch.testing.assert_close(wide, dense[:, ::2][:, : wide.shape[1]], atol=1e-5, rtol=0)
