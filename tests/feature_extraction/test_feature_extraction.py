"""FFTPFeatureExtractor: padding, masks, input forms, errors and saving."""

import logging
import multiprocessing
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from transformers import AutoFeatureExtractor
from transformers.utils import PaddingStrategy, TensorType
from transformers.utils.logging import warning_once

from feature_extraction import FFTPFeatureExtractor, SpecMaskDataCollator, log_mel_fftp
from tests.support import ROOT, log_mel

NAME_OF_CACHE = """
from datasets.fingerprint import Hasher
from transformers import AutoFeatureExtractor
extractor = AutoFeatureExtractor.from_pretrained("model", trust_remote_code=True)
assert type(extractor).__module__.startswith("transformers_modules.")
print(Hasher.hash(extractor))
"""

IN_A_FORK = """
import multiprocessing
import numpy, torch
from feature_extraction import FFTPFeatureExtractor

def extract():
    assert extractor(sound, sampling_rate=16000)["input_values"][0].shape == (998, 128)
    assert torch.get_num_threads() == 1

torch.set_num_threads(2)
extractor, sound = FFTPFeatureExtractor(), numpy.random.default_rng(0).normal(size=160000).astype("float32")
extractor.measure([sound])
child = multiprocessing.get_context("fork").Process(target=extract, daemon=True)
child.start()
child.join(timeout=60)
assert torch.get_num_threads() == 2
print("hangs" if child.is_alive() else child.exitcode)
"""


@pytest.fixture
def clips(speech):
    return [speech[:16000], speech[:300], speech[4000:30000]]


def test_values_are_the_normalised_log_mel(extractor, speech):
    features = extractor(speech, sampling_rate=16000, return_tensors="pt")["input_values"]
    expected = (log_mel(torch.from_numpy(speech)) - extractor.mean) / (2 * extractor.std)
    torch.testing.assert_close(features[0], expected, atol=1e-5, rtol=0)
    raw = extractor(speech, sampling_rate=16000, return_tensors="pt")["input_values"]
    assert raw.dtype == torch.float32
    raw = FFTPFeatureExtractor(do_normalize=False)(speech, sampling_rate=16000, return_tensors="pt")["input_values"]
    torch.testing.assert_close(raw[0], log_mel(torch.from_numpy(speech)), atol=1e-5, rtol=0)


def test_batch_equals_single_clips_and_padding_is_marked(extractor, clips):
    batch = extractor(clips, sampling_rate=16000, return_tensors="pt")
    assert batch["input_values"].shape == (3, 161, 128)
    assert batch["attention_mask"].sum(dim=1).tolist() == [98, 1, 161]
    for row, mask, clip in zip(batch["input_values"], batch["attention_mask"], clips, strict=True):
        alone = extractor(clip, sampling_rate=16000, return_tensors="pt")["input_values"][0]
        torch.testing.assert_close(row[: len(alone)], alone, atol=1e-5, rtol=0)
        assert (row[mask == 0] == extractor.padding_value).all()


def test_padding_and_truncation(extractor, clips, monkeypatch):
    def shapes(**kwargs):
        return extractor(clips, sampling_rate=16000, **kwargs)["input_values"]

    assert shapes(padding="max_length").shape == (3, 1000, 128)
    assert shapes(padding="max_length", max_length=170).shape == (3, 170, 128)
    assert shapes(padding="longest", truncation=True, max_length=50).shape == (3, 50, 128)
    assert shapes(padding=True, pad_to_multiple_of=64).shape == (3, 192, 128)
    # Without saying so in a call, as in a pipeline.
    monkeypatch.setattr(extractor, "pad_to_multiple_of", 100)
    assert shapes(padding=True).shape == (3, 200, 128)
    assert shapes(padding=True, pad_to_multiple_of=64).shape == (3, 192, 128)
    assert type(extractor).from_dict(extractor.to_dict()).pad_to_multiple_of == 100
    assert [item.shape for item in shapes(padding=False)] == [(98, 128), (1, 128), (161, 128)]
    with pytest.raises(ValueError, match=r"161 frames.*max_length=100"):
        shapes(padding="max_length", max_length=100)
    with pytest.raises(ValueError, match=r"1 to 161 frames.*padding=False"):
        shapes(padding=False, return_tensors="pt")
    with pytest.raises(ValueError, match="padding='widest'"):
        shapes(padding="widest")


def test_members_of_transformers_enumerations(speech):
    extractor = FFTPFeatureExtractor(max_length=300)
    for padding, frames in ((PaddingStrategy.MAX_LENGTH, 300), (PaddingStrategy.LONGEST, 198)):
        features = extractor(speech, sampling_rate=16000, padding=padding, return_tensors=TensorType.PYTORCH)
        assert features["input_values"].shape == (1, frames, 128)


@pytest.mark.parametrize("settings", [{"padding": "max_length"}, {"truncation": True}, {"pad_to_multiple_of": 64}, {}])
def test_features_are_padded_as_sound_is(clips, settings):
    extractor = FFTPFeatureExtractor(max_length=100, **settings)
    features = extractor(clips, sampling_rate=16000, padding=False, truncation=False)["input_values"]
    waveforms = [*map(torch.from_numpy, clips)]
    if "padding" in settings:
        for pad, given in ((extractor.extract_batch, waveforms), (extractor.pad_batch, features)):
            with pytest.raises(ValueError, match="frames, more than max_length=100 to pad to"):
                pad(given)
        return
    expected = extractor.extract_batch(waveforms)
    batch = extractor.pad_batch(features)
    assert batch.keys() == expected.keys()
    for name, value in batch.items():
        torch.testing.assert_close(value.float(), expected[name].float())


def test_truncated_clip_is_the_head_of_the_whole(extractor, speech):
    whole = extractor(speech, sampling_rate=16000)["input_values"]
    cut = extractor(speech, sampling_rate=16000, truncation=True, max_length=50)["input_values"]
    np.testing.assert_allclose(cut, whole[:, :50], atol=1e-5)


def test_padding_has_one_value_here_in_pad_and_in_the_collator(clips):
    extractor = FFTPFeatureExtractor(padding_value=0.25)
    expected = extractor(clips, sampling_rate=16000, return_tensors="pt")
    singles = [extractor(clip, sampling_rate=16000)["input_values"][0] for clip in clips]
    padded = extractor.pad({"input_values": singles}, padding="longest", return_tensors="pt")
    torch.testing.assert_close(padded["input_values"], expected["input_values"], atol=1e-5, rtol=0)
    assert (padded["attention_mask"] == expected["attention_mask"]).all()
    for key, values in (("input_values", singles), ("audio", clips)):
        batch = SpecMaskDataCollator(extractor)([{key: value} for value in values])
        torch.testing.assert_close(batch["input_values"], expected["input_values"], atol=1e-5, rtol=0)
        assert (batch["attention_mask"] == expected["attention_mask"]).all()


def test_masks_that_were_lost_are_found_when_padding(extractor, clips):
    """transformers' own example keeps the first input of a model alone."""
    whole = extractor(clips, sampling_rate=16000, return_tensors="pt")
    rows = [{"input_values": row} for row in extractor(clips, sampling_rate=16000)["input_values"]]
    batch = extractor.pad(rows, return_tensors="pt")
    for name, value in whole.items():
        torch.testing.assert_close(batch[name].long() if name == "attention_mask" else batch[name], value)
    zeros = extractor.pad({"input_values": [np.zeros((20, 128)), np.zeros((30, 128))]})
    assert zeros["attention_mask"].sum(axis=1).tolist() == [20, 30]
    assert "attention_mask" not in extractor.pad(rows, return_attention_mask=False)
    # An extractor without masks takes padding for sound, as the models do that it belongs to.
    assert "attention_mask" not in FFTPFeatureExtractor(return_attention_mask=False).pad(rows)


def test_silence_at_the_end_is_real_where_padding_looks_like_it(speech):
    silence = np.zeros(8000, dtype=np.float32)
    value = FFTPFeatureExtractor()(silence, sampling_rate=16000)["input_values"][0][0, 0]
    extractor = FFTPFeatureExtractor(padding_value=float(value))
    clip = np.concatenate([speech, silence])
    features = [extractor(sound, sampling_rate=16000, padding=False)["input_values"][0] for sound in (clip, speech)]
    expected = extractor.extract_batch([clip, speech])["attention_mask"]
    assert (extractor.pad_batch(features)["attention_mask"] == expected).all()


def test_a_length_in_samples_is_named(extractor, speech, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    warning_once.cache_clear()
    extractor(speech, sampling_rate=16000, max_length=15999, truncation=True)
    assert "max_length" not in caplog.text
    extractor(speech, sampling_rate=16000, max_length=16000, truncation=True)
    assert "max_length=16000 counts frames of 10 ms, not samples: 160 s of sound" in caplog.text


def test_mask_is_optional(extractor, speech):
    assert "attention_mask" not in extractor(speech, sampling_rate=16000, return_attention_mask=False)
    assert "attention_mask" not in FFTPFeatureExtractor(return_attention_mask=False)(speech, sampling_rate=16000)


@pytest.mark.parametrize(
    "convert",
    [
        list,
        torch.from_numpy,
        lambda clip: clip.astype(np.float64),
        lambda clip: clip.astype(">f4"),
        lambda clip: clip[None],
        lambda clip: [clip.tolist()],
        lambda clip: [torch.from_numpy(clip)],
    ],
    ids=["list", "tensor", "float64", "another byte order", "2-D array", "list of lists", "list of tensors"],
)
def test_forms_of_input(extractor, speech, convert):
    expected = extractor(speech, sampling_rate=16000)["input_values"]
    np.testing.assert_allclose(extractor(convert(speech), sampling_rate=16000)["input_values"], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [(np.int16, 2**15, 0), (np.int32, 2**31, 0), (np.int8, 2**7, 0), (np.uint8, 2**7, 128)],
)
def test_integer_pcm_is_divided_by_its_full_range(extractor, speech, dtype, scale, offset):
    pcm = np.round(speech.astype(np.float64) * scale + offset).astype(dtype)
    expected = extractor((pcm.astype(np.float64) - offset) / scale, sampling_rate=16000)["input_values"]
    np.testing.assert_allclose(extractor(pcm, sampling_rate=16000)["input_values"], expected, atol=1e-4)


def test_clip_shorter_than_a_window_is_padded_with_silence(extractor, speech):
    padded = np.concatenate([speech[:100], np.zeros(300, np.float32)])
    features = extractor(speech[:100], sampling_rate=16000)["input_values"]
    assert features.shape == (1, 1, 128)
    np.testing.assert_array_equal(features, extractor(padded, sampling_rate=16000)["input_values"])


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        (np.zeros(0, np.float32), "clip 0 is empty"),
        ([], "is empty|no clips"),
        ([np.zeros(500), np.zeros(0)], "clip 1 is empty"),
        ([np.zeros(500), np.array([0.0, np.nan])], "clip 1 holds 1 samples that are NaN or infinite"),
        ([np.zeros(500), np.array([0.0, -np.inf])], "clip 1 holds 1 samples that are NaN or infinite"),
        ([np.zeros(500), np.full(400, -1e25)], r"clip 1 reaches 1\.0e\+25; expected samples in \[-1, 1\]"),
        (np.array([0.0, np.inf, -np.inf]), "clip 0 holds 2 samples"),
        ([np.zeros(500), np.zeros((2, 500))], r"clip 1 has shape \(2, 500\); expected one channel"),
        (np.zeros((500, 2)), r"shape \(500, 2\) looks like \(samples, channels\)"),
        ([[0.1, 0.1]] * 500, r"shape \(500, 2\) looks like \(samples, channels\)"),
        ([[0.1]] * 500, r"shape \(500, 1\) looks like \(samples, channels\)"),
        (pd.DataFrame({"left": np.zeros(500), "right": 0}), r"shape \(500, 2\) looks like \(samples, channels\)"),
        (None, "the sound is of type NoneType; expected samples"),
        (0.5, "the sound is of type float; expected samples"),
        (np.zeros((1, 2, 500)), r"shape \(2, 500\); expected one channel"),
        (np.zeros(500, np.int64), "clip 0 holds torch.int64 samples"),
        ("clip.wav", "clip 0 is str; expected samples, such as read_audio gives"),
        ([np.zeros(500), b"RIFF"], "clip 1 is bytes; expected samples"),
    ],
)
def test_errors_name_the_clip(extractor, sound, message):
    with pytest.raises(ValueError, match=message):
        extractor(sound, sampling_rate=16000)


def test_wrong_rate_names_both_rates(extractor, speech):
    with pytest.raises(ValueError, match=r"44100 Hz.*16000 Hz"):
        extractor(speech, sampling_rate=44100)


def test_missing_rate_is_logged(extractor, speech, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    warning_once.cache_clear()
    extractor(speech)
    extractor(speech)
    assert sum("taken to be at 16000 Hz" in record.message for record in caplog.records) == 1


def test_save_and_load(tmp_path, speech):
    extractor = FFTPFeatureExtractor(num_mel_bins=64, max_length=50, mean=-7.5, std=3.0, truncation=True)
    extractor.save_pretrained(tmp_path)
    loaded = FFTPFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == extractor.to_dict()
    features = loaded(speech, sampling_rate=16000)["input_values"]
    np.testing.assert_array_equal(features, extractor(speech, sampling_rate=16000)["input_values"])
    assert features.shape == (1, 50, 64)
    remote = AutoFeatureExtractor.from_pretrained(tmp_path, trust_remote_code=True)
    np.testing.assert_array_equal(remote(speech, sampling_rate=16000)["input_values"], features)


def test_measured_statistics_are_those_of_all_cells(extractor, clips):
    mean, std = extractor.measure(clips)
    raw = FFTPFeatureExtractor(do_normalize=False)(clips, sampling_rate=16000, padding=False)["input_values"]
    cells = np.concatenate(raw).astype(np.float64)
    assert (mean, std) == (pytest.approx(cells.mean(), abs=1e-6), pytest.approx(cells.std(), abs=1e-6))
    with pytest.raises(ValueError, match="no clips"):
        extractor.measure([])


def test_read_only_arrays_are_no_reason_to_warn(extractor, speech):
    locked = speech.copy()
    locked.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor(locked, sampling_rate=16000)
        SpecMaskDataCollator(extractor)([{"audio": locked}])


def test_clips_in_any_container(extractor, speech):
    expected = extractor([speech, speech[:8000]], sampling_rate=16000)["input_values"]
    for clips in (
        pd.Series([speech, speech[:8000]], index=[5, 6]), (clip for clip in (speech, speech[:8000])),
        [speech[None], torch.from_numpy(speech[:8000, None])],
    ):  # fmt: skip
        np.testing.assert_array_equal(extractor(clips, sampling_rate=16000)["input_values"], expected)
    series = pd.Series(speech, index=range(1, len(speech) + 1))
    for sound in (series, pa.array(speech), speech.astype(object), [*torch.from_numpy(speech)]):
        one = extractor(sound, sampling_rate=16000)["input_values"]
        np.testing.assert_allclose(one, expected[:1], atol=1e-6)
    with pytest.raises(ValueError, match="no clips: expected at least one waveform"):
        extractor([], sampling_rate=16000)
    with pytest.raises(ValueError, match="clip 1 holds object values; expected samples"):
        extractor([speech, None], sampling_rate=16000)
    with pytest.raises(ValueError, match="clip 0 is bytearray; expected samples"):
        extractor(bytearray(b"1234"), sampling_rate=16000)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="std=0"):
        FFTPFeatureExtractor(std=0)
    for name in ("num_mel_bins", "sampling_rate", "max_length"):
        with pytest.raises(ValueError, match=f"{name}=0 must be a whole number of at least 1"):
            FFTPFeatureExtractor(**{name: 0})
    extractor = FFTPFeatureExtractor()
    for settings, message in (
        ({"padding": "longst"}, "padding='longst' is unknown"),
        ({"truncation": "do_not_truncate"}, "truncation='do_not_truncate'"),
        ({"pad_to_multiple_of": -4}, "pad_to_multiple_of=-4 must be a whole number of at least 1"),
    ):
        for change in (lambda given: FFTPFeatureExtractor(**given), lambda given: extractor(np.zeros(500), **given)):
            with pytest.raises(ValueError, match=message):
                change(settings)
    with pytest.raises(ValueError, match="std=nan"):
        FFTPFeatureExtractor(std=float("nan"))
    for options, message in (
        ({"return_tensors": "mlx"}, "return_tensors='mlx'; expected 'pt', 'np' or None"),
        ({"return_attention_mask": "False"}, "return_attention_mask='False'; expected True or False"),
        ({"sampling_rate": "16000"}, "sampling_rate='16000' must be a finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            extractor(np.zeros(500), **options)
    with pytest.raises(ValueError, match="the clips have the same energy everywhere"):
        extractor.measure([np.zeros(500)])
    for left in (
        lambda: FFTPFeatureExtractor(padding_side="left"),
        lambda: setattr(extractor, "padding_side", "left"),
    ):
        with pytest.raises(ValueError, match="padding_side='left'; the models expect padding on the right"):
            left()
    assert extractor.padding_side == extractor.to_dict()["padding_side"] == "right"


def test_padding_beside_the_settings_is_named(caplog, monkeypatch):
    """As collators of transformers do with features that were made beforehand."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    warning_once.cache_clear()
    features = {"input_values": [np.zeros((5, 128), np.float32), np.zeros((9, 128), np.float32)]}
    assert FFTPFeatureExtractor().pad(features)["input_values"].shape == (2, 9, 128)
    assert not caplog.text
    FFTPFeatureExtractor(padding="max_length", max_length=20).pad(features, padding=True)
    assert "pad() pads to the longest clip" in caplog.text


@pytest.mark.parametrize("kind", [np.float32, torch.tensor])
def test_statistics_of_any_type_are_saved_as_numbers(tmp_path, kind):
    extractor = FFTPFeatureExtractor()
    extractor.mean, extractor.std = kind(-7.5), kind(3.0)
    extractor.save_pretrained(tmp_path)
    saved = FFTPFeatureExtractor.from_pretrained(tmp_path)
    assert (saved.mean, saved.std) == (-7.5, 3.0)
    with pytest.raises(ValueError, match="std=0"):
        extractor.std = 0
    with pytest.raises(ValueError, match="mean=nan"):
        extractor.mean = float("nan")


@pytest.mark.parametrize("assign", [False, True])
def test_settings_of_any_type_are_saved_as_json_has_them(tmp_path, assign):
    settings = {
        "num_mel_bins": np.int64(64), "sampling_rate": np.int32(8000), "max_length": 500.0,
        "padding_value": np.float32(0.5), "do_normalize": np.bool_(False), "pad_to_multiple_of": np.int64(8),
    }  # fmt: skip
    extractor = FFTPFeatureExtractor(**({} if assign else settings))
    for name, value in settings.items():
        setattr(extractor, name, value)
    extractor.save_pretrained(tmp_path)
    saved = FFTPFeatureExtractor.from_pretrained(tmp_path).to_dict()
    assert {name: saved[name] for name in settings} == settings
    assert [type(saved[name]) for name in settings] == [int, int, int, float, bool, int]
    wrong = [("sampling_rate", 16000.5), ("max_length", 0), ("max_length", float("inf")), ("max_length", "500")]
    of_none = [("sampling_rate", 50), ("mean", torch.zeros(2)), ("do_normalize", np.array([True, False]))]
    for name, value in (*wrong, *of_none, ("num_mel_bins", True), ("mean", None), ("do_normalize", "no")):
        with pytest.raises(ValueError, match=f"{name}="):
            setattr(extractor, name, value)
    cut = extractor(np.random.default_rng(0).normal(size=8000), sampling_rate=8000, max_length=20.0, truncation=True)
    assert cut["input_values"].shape == (1, 24, 64)


def test_decoders_of_datasets_know_their_rate(extractor, speech, decoder_class, caplog):
    expected = extractor(speech, sampling_rate=16000)["input_values"]
    decoder = decoder_class(speech, 16000)
    for clips in (decoder, [decoder], *({name: speech, "sampling_rate": 16000} for name in ("array", "raw"))):
        np.testing.assert_array_equal(extractor(clips)["input_values"], expected)
    assert "No sampling_rate was passed" not in caplog.text
    with pytest.raises(ValueError, match=r"clip 1 is at 44100 Hz.*expects 16000 Hz.*Audio\(sampling_rate=16000\)"):
        extractor([decoder, decoder_class(speech, 44100)])
    stereo = decoder_class(np.stack((speech, speech)), 16000)
    np.testing.assert_allclose(extractor(stereo)["input_values"], expected, atol=1e-5)


def test_a_column_of_clips_of_unequal_length(extractor, clips):
    """numpy has it as an array of arrays, and so have pandas and `datasets` in numpy's format."""
    column = np.empty(len(clips), dtype=object)
    column[:] = clips
    expected = extractor(clips, sampling_rate=16000)
    np.testing.assert_array_equal(extractor(column, sampling_rate=16000)["input_values"], expected["input_values"])


def test_sound_that_requires_a_gradient(extractor, speech):
    sound = torch.from_numpy(speech).requires_grad_()
    features = extractor(sound, sampling_rate=16000, return_tensors="pt")["input_values"]
    assert not features.requires_grad
    assert torch.equal(features, extractor(speech, sampling_rate=16000, return_tensors="pt")["input_values"])
    assert not log_mel(sound).requires_grad


def test_floats_in_the_range_of_integers_are_named(extractor, speech, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    # It is said once in a process.
    warning_once.cache_clear()
    extractor(speech, sampling_rate=16000)
    assert "far beyond" not in caplog.text
    extractor([speech, speech * 32768], sampling_rate=16000)
    assert "Floats in the range of int16 must be divided by 32768" in caplog.text


def test_default_device_changes_nothing(extractor, clips):
    def extract(**settings):
        log_mel_fftp.mel_filter_bank.cache_clear()
        log_mel_fftp.mel_filter_groups.cache_clear()
        log_mel_fftp.hann_window.cache_clear()
        return extractor(clips, sampling_rate=16000, **settings)

    expected = [extract(return_tensors="pt"), extract(padding=False)]
    torch.set_default_device("meta")
    try:
        found = [extract(return_tensors="pt"), extract(padding=False)]
    finally:
        torch.set_default_device(None)
    assert torch.equal(found[0]["input_values"], expected[0]["input_values"])
    for name in ("input_values", "attention_mask"):
        for one, other in zip(found[1][name], expected[1][name], strict=True):
            np.testing.assert_array_equal(one, other)


def test_data_sets_find_again_what_the_code_of_a_folder_computed(extractor, tmp_path):
    """They name their caches by all that a function refers to, which for such code is its content."""
    extractor.save_pretrained(tmp_path / "model")
    (tmp_path / "name.py").write_text(NAME_OF_CACHE)
    names = {
        subprocess.run([sys.executable, "name.py"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(names) == 1


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
def test_a_forked_process_does_not_wait_for_lost_threads():
    """As those of `datasets.map(num_proc=...)` after `measure`."""
    done = subprocess.run([sys.executable, "-c", IN_A_FORK], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "0\n", done.stdout + done.stderr
