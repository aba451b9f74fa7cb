"""Labels per step of a batch for frame classifiers: `SpecMaskDataCollator(step_labels=...)` takes either."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from feature_extraction.events import read_events
from modeling_fftp import FFTPConfig
from modeling_fftp.events_fftp import Event, events_to_labels
from modeling_fftp.loss_fftp import IGNORED


@dataclass
class EventLabels:
    """Targets from the events of each clip.

    Args:
        config: Says when each step is, and what labels there are.
    """

    config: FFTPConfig
    # So that a collator moves them with the sound.
    takes_events: ClassVar[bool] = True

    def __call__(
        self, events: Sequence[Sequence[Event]], num_frames: Sequence[int], time_stride: int | None = None
    ) -> torch.Tensor:
        """Targets (batch, most steps, labels), float32, -100 in padding.

        Args:
            events: Events of each clip, in any form that `read_events` takes.
            num_frames: Real frames of each clip.
            time_stride: Frames between steps; None is the model's.

        Raises:
            ValueError: As `events_to_labels`.
        """
        num_steps = [self.config.time_patches(count, time_stride) for count in num_frames]
        targets = events_to_labels(self.config, [read_events(clip) for clip in events], num_steps, time_stride)
        # So that metrics can tell padding from silence.
        for target, count in zip(targets, num_steps, strict=True):
            target[count:] = IGNORED
        return targets


@dataclass
class StepLabels:
    """Labels that clips have for each of their steps.

    Args:
        config: Says how many steps a clip has.
    """

    config: FFTPConfig

    def __call__(self, labels: Sequence[Sequence], num_frames: Sequence[int]) -> torch.Tensor:
        """Indices (batch, most steps), int64, or targets, float32, -100 in padding.

        Args:
            labels: Labels of each clip: indices (steps,), numbers of a regression (steps,), which are floats, or
                targets (steps, labels).
            num_frames: Real frames of each clip.

        Raises:
            ValueError: A clip has more or fewer labels than steps.
        """
        clips = [torch.as_tensor(np.asarray(clip), device="cpu") for clip in labels]
        for index, (clip, frames) in enumerate(zip(clips, num_frames, strict=True)):
            if len(clip) != self.config.time_patches(frames):
                raise ValueError(
                    f"clip {index} has labels for {len(clip)} steps; its {frames} frames are "
                    f"{self.config.time_patches(frames)} steps"
                )
        are_indices = not any(clip.ndim > 1 or clip.is_floating_point() for clip in clips)
        clips = [clip.long() if are_indices else clip.float() for clip in clips]
        return pad_sequence(clips, batch_first=True, padding_value=IGNORED)
