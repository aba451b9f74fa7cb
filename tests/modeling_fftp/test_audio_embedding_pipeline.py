"""The pipeline "audio-embedding": the vectors are the model's own states, of any model, at the right times."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import ASTConfig, ASTForAudioClassification, pipeline

from modeling_fftp import FFTPForAudioClassification, FFTPForAudioFrameClassification, FFTPForPreTraining, FFTPModel
from modeling_fftp.times_fftp import join_steps, token_spans
from tests.support import BACKBONES, GEOMETRIES

RATE = 16000
HEADS = (FFTPModel, FFTPForAudioClassification, FFTPForAudioFrameClassification, FFTPForPreTraining)


def build(config, head=FFTPForAudioClassification):
    torch.manual_seed(0)
    return head(config).eval()


def embedder(model, extractor):
    return pipeline("audio-embedding", model=model, feature_extractor=extractor, device="cpu")


@pytest.mark.parametrize("head", HEADS)
def test_every_folder_gives_the_states_before_its_head(make_config, extractor, speech, tmp_path, head):
    model = build(make_config(), head)
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    clip = speech[:RATE]
    answer = pipeline("audio-embedding", model=str(tmp_path), trust_remote_code=True)(clip)
    features = extractor(clip, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        outputs = model.base_model(**features)
    # A frame classifier's pooled state was never trained.
    is_framewise = head is FFTPForAudioFrameClassification
    pooled = outputs.last_hidden_state[:, 2:].mean(dim=1) if is_framewise else outputs.pooler_output
    np.testing.assert_allclose(answer["embeddings"], pooled.numpy(), atol=1e-5)
    assert answer["embeddings"].dtype == np.float32
    assert answer["spans"].tolist() == [[0.0, 1.0]]


def test_a_head_that_was_made_of_another_embeds_as_it_will_when_saved(make_config, extractor, speech, tmp_path):
    build(make_config(pooling="cls"), FFTPForAudioFrameClassification).save_pretrained(tmp_path / "frames")
    model = FFTPForAudioClassification.from_pretrained(tmp_path / "frames").eval()
    before = embedder(model, extractor)(speech[:RATE])["embeddings"]
    model.save_pretrained(tmp_path / "clips")
    after = embedder(FFTPForAudioClassification.from_pretrained(tmp_path / "clips"), extractor)(speech[:RATE])
    np.testing.assert_allclose(before, after["embeddings"], atol=1e-5)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_steps_are_those_of_a_frame_classifier(make_config, extractor, speech, backbone, geometry):
    fields = BACKBONES[backbone] | GEOMETRIES[geometry] | {"token_merge_layers": None}
    model = build(make_config(**fields), FFTPForAudioFrameClassification)
    seen = []
    model.classifier.register_forward_pre_hook(lambda _, states: seen.append(states[0]))
    clip = speech[:RATE]
    with torch.no_grad():
        model(**extractor(clip, sampling_rate=RATE, return_tensors="pt"))
    embed = embedder(model, extractor)
    for answer in (embed(clip, per="step"), embed([clip, speech[: RATE // 2]], per="step", batch_size=2)[0]):
        np.testing.assert_allclose(answer["embeddings"], seen[0][0].numpy(), atol=1e-5)
        np.testing.assert_allclose(answer["spans"], model.token_spans(len(answer["spans"])).numpy())


@pytest.mark.parametrize("per", ["recording", "window", "step"])
def test_windows_cover_a_recording_once(make_config, extractor, speech, per):
    sound = np.tile(speech, 3)[: 5 * RATE + 777]
    embed = embedder(build(make_config()), extractor)
    answer, batched = embed(sound, per=per), embed([sound[:RATE], sound], per=per, batch_size=4)[1]
    np.testing.assert_allclose(answer["embeddings"], batched["embeddings"], atol=1e-5)
    spans = answer["spans"]
    assert answer["duration"] == len(sound) / RATE
    # Steps end with the last whole patch.
    assert 0 <= answer["duration"] - spans[-1, 1] < (0.06 if per == "step" else 1e-9)
    assert spans[0, 0] == 0.0
    if per == "step":
        np.testing.assert_array_equal(spans[1:, 0], spans[:-1, 1])
        lengths = np.diff(spans[1:-1], axis=1)
        # Where windows meet, whose steps lie elsewhere, one may be up to a half longer or shorter.
        assert 0.02 < lengths.min() < lengths.max() < 0.08
    elif per == "window":
        of_window = embed(sound[RATE // 2 : RATE // 2 + RATE])
        np.testing.assert_allclose(answer["embeddings"][1], of_window["embeddings"][0], atol=1e-5)
    else:
        windows = embed(sound, per="window")["embeddings"]
        np.testing.assert_allclose(answer["embeddings"][0], windows.mean(axis=0), atol=1e-6)


def test_a_step_comes_from_the_window_that_has_most_around_it(make_config):
    config = make_config()
    steps = token_spans(config, 19)
    windows = torch.tensor([[0.0, 1.0], [0.5, 1.5], [0.6, 1.6]], dtype=torch.float64)
    kept, spans = join_steps(windows, [steps] * 3)
    places = [(start + steps.mean(dim=1))[index] for (start, _), index in zip(windows.tolist(), kept, strict=True)]
    assert places[0].max() < 0.75 <= places[1].min()
    assert places[1].max() < 1.05 <= places[2].min()
    assert len(spans) == sum(map(len, places))


def test_windows_of_one_step_keep_it(make_config):
    windows = torch.tensor([[0.0, 0.05], [0.025, 0.075], [0.05, 0.1]], dtype=torch.float64)
    kept, spans = join_steps(windows, [token_spans(make_config(), 1)] * 3)
    assert [step.tolist() for step in kept] == [[True]] * 3
    assert spans[0, 0] == 0
    assert torch.equal(spans[:-1, 1], spans[1:, 0])


def test_adapters_and_other_strides_take_part(make_config, extractor, speech):
    model = build(make_config())
    before = embedder(model, extractor)(speech)["embeddings"]
    assert len(embedder(model, extractor)(speech[:RATE], per="step", time_stride=20)["embeddings"]) == 5
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)).eval()
    after = embedder(adapted, extractor)(speech)["embeddings"]
    assert not np.allclose(before, after, atol=1e-3)


def test_what_has_no_states_and_what_is_unknown_are_refused(make_config, extractor, speech):
    embed = embedder(build(make_config()), extractor)
    with pytest.raises(ValueError, match="per='words' is unknown; expected one of recording, window, step"):
        embed("nothing.wav", per="words")
    with pytest.raises(TypeError, match="audio-embedding has no argument 'top_k'"):
        embed(speech, top_k=3)
    other = ASTForAudioClassification(ASTConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1))
    with pytest.raises(
        ValueError, match="needs the states of an FFTP model; the model is a ASTForAudioClassification"
    ):
        embedder(other, extractor)
