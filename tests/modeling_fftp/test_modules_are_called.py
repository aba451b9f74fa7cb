"""Whatever acts on modules has its effect: hooks, wrappers, adapters, quantisation, offloading, several devices."""

import warnings

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import nn
from torch._subclasses import FakeTensorMode

from modeling_fftp import FFTPForAudioClassification, FFTPForAudioFrameClassification
from modeling_fftp.conv_fftp import FFTPCausalConv1d
from tests.support import BACKBONES, POOLED, perturb

ALL_POOLED = pytest.mark.parametrize("pooled", POOLED)
ALL_BACKBONES = pytest.mark.parametrize("backbone", BACKBONES)


def build(config, model_class=FFTPForAudioClassification):
    torch.manual_seed(0)
    return perturb(model_class(config).eval())


def empty_like(tensor, device):
    """Also inside a FakeTensorMode to which the tensor is a stranger."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)


class Louder(nn.Module):
    """A wrapper that knows nothing but how to call."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        output = self.module(x)
        # Not evenly: a norm behind the module would take that back.
        return 1.5 * output + output.abs()


def projections(model):
    return [
        name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d, FFTPCausalConv1d))
    ]


@ALL_BACKBONES
def test_every_projection_can_be_wrapped(make_config, batch, backbone):
    model = build(make_config(**BACKBONES[backbone]))
    names = projections(model)
    with torch.no_grad():
        expected = model(**batch).logits
        for name in names:
            parent, _, child = name.rpartition(".")
            module = model.get_submodule(name)
            setattr(model.get_submodule(parent), child, Louder(module))
            assert not torch.allclose(model(**batch).logits, expected, atol=1e-6), name
            setattr(model.get_submodule(parent), child, module)


@ALL_POOLED
def test_every_module_that_has_weights_fires_its_hooks(make_config, batch, pooled):
    model = build(make_config(**POOLED[pooled]))
    owners = {name for name, module in model.named_modules() if [*module.parameters(recurse=False)]}
    fired = set()
    for name in owners:
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: fired.add(name))
    with torch.no_grad():
        model(**batch)
    assert fired == owners


@ALL_BACKBONES
def test_dynamic_quantisation(make_config, batch, backbone):
    model, calls = build(make_config(**BACKBONES[backbone])), []
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
        projections = [item for item in quantised.modules() if isinstance(item, torch.ao.nn.quantized.dynamic.Linear)]
        for projection in projections:
            projection.register_forward_hook(lambda *call: calls.append(call))
        assert not torch.allclose(quantised(**batch).logits, model(**batch).logits)
        assert {id(projection) for projection, *_ in calls} == {*map(id, projections)}
        # Each by itself: what differs in a last digit may round to another level in the next.
        for projection, (states,), output in calls:
            # QNNPACK, the engine on ARM, has all 256 levels.
            reduce_range = torch.backends.quantized.engine != "qnnpack"
            rounded = torch.quantize_per_tensor_dynamic(states, torch.quint8, reduce_range).dequantize()
            expected = nn.functional.linear(rounded, projection.weight().dequantize(), projection.bias())
            torch.testing.assert_close(output, expected)


@ALL_POOLED
def test_offloading_changes_nothing(make_config, batch, tmp_path, pooled):
    with torch.no_grad():
        expected = build(make_config(**POOLED[pooled]))(**batch).logits
        for offload in (lambda model: disk_offload(model, tmp_path, "cpu"), lambda model: cpu_offload(model, "cpu")):
            model = build(make_config(**POOLED[pooled]))
            offload(model)
            assert model.classifier.dense.weight.is_meta
            assert torch.equal(model(**batch).logits, expected)


@ALL_BACKBONES
def test_checkpoint_with_layers_on_the_disk(make_config, batch, tmp_path, backbone):
    model = build(make_config(**BACKBONES[backbone]))
    model.save_pretrained(tmp_path / "model")
    places = dict.fromkeys(("fftp.embeddings", "fftp.layers.0", "classifier"), "cpu")
    places |= dict.fromkeys(
        ("fftp.layernorm", *(f"fftp.layers.{i}" for i in range(1, len(model.fftp.layers)))), "disk"
    )
    loaded = FFTPForAudioClassification.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "offloaded"
    )
    assert next(loaded.fftp.layers[1].parameters()).is_meta
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("model_class", [FFTPForAudioClassification, FFTPForAudioFrameClassification])
@pytest.mark.parametrize("is_masked", [False, True])
@ALL_POOLED
def test_layers_on_two_devices(make_config, batch, pooled, is_masked, model_class):
    """As `device_map="auto"` spreads them; fake tensors are as strict about devices as real ones."""
    config = make_config(scan_implementation="torch", **POOLED[pooled])
    model, num_steps = model_class(config).eval(), int(config.time_patches(100))
    first = (model.fftp.embeddings, model.fftp.layers[0])
    second = (*model.fftp.layers[1:], model.fftp.layernorm, model.classifier)
    with FakeTensorMode():
        for device, parts in (("cpu", first), ("meta", second)):
            for part in parts:
                part._apply(lambda tensor, device=device: empty_like(tensor, device))
                for module in part.modules():
                    add_hook_to_module(module, AlignDevicesHook(execution_device=device))
        inputs = {name: empty_like(value, "cpu") for name, value in batch.items()}
        if not is_masked:
            del inputs["attention_mask"]
        with torch.no_grad():
            logits = model(**inputs).logits
    assert logits.device == torch.device("meta")
    assert logits.shape == ((3, 4) if model_class is FFTPForAudioClassification else (3, num_steps, 4))


@pytest.mark.parametrize("name", ["A_log", "A_log_reverse", "D", "conv1d.weight", "conv1d.bias"])
def test_a_parameter_on_another_device_is_refused(make_config, batch, name):
    """As one that was offloaded without a hook: the kernels must not give numbers."""
    model = build(make_config(backbone="mamba", mamba_variant="fo-bi"))
    owner = model.fftp.layers[1].mixer.state_space
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    setattr(owner, last, nn.Parameter(getattr(owner, last).to("meta")))
    with torch.no_grad(), pytest.raises(ValueError, match="several devices"):
        model(**batch)
