"""Long recordings with events in pieces: nothing is lost, moved or heard twice."""

import pickle

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value

from modeling_fftp.training.data.recording_pieces import CROPS, RecordingPieces
from modeling_fftp.training.data.strong_labels import EVENT

RATE = 100


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
    features = Features({"audio": List(Value("float32")), "labels": List(EVENT)})
    # As a data set that was decoded lies on disk, with rows that are chosen among others.
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "clips")
    return Dataset.load_from_disk(tmp_path / "clips").select([3, 1, 0, 2]).with_format("numpy")


def test_pieces_are_the_recordings_in_order(recordings):
    pieces = RecordingPieces(recordings, 2.0, RATE)
    assert len(pieces) == 3 + 4 + 1 + 2
    sound = np.concatenate([pieces[index]["audio"] for index in range(len(pieces))])
    np.testing.assert_array_equal(sound, np.concatenate([*recordings["audio"]]))
    lengths = [len(pieces[index]["audio"]) for index in range(len(pieces))]
    assert max(lengths) <= CROPS * 2.0 * RATE
    # Those of one recording differ by a sample at most.
    assert np.ptp(lengths[:3]) <= 1
    assert np.ptp(lengths[3:7]) <= 1


def test_events_go_with_their_pieces_and_are_cut_at_the_edges(recordings):
    pieces = RecordingPieces(recordings, 2.0, RATE)
    assert [label for _, _, label in pieces[0]["labels"]] == ["b"]
    assert pieces[6]["labels"] == [(0.0, pytest.approx(5.75), "a")]
    assert [label for _, _, label in pieces[3]["labels"]] == ["a"]
    assert pieces[4]["labels"] == [
        (pytest.approx(0.15), pytest.approx(0.45), "b"), (pytest.approx(3.25), pytest.approx(5.75), "a"),
    ]  # fmt: skip
    assert pieces[7]["labels"] == [(0.5, pytest.approx(0.9), "a")]
    assert pieces[8]["labels"] == []


def test_a_worker_gets_the_same_pieces(recordings):
    pieces = RecordingPieces(recordings, 2.0, RATE)
    copy = pickle.loads(pickle.dumps(pieces))
    np.testing.assert_array_equal(copy[4]["audio"], pieces[4]["audio"])
    assert copy[4]["labels"] == pieces[4]["labels"]
