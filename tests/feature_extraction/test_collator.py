"""SpecMaskDataCollator in a plain Trainer: masks while training, none in evaluation."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

from feature_extraction import FFTPFeatureExtractor, SpecMask, SpecMaskDataCollator
from feature_extraction.spectrogram_augmentation import TimeRoll
from feature_extraction.waveform_augmentation import ColoredNoise, Mixup, RandomCrop, SpeedPerturb
from modeling_fftp import FFTPForAudioClassification


class Recording(SpecMaskDataCollator):
    """Remembers whether each batch was augmented."""

    def __call__(self, examples):
        batch = super().__call__(examples)
        self.log.append((examples[0]["split"], self.training))
        return batch


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    return [
        {"audio": rng.normal(size=n).astype(np.float32), "labels": i % 4}
        for i, n in enumerate((16000, 9000, 500, 12000))
    ]


def test_masks_only_while_training(make_config, extractor, examples, generator):
    config = make_config()
    collator = SpecMaskDataCollator(extractor, SpecMask.from_config(config, 0.3), generator=generator)
    masked = collator(examples)
    collator.training = False
    plain = collator(examples)
    expected = extractor([example["audio"] for example in examples], sampling_rate=16000, return_tensors="pt")
    assert (plain["input_values"] == expected["input_values"]).all()
    assert (masked["attention_mask"] == plain["attention_mask"]).all()
    changed = (masked["input_values"] != plain["input_values"]).sum(dim=(1, 2))
    lengths = plain["attention_mask"].sum(dim=1)
    assert (changed >= 0.3 * 128 * lengths.clamp(max=100) - 128).all()


def test_features_as_input(make_config, extractor, examples):
    features = [
        {
            "input_values": extractor(example["audio"], sampling_rate=16000)["input_values"][0],
            "labels": example["labels"],
        }
        for example in examples
    ]
    collator = SpecMaskDataCollator(extractor, training=False)
    for from_features, from_audio in zip(collator(features).values(), collator(examples).values(), strict=True):
        torch.testing.assert_close(from_features, from_audio, atol=1e-5, rtol=0)
    lists = [{"input_values": example["input_values"].tolist(), "labels": example["labels"]} for example in features]
    torch.testing.assert_close(collator(lists)["input_values"], collator(features)["input_values"])
    padded = SpecMaskDataCollator(FFTPFeatureExtractor(pad_to_multiple_of=64), training=False)(features)
    assert padded["input_values"].shape == (4, 128, 128)


def test_labels(extractor, examples):
    collator = SpecMaskDataCollator(extractor)
    assert collator(examples)["labels"].dtype == torch.int64
    several = collator([{**example, "labels": [0.0, 1.0, 1.0]} for example in examples])["labels"]
    assert several.dtype == torch.float32
    assert several.shape == (4, 3)
    assert "labels" not in collator([{"audio": example["audio"]} for example in examples])


def test_mixup_makes_distributions(extractor, examples, generator):
    collator = SpecMaskDataCollator(extractor, mixup=Mixup(probability=1.0), num_labels=4, generator=generator)
    labels = collator(examples)["labels"]
    assert labels.shape == (4, 4)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(4))
    assert ((labels > 0) & (labels < 1)).any()
    collator.training = False
    assert collator(examples)["labels"].tolist() == [0, 1, 2, 3]


def test_label_smoothing(extractor, examples):
    collator = SpecMaskDataCollator(extractor, label_smoothing=0.2, num_labels=4)
    expected = torch.full((4, 4), 0.05) + 0.8 * torch.eye(4)
    torch.testing.assert_close(collator(examples)["labels"], expected)
    several = [{**example, "labels": [0.0, 1.0, 1.0, 0.0]} for example in examples]
    torch.testing.assert_close(collator(several)["labels"], torch.tensor([[0.1, 0.9, 0.9, 0.1]]).expand(4, 4))
    collator.training = False
    assert collator(examples)["labels"].tolist() == [0, 1, 2, 3]


def test_smoothed_mixtures_are_mixed_smooth_labels(extractor, examples):
    def labels(smoothing):
        collator = SpecMaskDataCollator(
            extractor, mixup=Mixup(probability=1.0), label_smoothing=smoothing, num_labels=4,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        return collator(examples)["labels"]

    torch.testing.assert_close(labels(0.2), 0.8 * labels(0.0) + 0.05)


def test_generator_decides(make_config, extractor, examples):
    def batch(seed):
        collator = SpecMaskDataCollator(
            extractor, SpecMask.from_config(make_config(), 0.3), speed=SpeedPerturb(), crop=RandomCrop(8000),
            mixup=Mixup(), noise=ColoredNoise(), num_labels=4, transforms=[TimeRoll()],
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        return collator(examples)["input_values"]

    assert (batch(1) == batch(1)).all()
    assert (batch(1) != batch(2)).any()


def test_deferred_features_are_those_of_a_single_call(make_config, extractor, examples):
    def build(defer_features):
        return SpecMaskDataCollator(
            extractor, SpecMask.from_config(make_config(), 0.3), mixup=Mixup(), num_labels=4, transforms=[TimeRoll()],
            generator=torch.Generator().manual_seed(0), defer_features=defer_features,
        )  # fmt: skip

    expected = build(False)(examples)
    collator = build(True)
    sound = collator(examples)
    assert {name: tuple(value.shape) for name, value in sound.items()} == {
        "audio": (4, 16000), "num_samples": (4,), "labels": (4, 4),
    }  # fmt: skip
    batch = collator.featurize(sound)
    assert batch.keys() == expected.keys()
    for name in expected:
        assert torch.equal(batch[name], expected[name])
    assert sound.keys() == {"audio", "num_samples", "labels"}


def test_processes_draw_for_themselves(extractor):
    def drawn(process_index):
        torch.manual_seed(0)
        arguments = SimpleNamespace(world_size=2, process_index=process_index, seed=5, eval_on_start=False)
        SpecMaskDataCollator(extractor).on_train_begin(arguments, None, None)
        return torch.rand(1)

    assert drawn(0) != drawn(1)


def test_integer_sound_is_scaled_as_by_the_extractor(extractor, speech):
    pcm = (speech * 32767).astype(np.int16)
    batch = SpecMaskDataCollator(extractor, training=False)([{"audio": pcm}])
    expected = extractor(pcm, sampling_rate=16000, return_tensors="pt")
    assert torch.equal(batch["input_values"], expected["input_values"])


def test_misuse_is_refused(extractor, examples):
    for setting in ({"mixup": Mixup()}, {"label_smoothing": 0.1}):
        with pytest.raises(ValueError, match="num_labels"):
            SpecMaskDataCollator(extractor, **setting)
    with pytest.raises(ValueError, match=r"label_smoothing=1\.5"):
        SpecMaskDataCollator(extractor, label_smoothing=1.5, num_labels=2)
    features = [{"input_values": np.zeros((10, 128), np.float32), "labels": 0}]
    with pytest.raises(ValueError, match="speed, crop, mixup and noise work on sound"):
        SpecMaskDataCollator(extractor, mixup=Mixup(), num_labels=2)(features)
    with pytest.raises(ValueError, match="mixup needs labels"):
        SpecMaskDataCollator(extractor, mixup=Mixup(), num_labels=2)([{"audio": examples[0]["audio"]}])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("strategy", ["epoch", "steps"])
def test_plain_trainer_evaluates_without_masks(make_config, examples, tmp_path, workers, strategy):
    config = make_config()
    extractor = FFTPFeatureExtractor()
    collator = Recording(extractor, SpecMask.from_config(config, 0.5))
    collator.log = []
    arguments = TrainingArguments(
        tmp_path, num_train_epochs=2, per_device_train_batch_size=1, eval_strategy=strategy, eval_steps=3,
        save_strategy="no", remove_unused_columns=False, dataloader_num_workers=workers, use_cpu=True,
        eval_on_start=True, report_to="none", disable_tqdm=True,
    )  # fmt: skip
    model = FFTPForAudioClassification(config)
    train = [{**example, "split": "train"} for example in examples]
    validation = [{**example, "split": "validation"} for example in examples]
    trainer = Trainer(
        model, arguments, data_collator=collator, train_dataset=train, eval_dataset=validation, callbacks=[collator]
    )
    trainer.evaluate()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    if not workers:
        assert set(collator.log) == {("train", True), ("validation", False)}
    with torch.no_grad():
        model.eval()
        clean = [
            model(
                **extractor(e["audio"], sampling_rate=16000, return_tensors="pt"), labels=torch.tensor([e["labels"]])
            ).loss
            for e in examples
        ]
    assert after == pytest.approx(torch.stack(clean).mean().item(), abs=1e-4)
    in_training = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry][len(losses) :]
    assert len(in_training) >= 3
