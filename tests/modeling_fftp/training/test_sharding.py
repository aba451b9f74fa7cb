"""FSDP: models whose blocks are sharded over two processes train as whole ones do.

accelerate turns FSDP on for GPUs alone, so this calls what it calls, torch's `fully_shard`.
"""

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from safetensors.torch import load_file, save_file
from torch import distributed, multiprocessing
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from modeling_fftp import FFTPConfig, FFTPForAudioClassification, FFTPForPreTraining, FFTPModel
from modeling_fftp.training.calibration import Calibration, apply_calibration
from tests.support import leave_group


def step(model, input_values, labels):
    """One step of plain gradient descent: Adam's would blow up rounding."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(input_values, labels=labels).loss.backward()
    optimizer.step()


def calibrate(model, input_values):
    """Measure, and divide the head, which FSDP keeps whole after a forward pass."""
    with torch.no_grad():
        model(input_values)
    apply_calibration(model, Calibration(temperature=2.0))


def train_shard(rank, folder, model, input_values, labels):
    """Train on one half of the batch in one of two processes; the first saves the whole weights."""
    distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    # As accelerate does where it is told to wrap the blocks: these, the input embedding, and the whole.
    for module in (*model.base_model.layers, model.get_input_embeddings()):
        fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    step(model, *(tensor.chunk(2)[rank] for tensor in (input_values, labels)))
    calibrate(model, input_values)
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    model.save_pretrained(folder / "saved", is_main_process=rank == 0, state_dict=weights)
    leave_group()


def initialise_shard(rank, folder, config):
    """Make a model without memory, shard it over two processes, and give it initial values there."""
    distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    with torch.device("meta"):
        model = FFTPForAudioClassification(config)
    for module in (*model.fftp.layers, model):
        fully_shard(module, mesh=init_device_mesh("cpu", (2,)))
    model.to_empty(device="cpu").init_weights()
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        save_file(weights, folder / "model.safetensors")
    leave_group()


@pytest.mark.parametrize("model_class", [FFTPModel, FFTPForAudioClassification, FFTPForPreTraining])
@pytest.mark.parametrize("backbone", ["ast", "mamba", "convnext"])
def test_accelerate_finds_every_class_that_it_is_to_wrap(make_config, backbone, model_class):
    """It stops at a name that the model lacks."""
    model = model_class(make_config(backbone=backbone))
    plugin = FullyShardedDataParallelPlugin(auto_wrap_policy="transformer_based_wrap")
    plugin.set_auto_wrap_policy(model)
    wrapped = {module.__name__ for module in plugin.auto_wrap_policy.keywords["transformer_layer_cls"]}
    assert wrapped == set(model._no_split_modules)
    assert type(model.base_model.layers[0]).__name__ in wrapped


@pytest.mark.parametrize("backbone", ["ast", "mamba", "convnext"])
def test_sharded_blocks_train_as_whole_ones(make_config, tmp_path, backbone):
    torch.manual_seed(0)
    model = FFTPForAudioClassification(make_config(backbone=backbone))
    batch = torch.randn(4, 60, 128), torch.tensor([0, 1, 2, 3])
    multiprocessing.spawn(train_shard, (tmp_path, model, *batch), nprocs=2)
    step(model, *batch)
    calibrate(model, batch[0])
    sharded = load_file(tmp_path / "saved" / "model.safetensors")
    assert all(parameter.grad.any() for parameter in model.parameters())
    torch.testing.assert_close(sharded, dict(model.state_dict()), atol=1e-5, rtol=1e-4)
    # Sharding makes a class of torch's, whose code nobody could use.
    code = FFTPConfig.from_pretrained(tmp_path / "saved").auto_map["AutoModelForAudioClassification"]
    assert code == "modeling_fftp.FFTPForAudioClassification"
    assert all(path.stem.endswith("_fftp") for path in (tmp_path / "saved").glob("*.py"))


@pytest.mark.parametrize("backbone", ["ast", "mamba", "convnext"])
def test_blocks_that_were_sharded_without_memory_start_as_whole_ones(make_config, tmp_path, backbone):
    config = make_config(backbone=backbone)
    multiprocessing.spawn(initialise_shard, (tmp_path, config), nprocs=2)
    sharded = load_file(tmp_path / "model.safetensors")
    for name, weight in FFTPForAudioClassification(config).state_dict().items():
        assert sharded[name].std(correction=0) == pytest.approx(weight.std(correction=0).item(), rel=0.5, abs=1e-3), (
            name
        )
