"""Soundscapes sound when their events say so."""

import numpy as np
import pytest

from benchmarks.soundscapes import LABELS, SAMPLING_RATE, SECONDS, compose, find_sounds


def test_only_what_sounds_is_taken_from_a_clip():
    rng = np.random.default_rng(0)
    clip = 1e-3 * rng.normal(size=5 * SAMPLING_RATE)
    for start, end in ((0.5, 1.0), (1.1, 1.4), (2.0, 2.05), (3.0, 5.0)):
        clip[round(start * SAMPLING_RATE) : round(end * SAMPLING_RATE)] += 0.3 * rng.normal(
            size=round((end - start) * SAMPLING_RATE)
        )
    # A pause of 0.1 s is part of a sound, and 0.05 s are too short to be one.
    assert [len(part) / SAMPLING_RATE for part in find_sounds(clip)] == pytest.approx([0.9, 2.0], abs=0.02)
    assert find_sounds(np.zeros(SAMPLING_RATE)) == []


def test_events_are_where_the_sound_is_louder_than_its_background():
    rng = np.random.default_rng(1)
    noise = rng.normal(size=2 * SAMPLING_RATE)
    events = {label: [rng.normal(size=SAMPLING_RATE // 2)] for label in LABELS}
    for _ in range(5):
        sound, found = compose(events, [noise], rng)
        assert sound.shape == (SECONDS * SAMPLING_RATE,)
        assert 1 <= len(found) <= 4
        is_event = np.zeros(len(sound), dtype=bool)
        for event in found:
            assert event["label"] in LABELS
            is_event[round(event["onset"] * SAMPLING_RATE) : round(event["offset"] * SAMPLING_RATE)] = True
        assert np.square(sound[is_event]).mean() > 1.5 * np.square(sound[~is_event]).mean()
