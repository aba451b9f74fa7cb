"""Training for several time strides: what batches draw, what the recipe, the card and resuming know of it."""

import json
import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import Trainer, TrainingArguments

from feature_extraction import SpecMask, SpecMaskDataCollator
from modeling_fftp import FFTPConfig, FFTPForAudioClassification, FFTPForAudioFrameClassification
from modeling_fftp.training.arguments import AugmentationArguments
from modeling_fftp.training.collator import build_collator
from modeling_fftp.training.command_line import parse_arguments
from modeling_fftp.training.data.loading import Clips
from modeling_fftp.training.model import build_model
from modeling_fftp.training.step_labels import EventLabels, StepLabels
from modeling_fftp.training.teaching.distillation import Distillation
from modeling_fftp.training.trainer import FFTPTrainer
from tests.support import BACKBONES, run_training

STRIDES = (2, 5, 10, 20)


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    return [{"audio": rng.normal(size=16000 - 900 * i).astype(np.float32), "labels": i % 4} for i in range(8)]


@pytest.mark.parametrize("defers", [False, True])
def test_every_batch_to_train_on_draws_a_stride_of_its_own(make_config, extractor, examples, defers):
    def draw():
        collator = SpecMaskDataCollator(
            extractor,
            SpecMask.from_config(make_config(), 0.5),
            time_strides=STRIDES,
            generator=torch.Generator().manual_seed(0),
            defer_features=defers,
        )
        assert "time_stride" not in collator(examples)
        batches = [collator.augment(examples) for _ in range(40)]
        return [collator.featurize(batch) if defers else batch for batch in batches]

    first, second = draw(), draw()
    assert {batch["time_stride"] for batch in first} == {*STRIDES}
    for one, other in zip(first, second, strict=True):
        assert one["time_stride"] == other["time_stride"]
        assert torch.equal(one["input_values"], other["input_values"])


def test_masks_lie_on_the_grid_of_the_drawn_stride(make_config, generator):
    mask = SpecMask.from_config(make_config(time_stride=5), 0.1, full_share=1.0)
    values = torch.zeros(64, 100, 128)
    starts = {}
    for time_stride in (2, 20):
        drawn = mask.at_stride(time_stride).draw(values, generator=generator)[:, :, 0].int()
        edges = torch.nn.functional.pad(drawn, (1, 0)).diff(dim=1) == 1
        starts[time_stride] = {int(frame) for frame in edges.nonzero()[:, 1]}
    assert all(frame % 20 == 0 for frame in starts[20])
    assert any(frame % 5 for frame in starts[2])
    assert mask.time_stride == 5


@pytest.mark.parametrize("stretches", [False, True])
def test_tokens_see_the_same_share_of_masks_at_every_stride(make_config, generator, stretches):
    config = make_config(stretch_patches=stretches, max_length=200)
    mask = SpecMask.from_config(config, 0.2)
    for time_stride in (2, 5, 10, 20, 40):
        drawn = mask.at_stride(time_stride).draw(torch.zeros(64, 200, 128), generator=generator)
        width = config.patch_frames(time_stride)
        seen = torch.zeros(200, dtype=torch.bool)
        for start in range(0, 200 - width + 1, time_stride):
            seen[start : start + width] = True
        assert drawn[:, seen].float().mean() == pytest.approx(0.2, abs=0.03)


def test_events_have_labels_at_every_stride(make_config, extractor):
    config = make_config(problem_type="multi_label_classification")
    model = FFTPForAudioFrameClassification(config)
    sound = np.random.default_rng(0).normal(size=16000).astype(np.float32)
    collator = SpecMaskDataCollator(extractor, step_labels=EventLabels(config), time_strides=STRIDES)
    seen = set()
    for _ in range(20):
        batch = collator.augment([{"audio": sound, "labels": [(0.0, 0.5, 1)]}])
        outputs = model(**batch)
        assert outputs.logits.shape[1] == batch["labels"].shape[1]
        assert outputs.loss.isfinite()
        seen.add(batch["time_stride"])
    assert len(seen) > 1
    with pytest.raises(ValueError, match="labels per step are those of one stride"):
        SpecMaskDataCollator(extractor, step_labels=StepLabels(config), time_strides=STRIDES)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_trainer_of_transformers_trains_for_all_strides(make_config, extractor, examples, tmp_path, backbone):
    model = FFTPForAudioClassification(make_config(**BACKBONES[backbone], time_strides=STRIDES, time_stride=2))
    arguments = TrainingArguments(
        tmp_path, max_steps=8, per_device_train_batch_size=4, use_cpu=True, eval_strategy="steps", eval_steps=4,
        remove_unused_columns=False, report_to="none", disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    collator = SpecMaskDataCollator(extractor, time_strides=STRIDES)
    seen, forward = [], model.forward
    model.forward = lambda *args, **kwargs: seen.append(kwargs.get("time_stride")) or forward(*args, **kwargs)
    Trainer(
        model, arguments, data_collator=collator, train_dataset=examples, eval_dataset=examples, callbacks=[collator]
    ).train()
    assert len({*seen} - {None}) > 1
    # Evaluations run at the model's own stride.
    assert seen.count(None) == 2


@pytest.mark.parametrize("bf16", [False, True])
def test_other_strides_learn_from_the_densest(make_config, batch, tmp_path, bf16):
    torch.manual_seed(0)
    model = FFTPForAudioClassification(make_config(time_strides=STRIDES, time_stride=2))
    nn.init.normal_(model.classifier.dense.weight)
    arguments = TrainingArguments(tmp_path, use_cpu=True, report_to="none", bf16=bf16)
    distillation = Distillation(share=0.4)
    trainer = FFTPTrainer(model, arguments, stride_distillation=distillation)
    labels = torch.tensor([0, 1, 2])
    inputs = batch | {"labels": labels, "time_stride": 10}
    trainer.accelerator.prepare_model(model)
    model.train()
    with trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(model, inputs)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.fftp.layers[0].attention.q_proj.weight.grad.abs().sum() > 0
    if not bf16:
        own, dense = model(**batch, time_stride=10).logits, model(**batch, time_stride=2).logits
        expected = 0.4 * nn.functional.cross_entropy(own, dense.softmax(dim=-1))
        expected += 0.6 * nn.functional.cross_entropy(own, labels)
        torch.testing.assert_close(loss, expected)
        plain = trainer.compute_loss(model, inputs | {"time_stride": 2})
        torch.testing.assert_close(plain, nn.functional.cross_entropy(dense, labels))
        # What has no stride, as in evaluation, is not distilled.
        evaluated = trainer.compute_loss(model, batch | {"labels": labels})
        torch.testing.assert_close(evaluated, plain)


def test_recipe_results_and_card_know_the_strides(clip_folder, tmp_path):
    options = ("--time_strides", 10, 2, 5, "--stride_distillation", 0.5, "--stretch_patches", "true")
    run_training(tmp_path / "out", "--dataset_name", clip_folder, *options)
    config = FFTPConfig.from_pretrained(tmp_path / "out")
    assert (config.time_strides, config.time_stride, config.position_stride) == ((2, 5, 10), 2, 2)
    assert config.stretch_patches
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert recipe["time_strides"] == [2, 5, 10]
    assert recipe["stride_distillation"] == 0.5
    rows = json.loads((tmp_path / "out" / "strides_results.json").read_text())
    assert [row["time_stride"] for row in rows] == [2, 5, 10]
    own = json.loads((tmp_path / "out" / "validation_results.json").read_text())
    assert rows[0]["accuracy"] == own["validation_accuracy"]
    assert rows[0]["multiply_adds"] > rows[1]["multiply_adds"] > rows[2]["multiply_adds"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| 10 | {rows[2]['accuracy']:.4f} | {rows[2]['tokens']} |" in card

    # And a training that starts from it knows them too.
    run_training(
        tmp_path / "more", "--dataset_name", clip_folder, "--model_name_or_path", tmp_path / "out", "--time_stride", 5
    )
    config = FFTPConfig.from_pretrained(tmp_path / "more")
    card = (tmp_path / "more" / "README.md").read_text()
    assert "Its own is 5; it was trained for 2, 5, 10." in card
    assert (config.time_strides, config.time_stride, config.stretch_patches) == ((2, 5, 10), 5, True)


def test_any_model_may_be_measured_at_other_strides(clip_folder, tmp_path):
    run_training(tmp_path, "--dataset_name", clip_folder, "--eval_time_strides", 5, 20)
    rows = json.loads((tmp_path / "strides_results.json").read_text())
    assert [row["time_stride"] for row in rows] == [5, 20]
    assert "it was trained for 5." in (tmp_path / "README.md").read_text()
    assert not FFTPConfig.from_pretrained(tmp_path).time_strides


def test_what_cannot_be_distilled_is_refused(make_config, tmp_path):
    arguments = TrainingArguments(tmp_path, use_cpu=True, report_to="none")
    for model in (
        FFTPForAudioClassification(make_config()),
        FFTPForAudioFrameClassification(make_config(time_strides=STRIDES, time_stride=2)),
        get_peft_model(
            FFTPForAudioFrameClassification(make_config(time_strides=STRIDES, time_stride=2)),
            LoraConfig(target_modules="all-linear"),
        ),
    ):
        with pytest.raises(ValueError, match="stride_distillation is for clip classifiers with several"):
            FFTPTrainer(model, arguments, stride_distillation=Distillation())
    smoothing = TrainingArguments(tmp_path, use_cpu=True, report_to="none", label_smoothing_factor=0.1)
    model = FFTPForAudioClassification(make_config(time_strides=STRIDES, time_stride=2))
    with pytest.raises(ValueError, match="label_smoothing_factor does not reach batches that learn from answers"):
        FFTPTrainer(model, smoothing, stride_distillation=Distillation())
    with pytest.raises(ValueError, match="compute_loss_func does not reach batches that learn from answers"):
        FFTPTrainer(
            model, arguments, stride_distillation=Distillation(), compute_loss_func=lambda *given: given[0].loss
        )


def test_masks_of_an_elastic_checkpoint_have_no_stride_of_their_own(make_config, extractor):
    arguments = AugmentationArguments(spec_mask_time_stride=1)
    with pytest.raises(ValueError, match=r"trains for time_strides=.* drop --spec_mask_time_stride"):
        build_collator(arguments, extractor, make_config(time_strides=STRIDES, time_stride=2), None, 0.0)


def test_a_training_without_strides_says_nothing_of_them(trained):
    assert not (trained / "strides_results.json").exists()
    assert "## Strides" not in (trained / "README.md").read_text()


def test_resuming_draws_the_strides_of_an_unbroken_run(clip_folder, tmp_path):
    options = ("--dataset_name", clip_folder, "--time_strides", 2, 5, 10, "--num_train_epochs", 2)
    for name in ("whole", "resumed"):
        run_training(tmp_path / name, *options, "--save_total_limit", 5)
    last = max((tmp_path / "resumed").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.rmtree(last)
    run_training(tmp_path / "resumed", *options, "--resume_from_checkpoint", "true")
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed"))
    assert all(whole[name].equal(resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stride_distillation", "0.5"], "--stride_distillation teaches other strides"),
        (["--eval_time_strides", "5", "0"], "--eval_time_strides .* expected frames, each at least 1"),
        (["--time_strides", "0", "5"], "--time_strides .* expected frames, each at least 1"),
        (
            ["--eval_time_strides", "5", "--do_train", "false", "--model_name_or_path", "m"],
            "measures what a training leaves",
        ),
        (["--stride_distillation", "1", "--time_strides", "2", "5"], "must lie in"),
        (["--spec_mask_time_stride", "1", "--time_strides", "2", "5"], "masks follow each batch's"),
        (["--spec_mask_budget", "1.0"], "--spec_mask_budget 1: expected a number of cells"),
        (["--spec_mask_time_stride", "0"], r"--spec_mask_time_stride 0 must lie in \[1, inf\)"),
        (["--spec_mask_time_stride", "1", "--spec_mask_budget", "0"], "--spec_mask_time_stride places masks"),
        (["--stride_distillation", "0.5", "--time_strides", "2", "5", "--teacher", "t"], "two teachers"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(SystemExit, match=message):
        parse_arguments(["--dataset_name", "data", "--output_dir", "out", *options])


def test_strides_that_leave_out_the_models_own_are_refused():
    words = ["--dataset_name", "d", "--output_dir", "o", "--time_strides", "2", "10", "--time_stride", "5"]
    arguments, *_ = parse_arguments(words)
    clips = Clips({}, ["a", "b"], is_multi_label=False, left_out={}, lengths={})
    with pytest.raises(ValueError, match=r"--time_strides \(2, 10\) leave out the model's own stride, 5"):
        build_model(arguments, clips, 1.0)
