"""Decoding and resampling of files."""

import io

import numpy as np
import pytest
import soundfile

from modeling_fftp.audio_stream_fftp import read_audio

TIME = np.arange(44100) / 44100
TONE = (0.5 * np.sin(2 * np.pi * 440 * TIME)).astype(np.float32)


def encode(samples, rate, **options):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {"format": "WAV", "subtype": "PCM_16"},
        {"format": "WAV", "subtype": "PCM_24"},
        {"format": "WAV", "subtype": "FLOAT"},
        {"format": "WAV", "subtype": "PCM_U8"},
        {"format": "FLAC"},
        {"format": "OGG", "subtype": "VORBIS"},
        {"format": "MP3"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_formats_rates_and_channels(options):
    samples = read_audio(encode(np.stack([TONE, TONE], axis=1), 44100, **options), 16000)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert abs(len(samples) - 16000) <= 1200
    middle = samples[4000:12000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) == 220
    assert middle.max() == pytest.approx(0.5, abs=0.03)


def test_channels_are_averaged():
    stereo = np.stack([TONE, -TONE], axis=1)
    assert np.abs(read_audio(encode(stereo, 16000, format="WAV", subtype="FLOAT"), 16000)).max() == 0


def test_sources(tmp_path):
    data = encode(TONE, 16000, format="WAV", subtype="FLOAT")
    path = tmp_path / "tone.wav"
    path.write_bytes(data)
    for source in (path, str(path), data, {"bytes": data, "path": None}, {"bytes": None, "path": str(path)}):
        np.testing.assert_array_equal(read_audio(source, 16000), TONE)


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "broken.wav"
    path.write_bytes(b"not a sound")
    with pytest.raises(ValueError, match=r"broken\.wav: cannot decode"):
        read_audio(path, 16000)
    with pytest.raises(ValueError, match=r"^clip-7\.flac: cannot decode"):
        read_audio({"bytes": b"neither", "path": "clip-7.flac"}, 16000)
    with pytest.raises(ValueError, match=r"missing\.wav: cannot decode"):
        read_audio(tmp_path / "missing.wav", 16000)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    with pytest.raises(ValueError, match=r"empty\.wav: no samples"):
        read_audio(tmp_path / "empty.wav", 16000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"nan\.wav: samples that are not finite"):
        read_audio(tmp_path / "nan.wav", 16000)
