"""SpecMaskDataCollator in Trainers: every batch of training is augmented, and none of an evaluation."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from feature_extraction import FFTPFeatureExtractor, SpecMask, SpecMaskDataCollator
from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.training.trainer import FFTPTrainer

CLIPS = [{"input_values": np.ones((100, 128), np.float32) * np.arange(128), "labels": index % 4} for index in range(6)]


class StopError(Exception):
    """What ends a training before its time."""


class EvaluateNow(TrainerCallback):
    """Evaluates where Trainer did not plan to."""

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer.evaluate()


class StopAt(TrainerCallback):
    """Interrupts at a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise StopError


def build(config, folder, trainer_class=Trainer, has_callback=True, callbacks=(), **settings):
    """A trainer and a log of its batches: whether the model trained, and whether the batch was augmented."""
    arguments = {
        "num_train_epochs": 2, "per_device_train_batch_size": 2, "use_cpu": True, "report_to": "none",
        "disable_tqdm": True, "save_strategy": "no",
    }  # fmt: skip
    torch.manual_seed(0)
    model, log = FFTPForAudioClassification(config), []

    def record(module, args, kwargs):
        is_clean = (kwargs["input_values"] == torch.arange(128.0)).all(dim=(1, 2))
        log.extend((module.training, not clean) for clean in is_clean.tolist())

    model.register_forward_pre_hook(record, with_kwargs=True)
    collator = SpecMaskDataCollator(FFTPFeatureExtractor(), SpecMask.from_config(config, 0.5))
    trainer = trainer_class(
        model,
        TrainingArguments(folder, **(arguments | settings)),
        data_collator=collator,
        train_dataset=CLIPS,
        eval_dataset={"first": CLIPS, "second": CLIPS},
        callbacks=[*([collator] if has_callback else []), *callbacks],
    )
    for callback in callbacks:
        callback.trainer = trainer
    return trainer, log


FORMS = pytest.mark.parametrize(
    "form",
    [
        {"trainer_class": Trainer},
        {"trainer_class": FFTPTrainer, "has_callback": False},
        {"trainer_class": FFTPTrainer},
    ],
    ids=["plain", "ours", "ours with callback"],
)


@FORMS
@pytest.mark.parametrize(
    "settings",
    [
        {"eval_strategy": "epoch"},
        {"eval_strategy": "steps", "eval_steps": 1, "eval_on_start": True},
        {"eval_strategy": "epoch", "dataloader_num_workers": 1},
        {"eval_strategy": "epoch", "dataloader_num_workers": 1, "dataloader_persistent_workers": True},
    ],
    ids=["epochs", "steps", "workers", "persistent workers"],
)
def test_training_is_augmented_and_evaluation_is_not(make_config, tmp_path, form, settings):
    trainer, log = build(make_config(), tmp_path, **form, **settings)
    trainer.evaluate()
    for _ in range(2):
        trainer.train()
        trainer.evaluate()
        trainer.predict(CLIPS)
    # The very clips that were trained on.
    trainer.evaluate(trainer.train_dataset)
    assert set(log) == {(True, True), (False, False)}
    assert log.count((True, True)) == 2 * 2 * len(CLIPS)


@FORMS
def test_evaluation_after_an_interrupted_training(make_config, tmp_path, form):
    trainer, log = build(make_config(), tmp_path, **form, callbacks=[StopAt(2)])
    with pytest.raises(StopError):
        trainer.train()
    trainer.evaluate()
    trainer.predict(CLIPS)
    assert set(log) == {(True, True), (False, False)}


@FORMS
def test_evaluation_from_a_callback(make_config, tmp_path, form):
    trainer, log = build(make_config(), tmp_path, **form, callbacks=[EvaluateNow()])
    trainer.train()
    assert set(log) == {(True, True), (False, False)}


@FORMS
def test_training_goes_on_inside_an_epoch_with_masks(make_config, tmp_path, form):
    saving = {"save_strategy": "steps", "save_steps": 1}
    trainer, _ = build(make_config(), tmp_path, **form, **saving, callbacks=[StopAt(2)])
    with pytest.raises(StopError):
        trainer.train()
    trainer, log = build(make_config(), tmp_path, **form, **saving)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert set(log) == {(True, True)}


def test_a_forgotten_callback_means_no_augmentation(make_config, tmp_path):
    trainer, log = build(make_config(), tmp_path, has_callback=False)
    trainer.train()
    trainer.evaluate()
    assert set(log) == {(True, False), (False, False)}


def test_another_collator_than_that_of_the_callback_is_an_error(make_config, tmp_path):
    trainer, _ = build(make_config(), tmp_path)
    trainer.data_collator = SpecMaskDataCollator(FFTPFeatureExtractor())
    with pytest.raises(ValueError, match="the training loader collates by"):
        trainer.train()


@pytest.mark.parametrize("is_dataset", [True, False])
def test_data_sets_of_sound(make_config, tmp_path, is_dataset):
    """Trainer drops the column "audio"; ours keeps it, and transformers' own says what to do."""
    rng = np.random.default_rng(0)
    clips = [{"audio": rng.normal(size=9000).astype(np.float32), "labels": index % 4} for index in range(4)]
    clips = Dataset.from_list(clips).with_format("numpy") if is_dataset else clips
    config = make_config()
    collator = SpecMaskDataCollator(FFTPFeatureExtractor(), SpecMask.from_config(config, 0.5))
    for trainer_class in (FFTPTrainer, Trainer):
        arguments = TrainingArguments(
            tmp_path, num_train_epochs=1, use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no"
        )
        trainer = trainer_class(
            FFTPForAudioClassification(config), arguments, data_collator=collator, callbacks=[collator],
            train_dataset=clips, eval_dataset=clips,
        )  # fmt: skip
        if trainer_class is FFTPTrainer:
            trainer.train()
            assert "eval_loss" in trainer.evaluate()
        else:
            with pytest.raises(ValueError, match="remove_unused_columns=False"):
                trainer.train()
