"""Feature extractor: from waveforms to normalised log-mel spectrograms with a mask over real frames."""

import os
from collections.abc import Iterable
from math import isfinite, prod, sqrt
from os import PathLike
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import TensorType, logging

from .log_mel_fftp import hop_length, log_mel_of_clips, num_frames, num_samples, window_length
from .waveforms_fftp import (
    LARGEST_FLOAT,
    LARGEST_SAMPLE,
    Waveform,
    as_clips,
    has_own_rate,
    pcm_to_float,
    read_samples,
    refuse_samples,
)

logger = logging.get_logger(__name__)

# Holds something in a process that was forked after this was imported, until that has settled its threads.
FORKED: list[bool] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: FORKED.append(True))


def _as_number(name: str, value: float) -> float:
    """A finite number of any type, as Python has it.

    Raises:
        ValueError: It is none.
    """
    is_one = isinstance(value, (np.generic, np.ndarray, torch.Tensor)) and prod(value.shape) == 1
    value = value.item() if is_one else value
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not isfinite(value):
        raise ValueError(f"{name}={value!r} must be a finite number")
    return value


def _check_size(name: str, value: int) -> int:
    number = _as_number(name, value)
    if number < 1 or number != int(number):
        raise ValueError(f"{name}={number} must be a whole number of at least 1")
    return int(number)


def _check_rate(name: str, value: int) -> int:
    rate = _check_size(name, value)
    if not hop_length(rate):
        raise ValueError(f"{name}={rate} has no sample in 10 ms, from one frame to the next")
    return rate


def _check_multiple(name: str, value: int | None) -> int | None:
    return None if value is None else _check_size(name, value)


def _check_number(name: str, value: float) -> float:
    return float(_as_number(name, value))


def _check_spread(name: str, value: float) -> float:
    number = _as_number(name, value)
    if number <= 0:
        raise ValueError(f"{name}={number} must be positive")
    return float(number)


def _check_flag(name: str, value: bool) -> bool:
    if np.size(value) != 1 or value not in (0, 1):
        raise ValueError(f"{name}={value!r}; expected True or False")
    return bool(value)


def _check_padding(name: str, value: str | bool) -> str | bool:
    # transformers names them by members of an enumeration as well.
    value = getattr(value, "value", value)
    if value is False or value == "do_not_pad":
        return False
    if value is True or value == "longest":
        return "longest"
    if value != "max_length":
        raise ValueError(f"{name}={value!r} is unknown; expected 'longest', 'max_length' or False")
    return value


def _check_side(name: str, value: str) -> str:
    if value != "right":
        raise ValueError(f"{name}={value!r}; the models expect padding on the right")
    return value


# What each field may hold, and the form in which it does.
CHECKS = {
    "num_mel_bins": _check_size, "sampling_rate": _check_rate, "max_length": _check_size, "feature_size": _check_size,
    "pad_to_multiple_of": _check_multiple, "mean": _check_number, "std": _check_spread,
    "padding_value": _check_number, "do_normalize": _check_flag, "truncation": _check_flag,
    "return_attention_mask": _check_flag, "padding": _check_padding, "padding_side": _check_side,
}  # fmt: skip


class FFTPFeatureExtractor(SequenceFeatureExtractor):
    """Log-mel spectrograms of mono waveforms, equal to Kaldi's filterbank, normalised by (x - mean) / (2 std).

    Padding has one value in normalised space, `padding_value`, whether it is added here, by `pad` in a collator or by
    a pipeline that batches; the frames that hold it are 0 in `attention_mask`, and the models ignore them.

    Source: Gong et al. 2021 (AST), section 2.1 and `dataloader.py` of the reference implementation, for the front end
    and the normalisation.

    Args:
        num_mel_bins: Number of mel bins.
        sampling_rate: Rate of the waveforms in Hz.
        max_length: Frames of 10 ms that `padding="max_length"` pads to and `truncation=True` cuts to, unless the call
            says otherwise.
        mean: Mean of the training audio's log-mel energies; the default is that of AudioSet.
        std: Their standard deviation; the default is that of AudioSet.
        do_normalize: Whether to normalise.
        padding: Padding of a call that names none: "longest", "max_length" or False.
        truncation: Whether a call that does not say so cuts clips to `max_length` frames.
        padding_value: Value of padded frames after normalisation.
        return_attention_mask: Whether calls return the mask unless they say otherwise.
        pad_to_multiple_of: Frames; a call that does not say so itself pads on to a multiple of these, so that clips of
            any length come in few shapes. torch.compile compiles a model once for each, for 8 of them at most.
        feature_size: Width of a frame as `pad` sees it; equal to `num_mel_bins` unless given.
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012

    def __init__(
        self,
        num_mel_bins: int = 128,
        sampling_rate: int = 16000,
        max_length: int = 1000,
        mean: float = -4.2677393,
        std: float = 4.5689974,
        do_normalize: bool = True,
        padding: str | bool = "longest",
        truncation: bool = False,
        padding_value: float = 0.0,
        return_attention_mask: bool = True,
        pad_to_multiple_of: int | None = None,
        feature_size: int | None = None,
        **kwargs,
    ):
        super().__init__(
            feature_size=_check_size("num_mel_bins", num_mel_bins) if feature_size is None else feature_size,
            sampling_rate=sampling_rate,
            padding_value=padding_value,
            **kwargs,
        )
        self.num_mel_bins = num_mel_bins
        self.max_length = max_length
        self.mean = mean
        self.std = std
        self.do_normalize = do_normalize
        self.padding = padding
        self.truncation = truncation
        self.return_attention_mask = return_attention_mask
        self.pad_to_multiple_of = pad_to_multiple_of

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field, whenever that is, in the form that JSON holds: settings come from NumPy and torch too.

        Raises:
            ValueError: A value that the field cannot have.
        """
        super().__setattr__(name, CHECKS[name](name, value) if name in CHECKS else value)

    def __call__(
        self,
        raw_speech: Waveform | list[Waveform],
        sampling_rate: int | None = None,
        padding: str | bool | None = None,
        max_length: int | None = None,
        truncation: bool | None = None,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | TensorType | None = None,
        device: str | torch.device = "cpu",
    ) -> BatchFeature:
        """Compute the features of one waveform or of a batch.

        Args:
            raw_speech: One mono waveform (samples,) or a list of them; a 2-D array (batch, samples) is a batch. Floats
                in [-1, 1]; int8, int16, int32 and uint8 are taken as PCM and divided by their full range. Clips
                shorter than one window of 25 ms are padded with zeros to one window. A clip may also be what
                `datasets` gives: an `AudioDecoder` of torchcodec, whose channels are averaged, or a dict with "array"
                and "sampling_rate".
            sampling_rate: Rate of `raw_speech` in Hz, checked against the extractor's.
            padding: "longest" (or True), "max_length", or False for a list of unequal lengths.
            max_length: Frames to pad or truncate to, instead of the extractor's.
            truncation: Whether to cut clips to `max_length` frames.
            pad_to_multiple_of: Pad to a length in frames that is a multiple of this, instead of the extractor's.
            return_attention_mask: Whether to return the mask.
            return_tensors: "pt", or "np"; None gives arrays, and lists of arrays with `padding=False`.
            device: Device to compute on. "pt" tensors stay on this device.

        Returns:
            `input_values`, (batch, frames, mel bins), float32, and `attention_mask`, (batch, frames), int64, 1 at real
            frames.

        Raises:
            ValueError: Wrong rate, no clips, an empty clip, NaN or infinite samples, more than one channel, or an
                argument that makes no sense.
        """
        if return_tensors not in (None, "pt", "np"):
            raise ValueError(f"return_tensors={return_tensors!r}; expected 'pt', 'np' or None")
        clips = as_clips(raw_speech)
        if not all(has_own_rate(clip) for clip in clips):
            self._check_sampling_rate(sampling_rate)
        padding = _check_padding("padding", self.padding if padding is None else padding)
        truncates = _check_flag("truncation", self.truncation if truncation is None else truncation)
        returns_mask = self.return_attention_mask if return_attention_mask is None else return_attention_mask
        returns_mask = _check_flag("return_attention_mask", returns_mask)
        max_length = self.max_length if max_length is None else _check_size("max_length", max_length)
        if max_length >= self.sampling_rate:
            logger.warning_once(
                f"max_length={max_length} counts frames of 10 ms, not samples: {max_length / 100:g} s of sound"
            )
        waveforms = self._to_waveforms(clips, torch.device(device))
        if truncates:
            limit = num_samples(max_length, self.sampling_rate)
            waveforms = [waveform[:limit] for waveform in waveforms]
        features, starts = log_mel_of_clips(waveforms, self.num_mel_bins, self.sampling_rate)
        if self.do_normalize:
            features = self.normalize(features)
        counts = [num_frames(len(waveform), self.sampling_rate) for waveform in waveforms]
        if padding or return_tensors is not None:
            multiple = _check_multiple("pad_to_multiple_of", pad_to_multiple_of) or self.pad_to_multiple_of
            length = self._batch_length(counts, padding, max_length, multiple)
            features, masks = _pad_rows(features, starts, counts, length, self.padding_value)
        else:
            features = [features[start : start + count] for start, count in zip(starts, counts, strict=True)]
            masks = [features[0].new_ones(count, dtype=torch.long) for count in counts]
        encoded = {"input_values": features}
        if returns_mask:
            encoded["attention_mask"] = masks
        if return_tensors != "pt":
            encoded = {
                name: [item.cpu().numpy() for item in value] if isinstance(value, list) else value.cpu().numpy()
                for name, value in encoded.items()
            }
        return BatchFeature(encoded)

    @property
    def masks_batches(self) -> bool:
        """Whether batches have masks: on request, and where padding depends on the other clips."""
        return self.return_attention_mask or self.padding != "max_length"

    def extract_batch(
        self, waveforms: torch.Tensor | list[torch.Tensor], return_attention_mask: bool | None = None
    ) -> BatchFeature:
        """Features of a batch by the extractor's own settings; sound must be at its rate and on its device.

        Args:
            waveforms: (samples,) each, or (batch, samples), on one device.
            return_attention_mask: Whether to return the mask; None is `masks_batches`.

        Returns:
            What a call returns with `return_tensors="pt"`. Clips that are padded to no fixed length are masked: each
            counts as it does alone.

        Raises:
            ValueError: As a call does.
        """
        return self(
            waveforms,
            sampling_rate=self.sampling_rate,
            padding=self.padding or "longest",
            return_attention_mask=self.masks_batches if return_attention_mask is None else return_attention_mask,
            return_tensors="pt",
            device=waveforms[0].device,
        )

    def pad_batch(self, features: list[np.ndarray], return_attention_mask: bool | None = None) -> BatchFeature:
        """The batch that `extract_batch` makes, from features that a call made with `padding=False`.

        Args:
            features: (frames, mel bins) each, normalised.
            return_attention_mask: See `extract_batch`.

        Raises:
            ValueError: As a call does where they are too long.
        """
        if self.truncation:
            features = [clip[: self.max_length] for clip in features]
        length = self._batch_length(
            [len(clip) for clip in features], self.padding or "longest", self.max_length, self.pad_to_multiple_of
        )
        is_masked = self.masks_batches if return_attention_mask is None else return_attention_mask
        batch = {"input_values": features}
        if is_masked:
            # Known, not found: a clip may end in what equals padding, such as silence.
            batch["attention_mask"] = [np.ones(len(clip), dtype=np.int32) for clip in features]
        return self.pad(
            batch, padding="max_length", max_length=length, return_attention_mask=is_masked, return_tensors="pt"
        )

    def save_pretrained(self, save_directory: str | os.PathLike, *args, **kwargs) -> list[str]:
        """Save the settings, without Auto classes of a checkpoint whose code lies in another repository."""
        if given := getattr(self, "auto_map", None):
            self.auto_map = {name: code for name, code in given.items() if "--" not in str(code)}
        return super().save_pretrained(save_directory, *args, **kwargs)

    def pad(self, processed_features, padding: bool | str = True, *args, **kwargs) -> BatchFeature:
        """As `SequenceFeatureExtractor.pad`, by which collators of transformers batch features that they are given.

        Where their masks were lost, as with scripts that keep `input_values` alone, they are found again.
        """
        if self.padding == "max_length" and padding in (True, "longest"):
            logger.warning_once(
                "pad() pads to the longest clip, and cuts nothing, unlike this extractor where it makes features; "
                "SpecMaskDataCollator follows its settings"
            )
        return super().pad(processed_features, padding, *args, **kwargs)

    def _pad(
        self, processed_features: dict[str, np.ndarray], *args, return_attention_mask: bool | None = None, **kwargs
    ) -> dict[str, np.ndarray]:
        """Pad one clip, of which transformers would take all frames for real where it has no mask."""
        clip = processed_features["input_values"]
        if return_attention_mask and "attention_mask" not in processed_features and clip.ndim == 2:
            is_real = np.arange(len(clip)) < count_real_frames(clip, self.padding_value)
            processed_features["attention_mask"] = is_real.astype(np.int32)
        return super()._pad(processed_features, *args, return_attention_mask=return_attention_mask, **kwargs)

    def to_waveform(self, clip: Waveform, index: int = 0, device: str | torch.device = "cpu") -> torch.Tensor:
        """A clip in any form that calls take as samples (samples,), float32, of at least one; no gradient reaches it.

        Args:
            clip: One recording.
            index: Its place in the batch, for messages.
            device: Device to put it on.

        Raises:
            ValueError: Another rate than the extractor's, more than one channel, no samples, or an unknown type.
        """
        _leave_lost_threads()
        if isinstance(clip, (str, bytes, bytearray, PathLike)):
            raise ValueError(f"clip {index} is {type(clip).__name__}; expected samples, such as read_audio gives")
        clip = read_samples(clip, index, self.sampling_rate)
        if not isinstance(clip, torch.Tensor):
            # torch shares memory with arrays; it warns where that is read-only, as in data sets, and refuses what is
            # reversed or has another machine's byte order.
            clip = np.asarray(clip)
            if clip.dtype.kind not in "biuf":
                raise ValueError(f"clip {index} holds {clip.dtype} values; expected samples, such as read_audio gives")
            clip = np.require(clip, clip.dtype.newbyteorder("="), requirements="CW")
        samples = clip.detach() if isinstance(clip, torch.Tensor) else torch.as_tensor(clip, device="cpu")
        if samples.ndim == 2 and 1 in samples.shape:
            # One channel, as torchaudio and soundfile give it.
            samples = samples.flatten()
        if samples.ndim != 1:
            raise ValueError(
                f"clip {index} has shape {tuple(samples.shape)}; expected one channel, (samples,): mix it down first"
            )
        if not len(samples):
            raise ValueError(f"clip {index} is empty: expected at least one sample")
        # Not every device has float64.
        return pcm_to_float(samples, index).to(device)

    def normalize(self, features: torch.Tensor) -> torch.Tensor:
        """Map log-mel energies to the space that the models see: (x - mean) / (2 std)."""
        return (features - self.mean).div_(2 * self.std)

    def measure(self, clips: Iterable[Waveform]) -> tuple[float, float]:
        """Mean and standard deviation of the log-mel energies of clips, over all cells, summed in float64.

        Assign them to `mean` and `std` before training, so that features of this audio come out normalised.

        Raises:
            ValueError: No clips, clips with the same energy everywhere, or a clip that a call would refuse.
        """
        count, total, squares = 0, 0.0, 0.0
        for clip in clips:
            waveforms = self._to_waveforms([clip], torch.device("cpu"))
            energies = log_mel_of_clips(waveforms, self.num_mel_bins, self.sampling_rate)[0].double()
            count += energies.numel()
            total += float(energies.sum())
            squares += float(energies.square().sum())
        if not count:
            raise ValueError("no clips: expected at least one to measure")
        mean = total / count
        std = sqrt(max(0.0, squares / count - mean**2))
        if not std:
            raise ValueError("the clips have the same energy everywhere: a constant or silence")
        return mean, std

    @staticmethod
    def _batch_length(counts: list[int], padding: str | bool, max_length: int, multiple: int | None) -> int:
        """Frames that every clip of a batch gets."""
        length = max(counts)
        if not padding:
            if min(counts) < length:
                raise ValueError(
                    f"clips of {min(counts)} to {length} frames cannot form one tensor with padding=False; pass "
                    "padding='longest'"
                )
            return length
        if padding == "max_length":
            if length > max_length:
                raise ValueError(
                    f"a clip has {length} frames, more than max_length={max_length} to pad to; pass "
                    "truncation=True to cut it"
                )
            length = max_length
        return -(-length // multiple) * multiple if multiple else length

    def _check_sampling_rate(self, sampling_rate: int | None) -> None:
        if sampling_rate is None:
            logger.warning_once(
                f"No sampling_rate was passed to {type(self).__name__}; the sound is taken to be at "
                f"{self.sampling_rate} Hz. Pass sampling_rate to have it checked."
            )
        elif _as_number("sampling_rate", sampling_rate) != self.sampling_rate:
            raise ValueError(
                f"The sound is at {sampling_rate} Hz, this feature extractor expects {self.sampling_rate} Hz; "
                "resample it first (for example with soxr.resample)"
            )

    def _to_waveforms(self, clips: list[Waveform], device: torch.device) -> list[torch.Tensor]:
        """Checked float32 waveforms, each at least one window long."""
        if not len(clips):
            raise ValueError("no clips: expected at least one waveform, got an empty batch")
        waveforms = [self.to_waveform(clip, index, device) for index, clip in enumerate(clips)]
        # NaN is passed on; one look at all of them waits for a GPU once.
        peaks = torch.stack([torch.stack(wave.aminmax()) for wave in waveforms]).abs().amax(dim=1).tolist()
        for index, (waveform, peak) in enumerate(zip(waveforms, peaks, strict=True)):
            if not peak <= LARGEST_SAMPLE:
                refuse_samples(waveform, index)
        if max(peaks) > LARGEST_FLOAT:
            logger.warning_once(
                "Samples reach far beyond [-1, 1]. Floats in the range of int16 must be divided by 32768, or the "
                "model hears them much louder than what it learned from"
            )
        shortest = window_length(self.sampling_rate)
        return [
            torch.nn.functional.pad(waveform, (0, shortest - len(waveform))) if len(waveform) < shortest else waveform
            for waveform in waveforms
        ]


def count_real_frames(features: np.ndarray, padding_value: float) -> int:
    """Frames before the padding of one clip whose mask was lost.

    Args:
        features: (frames, mel bins), as an extractor makes them.
        padding_value: What it pads with.
    """
    # No sound has the value of padding in all bins of its last frames.
    places = np.flatnonzero((features != padding_value).any(axis=-1))
    # Features of nothing but that value stand for a clip where somebody tries a model out.
    return int(places[-1]) + 1 if len(places) else len(features)


def _leave_lost_threads() -> None:
    """Let a forked process begin with one thread, as torch does with loader workers.

    OpenMP's threads do not survive a fork: in a child of a process that has used them, as of `datasets.map(num_proc=)`
    after `measure`, torch would wait for them without an end. Such a child may not choose more threads later either. A
    child that only then imports this is not known as one.
    """
    if not FORKED:
        return
    FORKED.clear()
    if torch.get_num_threads() > 1:
        logger.warning("A forked process, without the threads of the one it comes from: torch computes on one here")
        torch.set_num_threads(1)


def _pad_rows(
    rows: torch.Tensor, starts: list[int], counts: list[int], length: int, value: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips that lie one after another in rows, as a batch (clips, length, columns) with a mask (clips, length)."""
    if counts == [length]:
        return rows[None], rows.new_ones(1, length, dtype=torch.long)
    position = torch.arange(length, device=rows.device)
    mask = position < torch.tensor(counts, device=rows.device)[:, None]
    index = torch.tensor(starts, device=rows.device)[:, None] + position
    # Whole rows are selected, and only those of padding written, instead of indexing and masking every cell.
    batch = rows.index_select(0, index.clamp_(max=len(rows) - 1).flatten()).unflatten(0, mask.shape)
    batch[~mask] = value
    return batch, mask.long()


__all__ = ["FFTPFeatureExtractor"]
