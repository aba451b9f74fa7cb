"""Learning rates that fall from the head to the embeddings, and a backbone that stays as it is."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments

from modeling_fftp import FFTPForAudioClassification, FFTPForPreTraining
from modeling_fftp.training.layer_decay import find_depth
from modeling_fftp.training.trainer import FFTPTrainer
from tests.support import BACKBONES, run_training


@pytest.mark.parametrize("fields", BACKBONES.values(), ids=BACKBONES)
def test_every_parameter_has_the_rate_of_its_depth(make_config, tmp_path, fields):
    model = FFTPForAudioClassification(make_config(**fields))
    arguments = TrainingArguments(tmp_path, learning_rate=1e-2, weight_decay=0.1, report_to=[], use_cpu=True)
    trainer = FFTPTrainer(model, arguments, layer_decay=0.5)
    trainer.create_optimizer_and_scheduler(num_training_steps=10)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(p)]: group["initial_lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert rates.keys() == {*names.values()}
    layers = model.config.num_hidden_layers
    for name, rate in rates.items():
        depth = layers + 1 if "embeddings" in name else 0
        if ".layers." in name:
            depth = layers - int(name.split(".layers.")[1].split(".")[0])
        assert rate == pytest.approx(1e-2 * 0.5**depth), name
    decayed = [group["params"] for group in trainer.optimizer.param_groups if group["weight_decay"]]
    decayed = {names[id(parameter)] for parameters in decayed for parameter in parameters}
    assert decayed == {*trainer.get_decay_parameter_names(model)}
    # Who asks again gets the same.
    before = [group["lr"] for group in trainer.optimizer.param_groups]
    trainer.create_optimizer()
    assert [group["lr"] for group in trainer.optimizer.param_groups] == before
    # The rate that is logged is the one that was given.
    assert trainer.lr_scheduler.base_lrs[0] == 1e-2


def test_depths():
    assert find_depth("classifier.dense.weight", 12) == find_depth("fftp.layernorm.weight", 12) == 0
    assert find_depth("fftp.layers.11.mlp.fc1.weight", 12) == 1
    assert find_depth("fftp.layers.0.attention.q_proj.bias", 12) == 12
    assert find_depth("fftp.embeddings.patch_embeddings.projection.weight", 12) == 13


def test_a_frozen_backbone_stays_and_the_head_learns(trained, clip_folder, tmp_path):
    run_training(
        tmp_path, "--dataset_name", clip_folder, "--model_name_or_path", trained, "--freeze_backbone", "true",
        "--num_train_epochs", 2,
    )  # fmt: skip
    before, after = load_file(trained / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {name for name in before if name.startswith("classifier.")}
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["FFTPForAudioClassification"]


def test_a_new_patch_embedding_is_not_frozen_as_it_began(trained, clip_folder, tmp_path):
    run_training(
        tmp_path, "--dataset_name", clip_folder, "--model_name_or_path", trained, "--freeze_backbone", "true",
        "--patch_size", 128, 20, "--patch_init", "random",
    )  # fmt: skip
    before, after = load_file(trained / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    changed = {name for name, weight in before.items() if not weight.equal(after[name])}
    embedding = "fftp.embeddings.patch_embeddings.projection"
    assert changed >= {f"{embedding}.weight", f"{embedding}.bias", "classifier.dense.weight"}
    assert not any(".layers." in name for name in changed)
    with pytest.raises(ValueError, match=r"--patch_size \(128, 20\) cannot apply: the checkpoint has \(128, 10\)"):
        run_training(
            tmp_path / "evaluated", "--dataset_name", clip_folder, "--model_name_or_path", trained, "--do_train",
            "false", "--patch_size", 128, 20,
        )  # fmt: skip


def test_a_resumed_run_has_the_same_rates(trained, clip_folder, tmp_path):
    """An optimizer's state is loaded group by group."""
    options = ("--dataset_name", clip_folder, "--model_name_or_path", trained, "--layer_decay", 0.6)
    for name in ("whole", "halved"):
        run_training(tmp_path / name, *options, "--num_train_epochs", 2, "--save_total_limit", 5)
    last = sorted((tmp_path / "halved").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))[-1]
    for file in [*last.iterdir()]:
        file.unlink()
    last.rmdir()
    run_training(tmp_path / "halved", *options, "--num_train_epochs", 2, "--resume_from_checkpoint", "true")
    whole, halved = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "halved"))
    assert all(torch.equal(whole[name], halved[name]) for name in whole)


def test_a_decoder_learns_as_fast_as_a_head(make_config):
    model = FFTPForPreTraining(make_config())
    names = [name for name, _ in model.named_parameters() if name.startswith("decoder.")]
    assert any(".layers." in name for name in names)
    assert {find_depth(name, model.config.num_hidden_layers) for name in names} == {0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer_decay", "1.5"], r"--layer_decay 1.5 must lie in \(0, 1\]"),
        (["--freeze_backbone", "true"], "name it with --model_name_or_path"),
        (["--patch_init", "resize"], "name it with --model_name_or_path"),
    ],
)
def test_contradictions_are_refused(tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        run_training(tmp_path, "--dataset_name", "x", *options)
