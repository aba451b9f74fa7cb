"""What a training can be told."""

import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import TrainingArguments
from transformers.utils import is_in_notebook

from .data.arguments import DataArguments
from .precision import gains_from_bfloat16

# The metric of the best checkpoint until the data says whether that is accuracy or mAP.
TASK_METRIC = "score"


@dataclass
class ModelArguments:
    """What to train. What is None here is as in `FFTPConfig`, or as in the checkpoint."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Checkpoint to start from: folder or Hub id of an FFTP, AST, ViT, DeiT or DINOv2 model, or file "
            "of SSAST or AuM. Other patches than its own are possible."
        },
    )
    patch_init: str | None = field(
        default=None,
        metadata={
            "help": "Patch embedding where a checkpoint gets patches of another size: random, resize, pi_resize or "
            "least_squares (fitted to the training clips); default: pi_resize."
        },
    )
    backbone: str | None = field(default=None, metadata={"help": "ast (default), mamba or convnext."})
    mamba_variant: str | None = field(default=None, metadata={"help": "fo-fo, fo-bi (default) or bi-bi."})
    hidden_size: int | None = field(default=None, metadata={"help": "Width; default: 768."})
    num_hidden_layers: int | None = field(default=None, metadata={"help": "Blocks; default: 12."})
    num_attention_heads: int | None = field(default=None, metadata={"help": "AST: heads; default: 12."})
    intermediate_size: int | None = field(
        default=None, metadata={"help": "AST, ConvNeXt: width of the feed-forward layers; default: 3072."}
    )
    sampling_rate: int | None = field(
        default=None,
        metadata={"help": "Hz that sound is resampled to: what lies above half of it is lost; default: 16000."},
    )
    patch_size: list[int] | None = field(
        default=None, metadata={"help": "Mel bins and frames, or one number for squares; default: 128 10."}
    )
    frequency_stride: int | None = field(
        default=None, metadata={"help": "Mel bins between patches; default: their height."}
    )
    time_stride: int | None = field(
        default=None,
        metadata={"help": "Frames between two patches; default: 5, as the checkpoint, or as wide as its new patches."},
    )
    time_strides: list[int] | None = field(
        default=None,
        metadata={
            "help": "Learn to run at each of these strides: every batch draws one. A new model's own is the first, "
            "unless --time_stride names another."
        },
    )
    use_absolute_position_embeddings: bool | None = field(
        default=None,
        metadata={"help": "Whether tokens know when they are; false for live Mamba models; default: true."},
    )
    stretch_patches: bool | None = field(
        default=None,
        metadata={"help": "At strides wider than a patch, see all frames more coarsely, instead of skipping some."},
    )
    token_merge_layers: list[int] | None = field(
        default=None, metadata={"help": "AST, ConvNeXt: layers after which neighbouring tokens merge; default: none."}
    )
    pooling: str | None = field(default=None, metadata={"help": "cls (default) or mean (ConvNeXt's)."})
    hidden_dropout_prob: float | None = field(default=None, metadata={"help": "Default: 0."})
    attention_probs_dropout_prob: float | None = field(default=None, metadata={"help": "AST: default: 0."})
    drop_path_rate: float | None = field(
        default=None, metadata={"help": "Stochastic depth of the last block; default: 0."}
    )
    layer_norm_eps: float | None = field(
        default=None, metadata={"help": "Default: 1e-12; Mamba: 1e-5; ConvNeXt: 1e-6."}
    )
    layer_scale_init_value: float | None = field(
        default=None, metadata={"help": "ConvNeXt: initial factor on what a block adds; default: 1."}
    )
    state_size: int | None = field(default=None, metadata={"help": "Mamba: states per channel; default: 16."})
    expand: int | None = field(default=None, metadata={"help": "Mamba: inner width in hidden sizes; default: 2."})
    attn_implementation: str | None = field(
        default=None, metadata={"help": "eager, sdpa, flash_attention_2, ...; default: transformers' choice."}
    )

    def __post_init__(self):
        """Let one number stand for a square patch, and the densest stride for a new model's own."""
        sizes = [self.patch_size] if isinstance(self.patch_size, int) else self.patch_size
        self.patch_size = sizes * 2 if sizes and len(sizes) == 1 else sizes
        self.time_strides = sorted({*self.time_strides}) if self.time_strides else None
        if self.time_strides and self.time_stride is None and self.model_name_or_path is None:
            self.time_stride = self.time_strides[0]

    @property
    def given(self) -> dict[str, Any]:
        """Fields of the config that were given."""
        others = ("model_name_or_path", "patch_init")
        # What is as by default leaves a checkpoint's own setting.
        defaults = {item.name: item.default for item in fields(self)}
        return {name: value for name, value in vars(self).items() if value != defaults[name] and name not in others}


@dataclass
class AugmentationArguments:
    """Changes to training clips; 0 turns one off."""

    mixup_probability: float = field(
        default=0.5, metadata={"help": "Share of clips that are mixed with another, sound and labels."}
    )
    mixup_alpha: float = field(
        default=10.0,
        metadata={"help": "Alpha of the Beta distribution of shares; larger: nearer to half and half."},
    )
    speed: float = field(default=0.0, metadata={"help": "Largest relative change of speed."})
    colored_noise: float = field(default=0.0, metadata={"help": "Share of clips with noise added to the sound."})
    colored_noise_snr: list[float] = field(
        default_factory=lambda: [10.0, 40.0], metadata={"help": "Lowest and highest signal-to-noise ratio in dB."}
    )
    roll_frames: int = field(default=10, metadata={"help": "Most frames by which a spectrogram is rolled along time."})
    stretch_time: float = field(default=0.0, metadata={"help": "Largest relative change of tempo."})
    stretch_frequency: float = field(default=0.0, metadata={"help": "Largest relative shift of the mel axis."})
    gain: float = field(default=0.0, metadata={"help": "Largest offset in normalised log units."})
    filter_augment: float = field(
        default=0.0, metadata={"help": "Largest offset of a random filter's bands in normalised log units."}
    )
    noise: float = field(default=0.1, metadata={"help": "Largest amplitude of uniform noise, normalised log units."})
    spec_mask_budget: float = field(default=0.2, metadata={"help": "Masked cells, or their share below 1."})
    spec_mask_full_share: float = field(
        default=0.7, metadata={"help": "Share of the budget for full-frequency masks."}
    )
    spec_mask_time_stride: int | None = field(
        default=None, metadata={"help": "Frames between places where masks may start; default: those of the patches."}
    )
    spec_augment_bins: int = field(default=0, metadata={"help": "Highest frequency mask of SpecAugment, in mel bins."})
    spec_augment_frames: int = field(default=0, metadata={"help": "Widest time mask of SpecAugment, in frames."})


@dataclass
class DistillationArguments:
    """Who teaches, beside the labels or in their place."""

    teacher: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of any audio classifier for the same classes."}
    )
    teacher_share: float = field(
        default=0.5, metadata={"help": "Share of the teacher's answers in the loss; the labels have the rest."}
    )
    teacher_temperature: float = field(default=1.0, metadata={"help": "Divides the logits of teacher and student."})
    teacher_only: bool = field(
        default=False, metadata={"help": "Learn the teacher's classes from sound without labels."}
    )
    teacher_trust_remote_code: bool = field(
        default=False, metadata={"help": "Run code that comes with the teacher. Not from a recipe."}
    )

    @property
    def share(self) -> float:
        """Of the teacher in the loss."""
        return 1.0 if self.teacher_only else self.teacher_share


@dataclass
class FFTPTrainingArguments(TrainingArguments):
    """TrainingArguments with the defaults of audio classification from scratch."""

    learning_rate: float = field(default=5e-4, metadata={"help": "Highest learning rate."})
    weight_decay: float = field(
        default=0.05, metadata={"help": "Weight decay of AdamW; biases, norms and the like have none."}
    )
    lr_scheduler_type: str = field(
        default="cosine", metadata={"help": "One of transformers' schedules, such as cosine, linear or constant."}
    )
    warmup_steps: float = field(
        default=0.1, metadata={"help": "Steps until the highest learning rate; below 1 their share of all."}
    )
    num_train_epochs: float = field(default=40, metadata={"help": "How often every clip is heard."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Clips in a batch, in each process."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "The same where clips are measured."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to measure: no, steps or epoch."})
    save_strategy: str = field(
        default="epoch", metadata={"help": "When to write a checkpoint: no, steps, epoch or best."}
    )
    save_total_limit: int | None = field(
        default=2, metadata={"help": "Checkpoints to keep, the best and the last among them."}
    )
    load_best_model_at_end: bool = field(
        default=True,
        metadata={"help": "Result: the checkpoint with the best --metric_for_best_model; false: the last."},
    )
    metric_for_best_model: str | None = field(
        default=None,
        metadata={
            "help": "What validation chooses the checkpoint by; default: accuracy, map where clips can have several "
            "labels, and loss for events with times."
        },
    )
    logging_strategy: str = field(default="epoch", metadata={"help": "When to log: no, steps or epoch."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "false, as the sound is one of them."})
    resume_from_checkpoint: str | None = field(
        default=None, metadata={"help": "true goes on from the last checkpoint in --output_dir, a path from another."}
    )
    disable_tqdm: bool | None = field(
        default=None, metadata={"help": "Draw no bars; default: where neither a terminal nor a notebook shows them."}
    )
    push_to_hub: bool = field(
        default=False, metadata={"help": "Push the finished folder, with its card, to --hub_model_id."}
    )
    do_train: bool = field(default=True, metadata={"help": "false: only evaluate the checkpoint."})
    eval_time_strides: list[int] | None = field(
        default=None,
        metadata={"help": "Strides at which the result is measured, for the card; default: --time_strides."},
    )
    stride_distillation: float = field(
        default=0.0,
        metadata={
            "help": "With --time_strides: share of the loss that other strides take from the model's own answer at "
            "the densest. It costs one more forward pass at that stride."
        },
    )
    calibrate: bool = field(
        default=True,
        metadata={
            "help": "After training choose on validation a temperature, and where a clip can have several labels a "
            "threshold for each."
        },
    )
    target_precision: float | None = field(
        default=None, metadata={"help": "Thresholds that keep this precision; default: those of the highest F1."}
    )
    onset_collar: float | None = field(
        default=None,
        metadata={
            "help": "Frames: seconds by which a right event may begin early or late; default: what a checkpoint that "
            "is evaluated was trained with, or 0.2."
        },
    )
    offset_collar: float | None = field(
        default=None, metadata={"help": "Frames: the same for its end, or a fifth of its length, if that is more."}
    )
    layer_decay: float | None = field(
        default=None,
        metadata={"help": "Learning rate of a block as a multiple of that of the next, such as 0.75; default: 1."},
    )
    freeze_backbone: bool = field(
        default=False,
        metadata={"help": "Of a checkpoint train only what is new: the head, and the embedding of new patches."},
    )
    class_balanced: bool = field(default=False, metadata={"help": "Draw clips of rare classes more often."})
    ema_decay: float | None = field(default=None, metadata={"help": "Result: moving average of the weights."})
    average_last_epochs: int | None = field(
        default=None, metadata={"help": "Result: mean of the weights after each of the last epochs."}
    )
    auto_bf16: bool = field(
        default=False, metadata={"help": "bf16 where the processor multiplies it faster than float32; logged."}
    )

    ddp_timeout: int = field(
        default=12 * 3600,
        metadata={"help": "Seconds that processes wait for one another, as while the first decodes."},
    )
    hub_license: str | None = field(default=None, metadata={"help": "Licence of the weights, for the card."})

    def __post_init__(self):
        """Let bf16 mean bf16 autocast on a machine without an accelerator too; a mean of epochs has no best one."""
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        words = {"true": True, "false": None}
        self.resume_from_checkpoint = words.get(str(self.resume_from_checkpoint).lower(), self.resume_from_checkpoint)
        if not self.do_train:
            self.eval_strategy = self.save_strategy = "no"
            self.load_best_model_at_end = False
        elif self.average_last_epochs:
            self.load_best_model_at_end = False
        elif self.load_best_model_at_end:
            self.metric_for_best_model = self.metric_for_best_model or TASK_METRIC
        # Trainer would push every checkpoint, and a pickle; the run pushes the finished folder.
        self.push_when_done, self.push_to_hub = self.push_to_hub, False
        if self.disable_tqdm is None and not (sys.stderr.isatty() or is_in_notebook()):
            # Bars would fill a file.
            self.disable_tqdm = True
        self.bf16 = self.bf16 or (self.auto_bf16 and gains_from_bfloat16(on_cpu=self.use_cpu))
        super().__post_init__()

    @property
    def repository_name(self) -> str:
        """Name of the repository to push to, with or without its user: as given, or else that of the output folder."""
        return self.hub_model_id or Path(self.output_dir).resolve().name

    def __getstate__(self):
        """Keep the token out of `training_args.bin`, which Trainer writes beside the weights."""
        return vars(self) | {"hub_token": None}


class RunArguments(NamedTuple):
    """All arguments of a training, in groups."""

    model: ModelArguments
    data: DataArguments
    augmentation: AugmentationArguments
    distillation: DistillationArguments
    training: FFTPTrainingArguments


ARGUMENTS = tuple(RunArguments.__annotations__.values())
