"""Augmentation of waveforms for training.

Every transform draws its parameters from a generator in `draw` and applies them in `apply`; calling it does both. None
writes into its input. `generator=None` is torch's default generator.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
import torch

from .events import Event, crop_events
from .limits import check_count, check_probability
from .randomness import integers, uniform


class WaveformTransform:
    """Base of what changes waveforms of any lengths, (samples,) each."""

    def draw(self, lengths: list[int], generator: torch.Generator | None = None) -> list[Any]:
        """One parameter for each of the clips of these lengths; the second argument of `apply`."""
        raise NotImplementedError

    def apply(self, waveforms: list[torch.Tensor], parameters: list[Any]) -> list[torch.Tensor]:
        """The changed waveforms."""
        raise NotImplementedError

    def move(self, events: list[list[Event]], parameters: list[Any], sampling_rate: int) -> list[list[Event]]:
        """The events of each clip where the changed sound has them; as they are, unless sound moves in time."""
        return events

    def __call__(self, waveforms: list[torch.Tensor], generator: torch.Generator | None = None) -> list[torch.Tensor]:
        """Draw and apply."""
        return self.apply(waveforms, self.draw([len(wave) for wave in waveforms], generator))


@dataclass
class RandomCrop(WaveformTransform):
    """Cuts each waveform to a random stretch of `num_samples`; shorter ones stay as they are."""

    num_samples: int

    def __post_init__(self):
        self.num_samples = check_count("num_samples", self.num_samples, 1)

    def draw(self, lengths: list[int], generator: torch.Generator | None = None) -> list[int]:
        """First sample to keep of clips of these lengths."""
        position = uniform((len(lengths),), generator).tolist()
        return [int(p * (max(0, n - self.num_samples) + 1)) for p, n in zip(position, lengths, strict=True)]

    def apply(self, waveforms: list[torch.Tensor], starts: list[int]) -> list[torch.Tensor]:
        """Cut each waveform (samples,) at its start."""
        return [wave[start : start + self.num_samples] for wave, start in zip(waveforms, starts, strict=True)]

    def move(self, events: list[list[Event]], starts: list[int], sampling_rate: int) -> list[list[Event]]:
        """The events of each stretch; those at its edges are cut."""
        return [
            crop_events(clip, start / sampling_rate, (start + self.num_samples) / sampling_rate)
            for clip, start in zip(events, starts, strict=True)
        ]


@dataclass
class SpeedPerturb(WaveformTransform):
    """Plays each waveform faster or slower, pitch and all (Ko et al. 2015), by a factor within 1 +- `max_change`."""

    max_change: float = 0.1

    def __post_init__(self):
        if not 0 <= self.max_change < 1:
            raise ValueError(f"max_change={self.max_change} must lie in [0, 1)")

    def draw(self, lengths: list[int], generator: torch.Generator | None = None) -> list[float]:
        """Factors for clips of these lengths; above 1 is faster."""
        low, high = 1 - self.max_change, 1 + self.max_change
        return uniform((len(lengths),), generator, low, high, dtype=torch.float64).tolist()

    def apply(self, waveforms: list[torch.Tensor], factors: list[float]) -> list[torch.Tensor]:
        """Resample each waveform (samples,) to `samples / factor`."""
        pairs = zip(waveforms, factors, strict=True)
        return [torch.from_numpy(soxr.resample(wave.numpy(), factor, 1.0, quality="HQ")) for wave, factor in pairs]

    def move(self, events: list[list[Event]], factors: list[float], sampling_rate: int) -> list[list[Event]]:
        """Events of faster sound are earlier and shorter."""
        return [
            [(onset / factor, offset / factor, label) for onset, offset, label in clip]
            for clip, factor in zip(events, factors, strict=True)
        ]


@dataclass
class Mixup:
    """Mixes waveforms in pairs, and their labels with them.

    Source: Tokozume et al. 2018 by way of the AST and AuM recipes: means removed, weights from Beta(alpha, alpha), the
    partner cut or padded with silence to the first clip's length. Partners are other clips of the batch, where those
    recipes draw them from the whole data set.

    Args:
        alpha: Parameter of the Beta distribution.
        probability: Share of clips that are mixed; a batch of one has nothing to mix.
    """

    alpha: float = 10.0
    probability: float = 0.5

    def __post_init__(self):
        if not self.alpha > 0:
            raise ValueError(f"alpha={self.alpha} must be positive")
        check_probability(self.probability)

    def draw(self, batch_size: int, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Partner and own weight of each clip, both (batch,); the weight is 1 where a clip stays as it is."""
        steps = integers((batch_size,), generator, 1, max(2, batch_size))
        partner = (torch.arange(batch_size, device="cpu") + steps) % batch_size
        is_mixed = (uniform((batch_size,), generator) < self.probability) & (batch_size > 1)
        # torch's Beta distribution takes no generator; numpy's does, seeded from ours.
        seed = int(integers((), generator, 0, 2**62))
        weight = torch.from_numpy(np.random.default_rng(seed).beta(self.alpha, self.alpha, batch_size)).float()
        return partner, weight.where(is_mixed, 1.0)

    def apply(
        self, waveforms: list[torch.Tensor], labels: torch.Tensor | None, partner: torch.Tensor, weight: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Mix waveforms (samples,) and distributions over labels (batch, labels), if there are any.

        Raises:
            ValueError: Labels of another shape, such as indices.
        """
        if labels is not None and labels.ndim != 2:
            raise ValueError(f"labels has shape {tuple(labels.shape)}; expected (batch, labels), not indices")
        mixed = []
        for wave, other, own in zip(waveforms, partner.tolist(), weight.tolist(), strict=True):
            if own < 1.0:
                second = waveforms[other][: len(wave)]
                wave = own * (wave - wave.mean())
                wave[: len(second)] += (1.0 - own) * (second - second.mean())
            mixed.append(wave)
        if labels is None:
            return mixed, None
        weight = weight[:, None]
        return mixed, weight * labels + (1.0 - weight) * labels[partner]

    def move(
        self, events: list[list[Event]], seconds: list[float], partner: torch.Tensor, weight: torch.Tensor
    ) -> list[list[Event]]:
        """Events of both clips, whatever their weights, as both are heard; the partner's as far as it is taken.

        Args:
            events: Events of each clip.
            seconds: Length of each clip.
            partner: See `apply`.
            weight: See `apply`.
        """
        return [
            own if share == 1.0 else [*own, *crop_events(events[other], 0.0, length)]
            for own, other, share, length in zip(events, partner.tolist(), weight.tolist(), seconds, strict=True)
        ]

    def __call__(
        self, waveforms: list[torch.Tensor], labels: torch.Tensor | None, generator: torch.Generator | None = None
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
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

    def __post_init__(self):
        check_probability(self.probability)
        for low, high in (("min_snr", "max_snr"), ("min_exponent", "max_exponent")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low}={getattr(self, low)} is above {high}={getattr(self, high)}")

    def draw(self, lengths: list[int], generator: torch.Generator | None = None) -> list[torch.Tensor | None]:
        """Noise (samples,) for clips of these lengths if their power were 1; None where there is no noise."""
        has_noise = uniform((len(lengths),), generator) < self.probability
        return [self._draw_one(n, generator) if drawn else None for n, drawn in zip(lengths, has_noise, strict=True)]

    def _draw_one(self, length: int, generator: torch.Generator | None) -> torch.Tensor:
        snr = uniform((), generator, self.min_snr, self.max_snr).item()
        exponent = uniform((), generator, self.min_exponent, self.max_exponent).item()
        frequency = torch.arange(length // 2 + 1, device="cpu").clamp(min=1)
        spectrum = torch.randn(len(frequency), 2, generator=generator, device="cpu")
        spectrum *= frequency[:, None] ** (-exponent / 2)
        spectrum[0] = 0.0
        noise = torch.fft.irfft(torch.view_as_complex(spectrum), n=length)
        return noise * (10 ** (-snr / 20) / noise.square().mean().sqrt().clamp(min=1e-12))

    def apply(self, waveforms: list[torch.Tensor], noises: list[torch.Tensor | None]) -> list[torch.Tensor]:
        """Add the noise to each waveform (samples,), scaled by the waveform's root mean square."""
        pairs = zip(waveforms, noises, strict=True)
        return [wave if noise is None else wave + wave.square().mean().sqrt() * noise for wave, noise in pairs]
