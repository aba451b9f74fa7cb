"""Scores of sound that does not end: samples in, as they come, and scores out at every hop."""

from collections.abc import Iterator, Sequence
from math import inf
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import SequenceFeatureExtractor

from .audio_stream_fftp import LARGEST_SAMPLE
from .cache_fftp import FFTPCache, find_obstacle
from .events_fftp import EventChange, EventTracker
from .heads_fftp import CLIPS, bare_model, find_task
from .scores_fftp import is_regression, label_names, label_thresholds, probabilities
from .times_fftp import frame_seconds, longest_frames
from .window_pipeline_fftp import check_extractor


class StreamScores(NamedTuple):
    """The answer of a stream at one moment.

    Args:
        seconds: When: the end of the sound that was heard for it.
        scores: Score of every label, (labels,), float32 on the CPU.
        changes: Events that begin or end with them.
    """

    seconds: float
    scores: torch.Tensor
    changes: list[EventChange]


class FeatureStream:
    """Frames of the spectrogram, each once, as soon as its samples are there; those that the extractor gives for all.

    Args:
        feature_extractor: `FFTPFeatureExtractor` of a model.
    """

    def __init__(self, feature_extractor: SequenceFeatureExtractor):
        self.feature_extractor = feature_extractor
        rate = feature_extractor.sampling_rate
        self.window, self.hop = (round(seconds * rate) for seconds in frame_seconds(rate))
        # Samples so far, in whatever form they came.
        self.num_samples = 0
        self.clear()

    def clear(self) -> None:
        """Forget samples that wait for a whole frame."""
        self.rest = torch.zeros(0, device="cpu")

    def push(self, samples: np.ndarray | torch.Tensor | Sequence[float]) -> torch.Tensor:
        """Take samples (samples,), floats in [-1, 1] or integer PCM; give what frames they complete.

        Returns:
            (frames, mel bins), normalised, float32; often none.
        """
        if len(samples):
            samples = self.feature_extractor.to_waveform(samples)
            # Before they join the others, which one of them would spoil.
            if not samples.isfinite().all():
                raise ValueError(f"{int(samples.isfinite().logical_not().sum())} samples are NaN or infinite")
            if (peak := samples.abs().max().item()) > LARGEST_SAMPLE:
                raise ValueError(f"samples reach {peak:.1e}; expected [-1, 1]")
            self.rest = torch.cat((self.rest, samples))
            self.num_samples += len(samples)
        count = max(0, (len(self.rest) - self.window) // self.hop + 1)
        if not count:
            return torch.zeros(0, self.feature_extractor.num_mel_bins, device="cpu")
        used = self.rest[: (count - 1) * self.hop + self.window]
        frames = self.feature_extractor(
            used, sampling_rate=self.feature_extractor.sampling_rate, padding="longest", truncation=False,
            pad_to_multiple_of=1, return_tensors="pt",
        )["input_values"][0]  # fmt: skip
        self.rest = self.rest[count * self.hop :].clone()
        return frames


class FFTPStream:
    """Scores of a stream of sound at every hop, in constant memory and at constant cost, for as long as it lasts.

    A model that only looks back goes on from its state, see `FFTPCache`: every token is computed once, and the scores
    are those of the whole sound so far, or with `memory_seconds` of its last part, which fades. Any other model looks
    at a window that slides, of which only the features are not computed again.

        stream = model.stream(extractor, hop_seconds=0.1)
        for block in blocks:
            for seconds, scores, changes in stream.push(block):
                print(seconds, model.config.id2label[int(scores.argmax())], changes)

    Args:
        model: `FFTPForAudioClassification` in evaluation mode. Its stride now is that of the stream.
        feature_extractor: The model's feature extractor.
        hop_seconds: Seconds from one set of scores to the next, rounded to whole tokens; default: one token with a
            state, and a tenth of the window for others, which compute all of it for every hop.
        memory_seconds: What "now" is. For a model with a state, the time after which sound counts half; default: all
            sound so far counts alike. For others, the window's length; default: that of the model's position table, or
            what the extractor cuts or pads to, which no window exceeds.
        threshold: Score at which an event begins; it ends at 0.8 of that. Default: the label's own, as in the pipeline
            "audio-tagging".

    Raises:
        ValueError: A hop, memory or threshold that is not positive, a threshold above 1, a window shorter than a patch
            or a hop, or longer than the extractor's, an extractor of another rate, or a model that is in training or
            no classifier of clips.
    """

    def __init__(
        self,
        model: nn.Module,
        feature_extractor: SequenceFeatureExtractor,
        hop_seconds: float | None = None,
        memory_seconds: float | None = None,
        threshold: float | None = None,
    ):
        self.model, self.features = model, FeatureStream(feature_extractor)
        given = {"memory_seconds": memory_seconds, "threshold": threshold, "hop_seconds": hop_seconds}
        for name, value in given.items():
            if value is not None and not 0 < value < inf:
                raise ValueError(f"{name}={value} must be positive and finite")
        config = model.config
        check_extractor(feature_extractor, config)
        if find_task(model) != CLIPS or is_regression(config):
            name = type(bare_model(model)).__name__
            raise ValueError(f"a stream needs a clip classifier; the model is a {name} for {config.problem_type}")
        self._refuse_training()
        self.frame_length, self.frame_shift = frame_seconds(config.sampling_rate)
        self.time_stride, self.patch_frames = config.time_stride, config.patch_frames()
        memory_frames = None if memory_seconds is None else memory_seconds / self.frame_shift
        self.cache, self.window_frames = None, None
        # onnxruntime runs whole clips.
        if find_obstacle(config) is None and hasattr(bare_model(model), "base_model"):
            self._half_life = None if memory_frames is None else memory_frames / self.time_stride
            self.cache = self._new_cache()
        else:
            self.window_frames = self._window_frames(memory_frames)
        hop = (self.window_frames or 0) / 10 if hop_seconds is None else hop_seconds / self.frame_shift
        self.hop_frames = max(1, round(hop / self.time_stride)) * self.time_stride
        # Hops are rounded to tokens.
        if self.window_frames is not None and self.hop_frames - self.time_stride >= self.window_frames:
            heard = (self.window_frames - 1) * self.frame_shift + self.frame_length
            raise ValueError(
                f"hop_seconds={self.hop_seconds:g}, and each look hears {heard:g} s: sound between looks would go "
                "unheard; expected a shorter hop or longer memory_seconds"
            )
        labels = label_names(config)
        self.tracker = EventTracker(labels, label_thresholds(labels, config.thresholds, threshold))
        self.num_skipped = 0
        self._begin()

    def set_threshold(self, threshold: float | None) -> None:
        """Let events begin at another score from now on; None is the label's own.

        Raises:
            ValueError: It is not above 0, so that no event would end, or above 1.
        """
        if threshold is not None and not threshold > 0:
            raise ValueError(f"threshold={threshold} must be positive")
        self.tracker.thresholds = label_thresholds(self.tracker.labels, self.model.config.thresholds, threshold)

    def _refuse_training(self) -> None:
        if self.model.training:
            raise ValueError("the model is in training mode, which would change its answers: call model.eval() first")

    def _new_cache(self) -> FFTPCache:
        """A state that has heard nothing."""
        return FFTPCache(self.model.config, 1, self.model.device, self.model.dtype, self._half_life)

    def _window_frames(self, memory_frames: float | None) -> int:
        """Length of the window, as asked for or as the model was trained."""
        longest = longest_frames(self.features.feature_extractor)
        if memory_frames is None:
            return min(self.model.config.max_length, longest)
        frames = round(memory_frames)
        if not self.patch_frames <= frames <= longest:
            raise ValueError(
                f"memory_seconds are {frames} frames; expected at least a patch of {self.patch_frames}, and no more "
                f"than the {longest} that the extractor cuts or pads to"
            )
        return frames

    def _begin(self) -> None:
        """Begin to count frames and hops, at the sample that comes next."""
        self.features.clear()
        self.began = self.num_samples / self.features.feature_extractor.sampling_rate
        # Frames that are still needed, and the number of the first of them.
        self.frames = torch.zeros(0, self.model.config.num_mel_bins, device="cpu")
        self.first, self.num_hops = 0, 0

    @property
    def num_samples(self) -> int:
        """Samples since the stream began, those that were lost among them."""
        return self.features.num_samples + self.num_skipped

    @property
    def hop_seconds(self) -> float:
        """Seconds from one set of scores to the next."""
        return self.hop_frames * self.frame_shift

    def push(self, samples: np.ndarray | torch.Tensor | Sequence[float]) -> list[StreamScores]:
        """Take the next samples, any number of them, and give the scores of the hops that they complete.

        Args:
            samples: (samples,) at the extractor's rate, floats in [-1, 1] or integer PCM.

        Returns:
            Scores of each hop, in order of time; often none.

        Raises:
            ValueError: Samples that the extractor refuses, or a model that is in training; the stream stays as it was.
        """
        return [*self.iterate(samples)]

    @torch.no_grad()
    def iterate(self, samples: np.ndarray | torch.Tensor | Sequence[float]) -> Iterator[StreamScores]:
        """As `push`, but the scores of a hop come before the next is computed."""
        self._refuse_training()
        # Samples that complete no frame cost no copy of the window.
        if len(frames := self.features.push(samples)):
            self.frames = torch.cat((self.frames, frames))
        before = self.first
        while self.first + len(self.frames) >= (end := self._end(self.num_hops)):
            answer = self._answer(end)
            self.num_hops += 1
            # What comes next ends later, so its window does not begin before this one's.
            needed = self.num_hops * self.hop_frames if self.cache is not None else end - self.window_frames
            unneeded = min(max(0, needed - self.first), len(self.frames))
            self.frames, self.first = self.frames[unneeded:], self.first + unneeded
            yield answer
        if self.first > before:
            # Without what is no longer needed.
            self.frames = self.frames.clone()

    def skip(self, num_samples: int) -> list[StreamScores]:
        """Go on after samples that were lost: times count them, and nothing is heard over the gap.

        A state stays as it is; a window begins anew.

        Returns:
            Scores of what came before the gap and did not fill a hop, as of `flush`.

        Raises:
            ValueError: A negative number, or a part of a sample.
        """
        if num_samples < 0 or num_samples % 1:
            raise ValueError(f"num_samples={num_samples} must not be negative, and whole")
        if not num_samples:
            return []
        answers = self.flush()
        self.num_skipped += num_samples
        self._begin()
        return answers

    @torch.no_grad()
    def flush(self) -> list[StreamScores]:
        """Scores of what does not fill a hop, where the stream ends; none if less than a token is left.

        Raises:
            ValueError: The model is in training.
        """
        self._refuse_training()
        end = self.first + len(self.frames)
        # The last whole patch.
        end -= (end - self.patch_frames) % self.time_stride
        last = self._end(self.num_hops - 1) if self.num_hops else self.patch_frames - self.time_stride
        answers = [self._answer(end)] if end > last else []
        self._begin()
        return answers

    def finish(self) -> list[EventChange]:
        """End the recording: what begins or ends with the rest of the sound, and the end of what still sounds.

        What is pushed after it is another recording, of which times go on.
        """
        changes = [change for answer in self.flush() for change in answer.changes]
        if self.cache is not None:
            self.cache = self._new_cache()
        return changes + self.tracker.finish(self.num_samples / self.features.feature_extractor.sampling_rate)

    def _end(self, hop: int) -> int:
        """The frame after the last that a hop, counted from 0, hears."""
        return (hop + 1) * self.hop_frames - self.time_stride + self.patch_frames

    def _answer(self, end: int) -> StreamScores:
        """Answer for what is heard before a frame: new tokens, or a window."""
        start = self.num_hops * self.hop_frames if self.cache is not None else max(0, end - self.window_frames)
        scores = self._score(self.frames[start - self.first : end - self.first])
        seconds = self.began + (end - 1) * self.frame_shift + self.frame_length
        return StreamScores(seconds, scores, self.tracker.update(seconds, scores))

    def _score(self, frames: torch.Tensor) -> torch.Tensor:
        """Scores (labels,) of a piece of the stream, or of a window."""
        if self.cache is not None:
            inputs = {"input_values": frames[None], "cache_params": self.cache}
        else:
            # As the extractor pads what is not heard live.
            inputs = self.features.feature_extractor.pad_batch([frames.numpy()])
        inputs = {
            name: value.to(self.model.device) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        }
        inputs["input_values"] = inputs["input_values"].to(self.model.dtype)
        logits = self.model(**inputs, time_stride=self.time_stride).logits[0].float()
        return probabilities(logits, self.model.config).cpu()
