"""Long recordings with events in pieces: nothing is lost, moved or heard twice."""

import pickle

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value

from feature_extraction.waveform_augmentation import RandomCrop
from modeling_fftp.training.data.recording_pieces import RecordingPieces
from modeling_fftp.training.data.strong_labels import EVENT

RATE = 100
FEATURES = Features({"audio": List(Value("float32")), "labels": List(EVENT)})


def make_clip(sound):
    """One recording without events."""
    return Dataset.from_dict({"audio": [sound], "labels": [[]]}, features=FEATURES)


@pytest.fixture
def recordings(tmp_path):
    """A short one, a long one, one without events, and one with an event that has no times."""
    rng = np.random.default_rng(0)
    events = [
        [(0.5, 0.9, "a")],
        [(0.0, 0.4, "a"), (5.9, 6.2, "b"), (9.0, 23.0, "a")],
        [],
        [(np.nan, np.nan, "b")],
    ]
    rows = {
        "audio": [rng.normal(size=round(seconds * RATE)).astype(np.float32) for seconds in (5.99, 23.0, 7.0, 13.0)],
        "labels": [[dict(zip(EVENT, event, strict=True)) for event in clip] for clip in events],
    }
    # As a data set that was decoded lies on disk, with rows that are chosen among others.
    Dataset.from_dict(rows, features=FEATURES).save_to_disk(tmp_path / "clips")
    return Dataset.load_from_disk(tmp_path / "clips").select([3, 1, 0, 2]).with_format("numpy")


@pytest.fixture
def lengths(recordings):
    return [len(sound) for sound in recordings["audio"]]


@pytest.fixture
def pieces(recordings, lengths):
    """Of 6 s at most, one after the other: 3, 4, 1 and 2."""
    return RecordingPieces(recordings, lengths, 6.0, 0.0, RATE)


def test_a_recording_of_just_the_longest_length_is_one_piece():
    # In floats 16016 / 16000 * 16000 is a little less than 16016.
    assert len(RecordingPieces(make_clip([0.0] * 16016), [16016], 16016 / 16000, 0.0, 16000)) == 1


def test_pieces_are_the_recordings_in_order(recordings, pieces):
    assert len(pieces) == 3 + 4 + 1 + 2
    sound = np.concatenate([pieces[index]["audio"] for index in range(len(pieces))])
    np.testing.assert_array_equal(sound, np.concatenate([*recordings["audio"]]))
    lengths = [len(pieces[index]["audio"]) for index in range(len(pieces))]
    assert max(lengths) <= 6.0 * RATE
    # Those of one recording differ by a sample at most.
    assert np.ptp(lengths[:3]) <= 1
    assert np.ptp(lengths[3:7]) <= 1


def test_crops_of_pieces_that_overlap_begin_anywhere():
    crop, rounds = RandomCrop(2 * RATE), 2000
    sound = np.arange(23 * RATE, dtype=np.float32)
    pieces = RecordingPieces(make_clip(sound), [len(sound)], 6.0, 2.0, RATE)
    generator, begun = torch.Generator().manual_seed(0), np.zeros(21)
    for index in range(len(pieces)):
        piece = pieces[index]["audio"]
        for start in crop.draw([len(piece)] * rounds, generator):
            # The last of all begins where the recording ends but for one crop.
            begun[min(20, int(piece[start]) // RATE)] += 1
    assert begun.sum() == rounds * len(pieces)
    # Each second is as likely as another, also at the edges of pieces.
    np.testing.assert_allclose(begun / begun.mean(), 1.0, atol=0.15)


def test_events_go_with_their_pieces_and_are_cut_at_the_edges(pieces):
    assert [label for _, _, label in pieces[0]["labels"]] == ["b"]
    assert pieces[6]["labels"] == [(0.0, pytest.approx(5.75), "a")]
    assert [label for _, _, label in pieces[3]["labels"]] == ["a"]
    assert pieces[4]["labels"] == [
        (pytest.approx(0.15), pytest.approx(0.45), "b"), (pytest.approx(3.25), pytest.approx(5.75), "a"),
    ]  # fmt: skip
    assert pieces[7]["labels"] == [(0.5, pytest.approx(0.9), "a")]
    assert pieces[8]["labels"] == []


@pytest.mark.parametrize(("seconds", "overlap"), [(0.5, 2.0), (2.0, 2.0), (6.0, 2.0), (6.01, 2.0), (6.01, 0.0)])
def test_pieces_of_any_length_cover_their_recording(seconds, overlap):
    sound = np.arange(round(seconds * RATE), dtype=np.float32)
    pieces = RecordingPieces(make_clip(sound), [len(sound)], 6.0, overlap, RATE)
    assert len(pieces) == (2 if seconds > 6 else 1)
    np.testing.assert_array_equal(np.unique(np.concatenate([pieces[i]["audio"] for i in range(len(pieces))])), sound)
    assert max(len(pieces[i]["audio"]) for i in range(len(pieces))) <= 6.0 * RATE


def test_a_worker_gets_the_same_pieces(pieces):
    copy = pickle.loads(pickle.dumps(pieces))
    np.testing.assert_array_equal(copy[4]["audio"], pieces[4]["audio"])
    assert copy[4]["labels"] == pieces[4]["labels"]
