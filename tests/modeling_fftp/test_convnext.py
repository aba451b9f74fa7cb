"""What is special to the ConvNeXt backbone; what all backbones have is tested over `BACKBONES`."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import ConvNextConfig
from transformers.models.convnext.modeling_convnext import ConvNextLayer

from modeling_fftp import FFTPForAudioClassification, FFTPForPreTraining, FFTPModel
from modeling_fftp.convert.patch_geometry import change_geometry, change_patches
from modeling_fftp.hub.efficiency import multiply_adds
from modeling_fftp.layers_convnext_fftp import FFTPConvNextLayer, FFTPDepthwiseConv2d
from tests.support import GEOMETRIES, needs_cpp_compiler

# transformers' names of the same weights.
NAMES = {
    "layer_scale_parameter": "layer_scale_parameter",
    "dwconv.weight": "depthwise_conv.weight", "dwconv.bias": "depthwise_conv.bias",
    "layernorm.weight": "layernorm.weight", "layernorm.bias": "layernorm.bias",
    "pwconv1.weight": "mlp.fc1.weight", "pwconv1.bias": "mlp.fc1.bias",
    "pwconv2.weight": "mlp.fc2.weight", "pwconv2.bias": "mlp.fc2.bias",
}  # fmt: skip


@pytest.fixture
def make_convnext(make_config):
    """A config of the backbone."""
    return lambda **fields: make_config(backbone="convnext", **fields)


def randomised(module):
    """A module whose weights are all random."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.2)
    return module.eval()


def test_a_block_over_square_patches_is_that_of_transformers(make_convnext):
    config = make_convnext(layer_norm_eps=1e-6, intermediate_size=4 * 48, hidden_size=48, **GEOMETRIES["square"])
    ours = randomised(FFTPConvNextLayer(config, 0))
    theirs = ConvNextLayer(ConvNextConfig(), dim=48)
    weights = ours.state_dict()
    theirs.load_state_dict({name: weights[own] for name, own in NAMES.items()})
    tokens = torch.randn(2, config.frequency_patches * 9, 48)
    with torch.no_grad():
        expected = theirs(tokens.transpose(1, 2).unflatten(2, (config.frequency_patches, 9)))
        torch.testing.assert_close(ours(tokens), expected.flatten(2).transpose(1, 2))


def test_full_frequency_patches_make_it_a_network_over_time(make_convnext):
    layer = randomised(FFTPConvNextLayer(make_convnext(), 0))
    assert layer.depthwise_conv.kernel_size == (1, 7)
    tokens = torch.randn(1, 20, layer.depthwise_conv.in_channels)
    changed = tokens.clone()
    changed[:, 10] += 1.0
    with torch.no_grad():
        moved = (layer(changed) - layer(tokens)).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.nonzero()[:, 0].tolist() == [*range(7, 14)]


def test_it_averages_tokens_and_has_no_class_token(make_convnext, make_config):
    config = make_convnext()
    assert (config.pooling, config.count_class_tokens()) == ("mean", 0)
    # Masked patches can be zeros, whose norm an epsilon as small as the AST's would blow up.
    assert (config.layer_norm_eps, make_config().layer_norm_eps) == (1e-6, 1e-12)
    states = randomised(FFTPModel(config))(torch.randn(2, 80, 128))
    torch.testing.assert_close(states.pooler_output, states.last_hidden_state.mean(dim=1))
    with pytest.raises(StrictDataclassClassValidationError, match="backbone='convnext' has none; use 'mean'"):
        make_convnext(pooling="cls")
    with pytest.raises(StrictDataclassClassValidationError, match="num_class_tokens=1 must lie between 0 and 0"):
        make_convnext(num_class_tokens=1)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_merged_tokens_are_a_shorter_grid(make_convnext, geometry):
    fields = {"num_hidden_layers": 3, "token_merge_layers": (1, 2)}
    model = randomised(FFTPForAudioClassification(make_convnext(**fields, **GEOMETRIES[geometry])))
    features, mask = torch.randn(2, 100, 128), torch.ones(2, 100, dtype=torch.long)
    mask[0, 57:] = 0
    with torch.no_grad():
        together = model(features, mask).logits
        torch.testing.assert_close(together[:1], model(features[:1, :57]).logits)
        assert model.fftp(features, mask).last_hidden_state.shape[1] == model.config.patch_grid[0] * (
            model.config.time_patches(100)
        )


def test_hidden_patches_are_zeros_to_every_convolution(make_convnext):
    """So nothing of what is to be predicted reaches the patches that are seen."""
    model = randomised(FFTPForPreTraining(make_convnext(time_stride=10)))
    features, hidden = torch.randn(1, 100, 128), torch.zeros(1, 10, dtype=torch.bool)
    hidden[0, 3:7] = True
    other = features.clone()
    other[:, 30:70] = torch.randn(1, 40, 128)
    with torch.no_grad():
        torch.testing.assert_close(
            model(features, bool_masked_pos=hidden).logits, model(other, bool_masked_pos=hidden).logits
        )


def test_filters_follow_the_rows_of_the_grid(make_convnext):
    square = make_convnext(**GEOMETRIES["square"], use_absolute_position_embeddings=False)
    model = randomised(FFTPForAudioClassification(square))
    changed = change_patches(model, change_geometry(square, (128, 10), time_stride=5))
    layers = [each.fftp.layers[0] for each in (model, changed)]
    alike = torch.randn(1, 1, 9, square.hidden_size).expand(-1, 13, -1, -1)
    # A square model with 13 rows: the middle one sees as many as a filter is high.
    layers[0].num_rows = 13
    with torch.no_grad():
        middle = layers[0](alike.flatten(1, 2)).unflatten(1, (13, 9))[:, 6]
        torch.testing.assert_close(layers[1](alike[:, 0]), middle)
    again = change_patches(changed, change_geometry(changed.config, (16, 16)))
    filters = again.fftp.layers[0].depthwise_conv.weight
    torch.testing.assert_close(filters.sum(dim=2, keepdim=True), layers[1].depthwise_conv.weight)
    assert (filters[:, :, 3] == layers[1].depthwise_conv.weight[:, :, 0]).all()


@needs_cpp_compiler
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_it_trains_compiled_at_any_length(make_convnext, geometry):
    model = randomised(FFTPForAudioClassification(make_convnext(num_hidden_layers=1, **GEOMETRIES[geometry]))).train()
    torch.compiler.reset()
    compiled, filters = torch.compile(model), model.fftp.layers[0].depthwise_conv.weight
    for frames in (60, 100, 45):
        features, gradients = torch.randn(2, frames, 128), []
        for run in (model, compiled):
            model.zero_grad()
            run(features, labels=torch.tensor([0, 1])).loss.backward()
            gradients.append(filters.grad.clone())
        torch.testing.assert_close(*gradients)


def test_filters_count_as_multiply_adds(make_convnext):
    config = make_convnext(num_hidden_layers=1, hidden_size=48, intermediate_size=96, num_labels=5)
    patches = config.time_patches(100)
    each = 1280 * 48 + 7 * 48 + 2 * 48 * 96
    assert multiply_adds(config, 100) == patches * each + 48 * 5


@pytest.mark.parametrize("kernel_size", [(1, 7), (7, 7)])
def test_filters_keep_their_precision_under_autocast(kernel_size):
    conv = FFTPDepthwiseConv2d(4, 4, kernel_size, padding="same", groups=4)
    grid = torch.randn(2, 4, 3, 9)
    expected = torch.autograd.grad(conv(grid).square().sum(), conv.weight)
    with torch.autocast("cpu", torch.bfloat16):
        output = conv(grid)
        # What a layer before may have rounded.
        assert conv(grid.bfloat16()).dtype == torch.float32
    assert output.dtype == torch.float32
    torch.testing.assert_close(torch.autograd.grad(output.square().sum(), conv.weight), expected)
