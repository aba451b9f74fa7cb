"""The causal convolution: torch's own convolution is the reference, in outputs and all gradients."""

import pytest
import torch
from torch.nn import functional

from modeling_fftp.conv_cpu_fftp import _forward
from modeling_fftp.conv_fftp import FFTPCausalConv1d, causal_conv_silu
from tests.support import needs_compiler

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def expected_output(x, weight, bias, reverse):
    """SiLU of torch's grouped convolution, padded on the side of the past."""
    past = (0, weight.shape[-1] - 1) if reverse else (weight.shape[-1] - 1, 0)
    taps = weight.flip(-1) if reverse else weight
    return functional.silu(functional.conv1d(functional.pad(x.float(), past), taps, bias, groups=x.shape[1]))


def make_inputs(batch, length, dim, width, dtype):
    generator = torch.Generator().manual_seed(length)
    # A view, as in the model.
    x = torch.randn(batch, length, 2 * dim, generator=generator).to(dtype)[..., :dim].transpose(1, 2)
    weight = torch.randn(dim, 1, width, generator=generator)
    return [tensor.requires_grad_() for tensor in (x, weight, torch.randn(dim, generator=generator))]


@pytest.mark.parametrize("implementation", ["torch", pytest.param("cpu", marks=needs_compiler)])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "shape", [(2, 1, 5, 4), (1, 3, 17, 4), (3, 40, 33, 3), (2, 199, 384, 4), (1, 7, 16, 1)], ids=str
)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_equals_torch(implementation, shape, reverse, dtype):
    inputs = make_inputs(*shape, dtype)
    expected = expected_output(*inputs, reverse)
    output = causal_conv_silu(*inputs, reverse, implementation)
    assert output.dtype == dtype
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad((output.float() * weight).sum(), inputs)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), inputs)
    for result, value in zip((output, *gradients), (expected, *expected_gradients), strict=True):
        difference = (result.double() - value.double()).norm()
        assert difference <= TOLERANCE[dtype] * (value.double().norm() + 1e-3)


@needs_compiler
def test_the_kernel_rounds_to_the_nearest_bfloat16():
    x, weight, bias = (tensor.detach() for tensor in make_inputs(2, 40, 33, 4, torch.bfloat16))
    expected = causal_conv_silu(x.float(), weight, bias, implementation="cpu").bfloat16()
    assert torch.equal(causal_conv_silu(x, weight, bias, implementation="cpu"), expected)


@needs_compiler
def test_cpu_kernel_is_a_proper_operator():
    x, weight, bias = (tensor.detach() for tensor in make_inputs(2, 19, 33, 4, torch.float32))
    inputs = [tensor.requires_grad_() for tensor in (x, weight[:, 0].t().contiguous(), bias)]
    torch.library.opcheck(_forward, (*inputs, False), test_utils=("test_schema", "test_faketensor"))


@needs_compiler
def test_derivatives_that_the_kernel_does_not_have_are_refused():
    x, *rest = (tensor.detach() for tensor in make_inputs(1, 3, 4, 4, torch.float32))
    slope = torch.func.jvp(lambda x: causal_conv_silu(x, *rest), (x,), (x,))[1]
    assert slope.abs().max() > 0
    with pytest.raises(ValueError, match="no derivatives but backward"):
        torch.func.jvp(lambda x: causal_conv_silu(x, *rest, implementation="cpu"), (x,), (x,))


@needs_compiler
def test_what_is_not_on_a_cpu_is_refused():
    inputs = [tensor.detach().to("meta") for tensor in make_inputs(1, 3, 4, 4, torch.float32)]
    with pytest.raises(ValueError, match="implementation='cpu' runs on CPU tensors; these are on meta"):
        causal_conv_silu(*inputs, implementation="cpu")


def test_a_kernel_that_could_not_be_built_is_named(monkeypatch):
    monkeypatch.setattr("modeling_fftp.conv_fftp.load_conv_kernel", lambda: None)
    with pytest.raises(ImportError, match="needs its kernel, which could not be built"):
        causal_conv_silu(*make_inputs(1, 3, 4, 4, torch.float32), implementation="cpu")


def test_unknown_implementation():
    with pytest.raises(ValueError, match="'cuda' is unknown"):
        causal_conv_silu(*make_inputs(1, 3, 4, 4, torch.float32), implementation="cuda")


@pytest.mark.parametrize("reverse", [False, True])
def test_module_computes_with_its_own_weights(reverse):
    torch.manual_seed(0)
    module = FFTPCausalConv1d(6, 4, reverse)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 6, 11)
    torch.testing.assert_close(module(x), expected_output(x, module.weight, module.bias, reverse))


@pytest.mark.parametrize("implementation", ["auto", "torch", pytest.param("cpu", marks=needs_compiler)])
@pytest.mark.parametrize("moved", [0, 1, 2])
def test_tensors_on_several_devices_are_refused(implementation, moved):
    inputs = [tensor.detach() for tensor in make_inputs(1, 3, 4, 4, torch.float32)]
    inputs[moved] = inputs[moved].to("meta")
    with pytest.raises(ValueError, match="several devices, \\['cpu', 'meta'\\]"):
        causal_conv_silu(*inputs, implementation=implementation)


@needs_compiler
def test_operator_itself_refuses_several_devices():
    x, weight, bias = (tensor.detach() for tensor in make_inputs(1, 3, 4, 4, torch.float32))
    with pytest.raises(ValueError, match="several devices"):
        _forward(x, weight[:, 0].t().contiguous(), bias.to("meta"), False)
