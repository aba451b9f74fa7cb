"""FFTPTrainer: weighted sampling and averaged weights, also across a checkpoint."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainingArguments

from feature_extraction import FFTPFeatureExtractor, SpecMask, SpecMaskDataCollator
from feature_extraction.waveform_augmentation import Mixup
from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.training.checkpoints import last_whole_checkpoint
from modeling_fftp.training.class_balanced_sampler import ClassBalancedSampler
from modeling_fftp.training.command_line import parse_arguments
from modeling_fftp.training.data.features import FeatureClips, compute_features
from modeling_fftp.training.precision import gains_from_bfloat16
from modeling_fftp.training.teaching.distillation import Distillation
from modeling_fftp.training.trainer import FFTPTrainer
from modeling_fftp.training.weight_averaging import AVERAGED_WEIGHTS, WeightAveraging


class Recorder(TrainerCallback):
    """Keeps the weights after every step."""

    def __init__(self):
        self.steps = []

    def on_step_end(self, args, state, control, model, **kwargs):
        self.steps.append({name: value.detach().clone() for name, value in model.named_parameters()})


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    return [
        {"input_values": rng.normal(size=(30, 128)).astype(np.float32), "labels": index % 4} for index in range(12)
    ]


@pytest.fixture
def build(make_config, extractor, examples, tmp_path):
    """A trainer over 12 clips in 3 steps an epoch, and its recorder."""

    def make(averaging, folder="run", **settings):
        arguments = {
            "num_train_epochs": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "use_cpu": True,
            "remove_unused_columns": False, "report_to": "none", "disable_tqdm": True, "save_strategy": "epoch",
        }  # fmt: skip
        torch.manual_seed(0)
        recorder = Recorder()
        trainer = FFTPTrainer(
            FFTPForAudioClassification(make_config()),
            TrainingArguments(tmp_path / folder, **(arguments | settings)),
            data_collator=SpecMaskDataCollator(extractor),
            train_dataset=examples,
            eval_dataset=examples,
            callbacks=[recorder],
            averaging=averaging,
        )
        return trainer, recorder

    return make


def test_an_extractor_of_another_rate_is_refused(make_config, examples, tmp_path):
    """Before hours, after which no pipeline would take the folder."""
    with pytest.raises(ValueError, match="sampling_rate=8000 Hz; the model's config 16000 Hz"):
        FFTPTrainer(
            FFTPForAudioClassification(make_config()),
            TrainingArguments(tmp_path, use_cpu=True, report_to="none"),
            data_collator=SpecMaskDataCollator(FFTPFeatureExtractor(sampling_rate=8000)),
            train_dataset=examples,
        )


@pytest.mark.parametrize(
    ("processor", "instructions", "gains"),
    [
        ("AMD EPYC", {"avx512_bf16"}, True),
        ("AMD EPYC", {"avx512_vnni"}, False),
        ("Intel Xeon", {"avx512_bf16"}, False),
        ("Intel Xeon", {"avx512_bf16", "amx_bf16"}, True),
        ("Neoverse V1", {"bf16"}, True),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster(monkeypatch, processor, instructions, gains):
    capabilities = {"cpu_name": processor} | dict.fromkeys(instructions, True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert gains_from_bfloat16(on_cpu=True) is gains
    arguments = ["--dataset_name", "DATA", "--output_dir", "runs", "--use_cpu", "true", "--auto_bf16", "true"]
    assert parse_arguments(arguments)[-1].bf16 is gains


def test_torch_names_the_processor():
    # Its documentation does not promise this, and without it Intel processors would not be told from others.
    assert torch.cpu.get_capabilities()["cpu_name"]


def test_rare_classes_are_drawn_as_often_as_common_ones():
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    sampler = ClassBalancedSampler(labels, seed=1)
    drawn = labels[list(sampler)].bincount()
    assert len(sampler) == drawn.sum() == 1000
    assert (drawn - 1000 / 3).abs().max() < 60


def test_clips_with_several_classes_weigh_their_sum():
    sampler = ClassBalancedSampler(torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    assert sampler.weights.tolist() == [1.5, 0.5]
    with pytest.raises(ValueError, match="1 of 2 clips have no class"):
        ClassBalancedSampler(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))


def test_clips_without_a_class_cannot_be_drawn():
    for labels in (torch.tensor([0, -100, 1]), torch.tensor([[1, 0], [0, 0]])):
        with pytest.raises(ValueError, match=r"1 of [23] clips have no class"):
            ClassBalancedSampler(labels)


def test_each_epoch_draws_its_own_clips():
    sampler = ClassBalancedSampler(torch.arange(4).repeat(50), seed=3)
    first = list(sampler)
    assert first == list(sampler)
    sampler.set_epoch(1)
    assert first != list(sampler)


def test_moving_average_is_the_result(build):
    trainer, recorder = build(WeightAveraging(ema_decay=0.9))
    trainer.train()
    expected = recorder.steps[0]
    for count, weights in enumerate(recorder.steps[1:], start=1):
        decay = min(0.9, (1 + count) / (10 + count))
        expected = {name: decay * expected[name] + (1 - decay) * weights[name] for name in weights}
    for name, value in trainer.model.named_parameters():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)
        assert not torch.equal(value, recorder.steps[-1][name])


@pytest.mark.parametrize("save_only_model", [False, True])
def test_the_best_moving_average_is_the_result(build, save_only_model):
    settings = {"metric_for_best_model": "loss", "greater_is_better": True, "save_total_limit": 1}
    settings["save_only_model"] = save_only_model
    trainer, _ = build(WeightAveraging(ema_decay=0.9), load_best_model_at_end=True, eval_strategy="epoch", **settings)
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    # As the highest loss counts as the best here, it is not that of the last epoch.
    assert trainer.state.best_metric == max(losses) > losses[-1]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(max(losses))
    best = load_file(Path(trainer.state.best_model_checkpoint, "averaged_weights.safetensors"))
    assert all(value.equal(best[name]) for name, value in trainer.model.named_parameters())


def test_mean_of_the_last_epochs_is_the_result(build):
    trainer, recorder = build(WeightAveraging(last_epochs=2))
    trainer.train()
    for name, value in trainer.model.named_parameters():
        torch.testing.assert_close(value, (recorder.steps[8][name] + recorder.steps[11][name]) / 2)


def test_evaluation_uses_the_average_and_training_goes_on_without_it(build):
    plain, plain_steps = build(None, "plain")
    plain.train()
    trainer, recorder = build(WeightAveraging(ema_decay=0.9), eval_strategy="epoch")
    trainer.train()
    for one, other in zip(plain_steps.steps, recorder.steps, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    last = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry][-1]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(last)


@pytest.mark.parametrize("batch_size", [5, 16])
def test_incomplete_batches_are_dropped_in_training_alone(build, examples, batch_size):
    trainer, recorder = build(
        None, dataloader_drop_last=True, per_device_train_batch_size=5, per_device_eval_batch_size=batch_size,
        num_train_epochs=1,
    )  # fmt: skip
    trainer.train()
    assert len(recorder.steps) == 2
    assert len(trainer.predict(examples).predictions) == 12
    trainer.compute_metrics = lambda answers: {"clips": len(answers.label_ids)}
    assert trainer.evaluate()["eval_clips"] == 12


def test_workers_that_stay_are_those_of_all_evaluations(build):
    trainer, _ = build(
        None, dataloader_drop_last=True, dataloader_persistent_workers=True, dataloader_num_workers=1
    )  # fmt: skip
    assert trainer.get_eval_dataloader() is trainer.get_eval_dataloader()


def test_after_an_interruption_the_model_itself_is_measured(build, tmp_path):
    class Interrupts(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 8:
                raise KeyboardInterrupt

    trainer, _ = build(WeightAveraging(ema_decay=0.9))
    trainer.add_callback(Interrupts())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    for parameter in trainer.model.classifier.parameters():
        parameter.data.zero_()
    assert not trainer.predict(trainer.train_dataset).predictions.any()
    # What transformers takes for a checkpoint of a training still.
    trainer.save_model(tmp_path / "saved")
    assert not (tmp_path / "saved" / AVERAGED_WEIGHTS).exists()


@pytest.mark.parametrize("averaging", [{"ema_decay": 0.9}, {"last_epochs": 3}], ids=str)
def test_resumed_average_is_that_of_an_unbroken_run(build, tmp_path, averaging):
    whole, _ = build(WeightAveraging(**averaging), "whole")
    whole.train()
    build(WeightAveraging(**averaging))[0].train()
    for late in (9, 12):
        (tmp_path / "run" / f"checkpoint-{late}" / "trainer_state.json").unlink()
    resumed, recorder = build(WeightAveraging(**averaging))
    resumed.train(resume_from_checkpoint=True)
    assert len(recorder.steps) == 6
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_more_epochs_move_the_mean_of_the_last(build):
    build(WeightAveraging(last_epochs=2))[0].train()
    trainer, recorder = build(WeightAveraging(last_epochs=2), num_train_epochs=8, eval_strategy="epoch")
    trainer.train(resume_from_checkpoint=True)
    for name, value in trainer.model.named_parameters():
        torch.testing.assert_close(value, (recorder.steps[8][name] + recorder.steps[11][name]) / 2)
    # Before the last epochs, evaluations see the weights in training.
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len({*losses}) == len(losses)


def test_a_mean_with_epochs_that_are_not_the_last_is_refused(build):
    build(WeightAveraging(last_epochs=2))[0].train()
    with pytest.raises(ValueError, match=r"the mean of epochs 3 to 4, .* before 4 .*; expected at least 6 epochs"):
        build(WeightAveraging(last_epochs=2), num_train_epochs=5)[0].train(resume_from_checkpoint=True)


def test_no_sampler_outlives_its_setting(build):
    trainer, _ = build(None)
    trainer.class_balanced = True
    assert trainer._get_train_sampler() is trainer.epochs.sampler
    trainer.class_balanced = False
    assert not isinstance(trainer._get_train_sampler(), ClassBalancedSampler)
    assert trainer.epochs.sampler is None


def test_the_order_of_balanced_clips_follows_its_own_seed(build):
    orders = []
    for data_seed in (None, 7, 7):
        trainer, _ = build(None)
        trainer.class_balanced, trainer.args.data_seed = True, data_seed
        orders.append([*trainer._get_train_sampler()])
    assert orders[0] != orders[1] == orders[2]


def test_classes_of_kept_features_are_balanced_without_reading_these(build, extractor, monkeypatch):
    sound = np.random.default_rng(0).normal(size=(12, 1600)).astype(np.float32)
    features = Features({"audio": List(Value("float32")), "labels": Value("int64")})
    clips = Dataset.from_dict({"audio": [*sound], "labels": [0] * 10 + [1] * 2}, features=features)
    kept = compute_features(clips.with_format("numpy"), extractor)
    monkeypatch.setattr(FeatureClips, "__getitem__", lambda self, index: pytest.fail("a clip was read"))
    trainer, _ = build(None)
    trainer.train_dataset, trainer.class_balanced = kept, True
    drawn = np.bincount([kept.clips["labels"][row] for row in trainer._get_train_sampler()], minlength=2)
    assert drawn[1] > 2


def test_sound_becomes_features_in_the_trainer(make_config, extractor, tmp_path):
    rng = np.random.default_rng(0)
    examples = [{"audio": rng.normal(size=16000 - 900 * i).astype(np.float32), "labels": i % 4} for i in range(8)]

    def train(defer_features):
        arguments = TrainingArguments(
            tmp_path / str(defer_features), num_train_epochs=2, per_device_train_batch_size=2, use_cpu=True,
            gradient_accumulation_steps=2, eval_strategy="steps", eval_steps=2,
            remove_unused_columns=False, report_to="none", disable_tqdm=True, save_strategy="no",
        )  # fmt: skip
        torch.manual_seed(0)
        config, generator = make_config(), torch.Generator().manual_seed(0)
        mask = SpecMask.from_config(config, 0.5)
        collator = SpecMaskDataCollator(extractor, mask, generator=generator, defer_features=defer_features)
        trainer = FFTPTrainer(
            FFTPForAudioClassification(config), arguments, data_collator=collator,
            train_dataset=examples, eval_dataset=examples,
        )  # fmt: skip
        trainer.train()
        # One draw per training batch, and none for evaluation.
        losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
        return losses, torch.rand(1, generator=generator), trainer.model.state_dict()

    (losses, drawn, weights), (expected_losses, expected_drawn, expected) = train(True), train(False)
    assert losses == expected_losses
    assert len(losses) == 2
    assert drawn == expected_drawn
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name


@pytest.mark.parametrize("form", ["audio", "input_values", "decoded"])
@pytest.mark.parametrize("strategy", ["group_by_length", "batch_rebalance"])
def test_clips_of_every_form_are_grouped_by_length(make_config, extractor, tmp_path, form, strategy):
    rng = np.random.default_rng(0)
    lengths = rng.permutation(np.arange(20, 84))
    name = "input_values" if form == "input_values" else "audio"
    shapes = [(int(160 * n),) if name == "audio" else (int(n), 128) for n in lengths]
    clips = [{name: rng.normal(size=shape).astype(np.float32), "labels": 0} for shape in shapes]
    if form == "decoded":
        features = Features({"audio": List(Value("float32")), "labels": Value("int64")})
        clips = Dataset.from_list(clips, features=features).with_format("numpy")
    arguments = TrainingArguments(
        tmp_path, per_device_train_batch_size=4, train_sampling_strategy=strategy, use_cpu=True, report_to="none"
    )
    trainer = FFTPTrainer(
        FFTPForAudioClassification(make_config()), arguments, train_dataset=clips, eval_dataset=clips,
        data_collator=SpecMaskDataCollator(extractor),
    )  # fmt: skip
    for loader in (trainer.get_train_dataloader(), trainer.get_eval_dataloader()):
        batches = [batch["attention_mask"].sum(dim=1) for batch in loader]
        assert sum(map(len, batches)) == len(clips)
    if strategy == "group_by_length":
        batches = [batch["attention_mask"].sum(dim=1) for batch in trainer.get_train_dataloader()]
        spread = np.mean([int(batch.max() - batch.min()) for batch in batches])
        assert spread < 0.3 * (84 - 20)


def test_what_cannot_be_drawn_or_smoothed_is_refused(make_config, extractor, examples, tmp_path):
    def build(dataset, mixup=None, **settings):
        arguments = TrainingArguments(tmp_path, max_steps=1, use_cpu=True, report_to="none", **settings)
        return FFTPTrainer(
            FFTPForAudioClassification(make_config()), arguments, train_dataset=dataset, class_balanced=mixup is None,
            data_collator=SpecMaskDataCollator(extractor, mixup=mixup, num_labels=4),
        )  # fmt: skip

    assert isinstance(build(examples)._get_train_sampler(), ClassBalancedSampler)
    with pytest.raises(ValueError, match="class_balanced draws clips by their number"):
        build(Dataset.from_list(examples).to_iterable_dataset())
    with pytest.raises(ValueError, match="drop it or train_sampling_strategy='sequential'"):
        build(examples, train_sampling_strategy="sequential")
    with pytest.raises(ValueError, match="label_smoothing_factor cannot smooth mixed labels"):
        build(examples, mixup=Mixup(), label_smoothing_factor=0.1)


class Shortened(torch.utils.data.Dataset):
    """The first of some examples; like most data sets of users it has no `__iter__`."""

    def __init__(self, examples, length):
        self.examples, self.length = examples, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.examples[index]


@pytest.mark.parametrize("strategy", ["class_balanced", "group_by_length"])
def test_a_data_set_ends_where_its_length_says(make_config, extractor, examples, tmp_path, strategy):
    is_balanced = strategy == "class_balanced"
    grouping = {} if is_balanced else {"train_sampling_strategy": strategy}
    arguments = TrainingArguments(tmp_path, use_cpu=True, report_to="none", **grouping)
    trainer = FFTPTrainer(
        FFTPForAudioClassification(make_config()), arguments, train_dataset=Shortened(examples, 4),
        data_collator=SpecMaskDataCollator(extractor), class_balanced=is_balanced,
    )  # fmt: skip
    drawn = [*trainer._get_train_sampler()]
    assert len(drawn) == 4
    assert {*drawn} <= {0, 1, 2, 3}


def test_settings_that_would_do_nothing_are_refused(make_config, extractor, examples, tmp_path):
    model = FFTPForAudioClassification(make_config())

    def build(dataset=examples, **options):
        arguments = TrainingArguments(tmp_path, max_steps=1, use_cpu=True, report_to="none")
        FFTPTrainer(model, arguments, SpecMaskDataCollator(extractor), train_dataset=dataset, **options)

    with pytest.raises(ValueError, match="layer_decay is for the optimizer that Trainer makes"):
        build(optimizers=(torch.optim.SGD(model.parameters()), None), layer_decay=0.5)
    model, trained = torch.nn.Linear(2, 2), model
    with pytest.raises(ValueError, match=r"layer_decay counts blocks; Linear has no config\.num_hidden_layers"):
        build(layer_decay=0.5)
    model = trained
    endless = Dataset.from_list(examples).to_iterable_dataset()
    with pytest.raises(ValueError, match="the last epochs of an iterable data set are not known"):
        build(dataset=endless, averaging=WeightAveraging(last_epochs=1))
    build(dataset=endless, averaging=WeightAveraging(ema_decay=0.9))


def test_losses_that_would_not_reach_a_teachers_clips_are_refused(make_config, extractor, speech, tmp_path):
    def build(loss=None, **settings):
        arguments = TrainingArguments(tmp_path, max_steps=1, use_cpu=True, report_to="none", **settings)
        return FFTPTrainer(
            FFTPForAudioClassification(make_config()), arguments, SpecMaskDataCollator(extractor), clips,
            compute_loss_func=loss,
        )  # fmt: skip

    clips = [{"audio": speech, "labels": 0, "teacher_logits": [9.0, 0.0, 0.0, 0.0]}] * 4
    with pytest.raises(ValueError, match="label_smoothing_factor does not reach batches that learn from answers"):
        build(label_smoothing_factor=0.1).train()
    with pytest.raises(ValueError, match="compute_loss_func does not reach batches that learn from answers"):
        build(lambda *given, **more: given[0].logits.sum()).train()


def test_answers_without_labels_are_all_of_the_loss_or_refused(make_config, extractor, speech, tmp_path):
    def build(share):
        return FFTPTrainer(
            FFTPForAudioClassification(make_config()),
            TrainingArguments(tmp_path, max_steps=1, use_cpu=True, report_to="none"),
            SpecMaskDataCollator(extractor),
            [{"audio": speech, "teacher_logits": [9.0, 0.0, 0.0, 0.0]}] * 4,
            distillation=Distillation(share=share),
        )

    build(1.0).train()
    with pytest.raises(ValueError, match=r"a teacher's answers and no labels, of which share=0\.5 takes the rest"):
        build(0.5).train()


def test_answers_of_a_teacher_reach_the_loss(make_config, extractor, tmp_path):
    sound = np.random.default_rng(0).normal(size=16000).astype(np.float32)
    clips = [{"audio": sound, "labels": 0, "teacher_logits": [9.0, 0.0, 0.0, 0.0]}] * 4
    arguments = TrainingArguments(tmp_path, use_cpu=True, report_to="none")
    for dataset in (clips, Dataset.from_list(clips).with_format("numpy")):
        model = FFTPForAudioClassification(make_config())
        trainer = FFTPTrainer(model, arguments, SpecMaskDataCollator(extractor), train_dataset=dataset)
        assert next(iter(trainer.get_train_dataloader()))["teacher_logits"].shape == (4, 4)


@pytest.mark.parametrize("name", ["label", "labels"])
def test_classes_are_balanced_with_a_transform_of_one_clip_at_a_time(make_config, extractor, tmp_path, name):
    sizes = []

    def extract(batch):
        sizes.append(len(batch["audio"]))
        labels = [["dog", "cat"].index(word) for word in batch["word"]]
        return {"input_values": [np.zeros((30, 128), np.float32)] * len(labels), name: labels}

    clips = Dataset.from_dict({"audio": [[0.0] * 800] * 8, "word": ["dog"] * 6 + ["cat"] * 2})
    clips.set_transform(extract)
    trainer = FFTPTrainer(
        FFTPForAudioClassification(make_config()),
        TrainingArguments(tmp_path, use_cpu=True, report_to="none", remove_unused_columns=False),
        SpecMaskDataCollator(extractor), train_dataset=clips, class_balanced=True,
    )  # fmt: skip
    weights = trainer._get_train_sampler().weights
    assert weights[7] == 3 * weights[0]
    assert {*sizes} == {1}


def test_a_rate_beside_sound_reaches_the_collator(make_config, extractor, tmp_path):
    """Trainer removes the columns that nobody reads."""
    clips = Dataset.from_dict({"audio": [[0.1] * 8000], "sampling_rate": [44100], "label": [0], "site": ["north"]})
    arguments = TrainingArguments(tmp_path, use_cpu=True, report_to="none")
    model = FFTPForAudioClassification(make_config())
    trainer = FFTPTrainer(model, arguments, SpecMaskDataCollator(extractor), train_dataset=clips)
    with pytest.raises(ValueError, match="example 0 has sampling_rate=44100; the feature extractor expects 16000 Hz"):
        trainer.train()


def test_sound_in_any_form_has_a_length(make_config, extractor, tmp_path):
    clips = [
        {"audio": {"array": np.zeros(count, np.float32), "sampling_rate": 16000}, "labels": 0}
        for count in (1600, 8000, 4000)
    ]
    arguments = TrainingArguments(tmp_path, train_sampling_strategy="group_by_length", use_cpu=True, report_to="none")
    trainer = FFTPTrainer(
        FFTPForAudioClassification(make_config()), arguments, SpecMaskDataCollator(extractor), train_dataset=clips
    )
    assert trainer._only_lengths(clips)["length"][:] == [1600, 8000, 4000]


def test_half_written_checkpoints_are_passed_over(tmp_path):
    for step, state in (("3", "{}"), ("10", "{}"), ("20", '{"epoch": 1'), ("30", None), ("best", "{}")):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert last_whole_checkpoint(tmp_path).endswith("checkpoint-10")
    for step in (3, 10):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no whole checkpoint.*'checkpoint-20'"):
        last_whole_checkpoint(tmp_path)


@pytest.mark.parametrize("is_kept", [False, True], ids=["moved", "copied"])
def test_the_best_checkpoint_of_a_folder_that_moved_is_that_in_it(build, tmp_path, is_kept):
    settings = {"metric_for_best_model": "loss", "greater_is_better": True, "load_best_model_at_end": True}
    build(None, eval_strategy="epoch", **settings)[0].train()
    (shutil.copytree if is_kept else shutil.move)(tmp_path / "run", tmp_path / "moved")
    trainer, _ = build(None, "moved", eval_strategy="epoch", **settings)
    trainer.train(resume_from_checkpoint=True)
    best = Path(trainer.state.best_model_checkpoint)
    assert best.parent == tmp_path / "moved"
    weights = load_file(best / "model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in trainer.model.state_dict().items())


def test_checkpoint_holds_both(build, tmp_path):
    trainer, recorder = build(WeightAveraging(ema_decay=0.9))
    trainer.train()
    folder = tmp_path / "run" / "checkpoint-12"
    name = "classifier.dense.weight"
    torch.testing.assert_close(load_file(folder / "model.safetensors")[name], recorder.steps[-1][name])
    torch.testing.assert_close(
        load_file(folder / "averaged_weights.safetensors")[name], trainer.model.classifier.dense.weight.data
    )


def test_misuse_is_refused(build):
    for settings in ({}, {"ema_decay": 0.9, "last_epochs": 2}):
        with pytest.raises(ValueError, match="set ema_decay or last_epochs, not both"):
            WeightAveraging(**settings)
    with pytest.raises(ValueError, match=r"ema_decay=1\.5"):
        WeightAveraging(ema_decay=1.5)
    with pytest.raises(ValueError, match="load_best_model_at_end"):
        build(WeightAveraging(last_epochs=2), load_best_model_at_end=True, eval_strategy="epoch")
    with pytest.raises(ValueError, match="save_strategy must not be 'steps'"):
        build(WeightAveraging(last_epochs=2), save_strategy="steps")
