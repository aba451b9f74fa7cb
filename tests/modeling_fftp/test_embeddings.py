"""Patch embeddings: torch's convolution over the spectrogram is the reference."""

import pytest
import torch

from modeling_fftp.embeddings_fftp import FFTPPatchEmbeddings
from tests.support import GEOMETRIES


# Of one clip of the first geometry there are fewer patches than kernels, of the other more: orders of the product.
@pytest.mark.parametrize("clips", [1, 9])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_patches_are_what_a_convolution_sees(make_config, geometry, clips):
    config = make_config(**GEOMETRIES[geometry])
    embeddings = FFTPPatchEmbeddings(config)
    spectrograms = torch.randn(clips, 60, 128)
    # As neftune, which adds noise by their number and width, expects them.
    tokens = embeddings(spectrograms)
    assert tokens.shape == (clips, config.frequency_patches * config.time_patches(60), config.hidden_size)
    weight, bias = embeddings.projection.weight, embeddings.projection.bias
    stride = (config.frequency_stride, config.time_stride)
    expected = torch.nn.functional.conv2d(spectrograms.transpose(1, 2)[:, None], weight, bias, stride)
    expected = expected.flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-4)
    loss_weight = torch.randn(tokens.shape)
    gradients = torch.autograd.grad((tokens * loss_weight).sum(), (weight, bias))
    expected_gradients = torch.autograd.grad((expected * loss_weight).sum(), (weight, bias))
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-3, rtol=1e-4)
