"""The benchmark of live sound: what counts as a word found, and that its hops are those of the stream."""

import numpy as np
import pytest
import soundfile

from benchmarks import live
from modeling_fftp.stream_fftp import EventChange


def test_words_are_found_late_wrongly_or_not_at_all():
    events = [(1.0, 2.0, "yes"), (4.0, 5.0, "no"), (7.0, 8.0, "yes"), (10.0, 11.0, "no")]
    changes = [
        EventChange("begin", "yes", 1.8, 0.9),
        # Once more for the same word, then the wrong word, then too late.
        EventChange("begin", "yes", 2.1, 0.9),
        EventChange("begin", "yes", 4.9, 0.6),
        EventChange("begin", "yes", 8.5, 0.7),
        EventChange("begin", "no", 12.0, 0.7),
    ]
    found = live.score_words(changes, events, seconds=1800.0)
    assert found["hits"] == 0.5
    assert found["false_alarms_per_hour"] == 6
    assert found["delay_seconds"] == pytest.approx((-0.2 + 0.5) / 2)


def test_every_hop_is_timed_and_equals_the_whole():
    measured = live.measure_hops(live.MODELS["Mamba, from its state"] | {"num_hidden_layers": 2}, minutes=0.1)
    assert measured["offline_difference"] < 1e-5
    assert 0 < measured["median_ms"] <= measured["p99_ms"] <= measured["worst_ms"]
    assert len(measured["memory_mib"]) >= 6


def test_a_stream_of_words_holds_each_once(clip_folder, tmp_path):
    (tmp_path / "train" / "hum").mkdir(parents=True)
    soundfile.write(tmp_path / "train" / "hum" / "1.wav", np.random.default_rng(0).normal(size=8000) * 0.1, 16000)
    sound, events = live.make_stream(clip_folder, tmp_path, seed=0)
    assert len(events) == 12
    assert sorted(label for _, _, label in events) == sorted(["low", "high", "noise"] * 4)
    assert events[-1][1] == pytest.approx(len(sound) / 16000, abs=1e-3)
    quiet = sound[: round(events[0][0] * 16000)]
    assert 20 * np.log10(np.sqrt(np.mean(quiet**2))) == pytest.approx(live.BACKGROUND, abs=1)
