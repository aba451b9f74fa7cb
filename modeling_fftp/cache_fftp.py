"""What a causal model keeps of the sound so far, so that the next piece of a stream costs what it is long."""

import torch

from .configuration_fftp import FFTPConfig


class FFTPMambaState:
    """The state of one block: the last inputs of its convolution, and the state of its scan.

    Args:
        config: The model's config.
        batch_size: Streams side by side.
        device: Device that they run on.
        dtype: The model's dtype.
    """

    def __init__(self, config: FFTPConfig, batch_size: int, device: torch.device, dtype: torch.dtype):
        inner_size = config.expand * config.hidden_size
        self.conv_states = torch.zeros(batch_size, inner_size, config.conv_kernel - 1, device=device, dtype=dtype)
        self.ssm_states = torch.zeros(batch_size, inner_size, config.state_size, device=device)

    def prepend(self, x: torch.Tensor) -> torch.Tensor:
        """`x` (batch, inner, tokens) behind the inputs before it; its own end comes before the next."""
        joined = torch.cat((self.conv_states.to(x.dtype), x), dim=2)
        # A copy: a view would keep all of the piece.
        self.conv_states = joined[:, :, joined.shape[2] - self.conv_states.shape[2] :].detach().clone()
        return joined


class FFTPCache:
    """States of all blocks, and the mean over tokens so far: `model(frames, cache_params=cache)` goes on from it.

    Its size does not depend on the length of the sound. It serves models that only look back: `mamba_variant="fo-fo"`
    with `pooling="mean"`, full-frequency patches and `use_absolute_position_embeddings=False`.

    Args:
        config: The model's config.
        batch_size: Streams side by side.
        device: Device that the model runs on.
        dtype: The model's dtype.
        half_life: Tokens after which a token counts half in the mean; None: all count alike, as without a stream.

    Raises:
        ValueError: A model that looks ahead, or whose tokens depend on when they are.
    """

    def __init__(
        self,
        config: FFTPConfig,
        batch_size: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        half_life: float | None = None,
    ):
        if obstacle := find_obstacle(config):
            raise ValueError(f"the model cannot go on from a state: {obstacle}")
        if half_life is not None and not half_life > 0:
            raise ValueError(f"half_life={half_life} must be positive, in tokens")
        device = torch.device(device)
        self.layers = [FFTPMambaState(config, batch_size, device, dtype) for _ in range(config.num_hidden_layers)]
        self.decay = 1.0 if half_life is None else 0.5 ** (1 / half_life)
        # In double precision, as hours are many tokens; not every device has that.
        self.total = torch.zeros(batch_size, config.hidden_size, dtype=torch.float64, device="cpu")
        self.weight = 0.0
        # Stride of the tokens so far; None before the first.
        self.time_stride: int | None = None

    def check(
        self,
        config: FFTPConfig,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None,
        time_stride: int | None = None,
    ) -> None:
        """Refuse a call that would leave a wrong state.

        Raises:
            ValueError: A model that has none, or of another size, sound, padding, fewer frames than a patch, another
                stride than before, or another number of streams.
        """
        if obstacle := find_obstacle(config):
            raise ValueError(f"the model cannot go on from a state: {obstacle}")
        size, wanted = (len(self.layers), self.total.shape[1]), (config.num_hidden_layers, config.hidden_size)
        if size != wanted:
            raise ValueError("the cache is of {} layers of width {}; the model has {} of {}".format(*size, *wanted))
        if input_values.ndim == 2:
            raise ValueError("cache_params goes on with frames, which pieces of sound cut: use `model.stream`")
        if attention_mask is not None:
            raise ValueError("cache_params goes on with real frames; attention_mask is for padding, pass None")
        if input_values.shape[1] < config.patch_frames(time_stride):
            raise ValueError(
                f"{input_values.shape[1]} frames are less than a patch of {config.patch_frames(time_stride)}; a state "
                "goes on with whole patches"
            )
        if len(input_values) != len(self.total):
            raise ValueError(f"{len(input_values)} clips; the cache is of {len(self.total)} streams")
        time_stride = config.resolve_time_stride(time_stride)
        if self.time_stride not in (None, time_stride):
            raise ValueError(f"time_stride={time_stride}; the cache holds tokens of stride {self.time_stride}")

    def pool(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The mean (batch, hidden) over all tokens so far, after these, (batch, tokens, hidden).

        Gradients reach these tokens, and none before.
        """
        count = hidden_states.shape[1]
        ages = torch.arange(count - 1, -1, -1, dtype=torch.float64, device="cpu")
        weights = self.decay**ages
        added = (hidden_states.cpu().double() * weights[:, None]).sum(dim=1)
        total = self.total * self.decay**count + added
        self.total = total.detach()
        self.weight = self.weight * self.decay**count + float(weights.sum())
        return (total / self.weight).to(hidden_states)


def find_obstacle(config: FFTPConfig) -> str | None:
    """Say why a model cannot go on from a state, in words; None where it can."""
    wanted = {
        "backbone": "mamba",
        "mamba_variant": "fo-fo",
        "pooling": "mean",
        "use_absolute_position_embeddings": False,
    }
    for name, value in wanted.items():
        if getattr(config, name) != value:
            return f"{name}={getattr(config, name)!r}, expected {value!r}"
    if config.count_class_tokens():
        return f"num_class_tokens={config.num_class_tokens}, expected 0"
    if config.frequency_patches > 1:
        return f"{config.frequency_patches} rows of patches, expected one of full height"
    return None
