"""Attention of every implementation equals eager's, and mixed attention takes the place of sdpa alone."""

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modeling_fftp import layers_ast_fftp
from modeling_fftp.layers_ast_fftp import (
    MAX_FLOAT32_TOKENS,
    eager_attention_forward,
    find_attention,
    mixed_attention_forward,
)
from tests.support import BACKBONES, build_classifier, needs_cpp_compiler


def attend(attention, module, inputs, gradient, is_seen, **settings):
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    output, weights = attention(module, *inputs, is_seen, **settings)
    return [output.detach(), *torch.autograd.grad(output, inputs, gradient)], weights


@needs_cpp_compiler
@pytest.mark.parametrize("backbone", ["ast", "merging"])
def test_flex_attention_equals_eager(make_config, backbone):
    # Without AVX-512, torch 2.13's kernel for CPUs is wrong for heads narrower than 24 at some multiples of 8 tokens.
    config = make_config(num_attention_heads=2, **BACKBONES[backbone])
    features, mask = torch.randn(2, 60, 128), torch.ones(2, 60, dtype=torch.long)
    mask[0, 33:] = 0
    with torch.no_grad():
        eager, flex = (build_classifier(config, name)(features, mask).logits for name in ("eager", "flex_attention"))
    torch.testing.assert_close(flex, eager, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("implementation", "dtype", "trains", "dropout", "tokens", "expected"),
    [
        ("sdpa", torch.bfloat16, True, 0.0, 400, mixed_attention_forward),
        ("sdpa", torch.bfloat16, True, 0.0, 401, ALL_ATTENTION_FUNCTIONS["sdpa"]),
        ("sdpa", torch.bfloat16, True, 0.1, 25, ALL_ATTENTION_FUNCTIONS["sdpa"]),
        ("sdpa", torch.bfloat16, False, 0.0, 25, ALL_ATTENTION_FUNCTIONS["sdpa"]),
        ("sdpa", torch.float32, True, 0.0, 25, ALL_ATTENTION_FUNCTIONS["sdpa"]),
        ("eager", torch.bfloat16, True, 0.0, 25, eager_attention_forward),
        ("flex_attention", torch.bfloat16, True, 0.0, 25, ALL_ATTENTION_FUNCTIONS["flex_attention"]),
    ],
)
def test_mixed_attention_takes_the_place_of_sdpa_alone(implementation, dtype, trains, dropout, tokens, expected):
    query, key = torch.zeros(1, 1, 2, 8, dtype=dtype), torch.zeros(1, 1, tokens, 8, dtype=dtype)
    # As with adapters on the values alone.
    value = torch.zeros_like(key, requires_grad=trains)
    assert find_attention(implementation, query, key, value, dropout) is expected


@pytest.mark.parametrize("is_masked", [False, True])
def test_mixed_attention_equals_eager(is_masked):
    inputs, gradient, module = torch.randn(3, 5, 3, 20, 8), torch.randn(5, 20, 3, 8), torch.nn.Module()
    is_seen = torch.rand(5, 1, 20, 20) < 0.7
    bias = torch.zeros(is_seen.shape).masked_fill(~is_seen, torch.finfo(torch.float32).min)
    masks = (is_seen, bias) if is_masked else (None, None)
    mixed, weights = attend(mixed_attention_forward, module, inputs, gradient, masks[0], scaling=0.3)
    eager, _ = attend(eager_attention_forward, module, inputs, gradient, masks[1], scaling=0.3)
    for result, expected in zip(mixed, eager, strict=True):
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
    # As "sdpa" does.
    assert weights is None


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_mixed_attention_is_more_exact_than_torchs_kernel(scale):
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.is_causal = False
    queries, keys, values = torch.randn(3, 4, 3, 101, 32)
    inputs = [tensor.bfloat16() for tensor in (scale * queries, scale * keys, values)]
    gradient = torch.randn(4, 101, 3, 32).bfloat16()

    def errors(attention):
        results, _ = attend(attention, module, inputs, gradient, None, scaling=32**-0.5)
        exact = [tensor.double() for tensor in inputs]
        expected, _ = attend(eager_attention_forward, module, exact, gradient.double(), None, scaling=32**-0.5)
        pairs = zip(results, expected, strict=True)
        return torch.stack([(result.double() - value).norm() / value.norm() for result, value in pairs])

    mixed, kernel = errors(mixed_attention_forward), errors(ALL_ATTENTION_FUNCTIONS["sdpa"])
    # The forward pass is torch's.
    assert mixed[0] == kernel[0]
    assert (mixed[1:] < kernel[1:]).all(), (mixed, kernel)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_mixed_attention_trains_as_torchs_kernel_does(make_config, monkeypatch, pooling):
    features, mask = torch.randn(3, 100, 128), torch.ones(3, 100, dtype=torch.long)
    mask[0, 47:] = mask[1, 5:] = 0

    def train(limit):
        monkeypatch.setattr(layers_ast_fftp, "MAX_FLOAT32_TOKENS", limit)
        model = build_classifier(make_config(pooling=pooling)).train()
        with torch.autocast("cpu", torch.bfloat16):
            model(features, mask, labels=torch.tensor([0, 3, 1])).loss.backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    mixed, kernel = train(MAX_FLOAT32_TOKENS), train(0)
    assert 0 < (mixed - kernel).norm() < 0.005 * kernel.norm()


def test_mixed_attention_compiles_to_one_graph(make_config):
    # Graphs that other tests compiled count against the limit of recompilations.
    torch.compiler.reset()
    features, mask = torch.randn(2, 100, 128), torch.ones(2, 100, dtype=torch.long)
    mask[0, 47:] = 0
    losses = []
    for is_compiled in (False, True):
        model = build_classifier(make_config()).train()
        if is_compiled:
            # The graph is what matters, not its kernels.
            model.compile(fullgraph=True, backend="aot_eager")
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(features, mask, labels=torch.tensor([0, 3])).loss
        loss.backward()
        losses.append((loss.detach(), model.fftp.layers[0].attention.q_proj.weight.grad))
    torch.testing.assert_close(losses[1], losses[0])


def test_gradients_of_single_clips_go_round_the_kernel(make_config):
    model = build_classifier(make_config()).train()
    parameters = dict(model.named_parameters())
    features, labels = torch.randn(2, 60, 128), torch.tensor([0, 3])

    def loss(parameters, clip, label):
        with torch.autocast("cpu", torch.bfloat16):
            return torch.func.functional_call(model, parameters, (clip[None],), {"labels": label[None]}).loss

    single = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, features, labels)
    for index in range(2):
        model.zero_grad()
        loss(parameters, features[index], labels[index]).backward()
        expected = model.fftp.layers[0].attention.q_proj.weight.grad
        error = single["fftp.layers.0.attention.q_proj.weight"][index] - expected
        assert error.norm() < 0.02 * expected.norm()
