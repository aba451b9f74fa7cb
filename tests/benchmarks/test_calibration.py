"""The benchmark of calibration: its folds, what it counts, and what a shift of all thresholds does."""

import numpy as np
import torch
from datasets import Value, load_dataset

from benchmarks import calibration
from benchmarks.long_recording import RECALL, compare_calibration
from benchmarks.mixtures import as_flac, write_clips
from modeling_fftp import FFTPConfig
from modeling_fftp.training.data.sources import load_splits

HUM, HISS = 0, 1


def test_a_sound_counts_where_half_of_its_clip_is_covered():
    edges = np.array([0.0, 4.0, 8.0, 10.0])
    targets = np.array([[1, 0], [1, 1], [0, 0]])
    segments = [
        (0.0, 2.0, HUM, 0.9),  # half of the first clip
        (4.0, 5.9, HUM, 0.9),  # less than half of the second
        (6.5, 7.0, HISS, 0.9), (7.0, 9.0, HISS, 0.9),  # together less than half of the second, half of the third
    ]  # fmt: skip
    recall, alarms = calibration.count_clips(edges, targets, segments)
    assert (recall, alarms) == (1 / 3, 360.0)


def test_no_fold_trains_and_calibrates_or_measures(tmp_path):
    rows = {"audio": [as_flac(np.zeros(160, np.float32))] * 8, "fold": [1, 2, 3, 4, 1, 2, 3, 4]}
    write_clips(rows, {"fold": Value("int64")}, tmp_path / "mixtures")
    mixtures = load_dataset(str(tmp_path / "mixtures"), split="train")
    measured = []
    for fold in calibration.FOLDS:
        calibration.split_folds(mixtures, fold, tmp_path / str(fold))
        folds = {name: {*split["fold"]} for name, split in load_splits(str(tmp_path / str(fold))).items()}
        assert folds["test"] == {fold}
        assert [len(folds[name]) for name in ("train", "validation", "test")] == [2, 1, 1]
        assert set.union(*folds.values()) == {*calibration.FOLDS}
        measured.append(*folds["validation"])
    assert sorted(measured) == [*calibration.FOLDS]


def test_thresholds_move_until_enough_is_found():
    config = FFTPConfig(
        num_labels=2, id2label={0: "hum", 1: "hiss"}, problem_type="multi_label_classification",
        thresholds={"hum": 0.9, "hiss": 0.5},
    )  # fmt: skip
    edges, targets = np.array([0.0, 1.0, 2.0]), np.array([[1, 0], [1, 1]])
    scores = torch.tensor([[0.7, 0.1], [0.95, 0.3]])
    windows = [{"start": i, "end": i + 1, "scores": row.tolist()} for i, row in enumerate(scores)]

    def count(segments):
        return calibration.count_clips(edges, targets, segments)

    compared = compare_calibration({"windows": windows}, count, config, temperature=2.0)
    # At thresholds of 0.5, twice as large logits are on the same side; its own thresholds find one sound of three.
    assert compared["before"]["recall"] == 2 / 3
    assert compared["after"]["recall"] == 1 / 3
    assert RECALL > 2 / 3
    # All three are found without a false alarm, since 0.3 is above 0.1.
    assert compared["before"]["at_recall"] == compared["after"]["at_recall"] == 0
