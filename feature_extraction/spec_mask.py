"""Masks on spectrograms: SpecMask, which follows the patch grid under a fixed budget, and SpecAugment as baseline."""

from dataclasses import dataclass, replace

import torch

from .limits import check_count
from .randomness import integers, uniform

# Highest localized band as a share of the mel bins: above half of them a mask would no longer be local.
MAX_BAND_SHARE = 0.5


def valid_frames(input_values: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Real frames of each clip, (batch, frames), bool; all of them without a mask.

    Raises:
        ValueError: No tensor, or a mask of another shape.
    """
    if not isinstance(input_values, torch.Tensor):
        raise ValueError(f"input_values is of type {type(input_values).__name__}; expected a tensor")
    if attention_mask is None:
        return input_values.new_ones(input_values.shape[:2], dtype=torch.bool)
    if attention_mask.shape != input_values.shape[:2]:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; expected {tuple(input_values.shape[:2])}, the "
            "(batch, frames) of input_values"
        )
    return attention_mask.bool()


def fill_with_mean(input_values: torch.Tensor, masks: torch.Tensor, is_valid: torch.Tensor) -> torch.Tensor:
    """A copy of spectrograms whose masked cells hold the mean of the clip's own real frames.

    Args:
        input_values: (batch, frames, mel bins).
        masks: (batch, frames, mel bins), true where a cell is masked.
        is_valid: Real frames, (batch, frames), bool.
    """
    cells = is_valid.sum(dim=1).clamp(min=1) * input_values.shape[-1]
    # In float32: sums over a clip are beyond float16.
    sums = input_values.masked_fill(~is_valid[..., None], 0.0).sum(dim=(1, 2), dtype=torch.float32)
    return torch.where(masks, (sums / cells)[:, None, None].to(input_values.dtype), input_values)


class SpectrogramMask:
    """Base of what masks spectrograms while training; a subclass draws the masks."""

    def __call__(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """A masked copy of spectrograms; masked cells hold the mean of the clip's own real frames.

        Args:
            input_values: (batch, frames, mel bins), left as it is.
            attention_mask: (batch, frames), 1 at real frames, padding on the right.
            generator: Source of randomness; None is torch's default generator.

        Returns:
            (batch, frames, mel bins).
        """
        masks = self.draw(input_values, attention_mask, generator)
        return fill_with_mean(input_values, masks, valid_frames(input_values, attention_mask))

    def draw(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Draw the masks of a batch.

        Args:
            input_values: (batch, frames, mel bins), of which only shape and device are read.
            attention_mask: (batch, frames), 1 at real frames, padding on the right.
            generator: Source of randomness, on the CPU; None is torch's default generator. The masks it gives are the
                same on every device.

        Returns:
            (batch, frames, mel bins), bool, true where a cell is masked.
        """
        raise NotImplementedError

    def at_stride(self, time_stride: int) -> "SpectrogramMask":
        """The same for patches at another stride, in frames."""
        return self


@dataclass(frozen=True)
class SpecMask(SpectrogramMask):
    """Draws and applies SpecMask (arXiv 2508.21243, section 3.2).

    A share of the budget goes to full-frequency masks, as wide as a patch, the rest to localized masks,
    one patch wide and a random band of bins high. Starts lie on the patch grid. Each clip draws its own masks. No cell
    is counted twice: the masked cells never exceed the budget and fall short of it by less than `num_mel_bins` cells.
    Where a share leaves less than a whole mask the last one shrinks, to one frame at least. For a clip of fewer than
    `max_length` frames the budget shrinks in proportion. Its fields are fixed: `dataclasses.replace(mask, budget=0.1)`
    makes another.

    Args:
        num_mel_bins: Height of the spectrogram.
        max_length: Frames that the budget refers to.
        patch_frames: Width of a patch in frames, which is that of a mask.
        time_stride: Frames between two places where a mask may start.
        budget: Masked cells in `max_length` frames; below 1, their fraction, which becomes their number.
        full_share: Share of the budget for full-frequency masks.
        stretches: Whether patches, and so masks, are as wide as the stride where that is wider.

    Raises:
        ValueError: A budget that is negative, larger than the spectrogram, 1.0 or a part of a cell above that; a share
            outside [0, 1]; or sizes below 1.
    """

    num_mel_bins: int
    max_length: int
    patch_frames: int
    time_stride: int
    budget: float = 25600
    full_share: float = 0.7
    stretches: bool = False

    def __post_init__(self):
        for name in ("num_mel_bins", "max_length", "patch_frames", "time_stride"):
            object.__setattr__(self, name, check_count(name, getattr(self, name), 1))
        budget, table = self.budget, self.num_mel_bins * self.max_length
        if budget >= 1 and (budget != int(budget) or (isinstance(budget, float) and budget == 1)):
            raise ValueError(f"budget={budget} must be a whole number of cells, or their share, below 1")
        cells = round(budget * table) if 0 <= budget < 1 else budget
        if not 0 <= cells <= table:
            raise ValueError(
                f"budget={budget} must lie between 0 and {table} cells, the {self.num_mel_bins} mel bins x "
                f"{self.max_length} frames of the spectrogram"
            )
        if not 0 <= self.full_share <= 1:
            raise ValueError(f"full_share={self.full_share} must lie in [0, 1]")
        object.__setattr__(self, "budget", int(cells))

    @classmethod
    def from_config(
        cls, config, budget: float = 25600, full_share: float = 0.7, time_stride: int | None = None
    ) -> "SpecMask":
        """Take the geometry of the patches from a model's `FFTPConfig`; another stride leaves their grid."""
        return cls(
            num_mel_bins=config.num_mel_bins,
            max_length=config.max_length,
            patch_frames=config.patch_size[1],
            time_stride=config.time_stride if time_stride is None else time_stride,
            budget=budget,
            full_share=full_share,
            stretches=getattr(config, "stretch_patches", False),
        )

    @property
    def mask_frames(self) -> int:
        """Width of a mask in frames: that of a patch, which may stretch to the stride."""
        return max(self.patch_frames, self.time_stride) if self.stretches else self.patch_frames

    def at_stride(self, time_stride: int) -> "SpecMask":
        """Masks on the grid of another stride, of which patches see as much as of these."""
        other = replace(self, time_stride=time_stride)
        # Masks lie where patches do, which may skip frames.
        seen = [min(mask.mask_frames / mask.time_stride, 1) for mask in (self, other)]
        return replace(other, budget=min(int(self.budget * seen[1] / seen[0]), self.num_mel_bins * self.max_length))

    def draw(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Draw the masks of a batch; see `SpectrogramMask.draw`.

        Raises:
            ValueError: Spectrograms of another height.
        """
        if input_values.ndim != 3 or input_values.shape[-1] != self.num_mel_bins:
            raise ValueError(
                f"input_values has shape {tuple(input_values.shape)}; expected (batch, frames, {self.num_mel_bins} "
                "mel bins)"
            )
        is_valid = valid_frames(input_values, attention_mask).cpu()
        lengths = is_valid.sum(dim=1, keepdim=True)
        budget = self.budget * lengths.clamp(max=self.max_length) // self.max_length
        # The small number keeps a share of exactly n frames at n despite binary fractions such as 0.7.
        full_frames = (budget.double() * self.full_share / self.num_mel_bins + 1e-9).long()
        phase = integers(lengths.shape, generator, 0, self._starts_per_patch)

        full_rank, _ = self._frame_ranks(is_valid, phase, generator)
        is_full = _take_frames(full_rank, is_valid, torch.ones_like(full_rank), full_frames)
        local_rank, owner = self._frame_ranks(is_valid, phase, generator)
        is_free = is_valid & ~is_full
        local_budget = (budget - full_frames * self.num_mel_bins) * (self.full_share < 1)
        # Frames that no patch covers are taken where the others cannot hold the budget.
        is_seen = is_free & (local_rank < self._count_places(is_valid.shape[1]))
        low, height = self._draw_bands(owner, is_seen, local_budget, generator)
        is_local = _take_frames(local_rank, is_free, height, local_budget)

        bins = torch.arange(self.num_mel_bins, device="cpu")
        in_band = (bins >= low[..., None]) & (bins < (low + height)[..., None])
        masks = is_full[..., None] | (is_local[..., None] & in_band)
        return masks.to(input_values.device)

    @property
    def _starts_per_patch(self) -> int:
        """Neighbouring places on the grid whose masks overlap."""
        return -(-self.mask_frames // self.time_stride)

    def _count_places(self, num_frames: int) -> int:
        """Places on the grid in so many frames."""
        return -(-num_frames // self.time_stride)

    def _frame_ranks(
        self, is_valid: torch.Tensor, phase: torch.Tensor, generator: torch.Generator | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the places on the grid into random order, and give each frame to the first mask in it that covers it.

        Places of one random phase, which do not overlap, come before the others, and masks that the end of the clip
        would cut come after both: only a large budget makes masks touch.

        Args:
            is_valid: Real frames, (batch, frames), bool.
            phase: Preferred phase of each clip, (batch, 1).
            generator: Source of randomness.

        Returns:
            Rank in time and place of the mask that owns each frame, both (batch, frames), int64. Frames that no patch
            covers (with a stride larger than a patch) rank behind all others.
        """
        batch, num_frames = is_valid.shape
        places = torch.arange(self._count_places(num_frames), device="cpu")
        starts = places * self.time_stride
        order = uniform((batch, len(places)), generator)
        order += (places % self._starts_per_patch != phase).float()
        order += 2.0 * (starts + self.mask_frames > is_valid.sum(dim=1, keepdim=True))
        rank = order.argsort(dim=1).argsort(dim=1)

        frames = torch.arange(num_frames, device="cpu")
        nearest = frames // self.time_stride
        best_rank = torch.full((batch, num_frames), 2 * len(places), device="cpu")
        best_place = nearest.expand_as(best_rank)
        for back in range(self._starts_per_patch):
            place = (nearest - back).clamp(min=0)
            is_covered = (nearest >= back) & (starts[place] + self.mask_frames > frames)
            candidate = torch.where(is_covered, rank[:, place], rank[:, place] + len(places))
            is_better = candidate < best_rank
            best_rank = torch.where(is_better, candidate, best_rank)
            best_place = torch.where(is_better, place, best_place)
        return best_rank, best_place

    def _draw_bands(
        self, owner: torch.Tensor, is_seen: torch.Tensor, budget: torch.Tensor, generator: torch.Generator | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Lowest bin and height of the band that a localized mask would have at each frame, both (batch, frames).

        Heights are uniform up to half of the bins; where all free frames that patches see could not hold the budget at
        these heights, they grow towards the whole axis by the same share each.
        """
        highest = max(1, int(self.num_mel_bins * MAX_BAND_SHARE))
        height = integers(owner.shape, generator, 1, highest + 1).gather(1, owner)
        position = uniform(owner.shape, generator).gather(1, owner)
        drawn = (height * is_seen).sum(dim=1, keepdim=True)
        room = (self.num_mel_bins * is_seen).sum(dim=1, keepdim=True) - drawn
        growth = ((budget - drawn) / room.clamp(min=1)).clamp(min=0, max=1)
        height = height + (growth * (self.num_mel_bins - height)).ceil().long()
        low = (position * (self.num_mel_bins - height + 1)).long()
        return low, height


@dataclass(frozen=True)
class SpecAugment(SpectrogramMask):
    """One mask of random height over all time and one of random width over all bins (Park et al. 2019).

    Heights and widths are uniform from 0 to their limits, as in the recipes of AST and AuM: 48 bins and 192 frames on
    AudioSet, 48 and 48 on Speech Commands. It has no budget: on average a mask takes half of its limit. Those recipes
    set cells to 0 before they normalise features; here masked cells take the clip's mean, as under `SpecMask`.

    Args:
        max_bins: Highest frequency mask in mel bins.
        max_frames: Widest time mask in frames; a shorter clip is masked whole at most.
    """

    max_bins: int = 48
    max_frames: int = 192

    def __post_init__(self):
        for name in ("max_bins", "max_frames"):
            object.__setattr__(self, name, check_count(name, getattr(self, name), 0))

    def draw(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Draw the masks of a batch; see `SpectrogramMask.draw`."""
        batch, num_frames, num_bins = input_values.shape
        is_valid = valid_frames(input_values, attention_mask).cpu()
        in_time = self._draw_band(is_valid.sum(dim=1), self.max_frames, num_frames, generator)
        heights = torch.full((batch,), num_bins, device="cpu")
        in_frequency = self._draw_band(heights, self.max_bins, num_bins, generator)
        masks = (in_time[:, :, None] | in_frequency[:, None, :]) & is_valid[..., None]
        return masks.to(input_values.device)

    @staticmethod
    def _draw_band(lengths: torch.Tensor, limit: int, size: int, generator: torch.Generator | None) -> torch.Tensor:
        """A run of up to `limit` places somewhere in the first `lengths` of `size` places; (batch, size), bool."""
        position = uniform((2, len(lengths)), generator)
        width = (position[0] * (lengths.clamp(max=limit) + 1)).long()
        start = (position[1] * (lengths - width + 1)).long()
        places = torch.arange(size, device="cpu")
        return (places >= start[:, None]) & (places < (start + width)[:, None])


def _take_frames(
    rank: torch.Tensor, is_available: torch.Tensor, cost: torch.Tensor, budget: torch.Tensor
) -> torch.Tensor:
    """Take available frames in the order of their masks' ranks, and of time within a mask, while the budget lasts.

    Args:
        rank: Rank of the mask that owns each frame, (batch, frames).
        is_available: Frames that may be taken, (batch, frames), bool.
        cost: What each frame takes from the budget, (batch, frames).
        budget: (batch, 1).

    Returns:
        Frames taken, (batch, frames), bool.
    """
    order = torch.where(is_available, rank, rank.max() + 1 if rank.numel() else 0).argsort(dim=1, stable=True)
    spent = (cost * is_available).gather(1, order).cumsum(dim=1)
    return torch.zeros_like(is_available).scatter(1, order, spent <= budget) & is_available
