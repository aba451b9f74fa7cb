"""Streams: scores at every hop are those of the sound so far, or of a window, at constant cost and memory."""

import copy
import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.cache_fftp import FFTPCache
from modeling_fftp.stream_fftp import FeatureStream, FFTPStream
from tests.support import BACKBONES, GEOMETRIES, perturb

CAUSAL = {
    "backbone": "mamba", "mamba_variant": "fo-fo", "pooling": "mean", "use_absolute_position_embeddings": False,
}  # fmt: skip


def build(config):
    """A model whose scores differ visibly from sound to sound, and are far from 0 and 1."""
    torch.manual_seed(0)
    model = perturb(FFTPForAudioClassification(config).eval())
    torch.nn.init.normal_(model.classifier.dense.weight, std=0.1)
    return model


@pytest.fixture
def sound():
    """Four seconds whose loudness and colour change."""
    rng = np.random.default_rng(0)
    time = np.arange(64000) / 16000
    tone = np.sin(2 * np.pi * (300 + 200 * time) * time) * (np.sin(2 * np.pi * 0.7 * time) > 0)
    return (0.05 * rng.normal(size=64000) + 0.2 * tone).astype(np.float32)


def push_all(stream, sound, generator, longest=3000):
    """Scores of a sound that comes in pieces of any length, some of them empty."""
    answers, start = [], 0
    while start < len(sound):
        length = int(generator.integers(0, longest))
        answers += stream.push(sound[start : start + length])
        start += length
    return answers


def offline(model, extractor, sound, **options):
    with torch.no_grad():
        features = extractor(sound, sampling_rate=16000, return_tensors="pt")
        return model(**features, **options).logits[0].softmax(dim=-1)


def test_features_are_those_of_the_whole(sound, extractor):
    stream, rng, frames, start = FeatureStream(extractor), np.random.default_rng(1), [], 0
    while start < len(sound):
        length = int(rng.integers(1, 2000))
        frames.append(stream.push(sound[start : start + length]))
        start += length
        assert len(stream.rest) < 400 + 160
    whole = extractor(sound, sampling_rate=16000, return_tensors="pt")["input_values"][0]
    torch.testing.assert_close(torch.cat(frames), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("hop_seconds", [None, 0.1, 0.35])
@pytest.mark.parametrize(
    "patches", [{}, {"time_stride": 3}, {"time_stride": 20}, {"time_stride": 20, "stretch_patches": True}]
)
def test_a_causal_model_says_at_every_hop_what_it_says_offline(make_config, extractor, sound, patches, hop_seconds):
    model = build(make_config(**CAUSAL, **patches))
    stream = model.stream(extractor, hop_seconds=hop_seconds)
    answers = push_all(stream, sound, np.random.default_rng(2))
    assert len(answers) >= 3.5 / stream.hop_seconds
    for one, other in pairwise(answers):
        assert other.seconds - one.seconds == pytest.approx(stream.hop_seconds)
    for answer in answers:
        heard = sound[: round(answer.seconds * 16000)]
        torch.testing.assert_close(answer.scores, offline(model, extractor, heard), rtol=1e-5, atol=1e-5)
    assert (answers[0].scores - answers[-1].scores).abs().max() > 0.01


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_any_other_model_looks_at_a_window(make_config, extractor, sound, backbone, geometry):
    model = build(make_config(**BACKBONES[backbone], **GEOMETRIES[geometry]))
    stream = model.stream(extractor, hop_seconds=0.25, memory_seconds=0.8)
    assert stream.cache is None
    for answer in push_all(stream, sound, np.random.default_rng(2)):
        end = round(answer.seconds * 16000)
        # 80 windows of 25 ms, one every 10 ms.
        heard = sound[max(0, end - 79 * 160 - 400) : end]
        torch.testing.assert_close(answer.scores, offline(model, extractor, heard), rtol=1e-4, atol=1e-5)


def test_a_window_is_padded_as_the_extractor_pads(make_config, sound):
    extractor = FFTPFeatureExtractor(padding="max_length", max_length=100, return_attention_mask=False)
    model = build(make_config())
    answers = model.stream(extractor, hop_seconds=0.5).push(sound[:16000])
    expected = offline(model, extractor, sound[: round(answers[0].seconds * 16000)])
    torch.testing.assert_close(answers[0].scores, expected, rtol=1e-4, atol=1e-5)


def test_sound_fades_with_its_half_life(make_config, extractor, sound):
    model = build(make_config(**CAUSAL))
    # Ten tokens of 50 ms.
    answers = model.stream(extractor, memory_seconds=0.5).push(sound)
    with torch.no_grad():
        features = extractor(sound, sampling_rate=16000, return_tensors="pt")
        states = model.fftp(**features).last_hidden_state[0]
        weights = 0.5 ** (torch.arange(len(states) - 1, -1, -1) / 10)
        pooled = (states * weights[:, None]).sum(dim=0) / weights.sum()
        expected = model.classifier(pooled).softmax(dim=-1)
    torch.testing.assert_close(answers[-1].scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fields", [CAUSAL, {}], ids=["state", "window"])
def test_memory_does_not_grow(make_config, extractor, sound, fields):
    stream = build(make_config(**fields)).stream(extractor)

    def count():
        tensors = [stream.frames, stream.features.rest]
        if stream.cache is not None:
            tensors += [
                stream.cache.total,
                *(t for layer in stream.cache.layers for t in (layer.conv_states, layer.ssm_states)),
            ]
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)

    stream.push(sound)
    before = count()
    for _ in range(5):
        stream.push(sound)
    assert count() == pytest.approx(before, abs=100 * 128 * 4)


def test_samples_that_complete_no_frame_copy_no_window(make_config, extractor, sound):
    stream = build(make_config()).stream(extractor)
    stream.push(sound[:8000])
    frames = stream.frames
    stream.push(sound[8000:8001])
    assert stream.frames is frames


def test_pieces_may_be_integers_or_tensors(make_config, extractor, sound):
    model = build(make_config(**CAUSAL))
    integers = (sound * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
    expected = model.stream(extractor).push(integers / np.float32(2**15))[-1]
    for pieces in (integers, torch.from_numpy(integers)):
        stream = model.stream(extractor)
        stream.push(pieces[:1000])
        torch.testing.assert_close(stream.push(pieces[1000:])[-1].scores, expected.scores)


def test_samples_that_are_refused_change_nothing(make_config, extractor, sound):
    model = build(make_config(**CAUSAL))
    stream, other = model.stream(extractor), model.stream(extractor)
    for each in (stream, other):
        each.push(sound[:5000])
    for samples, message in (
        (np.zeros((100, 2), np.float32), "expected one channel"),
        (np.full(10, np.nan, np.float32), "10 samples are NaN or infinite"),
        (np.full(10, -1e25, np.float32), r"samples reach 1\.0e\+25"),
    ):
        with pytest.raises(ValueError, match=message):
            stream.push(samples)
    for a, b in zip(stream.push(sound[5000:]), other.push(sound[5000:]), strict=True):
        assert torch.equal(a.scores, b.scores)


@pytest.mark.parametrize(
    "fields",
    [
        {"mamba_variant": "fo-bi"},
        {"pooling": "cls"},
        {"use_absolute_position_embeddings": True},
        {"num_class_tokens": 1},
        {"patch_size": 16, "frequency_stride": 16},
        {"backbone": "ast"},
    ],
)
def test_models_that_look_ahead_have_no_state(make_config, fields):
    config = make_config(**(CAUSAL | fields))
    with pytest.raises(ValueError, match="the model cannot go on from a state"):
        FFTPCache(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hop_seconds": 0}, "hop_seconds=0 must be positive"),
        ({"hop_seconds": float("inf")}, "hop_seconds=inf must be positive and finite"),
        ({"hop_seconds": 0.6, "memory_seconds": 0.5}, "hop_seconds=0.6, and each look hears 0.515 s: sound between"),
        ({"memory_seconds": float("inf")}, "memory_seconds=inf must be positive and finite"),
        ({"memory_seconds": -1.0}, "memory_seconds=-1.0 must be positive"),
        ({"memory_seconds": 0.05}, "memory_seconds are 5 frames; expected at least a patch of 10"),
        ({"threshold": 0}, "threshold=0 must be positive"),
        ({"threshold": 5}, r"threshold=5 must lie in \[0, 1\]"),
    ],
)
def test_options_that_make_no_sense_are_refused(make_config, extractor, options, message):
    with pytest.raises(ValueError, match=message):
        build(make_config()).stream(extractor, **options)


def test_a_state_goes_with_whole_patches_of_its_own_streams(make_config, batch):
    model = build(make_config(**CAUSAL))
    frames = batch["input_values"]
    for inputs, message in (
        (batch, "attention_mask is for padding"),
        ({"input_values": frames[:, :9]}, "9 frames are less than a patch of 10"),
        ({"input_values": frames[:2]}, "2 clips; the cache is of 3 streams"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**inputs, cache_params=FFTPCache(model.config, 3))
    shallow = FFTPCache(make_config(**CAUSAL, num_hidden_layers=1), 3)
    with pytest.raises(ValueError, match="the cache is of 1 layers of width 48; the model has 2 of 48"):
        model(frames, cache_params=shallow)
    other = build(make_config())
    with pytest.raises(ValueError, match="cannot go on from a state: backbone='ast'"):
        other(frames, cache_params=FFTPCache(model.config, 3))
    cache = FFTPCache(model.config, 3)
    # A call that fails leaves no stride behind.
    with pytest.raises(ValueError, match="64"):
        model(frames[..., :64], cache_params=cache, time_stride=10)
    model(frames, cache_params=cache)
    with pytest.raises(ValueError, match="time_stride=10; the cache holds tokens of stride 5"):
        model(frames, cache_params=cache, time_stride=10)
    with pytest.raises(ValueError, match="goes on with frames, which pieces of sound cut"):
        model(torch.zeros(3, 16000), cache_params=cache)
    with pytest.raises(ValueError, match="bool_masked_pos goes neither with cache_params nor"):
        model.fftp(frames, cache_params=cache, bool_masked_pos=torch.zeros(3, 9, dtype=torch.bool))


def test_a_state_keeps_no_graph(make_config, batch):
    model = build(make_config(**CAUSAL))
    cache = FFTPCache(model.config, 3)
    model(batch["input_values"], cache_params=cache)
    states = [state for layer in cache.layers for state in (layer.conv_states, layer.ssm_states)]
    assert not any(state.requires_grad for state in (*states, cache.total))


def test_a_piece_that_begins_a_stream_trains_as_a_clip_does(make_config, batch):
    model = build(make_config(**CAUSAL))
    gradients = []
    for cache in (None, FFTPCache(model.config, 3)):
        model.zero_grad()
        model(batch["input_values"], labels=torch.arange(3), cache_params=cache).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-3)


def test_a_state_moves_on_once(make_config, batch):
    model = build(make_config(**CAUSAL)).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    with pytest.raises(ValueError, match="cache_params would move on twice: gradient checkpointing"):
        model(batch["input_values"], cache_params=FFTPCache(model.config, 3))


@pytest.mark.parametrize("fields", [CAUSAL, {}], ids=["state", "window"])
def test_a_stream_keeps_its_stride(make_config, extractor, sound, fields):
    model = build(make_config(**fields))
    expected = model.stream(extractor, hop_seconds=0.5).push(sound)
    stream = model.stream(extractor, hop_seconds=0.5)
    model.set_time_stride(3)
    for one, other in zip(stream.push(sound), expected, strict=True):
        assert torch.equal(one.scores, other.scores)


def test_a_window_is_no_longer_than_what_the_extractor_keeps(make_config, sound):
    extractor = FFTPFeatureExtractor(truncation=True, max_length=50)
    model = build(make_config())
    answer = model.stream(extractor, hop_seconds=0.5).push(sound)[-1]
    end = round(answer.seconds * 16000)
    expected = offline(model, FFTPFeatureExtractor(), sound[end - 49 * 160 - 400 : end])
    torch.testing.assert_close(answer.scores, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"memory_seconds are 80 frames; expected .* no more than the 50"):
        model.stream(extractor, memory_seconds=0.8)


def test_samples_that_were_lost_count_as_time(make_config, extractor, sound):
    for fields in (CAUSAL, {}):
        model = build(make_config(**fields))
        stream = model.stream(extractor, hop_seconds=0.25)
        before = stream.push(sound[:8000])
        stream.skip(4000)
        after = stream.push(sound[12000:])
        assert after[0].seconds - 0.75 == pytest.approx(before[0].seconds)
        if stream.cache is None:
            heard = sound[12000 : round(after[0].seconds * 16000)]
            torch.testing.assert_close(after[0].scores, offline(model, extractor, heard), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fields", [CAUSAL, {}], ids=["state", "window"])
def test_what_comes_after_the_end_is_another_recording(make_config, extractor, sound, fields):
    model = build(make_config(**fields))
    stream = model.stream(extractor, hop_seconds=0.5)
    stream.push(sound[:24000])
    stream.finish()
    answers = stream.push(sound[24000:])
    for one, other in zip(answers, model.stream(extractor, hop_seconds=0.5).push(sound[24000:]), strict=True):
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-5)
        assert one.seconds - 1.5 == pytest.approx(other.seconds)


@pytest.mark.parametrize("fields", [CAUSAL, {}], ids=["state", "window"])
def test_sound_before_a_gap_is_heard(make_config, extractor, sound, fields):
    model = build(make_config(**fields))
    stream = model.stream(extractor, hop_seconds=1.0)
    assert not stream.push(sound[:15000])
    assert not stream.skip(0)
    (answer,) = stream.skip(1000)
    heard = sound[: round(answer.seconds * 16000)]
    assert 15000 - len(heard) < 400 + 160 * 5
    torch.testing.assert_close(answer.scores, offline(model, extractor, heard), rtol=1e-4, atol=1e-5)
    assert stream.num_samples == 16000


def test_a_window_that_is_looked_at_by_default(make_config, extractor):
    """Every look costs a whole window of 1 s."""
    model = build(make_config())
    assert model.stream(extractor).hop_seconds == pytest.approx(0.1)
    assert model.stream(extractor, memory_seconds=0.5).hop_seconds == pytest.approx(0.05)
    assert build(make_config(**CAUSAL)).stream(extractor).hop_seconds == pytest.approx(0.05)


def test_a_piece_of_any_length_leaves_as_small_a_state(make_config, extractor, sound):
    model = build(make_config(**CAUSAL))
    cache = FFTPCache(model.config)
    with torch.no_grad():
        model(torch.randn(1, 5000, 128), cache_params=cache)
    assert all(layer.conv_states.untyped_storage().nbytes() == 4 * layer.conv_states.numel() for layer in cache.layers)


@pytest.mark.parametrize("fields", [CAUSAL, {}], ids=["state", "window"])
def test_streams_keep_to_the_cpu_whatever_torch_s_default_is(make_config, extractor, sound, fields):
    model = build(make_config(**fields))
    expected = model.stream(extractor, hop_seconds=0.5).push(sound)
    with torch.device("meta"):
        stream = model.stream(extractor, hop_seconds=0.5)
        answers = stream.push(sound[:9000]) + stream.push(sound[9000:])
    for one, other in zip(answers, expected, strict=True):
        assert torch.equal(one.scores, other.scores)


def test_scores_are_plain_tensors(make_config, extractor, sound):
    answer = build(make_config(**CAUSAL)).stream(extractor).push(sound)[-1]
    assert not answer.scores.requires_grad
    answer.scores.mul_(0.9)
    assert (answer.scores * torch.ones(1, requires_grad=True)).requires_grad


def test_a_model_that_begins_to_train_is_refused(make_config, extractor, sound):
    model = build(make_config(**CAUSAL))
    stream = model.stream(extractor)
    stream.push(sound[:8000])
    model.train()
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        stream.push(sound[8000:])
    assert stream.num_samples == 8000


def test_objects_of_sound_count_their_samples(make_config, extractor, sound):
    stream = build(make_config(**CAUSAL)).stream(extractor)
    stream.push({"array": sound, "sampling_rate": 16000})
    assert stream.num_samples == len(sound)


@pytest.mark.parametrize("fields", [CAUSAL, {}], ids=["state", "window"])
def test_what_does_not_fill_a_hop_is_heard_at_the_end(make_config, extractor, sound, fields):
    model = build(make_config(**fields))
    stream = model.stream(extractor, hop_seconds=2.0, memory_seconds=2.0 if fields == {} else None)
    assert not stream.push(sound[:12000])
    (answer,) = stream.flush()
    heard = sound[: round(answer.seconds * 16000)]
    assert 0.75 - answer.seconds < 0.05 + 0.01
    torch.testing.assert_close(answer.scores, offline(model, extractor, heard), rtol=1e-4, atol=1e-5)
    assert not stream.flush()
    # After hops too, whose window is longer than they are or not.
    for hop_seconds, memory_seconds in ((0.5, 0.8), (0.5, 0.5)):
        stream = model.stream(extractor, hop_seconds=hop_seconds, memory_seconds=memory_seconds)
        stream.push(sound[:44000])
        (answer,) = stream.flush()
        end = round(answer.seconds * 16000)
        assert 2.75 - answer.seconds < 0.05 + 0.01
        if stream.cache is None:
            heard = sound[end - (round(memory_seconds * 100) - 1) * 160 - 400 : end]
            torch.testing.assert_close(answer.scores, offline(model, extractor, heard), rtol=1e-4, atol=1e-5)
    # Exactly one hop leaves nothing over.
    stream = model.stream(extractor, hop_seconds=0.05)
    stream.push(sound[: 400 + 160 * 9])
    assert not stream.flush()


def test_what_cannot_stream_is_refused(make_config, extractor):
    model = build(make_config())
    for change, message in (
        (lambda: model.stream(FFTPFeatureExtractor(sampling_rate=8000)), "has sampling_rate=8000 Hz"),
        (lambda: model.train().stream(extractor), "call model.eval\\(\\) first"),
        (lambda: build(make_config(problem_type="regression")).stream(extractor), "needs a clip classifier"),
        (lambda: FFTPStream(model.eval().fftp, extractor), "needs a clip classifier; the model is a FFTPModel"),
        (lambda: model.eval().stream(extractor).set_threshold(-3), "threshold=-3 must be positive"),
        (lambda: model.eval().stream(extractor).set_threshold(0.0), "threshold=0.0 must be positive"),
        (lambda: model.eval().stream(extractor).set_threshold(1.1), "threshold=1.1 must lie in"),
        (lambda: model.eval().stream(extractor).skip(-1), "num_samples=-1 must not be negative"),
        (lambda: model.eval().stream(extractor).skip(float("inf")), "num_samples=inf must not be negative"),
    ):
        with pytest.raises(ValueError, match=message):
            change()


def test_streams_side_by_side_are_streams_alone(make_config):
    model, frames = build(make_config(**CAUSAL)), torch.randn(3, 200, 128)
    together, alone = FFTPCache(model.config, 3), [FFTPCache(model.config) for _ in range(3)]
    with torch.no_grad():
        # Pieces of 20 and 19 tokens.
        for start, end in ((0, 105), (100, 200)):
            logits = model(frames[:, start:end], cache_params=together).logits
            for row, (clip, cache) in enumerate(zip(frames, alone, strict=True)):
                expected = model(clip[None, start:end], cache_params=cache).logits[0]
                torch.testing.assert_close(logits[row], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits, model(frames).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_models_without_positions_work_everywhere(make_config, batch, tmp_path, backbone):
    config = make_config(**BACKBONES[backbone], use_absolute_position_embeddings=False)
    model = build(config)
    assert not any("position" in name for name in model.state_dict())
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        again = FFTPForAudioClassification.from_pretrained(tmp_path)
        torch.testing.assert_close(again(**batch).logits, model(**batch).logits)
        clip = batch["input_values"][0, :61]
        torch.testing.assert_close(model(**batch).logits[0], model(clip[None]).logits[0], rtol=1e-4, atol=1e-5)
    model(**batch, labels=torch.tensor([0, 1, 2])).loss.backward()


def test_the_code_of_a_folder_streams_too(make_config, extractor, sound, tmp_path, run_without_package):
    model = build(make_config(**CAUSAL))
    model.save_pretrained(tmp_path / "model")
    extractor.save_pretrained(tmp_path / "model")
    np.save(tmp_path / "sound.npy", sound)
    code = f"""
import numpy as np
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification
folder = {str(tmp_path / "model")!r}
model = AutoModelForAudioClassification.from_pretrained(folder, trust_remote_code=True)
stream = model.stream(AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True), hop_seconds=0.5)
for block in np.array_split(np.load({str(tmp_path / "sound.npy")!r}), 7):
    answers = stream.push(block)
print(answers[-1].scores.tolist())
"""
    scores = torch.tensor(json.loads(run_without_package(code).strip().splitlines()[-1]))
    expected = model.stream(extractor, hop_seconds=0.5).push(sound)[-1].scores
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)


def test_a_config_with_a_state_survives_a_copy(make_config):
    config = make_config(**CAUSAL)
    assert FFTPConfig.from_dict(copy.deepcopy(config).to_dict()).use_absolute_position_embeddings is False
