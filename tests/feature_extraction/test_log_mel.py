"""Log-mel features equal Kaldi's."""

import io

import kaldi_native_fbank
import numpy as np
import pyarrow.parquet
import pytest
import soundfile
import torch

from feature_extraction.log_mel_fftp import (
    log_mel_of_clips,
    mel_filter_bank,
    mel_filter_groups,
    num_frames,
    num_samples,
)
from tests.support import log_mel


def kaldi_fbank(waveform, sampling_rate=16000, num_mel_bins=128):
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = sampling_rate
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hanning"
    options.mel_opts.num_bins = num_mel_bins
    options.mel_opts.low_freq = 20.0
    options.mel_opts.high_freq = 0.0
    options.energy_floor = 0.0
    fbank = kaldi_native_fbank.OnlineFbank(options)
    fbank.accept_waveform(sampling_rate, waveform.tolist())
    fbank.input_finished()
    return np.stack([fbank.get_frame(index) for index in range(fbank.num_frames_ready)])


@pytest.mark.parametrize("offset", [0.0, 0.1])
@pytest.mark.parametrize(("sampling_rate", "num_mel_bins"), [(16000, 128), (16000, 64), (8000, 40)])
def test_equals_kaldi(speech, sampling_rate, num_mel_bins, offset):
    sound = speech + np.float32(offset)
    expected = kaldi_fbank(sound, sampling_rate, num_mel_bins)
    features = log_mel(torch.from_numpy(sound), num_mel_bins, sampling_rate)
    np.testing.assert_allclose(features.numpy(), expected, atol=1e-3, rtol=0)


def test_equals_kaldi_on_real_speech(shared_dataset):
    path = shared_dataset("arabic_speech_commands") / "data" / "validation-00000-of-00001.parquet"
    for audio in pyarrow.parquet.read_table(path, columns=["audio"])["audio"][::97].to_pylist():
        waveform, rate = soundfile.read(io.BytesIO(audio["bytes"]), dtype="float32")
        features = log_mel(torch.from_numpy(waveform), 128, rate)
        np.testing.assert_allclose(features.numpy(), kaldi_fbank(waveform, rate), atol=1e-3, rtol=0)


def test_clips_together_equal_single_ones(speech):
    clips = torch.from_numpy(speech).split([9001, 700, len(speech) - 9701])
    features, starts = log_mel_of_clips([*clips], 128, 16000)
    for clip, start in zip(clips, starts, strict=True):
        alone = log_mel(clip)
        torch.testing.assert_close(features[start : start + len(alone)], alone, atol=1e-5, rtol=0)


def test_blocks_change_nothing(speech, monkeypatch):
    waveform = torch.from_numpy(speech)
    whole = log_mel(waveform)
    monkeypatch.setattr("feature_extraction.log_mel_fftp.BLOCK_FRAMES", 7)
    torch.testing.assert_close(log_mel(waveform), whole, atol=1e-5, rtol=0)


def test_autocast_changes_nothing(speech):
    waveform = torch.from_numpy(speech)
    with torch.autocast("cpu", torch.bfloat16):
        features = log_mel(waveform)
    torch.testing.assert_close(features, log_mel(waveform), atol=0, rtol=0)


def test_filter_groups_are_the_filter_bank():
    for bins, rate in ((128, 16000), (40, 8000), (3, 16000)):
        bank = torch.zeros_like(mel_filter_bank(bins, rate))
        for rows, columns, weights in mel_filter_groups(bins, rate):
            bank[rows, columns] += weights
        torch.testing.assert_close(bank, mel_filter_bank(bins, rate), atol=0, rtol=0)


def test_frames_of_standard_clips():
    assert [num_frames(samples, 16000) for samples in (399, 400, 559, 560, 16000, 160000)] == [0, 1, 1, 2, 98, 998]
    assert all(num_frames(num_samples(count, 16000), 16000) == count for count in (1, 98, 1000))


def test_mel_filters_are_triangles_between_20_hz_and_nyquist():
    filters = mel_filter_bank(40, 16000)
    assert filters.shape == (257, 40)
    assert filters.min() == 0
    assert filters.max() <= 1
    assert filters[0].sum() == 0
    assert filters[-1].sum() == 0
    peaks = filters.argmax(dim=0)
    assert (peaks.diff() > 0).all()
