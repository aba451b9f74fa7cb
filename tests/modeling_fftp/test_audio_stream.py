"""Decoding and resampling of files."""

import builtins
import errno
import io
import logging
import math
import mmap
import os
import re
import threading
import types
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from modeling_fftp.audio_stream_fftp import UnreadableSoundError, read_audio, sound_seconds
from modeling_fftp.file_pieces_fftp import FilePieces
from modeling_fftp.mpeg_fftp import read_frame
from tests.support import CASES

TIME = np.arange(44100) / 44100
TONE = (0.5 * np.sin(2 * np.pi * 440 * TIME)).astype(np.float32)


def encode(samples, rate, **options):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **options)
    return buffer.getvalue()


def test_what_is_above_half_the_rate_is_gone():
    tone = (0.5 * np.sin(2 * np.pi * 13000 * TIME)).astype(np.float32)
    sound = read_audio(encode(tone, 44100, format="WAV", subtype="FLOAT"), 16000)
    assert np.abs(sound[1000:-1000]).max() < 1e-3


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
    soundfile.write(tmp_path / "loud.wav", np.array([0.0, -1e25]), 16000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"loud\.wav: samples that reach 1\.0e\+25; expected \[-1, 1\]"):
        read_audio(tmp_path / "loud.wav", 16000)


def test_a_rate_that_no_sound_has_is_refused(tmp_path):
    soundfile.write(tmp_path / "slow.wav", np.zeros(4000), 1)
    with pytest.raises(ValueError, match=r"slow\.wav: a rate of 1 Hz; expected at least 100 Hz"):
        read_audio(tmp_path / "slow.wav", 16000)


def make_mp3(seconds, frequency=440.0, rate=16000, channels=1, **options):
    """A tone that rings once, in the middle."""
    time = np.arange(int(seconds * rate)) / rate
    tone = 0.5 * np.sin(2 * np.pi * frequency * time) * np.exp(-((time - seconds / 2) ** 2) / 0.02)
    return encode(np.stack([tone] * channels, axis=1), rate, format="MP3", **options)


def rings(samples):
    """When a tone begins to ring, in seconds."""
    loud = np.abs(samples) > 0.2
    blocks = loud[: len(loud) // 1600 * 1600].reshape(-1, 1600).any(axis=1).astype(int)
    return [index / 10 for index in np.flatnonzero(np.diff(blocks, prepend=0) == 1)]


def without_header(data):
    return data[read_frame(data[:4]).size :]


def tag(size):
    """An ID3 tag full of what looks like frames."""
    length = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\x00\x00" + length + (b"\xff\xfb\x90\x00" * size)[:size]


VARIABLE = {"bitrate_mode": "VARIABLE", "compression_level": 0.5}
CONSTANT = make_mp3(4, bitrate_mode="CONSTANT")
MP3_FILES = {
    "whole": (make_mp3(4), 4, [1.8]),
    "variable": (make_mp3(4, **VARIABLE), 4, [1.8]),
    "no header": (without_header(make_mp3(4, **VARIABLE)), 4, [1.8]),
    "no header, constant": (without_header(CONSTANT), 4, [1.8]),
    "no header, 44.1 kHz stereo": (without_header(make_mp3(4, rate=44100, channels=2, **VARIABLE)), 4, [1.8]),
    "cut short": (CONSTANT[: len(CONSTANT) * 3 // 4], 3, [1.8]),
    "two in one": (make_mp3(4) + make_mp3(6), 10, [1.8, 6.9]),
    "two with tags": (tag(5000) + make_mp3(4) + tag(9000) + make_mp3(6) + b"TAG" + bytes(125), 10, [1.8, 6.9]),
    "a gap": (CONSTANT[:6000] + bytes(300) + CONSTANT[6000:], 4, [1.8]),
    "bytes amid": (make_mp3(4) + np.random.default_rng(0).bytes(3000) + make_mp3(6), 10, [1.8, 6.9]),
}


@pytest.mark.parametrize("name", MP3_FILES)
def test_mp3_is_as_long_as_its_frames(name, tmp_path):
    data, seconds, beginnings = MP3_FILES[name]
    path = tmp_path / "sound.mp3"
    path.write_bytes(data)
    samples = read_audio(path, 16000)
    assert len(samples) / 16000 == pytest.approx(seconds, abs=0.15)
    assert rings(samples) == pytest.approx(beginnings, abs=0.11)
    assert sound_seconds(path, 16000) == pytest.approx(len(samples) / 16000, abs=0.001)
    np.testing.assert_array_equal(read_audio(data, 16000), samples)


def test_mp3_is_read_over_a_gap():
    """libsndfile stops at this one, after 0.97 s, though the header is right."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(3 * 44100) / 44100)
    options = {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.5}
    data = encode(np.stack([tone, tone], axis=1), 44100, **options)
    assert len(read_audio(data[:20000] + bytes(300) + data[20000:], 44100)) / 44100 == pytest.approx(3, abs=0.1)


def test_mp3_whose_header_has_no_room_for_what_it_claims():
    """A frame of 24 bytes calls itself a Xing header, whose number of frames would stand behind its end."""
    whole = make_mp3(4, rate=24000, bitrate_mode="CONSTANT")
    frames = without_header(whole)
    short = bytes((*frames[:2], frames[2] & 0x0C | 0x10, frames[3])) + bytes(9) + b"Xing" + (3).to_bytes(4, "big")
    samples = read_audio(short + bytes(3) + frames, 16000)
    assert len(samples) / 16000 == pytest.approx(4, abs=0.15)
    assert rings(samples) == pytest.approx([1.8], abs=0.11)


def test_mp3_with_a_true_header_is_left_to_the_decoder():
    data = make_mp3(3)
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    np.testing.assert_allclose(read_audio(data, 16000), expected, atol=1e-6, rtol=0)


def test_mp3_that_was_cut_says_so(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    path = tmp_path / "cut.mp3"
    path.write_bytes(make_mp3(4)[:-2000])
    read_audio(path, 16000)
    assert f"{path}: the header claims 4.0 s of sound, the file holds 2." in caplog.text


NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 160_000)
CLAIMS, BREAKS_OFF = (
    r"the header claims (9\.9|10\.[01]) s of sound, the file holds (4\.9|5\.0) s",
    r"the stream breaks off after [34]\.\d s",
)


@pytest.mark.parametrize(
    ("form", "subtype", "words"),
    [
        ("WAV", "PCM_16", CLAIMS),
        ("WAVEX", "PCM_16", CLAIMS),
        ("WAV", "IMA_ADPCM", CLAIMS),
        ("RF64", "PCM_16", CLAIMS),
        ("W64", "PCM_16", CLAIMS),
        ("AIFF", "PCM_16", CLAIMS),
        ("AU", "PCM_16", CLAIMS),
        ("OGG", "VORBIS", BREAKS_OFF),
        ("OGG", "OPUS", BREAKS_OFF),
    ],
)
def test_a_file_that_was_cut_off_says_so(form, subtype, words, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    path, data = tmp_path / "copy", encode(NOISE, 16000, format=form, subtype=subtype)
    path.write_bytes(data)
    read_audio(path, 16000)
    assert not caplog.text
    path.write_bytes(data[: len(data) // 2])
    seconds = sound_seconds(path, 16000)
    assert not caplog.text
    assert len(read_audio(path, 16000)) / 16000 == pytest.approx(seconds, abs=0.01)
    assert re.search(f"{re.escape(str(path))}: {words}", caplog.text)


@pytest.mark.parametrize("size", [0x7FFFF000, 0xFFFFFFFF])
def test_a_size_that_stands_for_none_is_no_claim(size, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    data = bytearray(encode(TONE, 16000, format="WAV", subtype="PCM_16"))
    place = data.find(b"data")
    data[place + 4 : place + 8] = size.to_bytes(4, "little")
    assert len(read_audio(bytes(data), 16000)) == len(TONE)
    assert not caplog.text


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_with_a_gap_is_refused(subtype):
    """Its decoders pass over a damaged page, and all that follows would come too early."""
    data = bytearray(encode(NOISE, 16000, format="OGG", subtype=subtype))
    data[len(data) // 2 : len(data) // 2 + 512] = bytes(512)
    with pytest.raises(ValueError, match=r"cannot decode: damaged, [89]\.\d of 10\.0 s of sound can be read"):
        read_audio(bytes(data), 16000)


@pytest.mark.parametrize("other", [{"rate": 32000}, {"channels": 2}], ids=str)
def test_mp3_of_two_forms_is_refused(other):
    with pytest.raises(ValueError, match=r"changes after 4\.\d s from 16000 Hz, one channel to"):
        read_audio(make_mp3(4) + make_mp3(4, **other), 16000)


def flac(total, samples=TONE):
    """A FLAC file whose header claims a number of samples; 0 means unknown."""
    data = bytearray(encode(samples, 16000, format="FLAC"))
    # After rate, channels and bits, the last 36 bits of eight bytes.
    rest = int.from_bytes(data[18:26], "big") >> 36 << 36
    data[18:26] = (rest | total).to_bytes(8, "big")
    return bytes(data)


@pytest.mark.parametrize("total", [0, 2**36 - 1], ids=["unknown", "too many"])
def test_flac_is_read_to_its_end(total, tmp_path):
    path = tmp_path / "sound.flac"
    path.write_bytes(flac(total))
    for source in (path, path.read_bytes()):
        np.testing.assert_allclose(read_audio(source, 16000), TONE, atol=2**-15)
        assert sound_seconds(source, 16000) > 1000


def test_flac_that_breaks_off_between_two_frames_is_refused(tmp_path):
    data = encode(np.zeros(160_000), 16000, format="FLAC", subtype="PCM_16")
    lengths = []
    for cut in range(len(data) // 4, len(data) - 1):
        with suppress(ValueError):
            lengths.append(len(read_audio(data[:cut], 16000)))
    # But for less than a tenth of a second.
    assert all(length > 160_000 - 1600 for length in lengths)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device of Unix")
def test_a_device_is_refused():
    with pytest.raises(ValueError, match="/dev/zero: cannot decode: a device, which has no end"):
        read_audio("/dev/zero", 16000)


def test_pieces_of_a_file_are_one():
    data = bytes(range(256)) * 4
    pieces = [(3, 10), (10, 10), (50, 51), (200, 900)]
    file = FilePieces(b"head", data, pieces)
    whole = b"head" + b"".join(data[start:end] for start, end in pieces)
    assert (file.read(), file.read()) == (whole, b"")
    for place in range(len(whole) + 2):
        for count in (1, 5, 700):
            file.seek(place)
            assert file.read(count) == whole[place : place + count]


def test_what_is_no_frame_is_passed_over_in_one_go():
    """Tags that claim more than there is, and bytes that could begin a frame."""
    sound = encode(TONE, 16000, format="MP3")
    for rest in (b"ID3\x04\0\0\x7f\x7f\x7f\x7f", b"\xff"):
        assert len(read_audio(sound + rest * 100_000, 16000)) == pytest.approx(len(TONE), abs=1200)


def test_broken_flac_is_refused():
    data = flac(0, np.random.default_rng(0).uniform(-0.5, 0.5, 160000))
    with pytest.raises(ValueError, match=r"audio bytes: cannot decode: .*lost sync"):
        read_audio(data[: len(data) // 2], 16000)


@pytest.mark.parametrize("subtype", ["GSM610", "G721_32", "IMA_ADPCM", "MS_ADPCM", "ULAW"])
def test_telephone_codecs(subtype):
    data = encode(TONE[:8000], 8000, format="AU" if subtype == "G721_32" else "WAV", subtype=subtype)
    assert len(read_audio(data, 8000)) == pytest.approx(8000, abs=600)
    assert sound_seconds(data, 8000) == pytest.approx(1, abs=0.1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize(
    "form", [{"format": "WAV", "subtype": "FLOAT"}, {"format": "FLAC"}, {"format": "MP3"}], ids=str
)
def test_pipes(form, tmp_path):
    pipe, data = tmp_path / "pipe", encode(TONE, 44100, **form)
    os.mkfifo(pipe)
    assert sound_seconds(pipe, 44100) == float("inf")
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    np.testing.assert_array_equal(read_audio(pipe, 44100), read_audio(data, 44100))
    writer.join()


def test_a_wav_that_was_never_finished(tmp_path):
    data = bytearray(encode(TONE, 16000, format="WAV", subtype="PCM_16"))
    place = data.find(b"data")
    data[place + 4 : place + 8] = bytes(4)
    path = tmp_path / "sound.wav"
    path.write_bytes(data)
    for source in (path, bytes(data)):
        np.testing.assert_allclose(read_audio(source, 16000), TONE, atol=2**-14)
    # Nothing but another chunk.
    path.write_bytes(data[: place + 8] + b"LIST" + (4).to_bytes(4, "little") + b"INFO")
    with pytest.raises(ValueError, match="no samples"):
        read_audio(path, 16000)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_several_ogg_streams_are_refused(subtype):
    data = encode(TONE, 48000, format="OGG", subtype=subtype)
    assert len(read_audio(data, 48000)) == pytest.approx(len(TONE), abs=1000)
    with pytest.raises(ValueError, match="several Ogg streams, one after another"):
        read_audio(data + data, 48000)


def test_what_is_no_sound_by_any_name(tmp_path):
    path = tmp_path / "page.mp3"
    path.write_text("<html>not found</html>" * 100)
    with pytest.raises(ValueError, match=r"page\.mp3: cannot decode: format not recognised"):
        read_audio(path, 16000)


def test_folders_are_no_files(tmp_path):
    with pytest.raises(ValueError, match="cannot decode: a folder"):
        read_audio(tmp_path, 16000)


CASE_SECONDS = {
    "cut_short.mp3": 30.7, "vbr_without_header.mp3": 45.0, "unknown_length.flac": 25.0,
    "voicemail_G721_32.wav": 3.0, "voicemail_GSM610.wav": 3.0,
}  # fmt: skip


@pytest.mark.skipif(not CASES.is_dir(), reason=f"no {CASES}")
@pytest.mark.parametrize("name", CASE_SECONDS)
def test_files_that_broke_things(name):
    assert len(read_audio(CASES / name, 16000)) / 16000 == pytest.approx(CASE_SECONDS[name], abs=0.05)


def test_a_comment_that_holds_data_is_no_sound(tmp_path):
    """A WAV that its recorder never finished, with a chunk of text before the sound."""
    path = tmp_path / "unfinished.wav"
    soundfile.write(path, np.full(1600, 0.25), 16000)
    data = path.read_bytes()
    place, text = data.find(b"data"), b"test data set one "
    info = b"INFOICMT" + len(text).to_bytes(4, "little") + text
    chunk = b"LIST" + len(info).to_bytes(4, "little") + info
    path.write_bytes(data[:place] + chunk + b"data" + bytes(4) + data[place + 8 :])
    assert len(read_audio(path, 16000)) == 1600


@pytest.mark.parametrize(("name", "length"), [(b"_PMX", 16000), (b"LIST", 16001)])
def test_what_follows_the_sound_is_none(tmp_path, name, length):
    """Adobe's XMP, whose name has an underscore; and a chunk behind an odd number of bytes without their padding."""
    path = tmp_path / "edited.wav"
    soundfile.write(path, np.full(length, 0.25), 16000, subtype="PCM_U8")
    data = bytearray(path.read_bytes())[: 44 + length]
    path.write_bytes(data + name + (80_000).to_bytes(4, "little") + b"x" * 80_000)
    assert len(read_audio(path, 16000)) == length
    # However many chunks there are.
    path.write_bytes(data + (name + bytes(4)) * 10_000)
    assert len(read_audio(path, 16000)) == length


def test_a_drive_that_cannot_map_or_read_files(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(1600, 0.25), 16000)

    def refuse(*args, **kwargs):
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(mmap, "mmap", refuse)
    assert len(read_audio(path, 16000)) == 1600
    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(UnreadableSoundError, match=r"a\.wav: cannot decode: No such device"):
        read_audio(path, 16000)


def test_a_file_object_that_only_reads(tmp_path):
    """As the uploads and downloads of web services are."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(1600, 0.25), 16000)
    download = types.SimpleNamespace(read=path.read_bytes)
    assert len(read_audio(download, 16000)) == 1600
    assert sound_seconds(download, 16000) == math.inf


@pytest.mark.parametrize("rest", ["sound", "chunk", "scraps"])
def test_a_wav_that_is_longer_than_it_says(tmp_path, rest):
    """A recorder that died while it wrote; a chunk behind the sound, or a few bytes, are none."""
    path = tmp_path / "died.wav"
    soundfile.write(path, np.full(160_000, 0.25), 16000)
    data = bytearray(path.read_bytes())
    place = data.find(b"data")
    if rest == "sound":
        data[place + 4 : place + 8] = (32_000).to_bytes(4, "little")
    else:
        data += b"LIST" + (80_000).to_bytes(4, "little") + bytes(80_000) if rest == "chunk" else bytes(99)
    path.write_bytes(data)
    assert len(read_audio(path, 16000)) == 160_000


@pytest.mark.parametrize("said", [0, (2**32 + 2**20) % 2**32], ids=["not said", "wrapped"])
def test_a_wav_beyond_4_gib(tmp_path, said):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(1), 16000)
    head = path.read_bytes()[:-2]
    path.write_bytes(head[:-4] + said.to_bytes(4, "little"))
    # Nothing is written: a file with a hole.
    os.truncate(path, len(head) + 2**32 + 2**20)
    assert sound_seconds(path, 16000) == (2**32 + 2**20) / 2 / 16000


def test_raw_samples_are_named(tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(1000))
    with pytest.raises(ValueError, match=r"a\.raw: cannot decode: raw samples, without a header"):
        read_audio(path, 16000)
