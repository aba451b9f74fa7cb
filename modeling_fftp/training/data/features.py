"""Clips with features in place of sound, in the cache of `datasets`."""

from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, List, Value

from feature_extraction import FFTPFeatureExtractor


class FeatureClips(torch.utils.data.Dataset):
    """Clips with features in place of sound, none of them padding.

    They are flat in the table, which `datasets` reads much faster than two dimensions.

    Args:
        clips: `input_values` (frames * mel bins,) and other columns, in NumPy's format.
        num_mel_bins: Mel bins.
    """

    def __init__(self, clips: Dataset, num_mel_bins: int):
        self.clips = clips
        self.num_mel_bins = num_mel_bins

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._reshape(self.clips[index])

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [self._reshape(clip) for clip in self.clips.__getitems__(indices)]

    def _reshape(self, clip: dict[str, Any]) -> dict[str, Any]:
        features = clip["input_values"].reshape(-1, self.num_mel_bins)
        # Known, not found: a clip may end in what equals padding.
        return clip | {"input_values": features, "attention_mask": np.ones(len(features), dtype=np.int32)}


def compute_features(dataset: Dataset, extractor: FFTPFeatureExtractor) -> FeatureClips:
    """Clips with features in place of sound; they stay in the cache of `datasets`.

    Args:
        dataset: `audio` at the extractor's rate, and `labels`.
        extractor: Computes the features.

    Returns:
        `input_values` (frames, mel bins) and the other columns of each clip.
    """

    def extract(batch: dict) -> dict:
        clips = [np.asarray(clip, dtype=np.float32) for clip in batch["audio"]]
        features = extractor(clips, sampling_rate=extractor.sampling_rate, padding=False)["input_values"]
        return {"input_values": [np.ravel(clip) for clip in features]}

    kept = {name: feature for name, feature in dataset.features.items() if name != "audio"}
    table = dataset.map(
        extract,
        batched=True,
        batch_size=64,
        remove_columns="audio",
        features=Features({"input_values": List(Value("float32"))} | kept),
        desc="Extracting features",
    )
    return FeatureClips(table.with_format("numpy"), extractor.num_mel_bins)
