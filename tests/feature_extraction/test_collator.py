"""SpecMaskDataCollator: padding, augmentation, labels; `test_collator_in_trainers.py` has it in Trainers."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import ASTFeatureExtractor, Trainer, TrainingArguments

from feature_extraction import (
    FFTPFeatureExtractor,
    SpecAugment,
    SpecMask,
    SpecMaskDataCollator,
    randomness,
)
from feature_extraction.spectrogram_augmentation import FilterAugment, RandomGain, Stretch, TimeRoll, UniformNoise
from feature_extraction.waveform_augmentation import ColoredNoise, Mixup, RandomCrop, SpeedPerturb
from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.events_fftp import events_to_labels
from modeling_fftp.training.step_labels import EventLabels, StepLabels


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
    masked, plain = collator.augment(examples), collator(examples)
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
    collator = SpecMaskDataCollator(extractor)
    for from_features, from_audio in zip(collator(features).values(), collator(examples).values(), strict=True):
        torch.testing.assert_close(from_features, from_audio, atol=1e-5, rtol=0)
    lists = [{"input_values": example["input_values"].tolist(), "labels": example["labels"]} for example in features]
    torch.testing.assert_close(collator(lists)["input_values"], collator(features)["input_values"])
    padded = SpecMaskDataCollator(FFTPFeatureExtractor(pad_to_multiple_of=64))(features)
    assert padded["input_values"].shape == (4, 128, 128)


def test_labels(extractor, examples):
    collator = SpecMaskDataCollator(extractor)
    assert collator(examples)["labels"].dtype == torch.int64
    several = collator([{**example, "labels": [0.0, 1.0, 1.0]} for example in examples])["labels"]
    assert several.dtype == torch.float32
    assert several.shape == (4, 3)
    assert "labels" not in collator([{"audio": example["audio"]} for example in examples])
    as_in_data_sets = [{"audio": example["audio"], "label": example["labels"]} for example in examples]
    assert torch.equal(collator(as_in_data_sets)["labels"], collator(examples)["labels"])
    # Of both, `labels` counts.
    assert torch.equal(collator([{**examples[0], "label": 9}, *examples[1:]])["labels"], collator(examples)["labels"])


def test_floats_make_no_distributions(extractor, examples):
    collator = SpecMaskDataCollator(extractor, mixup=Mixup(), num_labels=1)
    with pytest.raises(ValueError, match="labels are floats, one per clip; mixup and label smoothing expect indices"):
        collator.augment([{**example, "labels": 0.7} for example in examples])


def test_mixup_makes_distributions(extractor, examples, generator):
    collator = SpecMaskDataCollator(extractor, mixup=Mixup(probability=1.0), num_labels=4, generator=generator)
    labels = collator.augment(examples)["labels"]
    assert labels.shape == (4, 4)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(4))
    assert ((labels > 0) & (labels < 1)).any()
    assert collator(examples)["labels"].tolist() == [0, 1, 2, 3]


def test_label_smoothing(extractor, examples):
    collator = SpecMaskDataCollator(extractor, label_smoothing=0.2, num_labels=4)
    expected = torch.full((4, 4), 0.05) + 0.8 * torch.eye(4)
    torch.testing.assert_close(collator.augment(examples)["labels"], expected)
    several = [{**example, "labels": [0.0, 1.0, 1.0, 0.0]} for example in examples]
    torch.testing.assert_close(collator.augment(several)["labels"], torch.tensor([[0.1, 0.9, 0.9, 0.1]]).expand(4, 4))
    assert collator(examples)["labels"].tolist() == [0, 1, 2, 3]


def test_distributions_are_smoothed_over_all_classes(make_config, extractor, examples):
    votes = [{**example, "labels": [0.75, 0.25, 0.0, 0.0]} for example in examples]
    collator = SpecMaskDataCollator(
        extractor, label_smoothing=0.2, num_labels=4, problem_type="single_label_classification"
    )
    batch = collator.augment(votes)
    torch.testing.assert_close(batch["labels"], torch.tensor([[0.65, 0.25, 0.05, 0.05]]).expand(4, 4))
    assert FFTPForAudioClassification(make_config())(**batch).loss.isfinite()


def test_masks_that_were_lost_are_found(extractor):
    """As by `map` with what an extractor gives, of which a script keeps `input_values` alone."""
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=samples).astype(np.float32) for samples in (16000, 9000)]
    padded = extractor(clips, sampling_rate=16000)["input_values"]
    collator = SpecMaskDataCollator(extractor)
    batch, expected = (
        collator([{"input_values": row} for row in padded]),
        collator([{"audio": clip} for clip in clips]),
    )
    assert torch.equal(batch["attention_mask"], expected["attention_mask"])
    torch.testing.assert_close(batch["input_values"], expected["input_values"], atol=1e-5, rtol=0)


def test_what_trainer_would_do_to_mixed_labels_is_refused(extractor):
    collator = SpecMaskDataCollator(extractor, mixup=Mixup(), num_labels=4)
    arguments = TrainingArguments("unused", use_cpu=True, report_to="none", label_smoothing_factor=0.1)
    with pytest.raises(ValueError, match="label_smoothing_factor cannot smooth mixed labels"):
        collator.on_train_begin(arguments, None, None)


def test_mixup_that_is_set_later_needs_the_number_of_labels(extractor, examples):
    collator = SpecMaskDataCollator(extractor)
    collator.mixup = Mixup()
    with pytest.raises(ValueError, match="distributions over the labels; set num_labels"):
        collator.augment(examples)


def test_numbers_of_a_regression_are_not_smoothed(extractor):
    """They would move towards 0.5."""
    with pytest.raises(ValueError, match="label_smoothing spreads shares of classes; the numbers of a regression"):
        SpecMaskDataCollator(extractor, label_smoothing=0.1, num_labels=2, problem_type="regression")


@pytest.mark.parametrize("mask", [[0, 0, 0, 1, 1, 1], [1, 0, 1, 1, 1, 1], [1, 1, 1], [1] * 9], ids=str)
def test_masks_that_would_drop_sound_are_refused(extractor, mask):
    example = {"input_values": np.ones((6, 128), np.float32), "attention_mask": mask}
    with pytest.raises(
        ValueError, match=rf"attention_mask of example 0 has shape \({len(mask)},\) and {sum(mask)} on"
    ):
        SpecMaskDataCollator(extractor)([example])


@pytest.mark.parametrize("label", [-100, 4])
def test_a_label_that_is_none_of_the_classes_is_named(extractor, examples, label):
    collator = SpecMaskDataCollator(extractor, mixup=Mixup(), num_labels=4)
    with pytest.raises(ValueError, match=f"the label of example 1 is {label}; .* expect 0 to 3"):
        collator.augment([{**example, "labels": label if index == 1 else 0} for index, example in enumerate(examples)])


def test_padding_that_counts_as_sound_is_not_masked():
    """As of a converted AST: the masks' budget is that of the sound, and they hold its mean."""
    extractor = FFTPFeatureExtractor(
        max_length=400, padding="max_length", truncation=True, return_attention_mask=False, padding_value=0.5
    )
    mask = SpecMask(num_mel_bins=128, max_length=400, patch_frames=16, time_stride=16, budget=0.3)
    sound = np.random.default_rng(0).normal(size=16000).astype(np.float32)
    features = extractor(sound, sampling_rate=16000, padding=False)["input_values"][0]
    for example in ({"audio": sound}, {"input_values": features}):
        for defer_features in (False, True):
            collator = SpecMaskDataCollator(extractor, mask, defer_features=defer_features)
            batch = collator.augment([example] * 8)
            batch = collator.featurize(batch) if "audio" in batch else batch
            assert "attention_mask" not in batch
            assert (batch["input_values"][:, 98:] == 0.5).all()
            changed = batch["input_values"][:, :98] != torch.from_numpy(features)
            assert changed.float().mean() > 0.2


def test_smoothed_mixtures_are_mixed_smooth_labels(extractor, examples):
    def labels(smoothing):
        collator = SpecMaskDataCollator(
            extractor, mixup=Mixup(probability=1.0), label_smoothing=smoothing, num_labels=4,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        return collator.augment(examples)["labels"]

    torch.testing.assert_close(labels(0.2), 0.8 * labels(0.0) + 0.05)


def test_generator_decides(make_config, extractor, examples):
    def batch(seed):
        collator = SpecMaskDataCollator(
            extractor, SpecMask.from_config(make_config(), 0.3), speed=SpeedPerturb(), crop=RandomCrop(8000),
            mixup=Mixup(), noise=ColoredNoise(), num_labels=4, transforms=[TimeRoll()],
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        return collator.augment(examples)["input_values"]

    assert (batch(1) == batch(1)).all()
    assert (batch(1) != batch(2)).any()


def test_deferred_features_are_those_of_a_single_call(make_config, extractor, examples):
    def build(defer_features):
        return SpecMaskDataCollator(
            extractor, SpecMask.from_config(make_config(), 0.3), mixup=Mixup(), num_labels=4, transforms=[TimeRoll()],
            generator=torch.Generator().manual_seed(0), defer_features=defer_features,
        )  # fmt: skip

    deferring = build(True)
    for deferred, expected in (
        (deferring.augment(examples), build(False).augment(examples)),
        (deferring(examples), build(False)(examples)),
    ):
        assert deferred["audio"].shape == (4, 16000)
        assert deferred["num_samples"].shape == (4,)
        names = deferred.keys()
        batch = deferring.featurize(deferred)
        assert batch.keys() == expected.keys()
        for name in expected:
            assert torch.equal(batch[name], expected[name])
        assert deferred.keys() == names


def test_processes_that_share_a_batch_change_it_apart(make_config, extractor, examples, monkeypatch):
    """As accelerate's split_batches deals it out, one seed for all."""
    collator = SpecMaskDataCollator(extractor, SpecMask.from_config(make_config(), 0.3), defer_features=True)
    batch = collator.augment(examples)
    first = collator.featurize(batch)["input_values"]
    monkeypatch.setenv("RANK", "1")
    assert not torch.equal(collator.featurize(batch)["input_values"], first)


def test_integer_sound_is_scaled_as_by_the_extractor(extractor, speech):
    pcm = (speech * 32767).astype(np.int16)
    batch = SpecMaskDataCollator(extractor)([{"audio": pcm}])
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
        SpecMaskDataCollator(extractor, mixup=Mixup(), num_labels=2).augment(features)
    with pytest.raises(ValueError, match="each at least 1"):
        SpecMaskDataCollator(extractor, time_strides=[0, 5])
    smooth = SpecMaskDataCollator(extractor, label_smoothing=0.1, num_labels=7)
    for batch, message in (
        ([], "no examples"),
        ([*examples[:1], {"labels": 0}], "example 1 has no 'audio'; others of its batch have"),
        ([{**examples[0], "labels": [0.0, 1.0, 0.0]}], "labels are vectors of 3; expected num_labels=7"),
    ):
        with pytest.raises(ValueError, match=message):
            smooth.augment(batch)


def test_the_rate_beside_sound_is_that_of_the_extractor(extractor, speech):
    collator = SpecMaskDataCollator(extractor)
    batch = collator([{"audio": speech, "sampling_rate": 16000, "label_ids": 1}])
    assert batch["labels"].tolist() == [1]
    with pytest.raises(ValueError, match="example 0 has sampling_rate=8000; the feature extractor expects 16000 Hz"):
        collator([{"audio": speech, "sampling_rate": 8000}])
    decoded = {"audio": {"array": speech, "sampling_rate": 16000}, "sampling_rate": 44100}
    assert torch.equal(collator([decoded])["input_values"], batch["input_values"])
    with pytest.raises(ValueError, match="the examples are of type tuple; expected dicts"):
        collator([(speech, 1)])


def test_features_and_labels_may_be_in_bfloat16(extractor, speech):
    features = extractor(speech, sampling_rate=16000, return_tensors="pt")["input_values"][0].bfloat16()
    batch = SpecMaskDataCollator(extractor)([{"input_values": features, "labels": torch.eye(2).bfloat16()[1]}])
    assert batch["input_values"].dtype == batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == [[0.0, 1.0]]


def test_padding_without_its_mask_is_found_in_half_precision(speech):
    extractor = FFTPFeatureExtractor(padding_value=-1.2776)
    clips = [speech[:8000], speech[:16000]]
    features = extractor(clips, sampling_rate=16000, return_tensors="np", padding="longest")
    batch = SpecMaskDataCollator(extractor)([{"input_values": features["input_values"][0].astype(np.float16)}])
    assert batch["attention_mask"].sum() == features["attention_mask"][0].sum() < len(features["input_values"][0])


def test_a_model_for_other_sound_is_not_trained(make_config, examples, tmp_path):
    collator = SpecMaskDataCollator(FFTPFeatureExtractor(sampling_rate=8000))
    arguments = TrainingArguments(tmp_path, use_cpu=True, report_to="none", remove_unused_columns=False, max_steps=1)
    trainer = Trainer(
        FFTPForAudioClassification(make_config()), arguments, collator, train_dataset=examples, callbacks=[collator]
    )
    with pytest.raises(ValueError, match="the feature extractor has sampling_rate=8000; the model's config 16000"):
        trainer.train()


def test_what_a_teacher_said_is_in_float32(extractor, examples):
    batch = SpecMaskDataCollator(extractor)([{**example, "teacher_logits": [0.5, 1.0]} for example in examples])
    assert batch["teacher_logits"].dtype == torch.float32


def test_settings_of_the_extractor_are_those_of_the_batch(examples):
    extractor = FFTPFeatureExtractor(
        max_length=80, padding="max_length", truncation=True, padding_value=0.5, return_attention_mask=False
    )
    expected = extractor([example["audio"] for example in examples], sampling_rate=16000, return_tensors="pt")
    assert expected.keys() == {"input_values"}
    collator = SpecMaskDataCollator(extractor)
    untruncated = FFTPFeatureExtractor(padding=False)
    features = [
        {"input_values": untruncated(example["audio"], sampling_rate=16000)["input_values"][0]} for example in examples
    ]
    assert len(features[0]["input_values"]) > 80
    for batch in (collator(examples), collator(features)):
        assert "attention_mask" not in batch
        torch.testing.assert_close(batch["input_values"], expected["input_values"], atol=1e-5, rtol=0)
    masked = SpecMaskDataCollator(extractor, SpecAugment(48, 48)).augment(examples)
    assert masked["input_values"].shape == expected["input_values"].shape
    assert "attention_mask" not in masked
    # Clips that are not padded alone count in a batch as they do alone.
    extractor = FFTPFeatureExtractor(padding=False, return_attention_mask=False)
    for batch in (SpecMaskDataCollator(extractor)(clips) for clips in (examples, features[:1] + features[2:])):
        assert batch["attention_mask"].sum(dim=1).max() == batch["input_values"].shape[1]


def test_padded_features_keep_their_masks(extractor, examples):
    """As a batched `map` of the extractor leaves them."""
    expected = extractor([example["audio"] for example in examples], sampling_rate=16000, return_tensors="pt")
    rows = zip(expected["input_values"].numpy(), expected["attention_mask"].numpy(), strict=True)
    padded = [{"input_values": values, "attention_mask": mask} for values, mask in rows]
    for clips in (padded, padded[1:]):
        batch = SpecMaskDataCollator(extractor)(clips)
        lengths = torch.tensor([clip["attention_mask"].sum() for clip in clips])
        assert torch.equal(batch["attention_mask"].sum(dim=1), lengths)
        assert batch["input_values"].shape[1] == lengths.max()


def test_labels_that_are_none_are_named(extractor, examples):
    collator = SpecMaskDataCollator(extractor)
    with pytest.raises(ValueError, match="example 1 has no 'labels'"):
        collator([examples[0], {"audio": examples[1]["audio"]}])
    for label in ("dog", None):
        with pytest.raises(ValueError, match=f"the labels of example 0 are {label!r}; expected numbers"):
            collator([{**examples[0], "labels": label}])


def test_nothing_augmented_is_forgotten(examples, extractor):
    """Every setting changes what `augment` gives, and nothing of what a call gives."""
    plain = SpecMaskDataCollator(extractor)(examples)
    settings = {
        "spec_mask": SpecAugment(48, 48), "speed": SpeedPerturb(0.3), "crop": RandomCrop(4000),
        "mixup": Mixup(probability=1.0), "noise": ColoredNoise(1.0), "label_smoothing": 0.1,
        "transforms": [TimeRoll()],
    }  # fmt: skip
    for name, value in settings.items():
        collator = SpecMaskDataCollator(extractor, num_labels=4, **{name: value})
        torch.manual_seed(1)
        augmented = collator.augment(examples)
        same = [torch.equal(augmented[key], plain[key]) for key in plain if augmented[key].shape == plain[key].shape]
        assert same != [True] * 3, name
        for key, expected in collator(examples).items():
            assert torch.equal(expected, plain[key]), name


def test_labels_per_step(make_config, extractor, examples):
    config = make_config(problem_type="multi_label_classification")
    steps = [int(config.time_patches(98)), int(config.time_patches(54)), 1, int(config.time_patches(73))]
    collator = SpecMaskDataCollator(extractor, SpecMask.from_config(config, 0.2), step_labels=StepLabels(config))
    indices = [{**example, "labels": np.arange(n) % 4} for example, n in zip(examples, steps, strict=True)]
    batch = collator.augment(indices)["labels"]
    assert batch.shape == (4, steps[0])
    assert batch.dtype == torch.int64
    assert batch[2].tolist() == [0] + [-100] * (steps[0] - 1)
    targets = [{**example, "labels": np.ones((n, 4))} for example, n in zip(examples, steps, strict=True)]
    batch = collator(targets)["labels"]
    assert batch.dtype == torch.float32
    assert (batch == 1).sum(dim=(1, 2)).tolist() == [4 * n for n in steps]
    assert (batch == -100).sum(dim=(1, 2)).tolist() == [4 * (steps[0] - n) for n in steps]
    with pytest.raises(ValueError, match="labels have the shapes"):
        SpecMaskDataCollator(extractor)(indices)
    levels = [{**example, "labels": np.full(n, 0.9)} for example, n in zip(examples, steps, strict=True)]
    levels[1]["labels"] = np.ones(steps[1], dtype=int)
    batch = collator(levels)["labels"]
    assert batch[:2, 0].tolist() == [pytest.approx(0.9), 1.0]
    short = [*targets[:1], {**targets[1], "labels": np.ones((3, 4))}]
    with pytest.raises(ValueError, match=f"clip 1 has labels for 3 steps; its 54 frames are {steps[1]} steps"):
        collator(short)

    events = [[(0.2, 0.4, 1)], [], [(0.0, 0.02, "LABEL_3")], [(0.1, 0.3, 0), (0.2, 0.5, 2)]]
    collator = SpecMaskDataCollator(extractor, step_labels=EventLabels(config))
    batch = collator([{**example, "labels": e} for example, e in zip(examples, events, strict=True)])
    targets = events_to_labels(config, events, steps)
    for row, target, count in zip(batch["labels"], targets, steps, strict=True):
        assert torch.equal(row[:count], target[:count])
        # What metrics leave out.
        assert (row[count:] == -100).all()
    SpecMaskDataCollator(extractor, step_labels=StepLabels(config), transforms=[RandomGain(), Stretch(0.0, 0.1)])
    for setting in (
        {"speed": SpeedPerturb()}, {"crop": RandomCrop(100)}, {"defer_features": True}, {"transforms": [TimeRoll()]},
        {"transforms": [Stretch()]},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"step_labels goes without|labels per step cannot follow"):
            SpecMaskDataCollator(extractor, step_labels=StepLabels(config), **setting)


def drawn(collator, num_workers, epochs=2, seed=0):
    """Which cells are masked in each batch of each epoch, over clips that are alike."""
    torch.manual_seed(seed)
    clips = [{"input_values": np.ones((100, 128), np.float32) * np.arange(128)}] * 8
    loader = DataLoader(clips, batch_size=2, collate_fn=collator.augment, num_workers=num_workers)
    return [batch["input_values"] for _ in range(epochs) for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("is_given", [False, True])
def test_no_two_batches_draw_alike(extractor, workers, is_given):
    def build():
        generator = torch.Generator().manual_seed(3) if is_given else None
        return SpecMaskDataCollator(extractor, SpecAugment(48, 48), generator=generator)

    batches = drawn(build(), workers)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(batches, 2))
    again = drawn(build(), workers)
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))


def test_processes_of_one_seed_draw_apart(extractor, monkeypatch):
    collator = SpecMaskDataCollator(extractor, SpecAugment(48, 48))
    first = drawn(collator, 0)
    monkeypatch.setenv("RANK", "1")
    second = drawn(collator, 0)
    assert not any(torch.equal(a, b) for a, b in itertools.product(first, second))


def test_spawned_workers_of_several_processes_draw_apart(extractor, monkeypatch):
    """They have no process group, and not every launcher sets RANK: what they are given knows the process."""
    batches = []
    for rank in (0, 1):
        monkeypatch.setattr(randomness.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(randomness.distributed, "get_rank", lambda rank=rank: rank)
        given = pickle.dumps(SpecMaskDataCollator(extractor, SpecAugment(48, 48)))
        monkeypatch.undo()
        batches.append(drawn(pickle.loads(given), 0)[0])
    assert not torch.equal(*batches)


@pytest.mark.parametrize("is_given", [False, True])
def test_spawned_workers_draw_as_others_do(extractor, is_given):
    """As on macOS and Windows; a generator of torch does not go to another process by itself."""
    generator = torch.Generator().manual_seed(3) if is_given else None
    collator = SpecMaskDataCollator(extractor, SpecAugment(48, 48), generator=generator)
    batches = []
    for start in ("spawn", "fork"):
        torch.manual_seed(0)
        clips = [{"input_values": np.ones((100, 128), np.float32) * np.arange(128)}] * 4
        loader = DataLoader(
            clips, batch_size=2, collate_fn=collator.augment, num_workers=1, multiprocessing_context=start
        )
        batches.append([batch["input_values"] for batch in loader])
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))
    assert not torch.equal(*batches[0])


def test_events_after_their_clip_are_refused(make_config, extractor):
    """As times in milliseconds or frames are; they would train a model of silence."""
    config = make_config(problem_type="multi_label_classification")
    collator = SpecMaskDataCollator(extractor, crop=RandomCrop(8000), step_labels=EventLabels(config))
    clip = {"audio": np.random.default_rng(0).normal(size=16000).astype(np.float32)}
    for collate in (collator, collator.augment):
        assert collate([clip | {"labels": [(0.1, 1.2, 0), (1.0, 1.2, 2), (None, None, 1)]}])["labels"].max() == 1
        with pytest.raises(ValueError, match=r"event \(500.*\) of example 0 begins after its clip, which has 1 s"):
            collate([clip | {"labels": [(500, 1200, 0)]}])


def test_features_with_a_batch_axis_are_named(extractor):
    rows = [extractor(np.zeros(count, np.float32), sampling_rate=16000) for count in (16000, 9000)]
    with pytest.raises(ValueError, match=r"features of example 0 have shape \(1, 98, 128\); .* batched=True"):
        SpecMaskDataCollator(extractor)([dict(row) for row in rows])


def test_sound_and_features_draw_apart(extractor, examples):
    """One seed for both would tie the speed of a clip to its masks."""
    seeds = []

    class Spy(SpeedPerturb, TimeRoll):
        def __call__(self, changed, *rest):
            seeds.append(rest[-1].initial_seed())
            return changed

    SpecMaskDataCollator(extractor, speed=Spy(), transforms=[Spy()]).augment(examples)
    assert len(set(seeds)) == 2


def test_global_random_state_moves_by_one_number_a_batch(extractor, examples):
    torch.manual_seed(0)
    torch.randint(2**63 - 1, ())
    expected = torch.rand(1)
    for mixup in (None, Mixup()):
        torch.manual_seed(0)
        SpecMaskDataCollator(extractor, SpecAugment(48, 48), mixup=mixup, num_labels=4).augment(examples)
        assert torch.rand(1) == expected


def test_draws_are_on_the_cpu_whatever_the_default_device(make_config, extractor, examples):
    def batch():
        torch.manual_seed(0)
        collator = SpecMaskDataCollator(
            extractor, SpecMask.from_config(make_config(), 0.3), speed=SpeedPerturb(), crop=RandomCrop(8000),
            mixup=Mixup(), noise=ColoredNoise(1.0), num_labels=4,
            transforms=[TimeRoll(), UniformNoise(), RandomGain(), FilterAugment(), Stretch(), SpecAugment(48, 48)],
        )  # fmt: skip
        deferring = SpecMaskDataCollator(extractor, SpecAugment(48, 48), defer_features=True)
        deferred = deferring.featurize(deferring.augment(examples))
        steps = StepLabels(make_config())([[0, 1], [2]], [19, 3])
        return collator.augment(examples)["input_values"], deferred["input_values"], steps

    expected = batch()
    torch.set_default_device("meta")
    try:
        found = batch()
    finally:
        torch.set_default_device(None)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_decoders_of_datasets(extractor, examples, decoder_class):
    decoded = [{**example, "audio": decoder_class(example["audio"], 16000)} for example in examples]
    arrays = [{**example, "audio": {"array": example["audio"], "sampling_rate": 16000}} for example in examples]
    collator = SpecMaskDataCollator(extractor)
    for clips in (decoded, arrays):
        # The rate of the file may stand in a column of its own.
        clips = [{**clip, "sampling_rate": 44100} for clip in clips]
        assert torch.equal(collator(clips)["input_values"], collator(examples)["input_values"])
    stereo = decoder_class(np.stack((examples[0]["audio"], 0 * examples[0]["audio"])), 16000)
    halved = collator([{"audio": examples[0]["audio"] / 2}])["input_values"]
    torch.testing.assert_close(collator([{"audio": stereo}])["input_values"], halved)
    for sound, message in (
        (decoder_class(examples[0]["audio"], 8000), "clip 0 is at 8000 Hz"),
        ({"bytes": b"RIFF", "path": None}, r"clip 0 is a dict of \['bytes', 'path'\]; expected 'array' and"),
        ({"array": examples[0]["audio"]}, r"clip 0 is a dict of \['array'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            collator([{"audio": sound}])


def test_masks_come_after_what_changes_the_spectrogram(extractor, examples, generator):
    spec_mask = SpecMask(128, 100, 10, 5, budget=0.3, full_share=1.0)
    collator = SpecMaskDataCollator(
        extractor, spec_mask, transforms=[TimeRoll(), UniformNoise(1.0)], generator=generator
    )
    values = collator.augment(examples[:1])["input_values"][0]
    assert (values == values[:, :1]).all(dim=1).sum() == spec_mask.budget * len(values) // 100 // 128


def test_another_extractor_is_refused():
    with pytest.raises(
        ValueError, match="feature_extractor is of type ASTFeatureExtractor; expected an FFTPFeatureExtractor"
    ):
        SpecMaskDataCollator(ASTFeatureExtractor())


def test_examples_without_sound_name_what_dropped_it(extractor):
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        SpecMaskDataCollator(extractor)([{"labels": 1}])
