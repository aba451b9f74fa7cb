"""Event F1 and PSDS equal those of sed_scores_eval, and what is chosen for events is the best there is."""

import warnings

import numpy as np
import pytest
import torch

from modeling_fftp import FFTPConfig
from modeling_fftp.training.events import metrics
from modeling_fftp.training.events.metrics import (
    Collars,
    Recording,
    count_hits,
    cut_between_events,
    event_f1,
    psds,
)
from modeling_fftp.training.events.postprocessing import find_events, fit_postprocessing

LABELS = ["a", "b", "c"]
STEP = 0.05


@pytest.fixture
def config():
    return FFTPConfig(
        problem_type="multi_label_classification", id2label=dict(enumerate(LABELS)),
        label2id={name: index for index, name in enumerate(LABELS)},
    )  # fmt: skip


def make_recordings(count=6, steps=120, seed=0, noise=1.0):
    """Random events, and scores that know something of them."""
    rng, recordings = np.random.default_rng(seed), []
    edges = np.arange(steps + 1) * STEP
    spans = torch.from_numpy(np.stack((edges[:-1], edges[1:]), axis=1))
    for _ in range(count):
        logits, events = rng.normal(-2.0, noise, size=(steps, len(LABELS))), []
        for index, label in enumerate(LABELS):
            time = rng.uniform(0, 0.5)
            while (end := time + rng.uniform(0.2, 1.0)) < edges[-1]:
                events.append((time, end, label))
                logits[(edges[:-1] >= time) & (edges[1:] <= end), index] += 4.0
                time = end + rng.uniform(0.3, 1.5)
        recordings.append(Recording(torch.from_numpy(logits).sigmoid(), spans, events, edges[-1]))
    return recordings


@pytest.mark.parametrize("collars", [Collars(), Collars(0.05, 0.1, 0.0)], ids=["wide", "narrow"])
@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_event_f1_is_that_of_sed_scores_eval(config, collars, threshold):
    fscore, make_frame = import_sed_scores_eval()
    recordings = make_recordings()
    config.thresholds = dict.fromkeys(LABELS, threshold)
    found = [find_events(recording, config) for recording in recordings]
    ours = event_f1([recording.events for recording in recordings], found, LABELS, collars)
    names = [str(index) for index in range(len(recordings))]
    theirs = fscore(
        dict(zip(names, map(make_frame, recordings), strict=True)),
        dict(zip(names, (recording.events for recording in recordings), strict=True)),
        threshold, onset_collar=collars.onset, offset_collar=collars.offset, offset_collar_rate=collars.offset_share,
    )[0]  # fmt: skip
    for label in LABELS:
        assert ours["per_class"][label] == pytest.approx(theirs[label])
    assert ours["event_f1_micro"] == pytest.approx(theirs["micro_average"])
    assert ours["event_f1_macro"] == pytest.approx(theirs["macro_average"])
    assert 0.1 < ours["event_f1_macro"] < 1.0


def import_sed_scores_eval():
    """Its F1, and its tables, with arrays that it may write to: of several types, so that pandas copies them."""
    with warnings.catch_warnings(action="ignore"):
        from sed_scores_eval.base_modules.scores import create_score_dataframe
        from sed_scores_eval.collar_based import fscore

    def make_frame(recording):
        edges = np.append(recording.spans[:, 0], recording.spans[-1, 1])
        return create_score_dataframe(recording.scores.numpy(), edges, LABELS).astype({"b": object})

    return fscore, make_frame


def test_psds_knows_perfect_from_random():
    perfect = make_recordings(noise=0.01)
    for recording in perfect:
        recording.events = [
            (np.floor(onset / STEP + 0.99) * STEP, np.floor(offset / STEP) * STEP, label)
            for onset, offset, label in recording.events
        ]
    assert psds(perfect, LABELS) == {"psds1": pytest.approx(1.0), "psds2": pytest.approx(1.0)}
    values = psds(make_recordings(noise=3.0), LABELS)
    assert 0.0 <= values["psds1"] < 0.5 < values["psds2"]


@pytest.mark.parametrize("name", ["onset", "a\\b", "ä, b"])
def test_psds_of_what_sed_scores_eval_does_not_take(name):
    (recording,) = make_recordings(count=1)
    labels = [name, "never", "alone"]
    # Events that meet, overlap or come twice, a label without any, and names of its own columns.
    recording.events = [(0.2, 0.6, name), (0.6, 0.9, name), (0.5, 0.7, name), (2.0, 2.4, "alone"), (2.0, 2.4, "alone")]
    assert {*psds([recording], labels)} == {"psds1", "psds2"}
    recording.events = [(0.2, 0.6, name)]
    one = Recording(recording.scores[:, :1], recording.spans, recording.events, recording.seconds)
    assert psds([recording], labels) == psds([one], [name])
    recording.events = []
    assert psds([recording], labels) == {}


def test_long_recordings_are_cut_where_nothing_sounds():
    (recording,) = make_recordings(1, steps=3000)
    stretches = cut_between_events(recording, 20.0)
    assert torch.equal(torch.cat([stretch.scores for stretch in stretches]), recording.scores)
    assert max(len(stretch.scores) for stretch in stretches) <= 20.0 / STEP
    # Three labels sound most of the time, so silence is rare, but there is some.
    assert len(stretches) < 2 * recording.seconds / 20.0
    assert sum(len(stretch.events) for stretch in stretches) == len(recording.events)
    shift = 0.0
    for stretch in stretches:
        here = [event for event in recording.events if shift <= event[0] < shift + stretch.seconds]
        shifted = [(onset - shift, offset - shift, label) for onset, offset, label in here]
        for event, expected in zip(stretch.events, shifted, strict=True):
            assert event == (pytest.approx(expected[0]), pytest.approx(expected[1]), expected[2])
        shift += stretch.seconds
    assert shift == pytest.approx(recording.seconds)
    assert cut_between_events(recording, 150.0) == [recording]


def test_events_without_a_pause_are_cut():
    (recording,) = make_recordings(1, steps=1000)
    recording.events = [(0.0, 50.0, "a")]
    stretches = cut_between_events(recording, 20.0)
    assert [stretch.events for stretch in stretches] == [
        [(0.0, pytest.approx(length), "a")] for length in (20.0, 20.0, 10.0)
    ]


@pytest.mark.parametrize("noise", [0.5, 1.5])
def test_psds_of_stretches_is_that_of_the_whole(monkeypatch, noise):
    recordings = make_recordings(2, steps=1200, noise=noise)
    import_sed_scores_eval()
    whole = psds(recordings, LABELS)
    monkeypatch.setattr(metrics, "STRETCH_SECONDS", 20.0)
    # Only what is falsely found around a cut can differ.
    assert psds(recordings, LABELS) == pytest.approx(whole, abs=0.02)


def test_every_event_counts_once():
    true = np.array([[0.0, 1.0], [0.1, 1.1]])
    assert count_hits(true, np.array([[0.05, 1.05]]), Collars()) == 1
    # The first is near both, the second near one of them alone: a greedy choice would lose a pair.
    assert count_hits(np.array([[0.1, 1.0], [0.3, 1.0]]), np.array([[0.2, 1.0], [-0.05, 1.0]]), Collars(0.2, 0.2)) == 2
    assert count_hits(true, np.zeros((0, 2)), Collars()) == 0
    # The offset of a long event may be a fifth of it away.
    assert count_hits(np.array([[0.0, 5.0]]), np.array([[0.0, 5.9]]), Collars()) == 1
    assert count_hits(np.array([[0.0, 5.0]]), np.array([[0.0, 5.9]]), Collars(offset_share=0.0)) == 0


def test_a_label_without_events_counts_in_neither_mean():
    found = [[(0.0, 1.0, "a"), (2.0, 3.0, "b")]]
    result = event_f1([[(0.0, 1.0, "a")]], found, LABELS, Collars())
    assert result["per_class"] == {"a": 1.0, "b": None, "c": None}
    assert result["event_f1_macro"] == 1.0
    assert result["event_f1_micro"] == pytest.approx(2 / 3)
    assert event_f1([[]], [[]], LABELS, Collars())["event_f1_micro"] is None


def test_chosen_thresholds_and_filters_are_better_than_none(config):
    recordings, collars = make_recordings(noise=1.5), Collars()

    def measure():
        found = [find_events(recording, config) for recording in recordings]
        return event_f1([recording.events for recording in recordings], found, LABELS, collars)["per_class"]

    before = measure()
    config.thresholds, config.median_filter_seconds = fit_postprocessing(recordings, config, collars)
    after = measure()
    assert all(after[label] > before[label] + 0.1 for label in LABELS)
    # Noise of single steps is what a filter removes.
    assert all(seconds >= 3 * STEP for seconds in config.median_filter_seconds.values())
    for label in LABELS:
        chosen = config.thresholds[label]
        for other in (0.1, 0.3, 0.5, 0.7, 0.9):
            config.thresholds[label] = other
            assert measure()[label] <= after[label] + 0.02
        config.thresholds[label] = chosen


def test_a_label_that_is_never_found_right_keeps_the_default_threshold(config):
    """The middle of thresholds that are all of no use would be heard all the time."""
    recordings = make_recordings()
    for recording in recordings:
        recording.scores[:, 0] = torch.linspace(0.001, 0.011, len(recording.scores))
        recording.events = [event for event in recording.events if event[2] != "a"] + [(0.5, 0.6, "a")]
    thresholds, seconds = fit_postprocessing(recordings, config, Collars(0.01, 0.01, 0.0))
    assert "a" not in thresholds.keys() | seconds.keys()
    config.thresholds, config.median_filter_seconds = thresholds, seconds
    assert all(label != "a" for recording in recordings for *_, label in find_events(recording, config))
