"""Models with a feature extractor: sound in, the results of its features out, in training too."""

import copy

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

from modeling_fftp import FFTPForAudioClassification, FFTPForAudioFrameClassification, FFTPModel

LENGTHS = (16000, 9000, 300)


@pytest.fixture
def sound():
    """Clips at 16 kHz, the last shorter than a window, padded by noise that must not matter, and their mask."""
    torch.manual_seed(0)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return 0.1 * torch.randn(mask.shape), mask


def build(model_class, config, extractor=None):
    torch.manual_seed(0)
    model = model_class(config).eval()
    model.feature_extractor = extractor
    return model


def extract(extractor, sound, mask):
    clips = [clip[is_real] for clip, is_real in zip(sound, mask, strict=True)]
    return extractor(clips, sampling_rate=16000, padding="longest", return_attention_mask=True, return_tensors="pt")


def test_replicas_of_data_parallel_take_sound(make_config, extractor, sound):
    """Their weights are attributes, and no parameters."""
    model = build(FFTPForAudioClassification, make_config(), extractor)
    expected = model(*sound).logits
    weights = dict(model.named_parameters())
    for name, weight in weights.items():
        owner, _, last = name.rpartition(".")
        del model.get_submodule(owner)._parameters[last]
        object.__setattr__(model.get_submodule(owner), last, weight)
    torch.testing.assert_close(model(*sound).logits, expected)


@pytest.mark.parametrize("model_class", [FFTPModel, FFTPForAudioClassification, FFTPForAudioFrameClassification])
@pytest.mark.parametrize("backbone", ["ast", "mamba", "convnext"])
def test_sound_gives_what_its_features_give(make_config, extractor, sound, model_class, backbone):
    # Not the defaults, so that a model which guesses them is found out.
    extractor.mean, extractor.std, extractor.return_attention_mask, extractor.padding = -3.0, 5.0, False, False
    model = build(model_class, make_config(backbone=backbone), extractor)
    waveforms, mask = sound
    with torch.no_grad():
        expected = model(**extract(extractor, waveforms, mask))[0]
        for dtype in (torch.bool, torch.int64, torch.float32):
            assert torch.equal(model(waveforms, mask.to(dtype))[0], expected)
        everything = extract(extractor, waveforms, torch.ones_like(mask))
        assert torch.equal(model(waveforms)[0], model(**everything)[0])


def test_pcm_gives_what_floats_give(make_config, extractor, sound):
    model = build(FFTPForAudioClassification, make_config(), extractor)
    pcm = (sound[0] * 2**15).round().clamp(-(2**15), 2**15 - 1).short()
    with torch.no_grad():
        assert torch.equal(model(pcm, sound[1]).logits, model(pcm / 2.0**15, sound[1]).logits)


def test_base_model_has_the_extractor_of_its_head(make_config, extractor, sound):
    model = build(FFTPForAudioClassification, make_config(), extractor)
    with torch.no_grad():
        states = model.fftp(*sound).pooler_output
        torch.testing.assert_close(model.classifier(states), model(*sound).logits, atol=1e-5, rtol=0)


def test_bfloat16_model_takes_sound(make_config, extractor, sound):
    model = build(FFTPForAudioClassification, make_config(), extractor).to(torch.bfloat16)
    features = extract(extractor, *sound)
    with torch.no_grad():
        expected = model(features["input_values"].to(torch.bfloat16), features["attention_mask"]).logits
        assert torch.equal(model(*sound).logits, expected)


def test_features_are_float32_inside_autocast(make_config, extractor, sound):
    model = build(FFTPForAudioClassification, make_config(), extractor)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(*sound).logits, model(**extract(extractor, *sound)).logits)


def test_compiled_model_takes_sound(make_config, extractor, sound):
    model = build(FFTPForAudioClassification, make_config(), extractor)
    with torch.no_grad():
        expected = model(*sound).logits
        # The graphs are what matters, not their kernels.
        model.compile(backend="eager")
        torch.testing.assert_close(model(*sound).logits, expected, atol=1e-5, rtol=0)


def test_extractor_is_copied_but_not_saved_with_the_model(make_config, extractor, sound, tmp_path):
    model = build(FFTPForAudioClassification, make_config(), extractor)
    assert copy.deepcopy(model).feature_extractor.to_dict() == extractor.to_dict()
    model.save_pretrained(tmp_path)
    saved = FFTPForAudioClassification.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"\(3, 16000\).*128 mel bins.*model\.feature_extractor = "):
        saved(*sound)


def test_bad_sound(make_config, extractor, sound):
    model = build(FFTPForAudioClassification, make_config(), extractor)
    waveforms, mask = sound
    with pytest.raises(ValueError, match=r"attention_mask has shape \(3, 98\).*\(3, 16000\)"):
        model(waveforms, torch.ones(3, 98))
    with pytest.raises(ValueError, match=r"\(16000, 2\) looks like \(samples, channels\)"):
        model(torch.randn(16000, 2))
    with pytest.raises(ValueError, match=r"\(98, 128\); expected \(batch, frames, 128 mel bins\)"):
        model(torch.randn(98, 128))
    mask[1] = False
    with pytest.raises(ValueError, match="clip 1 has padding alone"):
        model(waveforms, mask)


def test_transformers_trainer_moves_sound(make_config, extractor, tmp_path):
    rng = np.random.default_rng(0)
    clips = [0.1 * rng.normal(size=8000 - 500 * index).astype(np.float32) for index in range(8)]

    def collate(examples):
        """Sound, its mask and labels; `examples` are indices."""
        waveforms = [torch.from_numpy(clips[index]) for index in examples]
        return {
            "input_values": torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True),
            "attention_mask": torch.nn.utils.rnn.pad_sequence([torch.ones(len(x)).bool() for x in waveforms], True),
            "labels": torch.tensor(examples) % 4,
        }

    def collate_features(examples):
        waveforms = [clips[index] for index in examples]
        return extractor(waveforms, sampling_rate=16000, return_tensors="pt") | {"labels": torch.tensor(examples) % 4}

    def train(collator):
        arguments = TrainingArguments(
            tmp_path / collator.__name__, num_train_epochs=2, per_device_train_batch_size=4, use_cpu=True,
            remove_unused_columns=False, report_to="none", disable_tqdm=True, save_strategy="no",
        )  # fmt: skip
        model = build(FFTPForAudioClassification, make_config(), extractor)
        Trainer(model, arguments, data_collator=collator, train_dataset=range(len(clips))).train()
        return model.state_dict()

    expected = train(collate_features)
    for name, value in train(collate).items():
        assert torch.equal(value, expected[name]), name
