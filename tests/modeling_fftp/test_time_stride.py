"""One model at every time stride: old checkpoints, positions by time, patches that stretch, every way to choose."""

import json

import numpy as np
import peft
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForAudioClassification, pipeline

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import (
    FFTPConfig,
    FFTPForAudioClassification,
    FFTPForAudioFrameClassification,
    FFTPForPreTraining,
    FFTPModel,
)
from modeling_fftp.convert.patch_geometry import change_geometry, change_patches
from tests.support import BACKBONES, GEOMETRIES

# What the release before positions were read by time gave, by patches, backbone and frames; the second of two clips is
# padded from two thirds on.
OLD = {
    ("full", "ast", 7): [[-0.1829552, -0.0633607, -0.8809507], [-0.179372, -0.0730567, -0.8864732]],
    ("full", "ast", 100): [[-0.1888098, -0.0632655, -0.8899254], [-0.193183, -0.0608353, -0.8870109]],
    ("full", "ast", 170): [[-0.1925573, -0.0622447, -0.8895353], [-0.1906904, -0.0621585, -0.8866572]],
    ("full", "mamba", 7): [[0.2281044, 0.0608881, -0.3570862], [0.231593, 0.0622505, -0.3633451]],
    ("full", "mamba", 100): [[0.1672067, 0.0787448, -0.3746428], [0.2100421, 0.0845136, -0.35559]],
    ("full", "mamba", 170): [[0.1745167, 0.0891975, -0.3561716], [0.1582519, 0.0944789, -0.3583268]],
    ("square", "ast", 7): [[-0.1791721, -0.0645838, -0.8872291], [-0.1787648, -0.0669568, -0.8887752]],
    ("square", "ast", 100): [[-0.1850123, -0.0643536, -0.8873471], [-0.1851603, -0.0641839, -0.8879628]],
    ("square", "ast", 170): [[-0.1850976, -0.0639446, -0.887603], [-0.1837935, -0.0640075, -0.8884392]],
    ("square", "mamba", 7): [[0.2152391, 0.065456, -0.3839568], [0.1919284, 0.066955, -0.3779339]],
    ("square", "mamba", 100): [[0.1674172, 0.0581485, -0.3788232], [0.1801645, 0.0816506, -0.3823555]],
    ("square", "mamba", 170): [[0.1827283, 0.0778991, -0.3848264], [0.2007808, 0.0561202, -0.3828663]],
}
SQUARE = {"patch_size": [16, 16], "frequency_stride": 10, "time_stride": 10}
# The fields of a config of that time.
OLD_FIELDS = {
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96, "max_length": 100,
    "patch_size": [128, 10], "frequency_stride": 128, "time_stride": 5, "model_type": "fftp", "layer_norm_eps": 1e-12,
}  # fmt: skip


def noise(count, start):
    """The same numbers everywhere, which look like chance."""
    return torch.frac(torch.sin(torch.arange(start, start + count, dtype=torch.float64)) * 1e4)


@pytest.fixture
def model(make_config):
    torch.manual_seed(0)
    model = FFTPForAudioClassification(make_config()).eval()
    with torch.no_grad():
        model.fftp.embeddings.position_embeddings.weight.normal_()
        model.classifier.dense.weight.normal_()
    return model


@pytest.mark.parametrize(("patches", "backbone", "frames"), OLD)
def test_old_checkpoints_answer_as_they_did(tmp_path, patches, backbone, frames):
    fields = OLD_FIELDS | (SQUARE if patches == "square" else {}) | {"backbone": backbone}
    (tmp_path / "config.json").write_text(json.dumps(fields | {"id2label": {"0": "a", "1": "b", "2": "c"}}))
    model = FFTPForAudioClassification(FFTPConfig.from_pretrained(tmp_path)).eval()
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.copy_(0.3 * noise(parameter.numel(), 1000 * index).view_as(parameter))
    mask = torch.ones(2, frames, dtype=torch.long)
    mask[1, frames * 2 // 3 :] = 0
    with torch.no_grad():
        logits = model(noise(2 * frames * 128, 0).view(2, frames, 128).float(), mask).logits
    torch.testing.assert_close(logits, torch.tensor(OLD[patches, backbone, frames]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("time_stride", [1, 4, 5, 10, 15, 30])
def test_tokens_read_the_table_at_their_times(make_config, geometry, time_stride):
    config = make_config(**GEOMETRIES[geometry])
    positions = FFTPModel(config).embeddings.position_embeddings
    rows, steps = config.position_grid
    with torch.no_grad():
        # Entries that say at which frame they are.
        positions.weight.copy_((torch.arange(steps) * config.time_stride).repeat(rows)[:, None])
    count = config.time_patches(config.max_length, time_stride)
    read = positions(count, torch.tensor([[count]]), time_stride)[0, :, 0].view(rows, count)
    last = (steps - 1) * config.time_stride
    torch.testing.assert_close(read, (torch.arange(count) * time_stride).clamp(max=last).expand(rows, -1).float())


def test_longer_clips_stretch_the_table_at_every_stride(make_config):
    config = make_config(time_stride=2)
    positions = FFTPModel(config).embeddings.position_embeddings
    with torch.no_grad():
        positions.weight.copy_(torch.linspace(0, 1, len(positions.weight))[:, None])
    for time_stride in (1, 2, 5, 10):
        count = config.time_patches(400, time_stride)
        read = positions(count, torch.tensor([[count]]), time_stride)[0, :, 0]
        assert read[0] <= 0.01
        assert read[-1] >= 0.98
        assert (read.diff() >= 0).all()


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("stretches", [False, True])
def test_padding_changes_nothing_at_any_stride(make_config, batch, backbone, geometry, stretches):
    torch.manual_seed(0)
    config = make_config(**GEOMETRIES[geometry], **BACKBONES[backbone], stretch_patches=stretches)
    model = FFTPForAudioFrameClassification(config).eval()
    with torch.no_grad():
        model.fftp.embeddings.position_embeddings.weight.normal_()
        for time_stride in (1, 3, 5, 10, 20):
            together = model(**batch, time_stride=time_stride).logits
            assert together.shape[1] == config.time_patches(100, time_stride)
            for clip, mask, logits in zip(batch["input_values"], batch["attention_mask"], together, strict=True):
                length = int(mask.sum())
                alone = model(clip[None, :length], time_stride=time_stride).logits[0]
                # A clip below one patch sees zeros.
                torch.testing.assert_close(logits[: len(alone)], alone, rtol=1e-4, atol=1e-5)


def test_every_way_to_choose_a_stride_gives_the_same(model, batch, tmp_path):
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        own, per_call = (model(**batch, **stride).logits for stride in ({}, {"time_stride": 10}))
        assert not torch.allclose(own, per_call, atol=1e-3)
        torch.testing.assert_close(model(**batch).logits, own, rtol=0, atol=0)
        loaded = FFTPForAudioClassification.from_pretrained(tmp_path, time_stride=10)
        torch.testing.assert_close(loaded(**batch).logits, per_call, rtol=0, atol=0)
        model.set_time_stride(10)
        torch.testing.assert_close(model(**batch).logits, per_call, rtol=0, atol=0)
        model.save_pretrained(tmp_path / "set")
        again = AutoModelForAudioClassification.from_pretrained(tmp_path / "set")
        assert (again.config.time_stride, again.config.position_stride) == (10, 5)
        torch.testing.assert_close(again(**batch).logits, per_call, rtol=0, atol=0)
        torch.testing.assert_close(again(**batch, time_stride=5).logits, own, rtol=0, atol=0)


def test_the_code_of_a_folder_knows_strides_too(model, tmp_path, run_without_package):
    model.save_pretrained(tmp_path / "model")
    FFTPFeatureExtractor().save_pretrained(tmp_path / "model")
    values = torch.linspace(-1, 1, 100 * 128).view(1, 100, 128)
    code = f"""
import torch
from transformers import AutoModelForAudioClassification
model = AutoModelForAudioClassification.from_pretrained({str(tmp_path / "model")!r}, trust_remote_code=True,
                                                             time_stride=10)
print(model(torch.linspace(-1, 1, 100 * 128).view(1, 100, 128)).logits[0].tolist())
model.set_time_stride(20)
print(model(torch.linspace(-1, 1, 100 * 128).view(1, 100, 128)).logits[0].tolist())
"""
    lines = run_without_package(code).strip().splitlines()[-2:]
    with torch.no_grad():
        for line, time_stride in zip(lines, (10, 20), strict=True):
            expected = model(values, time_stride=time_stride).logits[0]
            torch.testing.assert_close(torch.tensor(json.loads(line)), expected, rtol=1e-5, atol=1e-6)


def test_pipelines_run_at_another_stride(model, tmp_path, speech):
    model.save_pretrained(tmp_path)
    FFTPFeatureExtractor().save_pretrained(tmp_path)
    tag = pipeline("audio-tagging", model=str(tmp_path), trust_remote_code=True)
    fast = tag(speech, time_stride=10, top_k=None)
    assert fast != tag(speech, top_k=None)
    coarse = pipeline("audio-tagging", model=str(tmp_path), trust_remote_code=True, time_stride=10)
    assert coarse(speech, top_k=None) == fast
    classify = pipeline("audio-classification", model=str(tmp_path), trust_remote_code=True)
    before = classify(speech[:16000])
    classify.model.set_time_stride(10)
    assert classify(speech[:16000]) != before
    extracted = FFTPFeatureExtractor()(speech[:16000], sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        best = model(**extracted, time_stride=10).logits[0].softmax(dim=-1).max().item()
    assert classify(speech[:16000])[0]["score"] == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_stretched_patches_are_those_of_a_resized_kernel(make_config, batch, geometry):
    torch.manual_seed(0)
    model = FFTPForAudioClassification(make_config(**GEOMETRIES[geometry], stretch_patches=True)).eval()
    height = model.config.patch_size[0]
    config = change_geometry(model.config, (height, 20), model.config.frequency_stride, time_stride=20)
    resized = change_patches(model, config, "pi_resize")
    with torch.no_grad():
        expected, logits = resized(**batch).logits, model(**batch, time_stride=20).logits
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        # Strides that are not wider than a patch stretch nothing.
        model.config.stretch_patches = False
        narrow = model(**batch, time_stride=10).logits
        skipping = model(**batch, time_stride=20).logits
        model.config.stretch_patches = True
        torch.testing.assert_close(model(**batch, time_stride=10).logits, narrow, rtol=0, atol=0)
    assert not torch.allclose(skipping, logits, atol=1e-4)


@pytest.mark.parametrize("stretches", [False, True])
def test_spans_of_a_frame_classifier_follow_the_stride(make_config, stretches):
    torch.manual_seed(0)
    config = make_config(problem_type="multi_label_classification", stretch_patches=stretches)
    model = FFTPForAudioFrameClassification(config).eval()
    clip, events = torch.randn(1, 98, 128), [[(0.0, 0.5, 1)]]
    with torch.no_grad():
        for time_stride in (2, 5, 10, 20):
            outputs = model(clip, labels=events, time_stride=time_stride)
            spans = model.token_spans(outputs.logits.shape[1], time_stride)
            torch.testing.assert_close(spans[1:, 0], spans[:-1, 1])
            assert spans[0, 0] == 0
            assert spans[-1, 1] <= 98 * 0.01 + 0.015 + 1e-9
            # An event marks what it fills by half; a span that has its middle on the edge may go either way.
            is_on = (spans.mean(dim=1) <= 0.5 + 1e-9)[None, :, None] & (torch.arange(4) == 1)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs.logits, is_on.float())
            assert outputs.loss.item() == pytest.approx(loss.item(), abs=1e-5)
    model.set_time_stride(10)
    assert torch.equal(model.token_spans(5), model.token_spans(5, 10))


def test_adapters_around_the_patch_embedding_follow_the_stride(model, batch):
    config = peft.LoraConfig(r=2, target_modules=["projection"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for time_stride in (5, 10, 20):
            with adapted.disable_adapter():
                plain = adapted(**batch, time_stride=time_stride).logits
            logits = adapted(**batch, time_stride=time_stride).logits
            assert not torch.allclose(logits, plain, atol=1e-3)
        logits = adapted(**batch, time_stride=10).logits
        merged = adapted.merge_and_unload()
        torch.testing.assert_close(merged(**batch, time_stride=10).logits, logits, rtol=1e-4, atol=1e-5)


def test_pretraining_has_one_stride_in_encoder_and_decoder(make_config, batch):
    torch.manual_seed(0)
    model = FFTPForPreTraining(make_config(time_stride=5)).eval()
    seen = []
    model.decoder.position_embeddings.register_forward_pre_hook(lambda module, given: seen.append(given[2]))
    model.base_model.set_time_stride(10)
    assert model(**batch).logits.shape[1] == model.config.time_patches(100, 10)
    assert seen == [10]
    with pytest.raises(ValueError, match="pretraining has one stride"):
        model(**batch, time_stride=5)
    wide = FFTPForPreTraining(make_config(time_stride=20, stretch_patches=True))
    with pytest.raises(ValueError, match="time_stride=20 with stretch_patches: pretraining predicts patches of 10"):
        wide(**batch)


@pytest.mark.parametrize("time_stride", [0, -5, 2.5, float("inf"), "10", True])
def test_strides_below_one_frame_are_refused(model, batch, time_stride):
    for choose in (lambda: model(**batch, time_stride=time_stride), lambda: model.set_time_stride(time_stride)):
        with pytest.raises(ValueError, match=f"time_stride={time_stride!r} must be a whole number of frames"):
            choose()
    assert model.config.time_stride == 5


def test_fields_that_do_not_fit_are_refused(make_config):
    for fields, message in (
        ({"time_strides": [5, 2]}, "time_strides=.* must be frames in ascending order"),
        ({"time_strides": [0, 5]}, "time_strides=.* must be frames in ascending order, each at least 1"),
        ({"position_stride": 0}, "position_stride=0 must be at least 1"),
    ):
        with pytest.raises(StrictDataclassError, match=message):
            make_config(**fields)
    assert make_config(time_strides=[2, 5]).time_strides == (2, 5)


def test_a_stride_works_on_sound_of_any_length(model):
    model.feature_extractor = FFTPFeatureExtractor()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for samples in (400, 3000, 16000, 48000):
            sound = torch.from_numpy(rng.normal(size=(1, samples)).astype(np.float32) * 0.1)
            assert model(sound, time_stride=20).logits.isfinite().all()
