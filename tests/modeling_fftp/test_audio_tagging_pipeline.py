"""The pipeline "audio-tagging": streaming, windows, timeline, and scores of recordings of any length."""

import io
import logging

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from transformers import pipeline

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import (
    FFTPConfig,
    FFTPForAudioClassification,
    FFTPForAudioFrameClassification,
    FFTPModel,
    audio_stream_fftp,
    sound_file_fftp,
)
from modeling_fftp.audio_stream_fftp import read_audio, read_blocks, sliding_windows
from modeling_fftp.events_fftp import find_segments
from modeling_fftp.times_fftp import token_spans

RATE = 16000


@pytest.fixture
def make_tagger(make_config, extractor):
    """The pipeline around a random model whose position table is 1 s long."""

    def make(problem_type="single_label_classification"):
        torch.manual_seed(0)
        model = FFTPForAudioClassification(make_config(problem_type=problem_type)).eval()
        torch.nn.init.normal_(model.classifier.dense.weight, std=3.0)
        return pipeline("audio-tagging", model=model, feature_extractor=extractor, device="cpu")

    return make


@pytest.mark.parametrize("total", [1, 9, 10, 11, 14, 20, 33])
@pytest.mark.parametrize("hop", [1, 4, 10])
def test_windows_cover_the_sound_and_end_with_it(total, hop):
    sound = np.arange(total, dtype=np.float32)
    rng = np.random.default_rng(total)
    blocks = np.split(sound, np.sort(rng.integers(0, total + 1, size=4)))
    windows = list(sliding_windows(iter(blocks), 10, hop))
    assert [is_last for *_, is_last in windows] == [False] * (len(windows) - 1) + [True]
    for start, samples, _ in windows:
        assert samples.tolist() == list(range(start, start + min(10, total)))
    starts = [start for start, *_ in windows]
    assert starts[0] == 0
    assert starts[-1] == max(0, total - 10)
    assert all(0 < step <= hop for step in np.diff(starts))


def test_long_windows_are_not_copied_with_every_block(monkeypatch):
    copied = []
    concatenate = np.concatenate
    monkeypatch.setattr(np, "concatenate", lambda arrays: copied.append(sum(map(len, arrays))) or concatenate(arrays))
    windows = list(sliding_windows((np.zeros(10, np.float32) for _ in range(1000)), 4000, 2000))
    assert [start for start, *_ in windows] == [0, 2000, 4000, 6000]
    # All of the sound, and for each window the half that it shares with the one before.
    assert sum(copied) <= 2 * 10000 + 4000


def test_the_last_window_takes_what_is_hardly_longer():
    def lengths(total):
        return [len(samples) for _, samples, _ in sliding_windows(iter([np.zeros(total)]), 10, 5, slack=2)]

    assert [lengths(total) for total in (9, 10, 12, 13, 17, 18)] == [
        [9], [10], [12], [10, 10], [10, 12], [10, 10, 10],
    ]  # fmt: skip


def test_a_clip_as_long_as_those_of_the_training_is_one_window(make_config, extractor, speech):
    clip = np.tile(speech, 2)[:RATE]
    features = extractor(clip, sampling_rate=RATE, return_tensors="pt")
    model = FFTPForAudioClassification(make_config(max_length=features["input_values"].shape[1])).eval()
    torch.nn.init.normal_(model.classifier.dense.weight, std=3.0)
    tag = pipeline("audio-tagging", model=model, feature_extractor=extractor, device="cpu")
    answer = tag({"raw": clip, "sampling_rate": RATE}, top_k=1)
    with torch.no_grad():
        expected = model(**features).logits.softmax(dim=-1).max().item()
    assert answer["labels"][0]["score"] == pytest.approx(expected, abs=1e-6)
    assert answer["duration"] == 1.0


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_streamed_files_equal_whole_ones(tmp_path, speech, suffix, monkeypatch):
    stereo = np.stack((np.tile(speech, 3), np.tile(speech[::-1], 3)), axis=1)
    path = tmp_path / f"sound.{suffix}"
    soundfile.write(path, stereo, 44100)
    whole = read_audio(path, RATE)
    monkeypatch.setattr(audio_stream_fftp, "BLOCK_SECONDS", 1)
    for source in (str(path), path, path.read_bytes(), {"path": str(path), "bytes": None}):
        blocks = list(read_blocks(source, RATE))
        assert max(map(len, blocks)) <= 1.2 * RATE
        np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-4)


def test_waveforms_are_mixed_down_and_resampled(speech):
    stereo = np.stack((speech, 0 * speech))
    for waveform in (stereo, stereo.T, torch.from_numpy(stereo)):
        np.testing.assert_allclose(np.concatenate(list(read_blocks(waveform, RATE))), speech / 2, atol=1e-7)
    for key in ("raw", "array"):
        halved = np.concatenate(list(read_blocks({key: speech, "sampling_rate": 32000}, RATE)))
        assert len(halved) == pytest.approx(len(speech) / 2, abs=1)


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [("int8", 127, 0), ("int16", 32767, 0), ("int32", 2**31 - 200, 0), ("uint8", 127, 128)],
)
def test_integer_pcm_is_divided_by_its_full_range(extractor, speech, dtype, scale, offset):
    pcm = np.round(speech * scale + offset).astype(dtype)
    expected = extractor.to_waveform(pcm).numpy()
    for sound in (pcm, np.stack((pcm, pcm), axis=1), torch.from_numpy(pcm), {"array": pcm, "sampling_rate": RATE}):
        np.testing.assert_allclose(read_audio(sound, RATE), expected, atol=1e-6)


class OnlyOnce(io.RawIOBase):
    """Bytes that are gone once they are read."""

    def __init__(self, data):
        self.source = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self.source.readinto(buffer)


def test_file_objects_and_decoders(make_tagger, speech, decoder_class):
    buffer = io.BytesIO()
    soundfile.write(buffer, speech, RATE, format="WAV", subtype="FLOAT")
    tag = make_tagger()
    expected = tag(speech)
    # At its end after writing.
    assert tag(buffer) == expected
    assert tag(decoder_class(speech, RATE)) == expected
    stereo = decoder_class(np.stack((speech, speech)), RATE)
    for answer in tag([stereo, buffer, speech], batch_size=2):
        assert [entry["label"] for entry in answer["labels"]] == [entry["label"] for entry in expected["labels"]]
        assert answer["labels"][0]["score"] == pytest.approx(expected["labels"][0]["score"], abs=1e-5)
    # What comes over a network is read once.
    once = [io.BufferedReader(OnlyOnce(buffer.getvalue())) for _ in range(2)]
    for answer in tag(once, batch_size=2):
        assert answer["labels"][0]["score"] == pytest.approx(expected["labels"][0]["score"], abs=1e-5)
    # However many channels there are.
    many = tag(decoder_class(np.repeat(speech[None], 16, axis=0), RATE))
    assert many["labels"][0]["score"] == pytest.approx(expected["labels"][0]["score"], abs=1e-5)
    halved = tag(decoder_class(speech, 2 * RATE))
    assert halved["duration"] == pytest.approx(len(speech) / RATE / 2, abs=1e-3)


def test_what_is_no_binary_file_is_refused(make_tagger, tmp_path, speech):
    soundfile.write(tmp_path / "clip.wav", speech, RATE)
    (tmp_path / "clip.txt").write_text("no sound")
    tag = make_tagger()
    with (
        soundfile.SoundFile(tmp_path / "clip.wav") as file,
        pytest.raises(ValueError, match="SoundFile gives ndarray"),
    ):
        tag(file)
    with (tmp_path / "clip.txt").open() as file, pytest.raises(ValueError, match="gives str; expected bytes"):
        tag(file)


def test_windows_are_as_long_as_the_position_table_at_every_rate(make_config, speech):
    """At 22.05 kHz a frame is 220 samples, a little less than 10 ms."""
    model = FFTPForAudioClassification(make_config(sampling_rate=22050)).eval()
    extractor = FFTPFeatureExtractor(sampling_rate=22050)
    tag = pipeline("audio-tagging", model=model, feature_extractor=extractor, device="cpu")
    first = next(tag.preprocess({"raw": np.tile(speech, 2), "sampling_rate": 22050}))
    assert first["span"].tolist() == [[0, 100 * 220]]


@pytest.mark.parametrize("limit", [{"truncation": True}, {"padding": "max_length", "truncation": True}])
def test_no_window_is_longer_than_what_the_extractor_lets_through(make_config, speech, limit):
    model = FFTPForAudioClassification(make_config()).eval()
    extractor = FFTPFeatureExtractor(max_length=50, **limit)
    tag = pipeline("audio-tagging", model=model, feature_extractor=extractor, device="cpu")
    windows = tag(speech, return_windows=True)["windows"]
    assert [(window["start"], window["end"]) for window in windows[:2]] == [(0.0, 0.5), (0.25, 0.75)]
    with pytest.raises(ValueError, match=r"window_seconds=1\.0; the feature extractor cuts or pads to 0\.5 s"):
        tag(speech, window_seconds=1.0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"no sound", "audio bytes: cannot decode"),
        ("nothing.wav", r"^nothing\.wav: cannot decode"),
        ("https://host/a.wav", r"^https://host/a\.wav: cannot decode: .*; URLs are not read, download the file"),
        ({"path": "nothing.wav", "bytes": b"no sound"}, r"^nothing\.wav: cannot decode"),
        ({"path": None, "bytes": b"no sound"}, "^audio bytes: cannot decode"),
        (np.zeros(0, np.float32), "^the sound: no samples"),
        (np.zeros(9, np.int64), "samples are int64; expected floats in .* or PCM as uint8, int8, int16, int32"),
        (np.zeros((9, 9), np.float32), r"shape \(9, 9\); expected \(samples,\)"),
        ({"array": np.zeros(9)}, "'sampling_rate' None; expected whole Hz"),
        ({"sound": np.zeros(9)}, r"\['sound'\]; expected 'raw', 'array', 'bytes' or 'path'"),
        ({"array": np.full(9, np.nan), "sampling_rate": RATE, "path": "a.wav"}, r"^a\.wav: .* 9 samples that are NaN"),
        (7, "the sound: a int; expected a path, bytes, a file object, an array or a dict"),
    ],
)
def test_bad_sound_is_named(make_tagger, speech, source, message):
    with pytest.raises(ValueError, match=message):
        make_tagger()([speech, source])


def test_tuples_columns_and_buffers_are_what_they_hold(make_tagger, speech, tmp_path):
    path = tmp_path / "sound.wav"
    soundfile.write(path, speech, RATE)
    tag, column = make_tagger(), Dataset.from_dict({"file": [str(path)] * 2})["file"]
    data = path.read_bytes()
    for sources in ((str(path),) * 2, column, [bytearray(data), memoryview(data)]):
        for batch_size in (1, 2):
            assert tag(sources, batch_size=batch_size) == tag([str(path)] * 2, batch_size=batch_size)


@pytest.mark.parametrize("name", ["top_k", "threshold", "max_gap_seconds", "window_seconds", "return_windows"])
def test_an_argument_that_came_as_text_is_named(make_tagger, speech, name):
    with pytest.raises(ValueError, match=f"{name}='1' is a text; expected a number"):
        make_tagger()(speech, **{name: "1"})


@pytest.mark.parametrize(("module", "missing"), [(sound_file_fftp, "soundfile"), (audio_stream_fftp, "soxr")])
def test_what_is_not_installed_is_named(monkeypatch, tmp_path, speech, module, missing):
    soundfile.write(tmp_path / "sound.wav", speech, 8000)
    monkeypatch.setattr(module, missing, None)
    with pytest.raises(ImportError, match=f"pip install {missing}"):
        list(read_blocks(tmp_path / "sound.wav", RATE))
    assert len(next(read_blocks(speech, RATE))) == len(speech)


def test_segments_are_where_the_mean_over_windows_is_high():
    spans = torch.tensor([[0.0, 2.0], [1.0, 3.0], [2.0, 4.0], [2.5, 4.5]], dtype=torch.float64)
    scores = torch.tensor([[0.9, 0.0], [0.7, 0.0], [0.1, 0.6], [0.0, 0.6]])
    # Label 0 by the second: 0.9, 0.8, (0.7 + 0.1) / 2, ...; label 1 from 2 s on: 0.3, 0.4, 0.6, 0.6.
    segments = find_segments(scores, spans, [0.5] * scores.shape[1])
    assert [segment[:3] for segment in segments] == [(0.0, 2.0, 0), (3.0, 4.5, 1)]
    assert [segment[3] for segment in segments] == pytest.approx([0.85, 0.6])


@pytest.mark.parametrize(
    ("max_gap", "expected"),
    [
        (0.48, [(0, 1), (2, 3), (5, 6), (9, 10)]),
        (0.49, [(0, 3), (5, 6), (9, 10)]),
        (0.98, [(0, 6), (9, 10)]),
        (9.0, [(0, 6), (9, 10)]),
    ],
)
def test_short_gaps_are_closed_while_the_mean_stays_high(max_gap, expected):
    scores = torch.tensor([0.9, 0.2, 0.6, 0.3, 0.3, 0.9, 0.0, 0.0, 0.0, 0.6])
    # Half a second, as the pipeline makes it of samples.
    edges = torch.arange(11, dtype=torch.float64) * 7840 / RATE
    segments = find_segments(scores[:, None], torch.stack((edges[:-1], edges[1:]), dim=1), [0.5], max_gap)
    assert [segment[:2] for segment in segments] == [(edges[a], edges[b]) for a, b in expected]
    assert [segment[3] for segment in segments] == pytest.approx([scores[a:b].mean().item() for a, b in expected])


def test_what_sounds_in_all_steps_of_a_clip_is_one_event():
    spans = token_spans(FFTPConfig(), 40)
    [(start, end, label, score)] = find_segments(torch.full((40, 1), 0.75), spans, [0.5])
    assert (start, end, label, score) == (0.0, spans[-1, 1], 0, pytest.approx(0.75))


def test_time_that_no_window_holds_is_silent():
    spans = torch.tensor([[0.0, 1.0], [2.0, 3.0]], dtype=torch.float64)
    with torch.device("meta"):
        segments = find_segments(torch.full((2, 1), 0.9, device="cpu"), spans, [0.5])
    assert segments == [(0.0, 1.0, 0, pytest.approx(0.9)), (2.0, 3.0, 0, pytest.approx(0.9))]


def test_a_short_recording_is_classified_as_it_is(make_tagger, speech):
    tag = make_tagger()
    clip = speech[:9000]
    with torch.no_grad():
        logits = tag.model(**tag.feature_extractor(clip, sampling_rate=RATE, return_tensors="pt")).logits[0]
    answer = tag(clip, top_k=None)
    scores = {item["label"]: item["score"] for item in answer["labels"]}
    expected = {f"LABEL_{i}": p for i, p in enumerate(logits.softmax(dim=-1).tolist())}
    assert scores == pytest.approx(expected, abs=1e-6)
    assert answer["duration"] == 9000 / RATE
    assert [item["score"] for item in answer["labels"]] == sorted(scores.values(), reverse=True)


@pytest.mark.parametrize(
    ("problem_type", "aggregate"),
    [("single_label_classification", torch.mean), ("multi_label_classification", torch.amax)],
)
def test_a_long_recording_is_what_its_windows_are(make_tagger, speech, problem_type, aggregate):
    tag = make_tagger(problem_type)
    function = torch.sigmoid if problem_type.startswith("multi") else lambda logits: logits.softmax(dim=-1)
    windows = [speech[start : start + RATE] for start in (0, 8000, 16000)]
    with torch.no_grad():
        logits = tag.model(**tag.feature_extractor(windows, sampling_rate=RATE, return_tensors="pt")).logits
    expected = aggregate(function(logits), dim=0)
    for batch_size in (1, 2, 8):
        answer = tag(speech, top_k=None, batch_size=batch_size)
        scores = {item["label"]: item["score"] for item in answer["labels"]}
        assert scores == pytest.approx({f"LABEL_{i}": p for i, p in enumerate(expected.tolist())}, abs=1e-5)
        assert answer["timeline"] or max(scores.values()) < 0.5
        assert all(item["score"] >= 0.5 and 0 <= item["start"] < item["end"] <= 2 for item in answer["timeline"])


def test_a_model_that_comes_from_a_training_answers_alike_twice(make_config, extractor, speech, caplog, monkeypatch):
    model = FFTPForAudioClassification(make_config(hidden_dropout_prob=0.5)).train()
    torch.nn.init.normal_(model.classifier.dense.weight)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    tag = pipeline("audio-tagging", model=model, feature_extractor=extractor, device="cpu", local_files_only=True)
    assert "The model is set to evaluation" in caplog.text
    assert tag(speech) == tag(speech)
    assert tag([]) == []


@pytest.mark.parametrize("head", [FFTPForAudioClassification, FFTPForAudioFrameClassification])
def test_thresholds_are_those_of_the_head_that_they_were_chosen_for(make_config, tmp_path, head):
    config = make_config(problem_type="multi_label_classification", thresholds={"LABEL_0": 0.9})
    FFTPForAudioClassification(config).save_pretrained(tmp_path)
    expected = {"LABEL_0": 0.9} if head is FFTPForAudioClassification else None
    assert head.from_pretrained(tmp_path).config.thresholds == expected
    clips = FFTPForAudioClassification.from_pretrained(tmp_path)
    assert head(clips.config).config.thresholds == expected
    assert clips.config.thresholds == {"LABEL_0": 0.9}
    # A new head on an encoder that was saved without its own.
    FFTPModel.from_pretrained(tmp_path).save_pretrained(tmp_path / "encoder")
    assert head.from_pretrained(tmp_path / "encoder").config.thresholds is None
    # A class of a user is no encoder.
    mine = type("MyClassifier", (head,), {})
    mine(make_config(thresholds={"LABEL_0": 0.9})).save_pretrained(tmp_path / "mine")
    assert mine.from_pretrained(tmp_path / "mine").config.thresholds == {"LABEL_0": 0.9}


def test_several_recordings_of_unequal_length_in_batches(make_tagger, speech):
    tag = make_tagger()
    recordings = [speech, speech[:5000], speech[:20000], {"raw": speech[:400], "sampling_rate": RATE}]
    alone = [tag(recording) for recording in recordings]
    for together in (tag(recordings, batch_size=3), tag(recordings)):
        assert [answer["duration"] for answer in together] == [answer["duration"] for answer in alone]
        for answer, expected in zip(together, alone, strict=True):
            assert [item["label"] for item in answer["labels"]] == [item["label"] for item in expected["labels"]]
            scores = [item["score"] for item in expected["labels"]]
            assert [item["score"] for item in answer["labels"]] == pytest.approx(scores, abs=1e-5)


def test_a_list_is_batched_by_length_and_answered_in_its_order(make_tagger, speech, tmp_path, monkeypatch):
    tag = make_tagger()
    soundfile.write(tmp_path / "long.wav", np.repeat(speech[:14000], 2), 2 * RATE)
    short, middle = speech[:3000], {"raw": speech[:9000], "sampling_rate": RATE}
    recordings = [short, str(tmp_path / "long.wav"), short, middle, str(tmp_path / "long.wav"), middle]
    shapes, forward = [], tag.model.forward

    def record(input_values, attention_mask):
        shapes.append((len(input_values), int((attention_mask == 0).sum())))
        return forward(input_values, attention_mask)

    monkeypatch.setattr(tag.model, "forward", record)
    answers = tag(recordings, batch_size=2)
    assert [answer["duration"] for answer in answers] == [3000 / RATE, 14000 / RATE, 3000 / RATE, 9000 / RATE] + [
        14000 / RATE, 9000 / RATE,
    ]  # fmt: skip
    assert shapes == [(2, 0), (2, 0), (2, 0)]
    shapes.clear()
    settings = {"model": tag.model, "feature_extractor": tag.feature_extractor, "device": "cpu", "batch_size": 2}
    assert pipeline("audio-tagging", **settings)(recordings) == answers
    assert shapes == [(2, 0), (2, 0), (2, 0)]
    with pytest.raises(ValueError, match=r"missing\.wav: cannot decode"):
        tag([short, str(tmp_path / "missing.wav")], batch_size=2)


@pytest.mark.parametrize("padding", [{"padding": False}, {"padding": "longest"}, {"pad_to_multiple_of": 64}], ids=str)
def test_padding_of_a_batch_is_masked_whatever_the_extractor_says(make_config, speech, padding):
    torch.manual_seed(0)
    model = FFTPForAudioClassification(make_config()).eval()
    extractor = FFTPFeatureExtractor(**padding, return_attention_mask=False)
    tag = pipeline("audio-tagging", model=model, feature_extractor=extractor, device="cpu")
    clips = [speech[: RATE // 2], speech[:RATE]]
    for alone, beside in zip(tag(clips), tag(clips, batch_size=2), strict=True):
        scores = [{entry["label"]: entry["score"] for entry in answer["labels"]} for answer in (alone, beside)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


@pytest.mark.parametrize("other", [{"sampling_rate": 8000}, {"num_mel_bins": 64}])
def test_an_extractor_of_another_model_is_refused(make_config, other):
    model = FFTPForAudioClassification(make_config())
    ((name, value),) = other.items()
    with pytest.raises(ValueError, match=f"the feature extractor has {name}={value} .*; the model's config"):
        pipeline("audio-tagging", model=model, feature_extractor=FFTPFeatureExtractor(**other), device="cpu")


def test_a_pipeline_that_a_user_registered_stays_with_the_model(make_tagger, tmp_path):
    model = make_tagger().model
    own = {"impl": "own.OwnPipeline", "pt": ["AutoModel"], "type": "audio"}
    model.config.custom_pipelines = {"own-task": own, "audio-tagging": {"impl": "stale.Stale"}}
    model.save_pretrained(tmp_path)
    saved = FFTPConfig.from_pretrained(tmp_path).custom_pipelines
    assert saved["own-task"] == own
    assert saved["audio-tagging"]["impl"].endswith("FFTPAudioTaggingPipeline")


def test_recordings_that_are_too_loud_are_named(make_tagger, speech, tmp_path, caplog, monkeypatch):
    """Floats in the range of int16, of which the extractor warns once, and without a name."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    paths = [tmp_path / name for name in ("a.wav", "b.wav", "c.wav")]
    for path, scale in zip(paths, (30000, 1, 30000), strict=True):
        soundfile.write(path, speech * scale, RATE, subtype="FLOAT")
    make_tagger()([str(path) for path in paths])
    named = [path.name for path in paths if f"{path}: samples reach" in caplog.text]
    assert named == ["a.wav", "c.wav"]


def test_strides_beyond_a_window_are_refused(make_tagger, speech):
    tag = make_tagger()
    with pytest.raises(ValueError, match="time_stride=100 frames are 1 s; expected less than a window, 1 s"):
        tag(speech, time_stride=100)
    # Whoever says how long a window is.
    short = pipeline("audio-tagging", model=tag.model, feature_extractor=tag.feature_extractor, window_seconds=0.5)
    with pytest.raises(ValueError, match=r"expected less than a window, 0\.5 s"):
        short(speech, time_stride=60)
    assert tag(speech, time_stride=120, window_seconds=2.0)["duration"] == 2.0
    coarse = pipeline("audio-tagging", model=tag.model, feature_extractor=tag.feature_extractor, time_stride=60)
    assert coarse(speech, window_seconds=0.5, time_stride=5)["duration"] == 2.0
    # A model may have one patch for all that it hears.
    tag.model.set_time_stride(100)
    assert tag(speech, time_stride=100)["duration"] == 2.0


def test_arguments_of_the_call(make_tagger, speech, tmp_path):
    tag = make_tagger()
    buffer = io.BytesIO()
    soundfile.write(buffer, speech, RATE, format="FLAC")
    answer = tag(buffer.getvalue(), window_seconds=0.5, hop_seconds=0.1, top_k=2, threshold=0.0)
    assert len(answer["labels"]) == 2
    # No score is below 0, so every label is there all the time.
    assert [(item["start"], item["end"]) for item in answer["timeline"]] == [(0.0, 2.0)] * 4
    # What the constructor was given holds until a call says otherwise.
    few = pipeline("audio-tagging", model=tag.model, feature_extractor=tag.feature_extractor, top_k=1, device="cpu")
    assert [len(few(speech)["labels"]), len(few(speech, top_k=2)["labels"])] == [1, 2]
    with pytest.raises(TypeError, match="no argument 'windows'"):
        tag(speech, windows=3)
    with pytest.raises(ValueError, match=r"hop_seconds=2.0 must lie between 0 and window_seconds=1.0"):
        tag(speech, hop_seconds=2.0)
    for seconds in (0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=rf"window_seconds={seconds}"):
            tag(speech, window_seconds=seconds)
    for arguments, message in (
        ({"aggregation": "median"}, "'median' is unknown; expected one of mean, max"),
        ({"top_k": -1}, "top_k=-1 must be a whole number of at least 1, or None for all labels"),
        ({"top_k": 0}, "top_k=0 must be a whole number of at least 1"),
        ({"top_k": 2.5}, "top_k=2.5 must be a whole number of at least 1"),
        ({"max_gap_seconds": -0.1}, "max_gap_seconds=-0.1 must be a length"),
        ({"max_gap_seconds": float("nan")}, "max_gap_seconds=nan must be a length"),
        ({"threshold": 2.0}, r"threshold=2.0 must lie in \[0, 1\]"),
    ):
        # Before anything is read.
        with pytest.raises(ValueError, match=message):
            tag("nothing.wav", **arguments)
    with pytest.raises(ValueError, match="needs a classifier"):
        make_tagger("regression")
    with pytest.raises(ValueError, match="needs a clip or frame classifier; the model is a FFTPModel"):
        pipeline("audio-tagging", model=tag.model.base_model, feature_extractor=tag.feature_extractor)
