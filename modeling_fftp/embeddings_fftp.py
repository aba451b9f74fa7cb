"""From spectrograms to tokens: patches, positions, class tokens."""

from functools import cache

import numpy as np
import torch
from torch import nn
from transformers.utils import is_tracing

from .configuration_fftp import FFTPConfig
from .patch_grid_fftp import visible_first
from .tracing_fftp import has_values


class FFTPPatchConv2d(nn.Conv2d):
    """torch's convolution, without padding and groups, computed as one matrix product over the patches.

    The numbers are the same, and the backward pass costs about as much as the forward one, which torch's CPU
    convolution does not reach. Extractors give float32, whatever type the weights have, so it takes any.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) to (batch, output channels, patches down, patches across)."""
        if torch.jit.is_tracing():
            # torch's older ONNX exporter knows nothing else.
            return super().forward(images.to(self.weight.dtype))
        (height, width), (down, across) = self.kernel_size, self.stride
        weight = self.weight
        patches = images.to(weight.dtype).unfold(2, height, down).unfold(3, width, across).permute(0, 2, 3, 1, 4, 5)
        # Spectrograms lie in memory frame by frame, so the kernels are turned where they are fewer than the patches.
        # A graph that is being traced is for any number.
        if not is_tracing(images) and patches.shape[:3].numel() > self.out_channels:
            weight, patches = weight.transpose(2, 3), patches.transpose(4, 5)
        embedded = nn.functional.linear(patches.flatten(3), weight.flatten(1), self.bias)
        # Under autocast too: what all blocks add to keeps its precision, with positions or without.
        return embedded.to(self.weight.dtype).permute(0, 3, 1, 2)


def check_padding(attention_mask: torch.Tensor) -> None:
    """Refuse a mask (batch, frames or samples), of booleans, with padding before something real, or padding alone.

    Where `has_values` says that nobody knows what it holds, anything passes.

    Raises:
        ValueError: Padding lies before something real, or nothing is real.
    """
    if not has_values(attention_mask):
        return
    begins_late = (attention_mask[:, 1:] & ~attention_mask[:, :-1]).any(dim=1)
    is_empty = ~attention_mask.any(dim=1)
    # One question for both: a GPU is waited for at each.
    if not (begins_late | is_empty).any():
        return
    if begins_late.any():
        raise ValueError(
            f"attention_mask of clip {int(begins_late.long().argmax())} has padding before what is real; expected "
            "padding on the right"
        )
    raise ValueError(f"attention_mask of clip {int(is_empty.long().argmax())} has padding alone")


def resize_matrix(old: int, new: int) -> np.ndarray:
    """The bilinear resize of a line of `old` values to `new`, without corners aligned, (new, old), float64."""
    places = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
    lower = places.astype(int)
    upper, share = np.minimum(lower + 1, old - 1), places - lower
    identity = np.eye(old)
    return identity[lower] * (1 - share)[:, None] + identity[upper] * share[:, None]


# `cache` must be the outer one: dynamo unwraps it to find `assume_constant_result`.
@cache
@torch.compiler.assume_constant_result
def shrink_matrix(old: int, new: int) -> tuple[tuple[float, ...], ...]:
    """The pseudo-inverse of a resize from `old` to `new`, (old, new): numbers, which exports hold as constants."""
    return tuple(map(tuple, np.linalg.pinv(resize_matrix(old, new)).tolist()))


def contiguous(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in the order of its shape, whatever its lengths are.

    What `contiguous()` or `flatten()` would do depends on the strides, and so on the length of a clip: torch.export
    would take the lengths of its example for a rule.
    """
    return tensor.clone(memory_format=torch.contiguous_format)


class FFTPPatchEmbeddings(nn.Module):
    """One linear map from patches of a spectrogram to tokens (arXiv 2508.21243, section 3.1).

    With `patch_size` (mel bins, frames) as high as the spectrogram every token sees the whole frequency axis; square
    patches are other numbers. The convolution gets the patches side by side, so that its weights, and adapters around
    it, know nothing of the stride.
    """

    def __init__(self, config: FFTPConfig):
        super().__init__()
        self.config = config
        self.patch_size = config.patch_size
        self.projection = FFTPPatchConv2d(
            1, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size
        )

    def forward(self, input_values: torch.Tensor, time_stride: int | None = None) -> torch.Tensor:
        """(batch, frames, mel bins) to (batch, frequency patches * time patches, hidden); at least one of each.

        Frequency-major: all patches of the lowest bins come first, in the order of time.
        """
        config, num_mel_bins = self.config, self.config.num_mel_bins
        if config.patch_size != self.patch_size:
            raise ValueError(
                f"the model was made with patches of {self.patch_size}, and its config has changed to "
                f"{config.patch_size}; make another of that config"
            )
        if input_values.ndim != 3 or input_values.shape[-1] != num_mel_bins:
            raise ValueError(
                f"input_values has shape {tuple(input_values.shape)}; expected (batch, frames, {num_mel_bins} mel "
                "bins)"
            )
        if not is_tracing(input_values) and not input_values.numel():
            raise ValueError(
                f"input_values has shape {tuple(input_values.shape)}; expected at least one clip and frame"
            )
        time_stride = config.resolve_time_stride(time_stride)
        frames = config.patch_frames(time_stride)
        missing = frames - input_values.shape[1]
        if missing > 0:
            input_values = nn.functional.pad(input_values, (0, 0, 0, missing))
        starts = torch.arange(0, input_values.shape[1] - frames + 1, time_stride, device=input_values.device)
        places = (starts[:, None] + torch.arange(frames, device=input_values.device)).flatten()
        # Patches side by side, (batch, time patches * frames, mel bins): frame by frame, as in memory, where a
        # patch that spans all mel bins is one piece.
        images = self._shrink(input_values.index_select(1, places), frames)
        if config.frequency_patches > 1:
            images = contiguous(images.unfold(2, config.patch_size[0], config.frequency_stride)).flatten(2)
        # (batch, 1, frequency patches * mel bins, time patches * frames)
        return self.projection(images.transpose(1, 2).unsqueeze(1)).flatten(2).transpose(1, 2)

    def _shrink(self, images: torch.Tensor, frames: int) -> torch.Tensor:
        """Patches of so many frames, side by side, at the sampling in time that the convolution knows: PI-resize.

        A kernel that is resized by the pseudo-inverse gives on a stretched patch what the kernel gives on that patch
        times the pseudo-inverse (Beyer et al. 2023, section 3.4), so no weight has to be read.
        """
        known = self.config.patch_size[1]
        if frames == known:
            return images
        matrix = torch.tensor(shrink_matrix(known, frames), dtype=images.dtype, device=images.device)
        return (matrix @ images.unflatten(1, (-1, frames))).flatten(1, 2)


class FFTPPositionEmbeddings(nn.Module):
    """Learned positions as a function of time.

    The table covers `config.max_length` frames, with an entry every `config.position_stride`. Tokens read it at the
    middle of their patch, between two entries linearly. A clip within it takes the head of the table; for a longer
    clip the table is stretched to its length, whatever else is in its batch.
    """

    def __init__(self, config: FFTPConfig):
        super().__init__()
        self.config = config
        self.frequency_patches, self.time_patches = config.position_grid
        self.weight = nn.Parameter(torch.zeros(self.frequency_patches * self.time_patches, config.hidden_size))

    def forward(self, time_patches: int, valid_patches: torch.Tensor, time_stride: int | None = None) -> torch.Tensor:
        """Positions of a grid of patches.

        Args:
            time_patches: Patches along time in the padded batch.
            valid_patches: Real patches along time of each clip, (batch, 1), or (1, 1) where all clips agree.
            time_stride: Frames between patches; None is the model's.

        Returns:
            (batch or 1, frequency patches * time_patches, hidden), frequency-major like the patches.
        """
        config = self.config
        time_stride = config.resolve_time_stride(time_stride)
        # Frames by which a stretched patch is wider: its middle is later by half of them.
        wider = config.patch_frames(time_stride) - config.patch_size[1]
        # In float32, whatever torch's default is: half of the precision cannot tell tokens apart.
        last = ((valid_patches - 1) * time_stride + wider).float() / config.position_stride
        # A table as long as the clip would have `last.floor() + 1` entries.
        scale = self.time_patches / (last.floor() + 1).clamp(min=self.time_patches)
        middles = torch.arange(time_patches, dtype=torch.float32, device=self.weight.device) * time_stride + wider / 2
        steps = middles / config.position_stride
        source = ((steps + 0.5) * scale - 0.5).clamp(0, self.time_patches - 1)
        lower = source.long()
        upper = (lower + 1).clamp(max=self.time_patches - 1)
        rows = torch.arange(self.frequency_patches, device=self.weight.device)[None, :, None] * self.time_patches
        start = nn.functional.embedding((rows + lower[:, None]).flatten(1), self.weight)
        end = nn.functional.embedding((rows + upper[:, None]).flatten(1), self.weight)
        fraction = (source - lower)[:, None].expand(-1, self.frequency_patches, -1).flatten(1)
        return torch.lerp(start, end, fraction[..., None].to(start.dtype))


class FFTPEmbeddings(nn.Module):
    """Patch tokens with positions, joined by the class tokens, and the mask over all of them.

    The AST backbone has its class tokens in front, as a rule a class and a distillation token. The Mamba backbone has
    one class token in the middle of the real tokens (Erol et al. 2024, section 3.2), and real tokens come before
    padding, so that a scan in either direction meets them as it would without padding. The ConvNeXt backbone has none.
    """

    def __init__(self, config: FFTPConfig):
        super().__init__()
        self.config = config
        self.is_sequential = config.backbone == "mamba"
        # Patches that pretraining hides keep their place, since convolutions know tokens by that.
        self.keeps_grid = config.backbone == "convnext"
        self.patch_embeddings = FFTPPatchEmbeddings(config)
        uses_positions = config.use_absolute_position_embeddings
        self.position_embeddings = FFTPPositionEmbeddings(config) if uses_positions else None
        self.num_class_tokens = config.count_class_tokens()
        # The positions of class tokens are constants, so they are part of the tokens.
        for name in ("cls_token", "distillation_token")[: self.num_class_tokens]:
            self.register_parameter(name, nn.Parameter(torch.zeros(1, 1, config.hidden_size)))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def refuse_other_shape(self) -> None:
        """Refuse a config that was changed to other patches, positions or class tokens than there are.

        Raises:
            ValueError: It was.
        """
        config, table = self.config, self.position_embeddings
        # A user may have put another module in the place of our patches.
        patch_size = getattr(self.patch_embeddings, "patch_size", config.patch_size)
        grid = config.position_grid if table is None else (table.frequency_patches, table.time_patches)
        for what, own, expected in (
            ("patches of", patch_size, config.patch_size),
            ("class tokens:", self.num_class_tokens, config.count_class_tokens()),
            ("a grid of positions,", grid, config.position_grid),
        ):
            if own != expected:
                raise ValueError(
                    f"the model was made with {what} {own}, and its config has changed to {expected}; make another of "
                    "that config"
                )

    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        time_stride: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Embed a batch of spectrograms.

        Args:
            input_values: (batch, frames, mel bins).
            attention_mask: (batch, frames), 1 at real frames, padding on the right.
            bool_masked_pos: (batch, patches), true at patches that become no tokens, or for ConvNeXt tokens that are
                not real.
            time_stride: Frames between patches; None is the model's.

        Raises:
            ValueError: Shapes that do not fit, or padding on the left.

        Returns:
            Tokens (batch, class tokens + patches, hidden); the mask over them, (batch, class tokens + patches), true
            where every frame of the patch is real, or None without `attention_mask`; and the places of the class
            tokens, (batch or 1, class tokens).
        """
        if attention_mask is not None:
            if attention_mask.shape != input_values.shape[:2]:
                raise ValueError(
                    f"attention_mask has shape {tuple(attention_mask.shape)}; expected "
                    f"{tuple(input_values.shape[:2])}, the (batch, frames) of input_values"
                )
            attention_mask = attention_mask != 0
            check_padding(attention_mask)
            # A clip shorter than one patch sees padding: zeros, whatever value the padding came with.
            input_values = input_values.masked_fill(~attention_mask[..., None], 0.0)
        patches = self.patch_embeddings(input_values, time_stride)
        frequency_patches = self.config.frequency_patches
        time_patches = patches.shape[1] // frequency_patches
        valid_patches = self.count_patches(time_patches, attention_mask, patches.device, time_stride)
        token_mask = None
        if attention_mask is not None:
            is_valid = torch.arange(time_patches, device=patches.device) < valid_patches
            token_mask = is_valid.repeat(1, frequency_patches)
        tokens = patches
        if self.position_embeddings is not None:
            tokens = tokens + self.position_embeddings(time_patches, valid_patches, time_stride)
        if bool_masked_pos is not None:
            tokens, token_mask = self._leave_out(tokens, token_mask, bool_masked_pos)
        join = self._insert_class_token if self.is_sequential else self._prepend_class_tokens
        tokens, token_mask, class_places = join(tokens, token_mask)
        return self.dropout(tokens), token_mask, class_places

    def count_patches(
        self,
        time_patches: int,
        attention_mask: torch.Tensor | None,
        device: torch.device | None = None,
        time_stride: int | None = None,
    ) -> torch.Tensor:
        """Real patches along time of each clip, (batch, 1), or (1, 1) where all `time_patches` of all clips are."""
        if attention_mask is None:
            return torch.full((1, 1), time_patches, device=device)
        # Counted, not divided as in `config.time_patches`: OpenVINO rounds the quotients of integers.
        frames = (attention_mask != 0).sum(dim=1, keepdim=True).to(device)
        starts = torch.arange(time_patches, device=device) * self.config.resolve_time_stride(time_stride)
        return (starts + self.config.patch_frames(time_stride) <= frames).sum(dim=1, keepdim=True).clamp(min=1)

    def patch_places(self, time_patches: int, valid_patches: torch.Tensor) -> torch.Tensor:
        """Place of each patch among the tokens that `forward` returns; a padded one may be anywhere.

        Args:
            time_patches: Patches along time in the padded batch.
            valid_patches: Real patches of each clip, from `count_patches`.

        Returns:
            (batch or 1, frequency patches, time patches).
        """
        steps = torch.arange(time_patches, device=valid_patches.device)
        rows = torch.arange(self.config.frequency_patches, device=valid_patches.device)[:, None]
        if not self.is_sequential:
            return (rows * time_patches + steps + self.num_class_tokens)[None]
        valid_patches = valid_patches[..., None]
        places = rows * valid_patches + steps.minimum(valid_patches - 1)
        middle = len(rows) * valid_patches // 2
        return places + self.num_class_tokens * (places >= middle)

    def gather_steps(
        self, tokens: torch.Tensor, attention_mask: torch.Tensor | None, time_stride: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States of the steps in time; with several rows of patches, the mean over the rows stands for a step.

        Args:
            tokens: Tokens as the model returns them, (batch, tokens, hidden).
            attention_mask: Over frames, as the model got it.
            time_stride: Stride that the model got.

        Returns:
            (batch, steps, hidden), in time order, and how many of each clip's are real, (batch, 1).
        """
        time_patches = (tokens.shape[1] - self.num_class_tokens) // self.config.frequency_patches
        num_steps = self.count_patches(time_patches, attention_mask, tokens.device, time_stride)
        places = self.patch_places(time_patches, num_steps)
        index = places.flatten(1)[..., None].expand(tokens.shape[0], -1, tokens.shape[-1])
        steps = tokens.gather(1, index).unflatten(1, places.shape[1:]).mean(dim=1)
        return steps, num_steps.expand(steps.shape[0], 1)

    def take_patches(self, tokens: torch.Tensor, num_patches: torch.Tensor) -> torch.Tensor:
        """Patch tokens without class tokens, (batch, most patches, hidden), of which each clip has `num_patches`."""
        steps = torch.arange(tokens.shape[1] - self.num_class_tokens, device=tokens.device)
        if not self.is_sequential:
            return tokens[:, self.num_class_tokens :]
        places = steps + self.num_class_tokens * (steps >= num_patches.to(tokens.device) // 2)
        return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))

    def _leave_out(
        self, tokens: torch.Tensor, token_mask: torch.Tensor | None, bool_masked_pos: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens that pretraining shows, and which of them are real; where the grid stays, it is seen in part."""
        if bool_masked_pos.shape != tokens.shape[:2]:
            raise ValueError(
                f"bool_masked_pos has shape {tuple(bool_masked_pos.shape)}; expected {tuple(tokens.shape[:2])}, "
                "(batch, patches)"
            )
        is_real = torch.ones_like(bool_masked_pos) if token_mask is None else token_mask
        if self.keeps_grid:
            return tokens, is_real & ~bool_masked_pos
        places, is_visible = visible_first(bool_masked_pos, is_real)
        return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1])), is_visible

    def _prepend_class_tokens(
        self, patches: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Class tokens in front of the patches (batch, patches, hidden)."""
        count = self.num_class_tokens
        if not count:
            return patches, mask, patches.new_empty(1, 0, dtype=torch.long)
        class_tokens = self.cls_token if count == 1 else torch.cat((self.cls_token, self.distillation_token), dim=1)
        tokens = torch.cat((class_tokens.expand(patches.shape[0], -1, -1), patches), dim=1)
        # Not by `pad`: where lengths are dynamic and tokens merge, torch 2.13 compiles that to C++ that is not valid.
        mask = None if mask is None else torch.cat((mask.new_ones(mask.shape[0], count), mask), dim=1)
        return tokens, mask, torch.arange(count, device=patches.device)[None]

    def _insert_class_token(
        self, patches: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Real patches first, and the class token in their middle."""
        batch, num_patches, hidden_size = patches.shape
        if mask is not None:
            # With several patches along frequency, padding stands between the rows.
            num_valid = mask.sum(dim=1, keepdim=True)
            places = torch.where(mask, mask.cumsum(dim=1), num_valid + mask.logical_not().cumsum(dim=1)) - 1
            patches = torch.zeros_like(patches).scatter(1, places[..., None].expand_as(patches), patches)
        else:
            # Filled on the device: a copy to it cannot be part of a CUDA graph.
            num_valid = torch.full((1, 1), num_patches, device=patches.device)
        if not self.num_class_tokens:
            mask = None if mask is None else torch.arange(num_patches, device=patches.device) < num_valid
            return patches, mask, patches.new_empty(1, 0, dtype=torch.long)
        middle = num_valid // 2
        places = torch.arange(num_patches + 1, device=patches.device)
        source = torch.where(places == middle, num_patches, places - (places > middle).long())
        tokens = torch.cat((patches, self.cls_token.expand(batch, -1, -1)), dim=1)
        tokens = tokens.gather(1, source[..., None].expand(batch, -1, hidden_size))
        return tokens, None if mask is None else places <= num_valid, middle
