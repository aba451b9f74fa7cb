"""Configuration of the FFTP models."""

from math import ceil, isfinite
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.utils import logging

from .label_fields_fftp import (
    FIELDS_OF_LABELS,
    choose_names,
    index_labels,
    index_names,
    make_names,
    names_of,
    refuse_other_indices,
    refuse_other_names,
)

logger = logging.get_logger(__name__)

BACKBONES = ("ast", "mamba", "convnext")
MAMBA_VARIANTS = ("fo-fo", "fo-bi", "bi-bi")
POOLINGS = ("cls", "mean")
SINGLE_LABEL, MULTI_LABEL, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
PROBLEM_TYPES = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)
SCAN_IMPLEMENTATIONS = ("auto", "cpu", "torch", "export", "triton", "mamba_ssm", "reference")
# Fields that name one of a few things.
CHOICES = {
    "backbone": BACKBONES, "mamba_variant": MAMBA_VARIANTS, "pooling": POOLINGS, "problem_type": PROBLEM_TYPES,
    "scan_implementation": SCAN_IMPLEMENTATIONS,
}  # fmt: skip
# A threshold that no score reaches: 1.0 would not do, since scores in float16 can equal 1.
SILENT_THRESHOLD = 2.0
# Of AST, mamba-ssm and the isotropic ConvNeXt.
LAYER_NORM_EPS = {"ast": 1e-12, "mamba": 1e-5, "convnext": 1e-6}
MOST_CLASS_TOKENS = {"ast": 2, "mamba": 1, "convnext": 0}
POSITIVE_FIELDS = (
    "sampling_rate", "num_mel_bins", "max_length", "frequency_stride", "time_stride", "position_stride",
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "state_size", "conv_kernel", "expand", "decoder_hidden_size", "decoder_num_hidden_layers",
    "decoder_num_attention_heads", "decoder_intermediate_size",
)  # fmt: skip
# Where other numbers lie, in the notation of intervals.
INTERVALS = {
    "hidden_dropout_prob": "[0, 1)", "attention_probs_dropout_prob": "[0, 1)", "drop_path_rate": "[0, 1)",
    "mask_ratio": "(0, 1)", "layer_norm_eps": "[0, inf)", "initializer_range": "[0, inf)",
    "time_step_min": "(0, inf)", "time_step_max": "(0, inf)", "time_step_floor": "(0, inf)",
    "layer_scale_init_value": "(-inf, inf)",
}  # fmt: skip
# A frame begins every 10 ms.
LOWEST_RATE = 100


def lies_in(value: float, interval: str) -> bool:
    """Whether a number is in an interval such as "[0, 1)"."""
    low, high = map(float, interval[1:-1].split(", "))
    is_above = value >= low if interval[0] == "[" else value > low
    return is_above and (value <= high if interval[-1] == "]" else value < high)


def _as_pair(size: int | list[int] | tuple[int, ...]) -> tuple[int, ...]:
    """Mel bins and frames of a patch; one number is that of both."""
    return (size,) * 2 if isinstance(size, int) else tuple(size)


def _derive(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields that follow from others unless they are given."""
    backbone, height = fields.get("backbone"), fields.get("patch_size") or FFTPConfig.patch_size
    return {
        "frequency_stride": height if isinstance(height, int) else height[0],
        "pooling": "mean" if backbone == "convnext" else "cls",
        "layer_norm_eps": LAYER_NORM_EPS.get(backbone, LAYER_NORM_EPS[FFTPConfig.backbone]),
        "time_step_rank": ceil(fields.get("hidden_size", FFTPConfig.hidden_size) / 16),
    }


def _refuse_one_label(problem_type: str, num_labels: int | None) -> None:
    """Refuse to tell one label apart from nothing.

    Raises:
        ValueError: There are fewer than two labels for "single_label_classification".
    """
    if problem_type == SINGLE_LABEL and num_labels is not None and num_labels < 2:
        raise ValueError(
            f"num_labels={num_labels}: {problem_type} tells two labels apart or more; for one, problem_type is "
            "'regression' or 'multi_label_classification'"
        )


@strict
class FFTPConfig(PreTrainedConfig):
    """Shape of an FFTP model: input, patches, backbone and head.

    The defaults are FFTP-AST-base at 198 tokens on 10 s of sound. Square patches, the baseline of every comparison,
    are the same class with other numbers: `patch_size=16, frequency_stride=10, time_stride=10, max_length=1024`.

    Source: Makineni, Geng, Tian 2025 (arXiv 2508.21243) for the patches; Gong et al. 2021 (AST), Erol et al. 2024
    (AuM) and Liu et al. 2022 (ConvNeXt) for the backbones.

    Args:
        backbone: "ast" (bidirectional transformer), "mamba" (bidirectional state space model) or "convnext" (isotropic
            ConvNeXt: depthwise convolutions over the grid of patches).
        mamba_variant: Directions of the Mamba backbone: "fo-fo", "fo-bi" or "bi-bi" (Erol et al. 2024, figure 2).
        sampling_rate: Rate of the sound in Hz, that of the feature extractor; says when each frame is.
        num_mel_bins: Height of the spectrogram in mel bins.
        max_length: Length of the position table in frames of 10 ms. Shorter sound takes the head of the table, longer
            sound interpolates it; it is no limit on the input.
        patch_size: Mel bins and frames that one token sees; a single number means a square patch.
        frequency_stride: Mel bins between two patches. None: the height of a patch.
        time_stride: Frames between two patches: the dial between speed and accuracy. A trained model runs at any, by
            `from_pretrained(..., time_stride=10)`, by `set_time_stride`, or for one call.
        time_strides: Strides that the model was trained for, where it was for several.
        position_stride: Frames between two entries of the position table, which a model reads at the times of its
            tokens, whatever its stride. None: `time_stride`.
        use_absolute_position_embeddings: Whether tokens know when they are. Without, a causal model ("fo-fo" with
            pooling "mean") can go on from a state, for as long as a stream lasts.
        stretch_patches: Where the stride is wider than a patch, whether patches see all frames at a coarser sampling
            in time; else they skip those between them.
        hidden_size: Width of the backbone.
        num_hidden_layers: Number of blocks.
        num_attention_heads: Attention heads of the AST backbone.
        intermediate_size: Width of the feed-forward layers of AST and ConvNeXt.
        token_merge_layers: AST and ConvNeXt: layers, counted from 1, after each of which every two patch tokens that
            follow each other in time become one, which halves what later layers cost. It adds no weights, so it can be
            set for a trained model too. None: no tokens are merged.
        hidden_act: Activation of the feed-forward layers.
        hidden_dropout_prob: Dropout on embeddings and on the outputs of attention and feed-forward layers.
        attention_probs_dropout_prob: Dropout on attention weights.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 at the first.
        layer_norm_eps: Epsilon of the normalisation layers. None: 1e-12 as in AST, 1e-5 as in AuM, or 1e-6 as in
            ConvNeXt, whose norms can see the zeros of masked patches.
        initializer_range: Standard deviation of the initial weights.
        qkv_bias: Whether the query, key and value projections have a bias.
        state_size: Mamba: size of the state per channel.
        conv_kernel: Mamba: width of the causal convolution in tokens.
        expand: Mamba: inner width as a multiple of `hidden_size`.
        time_step_rank: Mamba: rank of the time step projection; "auto" means `hidden_size / 16`, rounded up.
        time_step_min: Mamba: smallest initial time step.
        time_step_max: Mamba: largest initial time step.
        time_step_floor: Mamba: lower bound on the initial time step.
        scan_implementation: Mamba: `implementation` of `selective_scan`, fixed when a model is made.
        layer_scale_init_value: ConvNeXt: initial factor on what a block adds; 1e-6 in the networks of Liu et al. that
            narrow by stages, and none, which is 1, in their isotropic ones.
        pooling: "cls" takes the class token (AST: the mean of class and distillation token), "mean" averages the patch
            tokens. None: "mean" for ConvNeXt, which has no class token, else "cls".
        num_class_tokens: Class tokens. AST: up to 2, of which the second is the distillation token; Mamba: up to 1.
            None: as many as there can be with pooling "cls", none with "mean". Weights from elsewhere may have one, or
            have class tokens that attend and are left out of the mean.
        mask_ratio: Pretraining: share of the patches that are hidden.
        decoder_hidden_size: Pretraining: width of the decoder, a transformer.
        decoder_num_hidden_layers: Pretraining: its blocks.
        decoder_num_attention_heads: Pretraining: its heads.
        decoder_intermediate_size: Pretraining: width of its feed-forward layers.
        problem_type: Selects the loss: "single_label_classification" (cross entropy; labels are indices or
            distributions; the default, which None stands for), "multi_label_classification" (binary cross entropy) or
            "regression".
        thresholds: Score from which a label counts as heard in timelines, by its name; of labels that are not there
            0.5. Training chooses them on validation.
        median_filter_seconds: Frame classifiers: length of the median filter over the scores of a label, by its name.

    Raises:
        ValueError: Fields that do not fit each other or name something unknown.
    """

    model_type = "fftp"

    backbone: str = "ast"
    mamba_variant: str = "fo-bi"
    sampling_rate: int = 16000
    num_mel_bins: int = 128
    max_length: int = 1000
    patch_size: int | list[int] | tuple[int, ...] = (128, 10)
    frequency_stride: int | None = None
    time_stride: int = 5
    time_strides: list[int] | tuple[int, ...] | None = None
    position_stride: int | None = None
    use_absolute_position_embeddings: bool = True
    stretch_patches: bool = False
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    token_merge_layers: list[int] | tuple[int, ...] | None = None
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.0
    layer_norm_eps: float | None = None
    initializer_range: float = 0.02
    qkv_bias: bool = True
    state_size: int = 16
    conv_kernel: int = 4
    expand: int = 2
    time_step_rank: int | str = "auto"
    time_step_min: float = 0.001
    time_step_max: float = 0.1
    time_step_floor: float = 1e-4
    scan_implementation: str = "auto"
    layer_scale_init_value: float | int = 1.0
    pooling: str | None = None
    num_class_tokens: int | None = None
    mask_ratio: float | int = 0.75
    decoder_hidden_size: int = 192
    decoder_num_hidden_layers: int = 2
    decoder_num_attention_heads: int = 3
    decoder_intermediate_size: int = 768
    problem_type: str | None = "single_label_classification"
    thresholds: dict[str, float | int] | None = None
    median_filter_seconds: dict[str, float | int] | None = None

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """A config of a saved one; keywords take the place of what was saved before anything is resolved.

        What was chosen for each label, thresholds and median filters, does not outlive the labels or their loss.
        """
        saved_names = index_names(config_dict.get("id2label"), *make_names(config_dict.get("num_labels") or 2))
        given = (kwargs.pop(name, None) for name in ("id2label", "label2id", "num_labels"))
        names = choose_names(saved_names, *given)
        changed = {name: kwargs.pop(name) for name in FFTPConfig.__annotations__ if name in kwargs}
        if changed.get("problem_type", "") is None:
            # As a command line passes on what nobody said.
            del changed["problem_type"]
        config_dict = dict(config_dict)
        if config_dict.pop("num_labels", None) is not None or names != saved_names:
            # Here and not, as transformers does, after the config is made: a loss may not fit the labels of before.
            changed |= {"id2label": names, "label2id": None}
        saved_loss = config_dict.get("problem_type") or SINGLE_LABEL
        is_other = names != saved_names or changed.get("problem_type", saved_loss) != saved_loss
        if is_other and (stale := [name for name in FIELDS_OF_LABELS if config_dict.get(name)]):
            fields = " and ".join(stale)
            logger.warning_once(f"The labels or their loss are not those that {fields} were chosen for: dropped")
            changed = dict.fromkeys(stale) | changed
        for name, value in _derive(config_dict).items():
            # What follows from other fields follows them where they change.
            if name not in changed and config_dict.get(name) == value:
                del config_dict[name]
        # A table without a stride of its own has the one that was saved with it, not one that takes its place.
        saved_stride = config_dict.get("time_stride", cls.time_stride)
        own = {"position_stride": config_dict.get("position_stride") or saved_stride}
        return super().from_dict({**config_dict, **own, **changed}, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field. New names of labels bring their indices with them, whatever was in `label2id` before.

        Raises:
            ValueError: Names or indices of labels that are none.
        """
        if name == "id2label" and value is not None:
            value = index_names(value)
            super().__setattr__("label2id", {label: index for index, label in value.items()})
        elif name == "label2id" and value is not None:
            value = index_labels(value)
        super().__setattr__(name, value)

    def __post_init__(self, **kwargs):
        """Bring fields that may be written in several ways into the form that every reader of the config relies on."""
        # JSON knows no tuples: one form in memory keeps round trips exact.
        self.patch_size = _as_pair(self.patch_size)
        self.token_merge_layers = tuple(self.token_merge_layers or ())
        self.time_strides = tuple(self.time_strides or ())
        if self.position_stride is None:
            # Resolved now, so that changing `time_stride` later does not change the table.
            self.position_stride = self.time_stride
        if self.problem_type is None:
            self.problem_type = SINGLE_LABEL
        for name, value in _derive(self.__dict__).items():
            if getattr(self, name) == ("auto" if name == "time_step_rank" else None):
                setattr(self, name, value)
        if self.id2label is None and self.label2id is not None:
            self.id2label = names_of(self.label2id)
        elif self.id2label is not None:
            refuse_other_indices(index_names(self.id2label), self.label2id)
        # Before transformers, whose words leave out that one label of several at once is possible.
        _refuse_one_label(self.problem_type, kwargs.get("num_labels") if self.id2label is None else len(self.id2label))
        if self.id2label is not None:
            refuse_other_names(self.id2label, kwargs.get("num_labels"))
        super().__post_init__(**kwargs)
        # Names decide; indices by names that do not follow from them would send events to other labels.
        self.label2id = {name: index for index, name in self.id2label.items()}

    def validate_architecture(self):
        """Check the fields against each other; `@strict` runs this after every construction.

        A patch size that was set by hand takes the form of one that was given.
        """
        self.patch_size = _as_pair(self.patch_size)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; expected one of {', '.join(choices)}")
        self._validate_numbers()
        self._validate_patches()
        self._validate_heads()
        self._validate_labels()
        self._validate_token_merge_layers()
        self._validate_class_tokens()

    def _validate_numbers(self):
        for name in POSITIVE_FIELDS:
            if (getattr(self, name) or 0) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name, interval in INTERVALS.items():
            if not lies_in(getattr(self, name), interval):
                raise ValueError(f"{name}={getattr(self, name)} must lie in {interval}")
        if self.time_step_min > self.time_step_max:
            raise ValueError(f"time_step_min={self.time_step_min} is above time_step_max={self.time_step_max}")
        if self.sampling_rate < LOWEST_RATE:
            raise ValueError(f"sampling_rate={self.sampling_rate} has no sample in 10 ms, from one frame to the next")
        if isinstance(self.time_step_rank, str) or self.time_step_rank < 1:
            raise ValueError(f"time_step_rank={self.time_step_rank!r} must be 'auto' or at least 1")

    def _validate_patches(self):
        if len(self.patch_size) != 2 or min(self.patch_size) < 1:
            raise ValueError(f"patch_size={self.patch_size} must be two positive numbers (mel bins, frames)")
        if self.patch_size[0] > self.num_mel_bins or self.patch_size[1] > self.max_length:
            raise ValueError(
                f"patch_size={self.patch_size} (mel bins, frames) does not fit into "
                f"num_mel_bins={self.num_mel_bins} x max_length={self.max_length}"
            )
        height, stride, num_mel_bins = self.patch_size[0], self.frequency_stride, self.num_mel_bins
        if height < num_mel_bins and (self.frequency_patches == 1 or stride > height):
            raise ValueError(
                f"patch_size={self.patch_size} (mel bins, frames) at frequency_stride={stride} leaves many of "
                f"num_mel_bins={num_mel_bins} unseen; expected patches as high as the spectrogram, or a "
                f"frequency_stride of at most {min(height, num_mel_bins - height)}"
            )
        strides = self.time_strides or ()
        if list(strides) != sorted({*strides}) or min(strides, default=1) < 1:
            raise ValueError(f"time_strides={strides} must be frames in ascending order, each at least 1")

    def _validate_heads(self):
        for prefix in ("", "decoder_") if self.backbone == "ast" else ("decoder_",):
            width, heads = (getattr(self, f"{prefix}{name}") for name in ("hidden_size", "num_attention_heads"))
            if width % heads:
                raise ValueError(
                    f"{prefix}hidden_size={width} is not a multiple of {prefix}num_attention_heads={heads}"
                )

    def _validate_labels(self):
        _refuse_one_label(self.problem_type, self.num_labels)
        if sorted(self.id2label) != [*range(self.num_labels)] or len(self.label2id) < self.num_labels:
            raise ValueError(f"id2label={self.id2label} must name the outputs 0, 1, ..., each differently")
        if any(self.label2id.get(name) != index for index, name in self.id2label.items()):
            raise ValueError(f"label2id={self.label2id} is not the inverse of id2label={self.id2label}; set both")
        for name, threshold in (self.thresholds or {}).items():
            if not 0 < threshold <= 1 and threshold != SILENT_THRESHOLD:
                raise ValueError(
                    f"thresholds[{name!r}]={threshold} must lie in (0, 1], as scores do, or be {SILENT_THRESHOLD:g}, "
                    "which none reaches"
                )
        for name, seconds in (self.median_filter_seconds or {}).items():
            if seconds < 0 or not isfinite(seconds):
                raise ValueError(f"median_filter_seconds[{name!r}]={seconds} must be a length, 0 or more")

    def _validate_token_merge_layers(self):
        layers = self.token_merge_layers
        if layers and self.backbone == "mamba":
            raise ValueError(f"token_merge_layers={layers} needs backbone='ast' or 'convnext', not 'mamba'")
        # After the last layer there is nothing left to save.
        possible = range(1, self.num_hidden_layers)
        if list(layers) != sorted({*layers}) or not all(layer in possible for layer in layers):
            raise ValueError(
                f"token_merge_layers={layers} must be layers in ascending order, each at least 1 and below "
                f"num_hidden_layers={self.num_hidden_layers}"
            )

    def _validate_class_tokens(self):
        least, most = int(self.pooling == "cls"), MOST_CLASS_TOKENS[self.backbone]
        if least > most:
            raise ValueError(f"pooling='cls' needs a class token, and backbone={self.backbone!r} has none; use 'mean'")
        if not least <= self.count_class_tokens() <= most:
            raise ValueError(
                f"num_class_tokens={self.num_class_tokens} must lie between {least} and {most} with "
                f"backbone={self.backbone!r} and pooling={self.pooling!r}"
            )

    def count_class_tokens(self) -> int:
        """Class tokens beside the patches, whether `num_class_tokens` says how many or leaves it to the pooling."""
        if self.num_class_tokens is not None:
            return self.num_class_tokens
        return MOST_CLASS_TOKENS[self.backbone] if self.pooling == "cls" else 0

    def resolve_time_stride(self, time_stride: int | None = None) -> int:
        """A stride that a call may name, or the model's own.

        Raises:
            ValueError: It is no whole number of frames, or below one.
        """
        if time_stride is None:
            return self.time_stride
        if isinstance(time_stride, (str, bool)) or time_stride % 1 or time_stride < 1:
            raise ValueError(f"time_stride={time_stride!r} must be a whole number of frames, at least 1")
        return int(time_stride)

    def patch_frames(self, time_stride: int | None = None) -> int:
        """Frames that a patch spans: those of `patch_size`, or where patches stretch at least the stride."""
        time_stride = self.resolve_time_stride(time_stride)
        return max(self.patch_size[1], time_stride) if self.stretch_patches else self.patch_size[1]

    def time_patches(self, num_frames, time_stride: int | None = None):
        """Number of patches along time in `num_frames` frames, at least one (shorter input is padded to one patch).

        Works on integers and, elementwise, on integer tensors.

        Args:
            num_frames: Frames of a clip, or of each.
            time_stride: Frames between patches; None is the model's.
        """
        time_stride = self.resolve_time_stride(time_stride)
        count = (num_frames - self.patch_frames(time_stride)) // time_stride + 1
        return count.clamp(min=1) if hasattr(count, "clamp") else max(count, 1)

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Patches along frequency and along time in a spectrogram of `max_length` frames."""
        return self.frequency_patches, self.time_patches(self.max_length)

    @property
    def position_grid(self) -> tuple[int, int]:
        """Entries of the position table along frequency and along time."""
        return self.frequency_patches, (self.max_length - self.patch_size[1]) // self.position_stride + 1

    @property
    def frequency_patches(self) -> int:
        """Patches along frequency."""
        return (self.num_mel_bins - self.patch_size[0]) // self.frequency_stride + 1

    @property
    def num_patches(self) -> int:
        """Patch tokens in a spectrogram of `max_length` frames, class tokens not counted."""
        frequency_patches, time_patches = self.patch_grid
        return frequency_patches * time_patches


__all__ = ["FFTPConfig"]
