"""The benchmark of spotted words: its data, its stream, and what counts as a word found."""

import numpy as np
import pytest
import soundfile
import torch

from benchmarks import live_words
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.events_fftp import EventChange
from modeling_fftp.training.data.sources import load_splits


@pytest.fixture
def noise_folder(tmp_path):
    """Two recordings of noise in two folds, with a table that says so."""
    folder = tmp_path / "noise" / "train"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, scale in (("1", 0.1), ("4", 0.3)):
        soundfile.write(folder / f"{name}.wav", scale * rng.normal(size=24000), 16000)
    (folder / "metadata.csv").write_text("file_name,label,fold\n1.wav,hum,1\n4.wav,hum,4\n")
    return folder.parent


def decibels(samples: np.ndarray) -> float:
    """Mean level."""
    return 20 * np.log10(np.sqrt(np.mean(samples**2)))


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
    found = live_words.score_words(changes, events, seconds=1800.0)
    assert found["hits"] == 0.5
    assert found["false_alarms_per_hour"] == 6
    assert found["delay_seconds"] == pytest.approx((-0.2 + 0.5) / 2)


def test_pieces_hold_whole_words_over_backgrounds(clip_folder, noise_folder, tmp_path):
    live_words.make_pieces(clip_folder, noise_folder, tmp_path / "pieces")
    splits = load_splits(str(tmp_path / "pieces"))
    assert {*splits} == {"train", "validation"}
    words = {split: len(load_splits(str(clip_folder))[split]) for split in splits}
    for split, pieces in splits.items():
        assert len(pieces) == 2 * live_words.PLACES * words[split]
        sounds, labels = live_words.read_clips(pieces)
        assert {len(sound) for sound in sounds} == {round(live_words.PIECE_SECONDS * live_words.SAMPLING_RATE)}
        # Around a word and anywhere: neither all pieces have one nor hardly any.
        assert 0.2 < sum(bool(names) for names in labels) / len(labels) < 0.9
        assert max(len(names) for names in labels) <= 2


def test_a_piece_has_the_words_that_are_whole_in_it():
    events = [(2.0, 2.5, "yes"), (4.0, 5.0, "no")]
    assert live_words.whole_words(events, 1.9, 3.1) == ["yes"]
    # Its edge may be missing, where there is hardly a sound, but no more.
    assert live_words.whole_words(events, 2.1, 3.3) == ["yes"]
    assert live_words.whole_words(events, 2.2, 3.4) == []
    assert live_words.whole_words(events, 3.7, 4.9) == ["no"]
    assert live_words.whole_words(events, 3.5, 4.7) == []


def test_a_stream_of_words_holds_each_once_over_the_fold_held_out(clip_folder, noise_folder):
    sound, events = live_words.make_stream(clip_folder, noise_folder, seed=0)
    assert len(events) == 12
    assert sorted(label for _, _, label in events) == sorted(["low", "high", "noise"] * 4)
    assert events[-1][1] == pytest.approx(len(sound) / 16000, abs=1e-3)
    quiet = sound[: round(events[0][0] * 16000)]
    assert decibels(quiet) == pytest.approx(live_words.BACKGROUND, abs=1)
    held_out, _ = soundfile.read(noise_folder / "train" / "4.wav")
    count = min(len(quiet), len(held_out))
    assert np.corrcoef(quiet[:count], held_out[:count])[0, 1] > 0.999


def test_what_is_heard_gives_the_events_of_a_threshold(clip_folder, noise_folder, extractor, tmp_path):
    torch.manual_seed(0)
    fields = live_words.MODELS["Mamba, from its state"] | {"hidden_size": 32, "num_hidden_layers": 1}
    config = FFTPConfig(**fields, num_labels=3, max_length=98,
                        problem_type="multi_label_classification")  # fmt: skip
    model = FFTPForAudioClassification(config)
    torch.nn.init.normal_(model.classifier.dense.weight)
    model.save_pretrained(tmp_path / "model")
    extractor.save_pretrained(tmp_path / "model")
    sound, _ = live_words.make_stream(clip_folder, noise_folder, seed=0)
    labels, heard = live_words.hear(tmp_path / "model", sound, memory_seconds=0.5)
    assert labels == ["LABEL_0", "LABEL_1", "LABEL_2"]
    scores = torch.stack([scores for _, scores in heard])
    threshold = scores.mean().item()
    beginnings = live_words.find_beginnings(labels, heard, threshold)
    assert beginnings
    assert all(change.score >= threshold for change in beginnings)
    assert not live_words.find_beginnings(labels, heard, scores.max().item() + 1e-3)
