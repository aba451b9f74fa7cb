"""Augmentation of normalised spectrograms for training; draws and applies as `waveform_augmentation` does."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from .events import Event, roll_events
from .limits import check_count, check_limits
from .randomness import integers, uniform
from .spec_mask import valid_frames


class SpectrogramTransform:
    """Base of what changes normalised spectrograms (batch, frames, mel bins) without changing their length."""

    # Whether sound stands elsewhere in time afterwards, so that labels per step would be wrong, and whether events can
    # follow it.
    moves_in_time = False
    moves_events = False

    def draw(
        self, input_values: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Any]:
        """Parameters for clips of these lengths in frames, (batch,); keyword arguments of `apply`."""
        raise NotImplementedError

    def apply(self, input_values: torch.Tensor, lengths: torch.Tensor, **parameters: torch.Tensor) -> torch.Tensor:
        """The changed spectrograms."""
        raise NotImplementedError

    def move(
        self, events: list[list[Event]], lengths: torch.Tensor, frame_shift: float, **parameters: torch.Tensor
    ) -> list[list[Event]]:
        """The events of each clip where the changed spectrogram has them, of what moves in time and can say so."""
        raise NotImplementedError

    def __call__(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Draw and apply; what stands in padded frames stays as it is."""
        return self.with_events(input_values, attention_mask, generator)[0]

    def with_events(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None,
        generator: torch.Generator | None,
        events: list[list[Event]] | None = None,
        frame_shift: float = 0.01,
    ) -> tuple[torch.Tensor, list[list[Event]] | None]:
        """Draw and apply, and move events along; from frame to frame there are `frame_shift` seconds."""
        is_valid = valid_frames(input_values, attention_mask)
        lengths = is_valid.sum(dim=1)
        parameters = self.draw(input_values, lengths, generator)
        changed = self.apply(input_values, lengths, **parameters)
        if events is not None and self.moves_in_time:
            events = self.move(events, lengths, frame_shift, **parameters)
        return torch.where(is_valid[..., None], changed, input_values), events


@dataclass
class TimeRoll(SpectrogramTransform):
    """Rolls each clip along time by up to `max_frames` frames, around its own end (AST's and AuM's recipe)."""

    max_frames: int = 10
    moves_in_time = True
    moves_events = True

    def __post_init__(self):
        self.max_frames = check_count("max_frames", self.max_frames, 0)

    def draw(
        self, input_values: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Frames to roll by, (batch,)."""
        return {"shift": integers(lengths.shape, generator, -self.max_frames, self.max_frames + 1)}

    def apply(self, input_values: torch.Tensor, lengths: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Frame t comes from t - shift, modulo the clip's length."""
        frames = torch.arange(input_values.shape[1], device=input_values.device)
        source = (frames - shift.to(frames.device)[:, None]) % lengths.clamp(min=1)[:, None]
        return input_values.gather(1, source[..., None].expand_as(input_values))

    def move(
        self, events: list[list[Event]], lengths: torch.Tensor, frame_shift: float, shift: torch.Tensor
    ) -> list[list[Event]]:
        """Roll the events too."""
        return [
            roll_events(clip, frames * frame_shift, length * frame_shift)
            for clip, frames, length in zip(events, shift.tolist(), lengths.tolist(), strict=True)
        ]


@dataclass
class UniformNoise(SpectrogramTransform):
    """Adds uniform noise whose height is itself uniform in [0, `max_amplitude`] per clip (AST's and AuM's recipe)."""

    max_amplitude: float = 0.1

    def __post_init__(self):
        check_limits(max_amplitude=self.max_amplitude)

    def draw(
        self, input_values: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Noise, (batch, frames, mel bins)."""
        amplitude = uniform((len(lengths), 1, 1), generator, high=self.max_amplitude)
        return {"noise": uniform(input_values.shape, generator).mul_(amplitude)}

    def apply(self, input_values: torch.Tensor, lengths: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Add the noise."""
        return input_values + noise.to(input_values)


@dataclass
class RandomGain(SpectrogramTransform):
    """Changes loudness: adds one offset per clip, uniform within +-`max_offset`, in normalised log units."""

    max_offset: float = 0.25

    def __post_init__(self):
        check_limits(max_offset=self.max_offset)

    def draw(
        self, input_values: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Offsets, (batch, 1, 1)."""
        return {"offset": uniform((len(lengths), 1, 1), generator, -self.max_offset, self.max_offset)}

    def apply(self, input_values: torch.Tensor, lengths: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """Add the offsets."""
        return input_values + offset.to(input_values)


@dataclass
class FilterAugment(SpectrogramTransform):
    """Colours each clip as another microphone or room would: a random piecewise linear offset over the mel bins.

    Source: Nam, Kim and Park 2022, FilterAugment, linear type.

    Args:
        max_offset: Largest offset, up or down, in normalised log units.
        num_bands: Pieces; the ends of the inner ones lie at random.
    """

    max_offset: float = 0.25
    num_bands: int = 4

    def __post_init__(self):
        check_limits(max_offset=self.max_offset)
        self.num_bands = check_count("num_bands", self.num_bands, 1)

    def draw(
        self, input_values: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Ends of the pieces, shares of the mel axis, and the offsets there; (batch, pieces + 1) each."""
        inner = uniform((len(lengths), self.num_bands - 1), generator).sort(dim=1).values
        offset = uniform((len(lengths), self.num_bands + 1), generator, -self.max_offset, self.max_offset)
        ends = torch.zeros(len(lengths), 1, device="cpu")
        return {"position": torch.cat((ends, inner, ends + 1), dim=1), "offset": offset}

    def apply(
        self, input_values: torch.Tensor, lengths: torch.Tensor, position: torch.Tensor, offset: torch.Tensor
    ) -> torch.Tensor:
        """Add the offsets, interpolated linearly between the ends of each piece."""
        bins = torch.linspace(0, 1, input_values.shape[-1], device="cpu").expand(len(position), -1).contiguous()
        right = torch.searchsorted(position, bins, right=True).clamp(1, position.shape[1] - 1)
        start, end = (position.gather(1, right - 1), position.gather(1, right))
        share = (bins - start) / (end - start).clamp(min=1e-6)
        curve = torch.lerp(offset.gather(1, right - 1), offset.gather(1, right), share)
        return input_values + curve[:, None, :].to(input_values)


@dataclass
class Stretch(SpectrogramTransform):
    """Stretches time around a random moment, and the mel axis from its low end, each by its own random factor.

    What differs between speakers is tempo and the length of the vocal tract: Jaitly and Hinton 2013 for the latter.

    Args:
        max_time: Largest relative change of tempo.
        max_frequency: Largest relative change of position on the mel axis.
    """

    max_time: float = 0.15
    max_frequency: float = 0.15

    def __post_init__(self):
        check_limits(max_time=self.max_time, max_frequency=self.max_frequency)

    @property
    def moves_in_time(self) -> bool:
        """Unless tempo stays as it is."""
        return self.max_time > 0

    def draw(
        self, input_values: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Factors on both axes and the moment that stays, as a share of the clip; (batch, 1) each."""
        shape = (len(lengths), 1)

        def factor(largest: float) -> torch.Tensor:
            return torch.exp(uniform(shape, generator, -math.log1p(largest), math.log1p(largest)))

        return {
            "time_factor": factor(self.max_time),
            "frequency_factor": factor(self.max_frequency),
            "anchor": uniform(shape, generator),
        }

    def apply(
        self,
        input_values: torch.Tensor,
        lengths: torch.Tensor,
        time_factor: torch.Tensor,
        frequency_factor: torch.Tensor,
        anchor: torch.Tensor,
    ) -> torch.Tensor:
        """Resample both axes linearly; beyond the edges the last frame or bin repeats."""
        device, num_frames, num_bins = input_values.device, *input_values.shape[1:]
        last_frame = (lengths[:, None] - 1).to(device)
        anchor = anchor.to(device) * last_frame
        frames = anchor + (torch.arange(num_frames, device=device) - anchor) * time_factor.to(device)
        bins = torch.arange(num_bins, device=device) * frequency_factor.to(device)
        # grid_sample counts both axes from -1 to 1.
        rows = frames.clamp(min=0).minimum(last_frame) * (2 / max(1, num_frames - 1)) - 1
        columns = bins * (2 / max(1, num_bins - 1)) - 1
        shape = (-1, num_frames, num_bins)
        grid = torch.stack((columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)), dim=-1)
        # In float32: half precision cannot tell apart the places in a long clip.
        resampled = torch.nn.functional.grid_sample(
            input_values[:, None].float(), grid, padding_mode="border", align_corners=True
        )
        return resampled[:, 0].to(input_values.dtype)
