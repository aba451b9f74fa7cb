"""Augmentation of waveforms and of spectrograms for training.

Every transform draws its parameters from a generator in `draw` and applies them in `apply`; calling it does both. None
writes into its input. `generator=None` is torch's default generator, which `DataLoader` seeds for each worker and
epoch and which Trainer saves in its checkpoints.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
import torch

from .spec_mask import valid_frames


class WaveformTransform:
    """Base of what changes waveforms of any lengths, (samples,) each."""

    def draw(self, lengths: list[int], generator: torch.Generator | None = None) -> list[Any]:
        """One parameter for each of the clips of these lengths; the second argument of `apply`."""
        raise NotImplementedError

    def apply(self, waveforms: list[torch.Tensor], parameters: list[Any]) -> list[torch.Tensor]:
        """The changed waveforms."""
        raise NotImplementedError

    def __call__(self, waveforms: list[torch.Tensor], generator: torch.Generator | None = None) -> list[torch.Tensor]:
        """Draw and apply."""
        return self.apply(waveforms, self.draw([len(wave) for wave in waveforms], generator))


@dataclass
class RandomCrop(WaveformTransform):
    """Cuts each waveform to a random stretch of `num_samples`; shorter ones stay as they are."""

    num_samples: int

    def draw(self, lengths: list[int], generator: torch.Generator | None = None) -> list[int]:
        """First sample to keep of clips of these lengths."""
        position = torch.rand(len(lengths), generator=generator).tolist()
        return [int(p * (max(0, n - self.num_samples) + 1)) for p, n in zip(position, lengths, strict=True)]

    def apply(self, waveforms: list[torch.Tensor], starts: list[int]) -> list[torch.Tensor]:
        """Cut each waveform (samples,) at its start."""
        return [wave[start : start + self.num_samples] for wave, start in zip(waveforms, starts, strict=True)]


@dataclass
class SpeedPerturb(WaveformTransform):
    """Plays each waveform faster or slower, pitch and all (Ko et al. 2015), by a factor within 1 +- `max_change`."""

    max_change: float = 0.1

    def draw(self, lengths: list[int], generator: torch.Generator | None = None) -> list[float]:
        """Factors for clips of these lengths; above 1 is faster."""
        position = torch.rand(len(lengths), generator=generator, dtype=torch.float64)
        return (1 + self.max_change * (2 * position - 1)).tolist()

    def apply(self, waveforms: list[torch.Tensor], factors: list[float]) -> list[torch.Tensor]:
        """Resample each waveform (samples,) to `samples / factor`."""
        pairs = zip(waveforms, factors, strict=True)
        return [torch.from_numpy(soxr.resample(wave.numpy(), factor, 1.0, quality="HQ")) for wave, factor in pairs]


@dataclass
class Mixup:
    """Mixes waveforms in pairs, and their labels with them.

    Source: Tokozume et al. 2018 by way of the AST and AuM recipes: means removed, weights from Beta(alpha, alpha), the
    partner cut or padded with silence to the first clip's length.

    Args:
        alpha: Parameter of the Beta distribution.
        probability: Share of clips that are mixed.
    """

    alpha: float = 10.0
    probability: float = 0.5

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Partner and own weight of each clip, both (batch,); the weight is 1 where a clip stays as it is."""
        partner = torch.randperm(batch_size, generator=generator)
        is_mixed = torch.rand(batch_size, generator=generator) < self.probability
        # torch's Beta distribution takes no generator; numpy's does, seeded from ours.
        seed = int(torch.randint(2**62, (), generator=generator))
        weight = torch.from_numpy(np.random.default_rng(seed).beta(self.alpha, self.alpha, batch_size)).float()
        return partner, torch.where(is_mixed, weight, torch.ones(()))

    def apply(
        self, waveforms: list[torch.Tensor], labels: torch.Tensor, partner: torch.Tensor, weight: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Mix waveforms (samples,) and distributions over labels (batch, labels)."""
        mixed = []
        for wave, other, own in zip(waveforms, partner.tolist(), weight.tolist(), strict=True):
            if own < 1.0:
                second = waveforms[other][: len(wave)]
                wave = own * (wave - wave.mean())
                wave[: len(second)] += (1.0 - own) * (second - second.mean())
            mixed.append(wave)
        weight = weight[:, None]
        return mixed, weight * labels + (1.0 - weight) * labels[partner]

    def __call__(
        self, waveforms: list[torch.Tensor], labels: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Draw and apply."""
        return self.apply(waveforms, labels, *self.draw(len(waveforms), generator))


@dataclass
class ColoredNoise(WaveformTransform):
    """Adds noise to some of the waveforms, with a random colour and at a random signal-to-noise ratio.

    Args:
        probability: Share of clips that get noise.
        min_snr: Lowest ratio of the clip's power to the noise's, in dB.
        max_snr: Highest.
        min_exponent: The noise's power falls with frequency f as 1 / f ** exponent; 0 is white, 1 pink.
        max_exponent: Highest exponent; 2 is brown.
    """

    probability: float = 0.5
    min_snr: float = 10.0
    max_snr: float = 40.0
    min_exponent: float = 0.0
    max_exponent: float = 2.0

    def draw(self, lengths: list[int], generator: torch.Generator | None = None) -> list[torch.Tensor | None]:
        """Noise (samples,) for clips of these lengths if their power were 1; None where there is no noise."""
        has_noise = torch.rand(len(lengths), generator=generator) < self.probability
        return [self._draw_one(n, generator) if drawn else None for n, drawn in zip(lengths, has_noise, strict=True)]

    def _draw_one(self, length: int, generator: torch.Generator | None) -> torch.Tensor:
        position = torch.rand(2, generator=generator).tolist()
        snr = self.min_snr + position[0] * (self.max_snr - self.min_snr)
        exponent = self.min_exponent + position[1] * (self.max_exponent - self.min_exponent)
        frequency = torch.arange(length // 2 + 1).clamp(min=1)
        spectrum = torch.randn(len(frequency), 2, generator=generator) * frequency[:, None] ** (-exponent / 2)
        spectrum[0] = 0.0
        noise = torch.fft.irfft(torch.view_as_complex(spectrum), n=length)
        return noise * (10 ** (-snr / 20) / noise.square().mean().sqrt().clamp(min=1e-12))

    def apply(self, waveforms: list[torch.Tensor], noises: list[torch.Tensor | None]) -> list[torch.Tensor]:
        """Add the noise to each waveform (samples,), scaled by the waveform's root mean square."""
        pairs = zip(waveforms, noises, strict=True)
        return [wave if noise is None else wave + wave.square().mean().sqrt() * noise for wave, noise in pairs]


class SpectrogramTransform:
    """Base of what changes normalised spectrograms (batch, frames, mel bins) without changing their length."""

    def draw(
        self, input_values: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Any]:
        """Parameters for clips of these lengths in frames, (batch,); keyword arguments of `apply`."""
        raise NotImplementedError

    def apply(self, input_values: torch.Tensor, lengths: torch.Tensor, **parameters: torch.Tensor) -> torch.Tensor:
        """The changed spectrograms."""
        raise NotImplementedError

    def __call__(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Draw and apply; what stands in padded frames stays as it is."""
        is_valid = valid_frames(input_values, attention_mask)
        lengths = is_valid.sum(dim=1)
        changed = self.apply(input_values, lengths, **self.draw(input_values, lengths, generator))
        return torch.where(is_valid[..., None], changed, input_values)


@dataclass
class TimeRoll(SpectrogramTransform):
    """Rolls each clip along time by up to `max_frames` frames, around its own end (AST's and AuM's recipe)."""

    max_frames: int = 10

    def draw(
        self, input_values: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Frames to roll by, (batch,)."""
        return {"shift": torch.randint(-self.max_frames, self.max_frames + 1, lengths.shape, generator=generator)}

    def apply(self, input_values: torch.Tensor, lengths: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Frame t comes from t - shift, modulo the clip's length."""
        frames = torch.arange(input_values.shape[1], device=input_values.device)
        source = (frames - shift.to(frames.device)[:, None]) % lengths[:, None]
        return input_values.gather(1, source[..., None].expand_as(input_values))


@dataclass
class UniformNoise(SpectrogramTransform):
    """Adds uniform noise whose height is itself uniform in [0, `max_amplitude`] per clip (AST's and AuM's recipe)."""

    max_amplitude: float = 0.1

    def draw(
        self, input_values: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Noise, (batch, frames, mel bins)."""
        amplitude = self.max_amplitude * torch.rand(len(lengths), 1, 1, generator=generator)
        return {"noise": amplitude * torch.rand(input_values.shape, generator=generator)}

    def apply(self, input_values: torch.Tensor, lengths: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Add the noise."""
        return input_values + noise.to(input_values)


@dataclass
class RandomGain(SpectrogramTransform):
    """Changes loudness: adds one offset per clip, uniform within +-`max_offset`, in normalised log units."""

    max_offset: float = 0.25

    def draw(
        self, input_values: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Offsets, (batch, 1, 1)."""
        return {"offset": self.max_offset * (2 * torch.rand(len(lengths), 1, 1, generator=generator) - 1)}

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

    def draw(
        self, input_values: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Ends of the pieces, shares of the mel axis, and the offsets there; (batch, pieces + 1) each."""
        inner = torch.rand(len(lengths), self.num_bands - 1, generator=generator).sort(dim=1).values
        offset = self.max_offset * (2 * torch.rand(len(lengths), self.num_bands + 1, generator=generator) - 1)
        ends = torch.zeros(len(lengths), 1)
        return {"position": torch.cat((ends, inner, ends + 1), dim=1), "offset": offset}

    def apply(
        self, input_values: torch.Tensor, lengths: torch.Tensor, position: torch.Tensor, offset: torch.Tensor
    ) -> torch.Tensor:
        """Add the offsets, interpolated linearly between the ends of each piece."""
        bins = torch.linspace(0, 1, input_values.shape[-1]).expand(len(position), -1).contiguous()
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

    def draw(
        self, input_values: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Factors on both axes and the moment that stays, as a share of the clip; (batch, 1) each."""
        shape = (len(lengths), 1)

        def factor(largest: float) -> torch.Tensor:
            return torch.exp(math.log1p(largest) * (2 * torch.rand(shape, generator=generator) - 1))

        return {
            "time_factor": factor(self.max_time),
            "frequency_factor": factor(self.max_frequency),
            "anchor": torch.rand(shape, generator=generator),
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
        resampled = torch.nn.functional.grid_sample(
            input_values[:, None], grid.to(input_values.dtype), padding_mode="border", align_corners=True
        )
        return resampled[:, 0]
