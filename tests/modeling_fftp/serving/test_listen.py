"""Live sound: events as they begin and end, PCM of any rate, sound that is lost, and the command `fftp listen`."""

import io
import json
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from modeling_fftp.cli import app
from modeling_fftp.events_fftp import EventTracker
from modeling_fftp.serving.listen import BLOCK_SECONDS, LiveBuffer, load_stream, open_microphone, read_pcm
from modeling_fftp.serving.listen import listen as listen_to


def test_events_begin_at_the_threshold_and_end_below_it():
    tracker, changes = EventTracker(["a", "b"], [0.5, 0.5]), []
    for second, values in enumerate([(0.1, 0.0), (0.6, 0.0), (0.9, 0.7), (0.45, 0.6), (0.39, 0.6), (0.2, 0.5)]):
        changes += tracker.update(second, torch.tensor(values))
    changes += tracker.finish(6.0)
    kept = [(kind, label, seconds, round(score, 4)) for kind, label, seconds, score in changes]
    # 0.45 is below the threshold, but not by enough to end.
    assert kept == [
        ("begin", "a", 1, 0.6), ("begin", "b", 2, 0.7), ("end", "a", 4, 0.9), ("end", "b", 6.0, 0.7),
    ]  # fmt: skip
    assert not tracker.finish(7.0)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (48000, 2), (8000, 1), (44100, 2)])
def test_pcm_of_any_rate_is_the_sound(rate, channels):
    time = np.arange(2 * rate) / rate
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    samples = np.repeat((tone * 2**15).astype("<i2")[:, None], channels, axis=1)
    # A writer that was killed in the middle of a sample.
    file = io.BytesIO(samples.tobytes() + b"\1")
    blocks = [*read_pcm(file, rate, channels, 16000)]
    sound = np.concatenate(blocks)
    assert len(sound) == pytest.approx(32000, abs=2)
    # The resampler keeps back about a tenth of a second at first.
    assert max(map(len, blocks)) <= 3 * BLOCK_SECONDS * 16000
    middle = slice(4000, 28000)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(sound)) / 16000)
    np.testing.assert_allclose(sound[middle], expected[middle], atol=0.01)


def test_a_pipe_may_end_within_a_sample():
    class Pipe(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 333))

    samples = (0.3 * 2**15 * np.sin(np.arange(16000) / 10)).astype("<i2")
    sound = np.concatenate([*read_pcm(Pipe(samples.tobytes()), 16000, 1, 16000)])
    np.testing.assert_allclose(sound, samples / 2**15, atol=1e-6)


def test_what_a_slow_model_loses_is_counted_and_named(caplog):
    buffer = LiveBuffer(16000, most_seconds=4 * BLOCK_SECONDS)
    block = np.ones(800, np.float32)
    for index in range(10):
        buffer.put(block, overflowed=index == 3)
    assert buffer.dropped_seconds == pytest.approx(8 * 0.05)
    buffer.close()
    # One gap, as long as all that was lost, so that times stay right; then what came last.
    missing, *got = buffer
    assert missing == 8 * 800
    assert [len(each) for each in got] == [800] * 2
    assert "0.40 s of sound dropped so far; the device lost some 1 times" in caplog.text


def test_a_device_may_end_at_any_time():
    full = LiveBuffer(16000, most_seconds=2 * BLOCK_SECONDS)
    for _ in range(5):
        full.put(np.ones(800, np.float32))
    # Nobody listens any more, or goes on to the end of what waits.
    full.close()
    full.put(np.ones(800, np.float32))
    assert [block if isinstance(block, int) else len(block) for block in full] == [4 * 800, 800]
    empty = LiveBuffer(16000)
    heard = []
    listener = threading.Thread(target=lambda: heard.extend(empty))
    listener.start()
    empty.put(np.ones(800, np.float32))
    empty.close()
    listener.join(timeout=10)
    assert not listener.is_alive()
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("formats", "rate", "channels"),
    [([(16000, 1), (48000, 2)], 16000, 1), ([(48000, 1), (48000, 2)], 48000, 1), ([(48000, 2)], 48000, 2)],
)
def test_a_microphone_records_as_it_can(monkeypatch, formats, rate, channels):
    """PortAudio is a stand-in, as no machine has all of these microphones."""
    opened = {}

    def check_input_settings(device, channels, dtype, samplerate):
        if (samplerate, channels) not in formats:
            raise PortAudioError("Invalid sample rate or channels")

    class PortAudioError(Exception):
        pass

    sounddevice = types.ModuleType("sounddevice")
    sounddevice.PortAudioError, sounddevice.check_input_settings = PortAudioError, check_input_settings
    sounddevice.query_devices = lambda device, kind: {"default_samplerate": 48000.0, "max_input_channels": 2}
    sounddevice.InputStream = lambda **settings: opened.update(settings)
    monkeypatch.setitem(sys.modules, "sounddevice", sounddevice)
    buffer = LiveBuffer(16000)
    open_microphone(buffer)
    assert (opened["samplerate"], opened["channels"]) == (rate, channels)
    tone = 8192 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    for block in np.repeat(tone[:, None], channels, axis=1).astype(np.int16).reshape(20, -1, channels):
        opened["callback"](block, len(block), None, types.SimpleNamespace(input_overflow=False))
    opened["finished_callback"]()
    heard = np.concatenate([*buffer])
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    # A resampler keeps the last samples until others follow.
    assert 15000 < len(heard) <= 16000
    np.testing.assert_allclose(heard[500:15000], expected[500:15000], atol=1e-3)


def test_lost_sound_makes_no_work(trained):
    stream = load_stream(trained)
    (begin, *_) = listen_to(stream, [np.zeros(8000, np.float32), 16000 * 3600, np.zeros(8000, np.float32)])
    assert stream.num_hops < 50
    assert stream.num_samples == 16000 * 3601
    assert begin.seconds < 1


def test_an_interruption_keeps_what_was_heard_before_it(trained):
    """Ctrl-C comes within a block, as nearly always: with the model at work on a later hop of it."""
    stream = load_stream(trained)
    looks = []

    def interrupt(module, inputs, output):
        looks.append(stream.num_hops)
        if len(looks) == 5:
            raise KeyboardInterrupt

    with stream.model.register_forward_hook(interrupt):
        block = np.random.default_rng(3).normal(scale=0.3, size=32000).astype(np.float32)
        begin = next(changes := listen_to(stream, [block]))
        assert begin.kind == "begin"
        assert len(looks) < 5
        (end,) = [change for change in changes if change.label == begin.label]
    assert len(looks) > 5
    assert end.kind == "end"


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    """A file of three sounds, 2 s each, that the model `trained` knows."""
    rng, pieces = np.random.default_rng(3), []
    for kind in ("noise", "low", "high"):
        time = np.arange(32000) / 16000
        tone = np.sin(2 * np.pi * {"low": 200, "high": 2500, "noise": 0}[kind] * time)
        pieces.append(rng.normal(size=len(time)) * (0.3 if kind == "noise" else 0.01) + 0.3 * tone)
    path = tmp_path_factory.mktemp("sequence") / "sequence.wav"
    soundfile.write(path, np.concatenate(pieces), 16000, subtype="PCM_16")
    return path


def listen(*words, **options):
    command = [sys.executable, "-m", "modeling_fftp", "listen", *map(str, words)]
    return subprocess.run(command, capture_output=True, **options)


def test_listen_hears_a_file_and_the_output_of_another_program(trained, sequence):
    options = ("--model", trained, "--hop_seconds", 0.1, "--json")
    done = listen(sequence, *options)
    assert done.returncode == 0, done.stderr
    changes = [json.loads(line) for line in done.stdout.splitlines()]
    begun = [(change["label"], change["seconds"]) for change in changes if change["kind"] == "begin"]
    order = [label for label, seconds in begun if seconds > 0.5 or label == "noise"]
    assert order == ["noise", "low", "high"]
    for label, start in (("low", 2.0), ("high", 4.0)):
        assert start < dict(begun)[label] < start + 0.8
    assert changes[-1] == changes[-1] | {"kind": "end", "seconds": 6.0}
    samples, _ = soundfile.read(sequence, dtype="int16")
    stereo = np.repeat(samples[:, None], 2, axis=1).astype("<i2")
    piped = listen("-", *options, "--channels", 2, input=stereo.tobytes())
    assert piped.stdout == done.stdout
    words = listen(sequence, *options[:-1]).stdout.decode().splitlines()
    assert len(words) == len(changes)
    assert words[-1].split()[:4] == ["6.00", "s", "end", changes[-1]["label"]]


def refused(*words):
    """What `fftp listen` says when it ends at once, given no sound."""
    done = CliRunner().invoke(app, ["listen", *map(str, words)], input=b"")
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code == 1
    return str(done.exception)


def test_listen_says_what_is_missing(trained, tmp_path):
    for words, message in (
        (("missing.wav", "--model", trained), "missing.wav: "),
        (("-", "--model", tmp_path / "none"), "is not a folder with a model"),
        (("-", "--model", tmp_path), "has no config.json, so it holds no model"),
        (("-", "--model", trained, "--hop_seconds", -1), "hop_seconds=-1.0 must be positive"),
        (("-", "--model", trained, "--hop_seconds", 0), "hop_seconds=0.0 must be positive"),
        (("-", "--model", trained, "--memory_seconds", -1), "memory_seconds=-1.0 must be positive"),
        (("x.wav", "--model", trained, "--rate", 8000), "--rate and --channels are those of raw PCM"),
        (("x.wav", "--model", trained, "--device", 1), "--device is a microphone's; the source is x.wav"),
    ):
        assert message in refused(*words)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    for source in ("-", tmp_path / "empty.wav"):
        assert "no samples" in refused(source, "--model", trained)
    # A rate in kHz.
    assert CliRunner().invoke(app, ["listen", "-", "--model", str(trained), "--rate", "16"]).exit_code == 2


def test_a_live_stream_forgets_by_default(trained):
    stream = load_stream(trained, time_stride=10)
    config = stream.model.config
    assert config.time_stride == stream.time_stride == 10
    assert stream.window_frames == config.max_length
