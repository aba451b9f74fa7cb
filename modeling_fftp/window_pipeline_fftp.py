"""What pipelines over recordings of any length share: windows that slide over the sound as it is read."""

from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from math import inf
from operator import itemgetter
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from transformers import SequenceFeatureExtractor
from transformers.pipelines.base import ChunkPipeline
from transformers.utils import logging

from .audio_stream_fftp import BUFFERS, path_in_errors, read_blocks, sliding_windows, sound_seconds, source_name
from .configuration_fftp import FFTPConfig
from .heads_fftp import bare_model
from .times_fftp import (
    count_frames,
    frame_seconds,
    join_steps,
    longest_frames,
    refuse_wide_stride,
    token_spans,
    window_seconds,
)

logger = logging.get_logger(__name__)

# Floats that reach as far are no sound in [-1, 1]; the extractor has the same limit.
LARGEST_FLOAT = 8.0
# Arguments whose values are texts.
TEXTS = ("aggregation", "per")
# What `pipeline()` passes on although it is for loading.
LOADER_ARGUMENTS = {"local_files_only", "framework"}


def check_extractor(feature_extractor: SequenceFeatureExtractor, config: FFTPConfig) -> None:
    """Refuse an extractor whose features are not those that a model knows.

    Raises:
        ValueError: It is for sound at another rate, or gives other mel bins.
    """
    for name, unit in (("sampling_rate", "Hz"), ("num_mel_bins", "mel bins")):
        # Those of other packages, and of older versions of this one, do not say all.
        given, expected = getattr(feature_extractor, name, None), getattr(config, name, None)
        if None not in (given, expected) and given != expected:
            raise ValueError(f"the feature extractor has {name}={given} {unit}; the model's config {expected} {unit}")


def refuse_texts(arguments: Mapping[str, Any]) -> None:
    """Refuse texts for numbers, as web services find them in their queries.

    Raises:
        ValueError: There is one.
    """
    for name, value in arguments.items():
        if isinstance(value, str) and name not in TEXTS:
            raise ValueError(f"{name}={value!r} is a text; expected a number, or True or False")


class FFTPWindowPipeline(ChunkPipeline):
    """A pipeline that sees a recording through windows; sound is read from disk as they need it.

    Files are read by soundfile (no ffmpeg), channels are averaged, other rates are resampled by soxr. A recording that
    is not longer than a window is one window of its own length, without padding. A subclass gets the features of each
    window with "span", its first sample and that behind its last, and "is_last".
    """

    task_name: ClassVar[str]

    _load_feature_extractor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_processor = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # A model that comes from a training would drop other features and layers at every call.
        if isinstance(self.model, nn.Module):
            if self.model.training:
                logger.warning("The model is set to evaluation; call model.train() before it trains on")
            self.model.eval()
        check_extractor(self.feature_extractor, self.model.config)

    @property
    def bare_model(self) -> nn.Module:
        """The model behind adapters of PEFT and torch.compile."""
        return bare_model(self.model)

    @property
    def window_seconds(self) -> float:
        """Length of a window by default."""
        return window_seconds(self.model.config, self.feature_extractor)

    def _sanitize_parameters(self, **given) -> tuple[dict, dict, dict]:
        # What each of the three steps takes beside its input. Only what was given is returned: transformers merges it
        # with what was given to the constructor.
        steps = [[*signature(step).parameters][1:] for step in (self.preprocess, self._forward, self.postprocess)]
        names = [*dict.fromkeys(name for step in steps for name in step)]
        if unknown := sorted(given.keys() - names - LOADER_ARGUMENTS):
            raise TypeError(f"{self.task_name} has no argument {unknown[0]!r}; it has {names}")
        refuse_texts({name: given[name] for name in names if name in given})
        return tuple({name: given[name] for name in step if name in given} for step in steps)

    def __call__(self, inputs: Any, *args, **kwargs) -> dict[str, Any] | list[dict[str, Any]]:
        """As in the class. Recordings of a list share batches with those of about their length: little is padded."""
        batch_size = kwargs.get("batch_size") or self._batch_size or 1
        refuse_texts(kwargs)
        self.check_windows(**kwargs)
        if isinstance(inputs, Sequence) and not isinstance(inputs, (str, *BUFFERS)):
            # Tuples, and columns of `datasets`.
            inputs = list(inputs)
        if isinstance(inputs, list) and not inputs:
            return []
        if not isinstance(inputs, list) or batch_size == 1:
            return super().__call__(inputs, *args, **kwargs)
        order = sorted(range(len(inputs)), key=lambda index: self._seconds(inputs[index]), reverse=True)
        answers = super().__call__([inputs[index] for index in order], *args, **kwargs)
        return [answer for _, answer in sorted(zip(order, answers, strict=True), key=itemgetter(0))]

    def check_windows(self, **given: Any) -> tuple[float, float]:
        """Length of a window, and from one to the next, in seconds, by the arguments of a call and the constructor's.

        Raises:
            ValueError: Windows that are too long or leave gaps, or a stride that is no shorter than a window.
        """
        given = {**self._preprocess_params, **self._forward_params, **given}
        window_seconds, hop_seconds = given.get("window_seconds"), given.get("hop_seconds")
        rate = self.feature_extractor.sampling_rate
        longest = longest_frames(self.feature_extractor) * frame_seconds(rate)[1]
        window = self.window_seconds if window_seconds is None else window_seconds
        if window > longest:
            raise ValueError(f"window_seconds={window}; the feature extractor cuts or pads to {longest:g} s")
        if not 1 <= window * rate < inf:
            raise ValueError(f"window_seconds={window} must be positive and finite, a sample or more at {rate} Hz")
        hop = window / 2 if hop_seconds is None else hop_seconds
        if not 0 < hop <= window:
            raise ValueError(f"hop_seconds={hop} must lie between 0 and window_seconds={window}")
        if (time_stride := given.get("time_stride")) is not None:
            refuse_wide_stride(self.model.config, time_stride, window)
        return window, hop

    def _seconds(self, source: Any) -> float:
        with path_in_errors(source):
            return sound_seconds(source, self.feature_extractor.sampling_rate)

    def preprocess(
        self, inputs: Any, window_seconds: float | None = None, hop_seconds: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """Features of one window at a time.

        Args:
            inputs: Anything that `read_blocks` takes.
            window_seconds: Length of a window; the default is that of the model's position table, or what the
                extractor cuts or pads to, which no window exceeds.
            hop_seconds: Seconds from one window to the next; the default is half a window.

        Raises:
            ValueError: Sound that cannot be read, or as `check_windows`.
        """
        rate = self.feature_extractor.sampling_rate
        frame_length, _ = frame_seconds(rate)
        # The stride of this call, which is not known here, was checked with it.
        given = {"window_seconds": window_seconds, "hop_seconds": hop_seconds, "time_stride": None}
        window, hop = self.check_windows(**given)
        window, hop = round(window * rate), max(1, round(hop * rate))
        # So many shifts give no frame more until they are a frame longer: a clip of 1 s, which is 98 frames, is whole.
        slack = round(frame_length * rate) - 1
        with path_in_errors(inputs):
            blocks = self._name_loud(read_blocks(inputs, rate), inputs)
            for start, samples, is_last in sliding_windows(blocks, window, hop, slack):
                # With a mask where windows of a batch are padded, whatever the extractor says of single clips.
                features = self.feature_extractor.extract_batch([torch.from_numpy(samples)])
                if self.dtype is not None:
                    features["input_values"] = features["input_values"].to(self.dtype)
                # In samples: not every device has float64.
                span = torch.tensor([[start, start + len(samples)]], device="cpu")
                yield {**features, "span": span, "is_last": is_last}

    @staticmethod
    def _name_loud(blocks: Iterator[np.ndarray], source: Any) -> Iterator[np.ndarray]:
        """Blocks as they are; the log names the source, which may be one of many, if they reach far beyond [-1, 1]."""
        is_named = False
        for block in blocks:
            peak = np.abs(block).max(initial=0.0)
            if peak > LARGEST_FLOAT and not is_named:
                is_named = True
                logger.warning(
                    "%s: samples reach %.3g; expected [-1, 1]. The model hears it much louder than it is",
                    source_name(source),
                    peak,
                )
            yield block

    def count_steps(self, span: torch.Tensor, time_stride: int | None) -> torch.Tensor:
        """Steps of each window (batch, 1) without padding, which the extractor of the model need not mask.

        Args:
            span: First sample of each window and that behind its last, (batch, 2).
            time_stride: Frames between patches; None is the model's.
        """
        frames = count_frames(span.diff(dim=1), self.feature_extractor.sampling_rate)
        return self.bare_model.config.time_patches(frames, time_stride)

    def join_steps(
        self, rows: Sequence[torch.Tensor], windows: torch.Tensor, time_stride: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What is known of each step of a recording, (steps, ...), and start and end of each in seconds, (steps, 2).

        Args:
            rows: What is known of the steps of each window, (steps, ...).
            windows: Start and end of the windows in seconds, (windows, 2).
            time_stride: Frames between patches; None is the model's.
        """
        spans = [token_spans(self.bare_model.config, len(one), time_stride) for one in rows]
        kept, spans = join_steps(windows, spans)
        return torch.cat([one[index] for one, index in zip(rows, kept, strict=True)]), spans

    def spans(self, model_outputs: list[dict[str, Any]]) -> torch.Tensor:
        """Start and end in seconds of every window of a recording, (windows, 2), float64."""
        return torch.cat([output["span"] for output in model_outputs]).double() / self.feature_extractor.sampling_rate


__all__ = ["FFTPWindowPipeline"]
