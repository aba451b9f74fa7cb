"""What a pretraining can be told, by the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..arguments import FFTPTrainingArguments, ModelArguments
from ..command_line import parse_with_data
from ..contradictions import (
    goes_on_there,
    refuse_contradictions_of_loop,
    refuse_output_dir,
    refuse_patches_of_nothing,
)
from ..data.unlabelled import SoundArguments


@dataclass
class PretrainingModelArguments(ModelArguments):
    """What to pretrain. What is None here is as in `FFTPConfig`, or as in the checkpoint."""

    mask_ratio: float | None = field(default=None, metadata={"help": "Share of hidden patches; default: 0.75."})
    decoder_hidden_size: int | None = field(default=None, metadata={"help": "Width of the decoder; default: 192."})
    decoder_num_hidden_layers: int | None = field(default=None, metadata={"help": "Its blocks; default: 2."})
    decoder_num_attention_heads: int | None = field(default=None, metadata={"help": "Its heads; default: 3."})
    decoder_intermediate_size: int | None = field(
        default=None, metadata={"help": "Width of its feed-forward layers; default: 768."}
    )


@dataclass
class PretrainingArguments(FFTPTrainingArguments):
    """FFTPTrainingArguments with the defaults of masked pretraining."""

    # MAE has 1.5e-4 for 256 clips, and larger models.
    learning_rate: float = field(default=2e-4, metadata={"help": "Highest learning rate."})
    warmup_steps: float = field(
        default=0.05, metadata={"help": "Steps until the highest learning rate; below 1 their share of all."}
    )
    num_train_epochs: float = field(default=100, metadata={"help": "How often every recording is heard."})
    # As in MAE, for gradients that vary with what is hidden.
    adam_beta2: float = field(default=0.95, metadata={"help": "Decay rate of AdamW's second moment."})
    load_best_model_at_end: bool = field(
        default=False, metadata={"help": "Whether to keep the epoch with the lowest loss on validation."}
    )
    metric_for_best_model: str | None = field(
        default=None, metadata={"help": "What chooses the checkpoint; only the loss can."}
    )

    def __post_init__(self):
        """Choose checkpoints by the loss, which Trainer computes in evaluations where it knows the labels."""
        self.metric_for_best_model = self.metric_for_best_model or "loss"
        self.greater_is_better = bool(self.greater_is_better)
        super().__post_init__()
        self.label_names, self.prediction_loss_only = ["bool_masked_pos"], True


# What FFTPTrainingArguments know besides, and pretraining does not do.
UNUSED = (
    "do_train",
    "class_balanced",
    "freeze_backbone",
    "label_smoothing_factor",
    "stride_distillation",
    "calibrate",
    "target_precision",
    "onset_collar",
    "offset_collar",
    "eval_time_strides",
)
# The same of ModelArguments.
UNUSED_OF_MODEL = ("time_strides", "stretch_patches")

ARGUMENTS = (PretrainingModelArguments, SoundArguments, PretrainingArguments)


def parse(arguments: Sequence[str]) -> tuple[PretrainingModelArguments, SoundArguments, PretrainingArguments]:
    """Dataclasses from the words of the command line.

    Raises:
        SystemExit: Arguments that are unknown, missing, or do not go together.
    """
    usage = "fftp pretrain DATA --output_dir FOLDER [OPTION ...]"
    unused = (*UNUSED, *UNUSED_OF_MODEL)
    model, sound, training = parse_with_data(
        ARGUMENTS, arguments, "pretrain", usage, unused, validation_fraction="[0, 1)"
    )
    refuse_contradictions_of_pretraining(model, training)
    return model, sound, training


def refuse_contradictions_of_pretraining(model: PretrainingModelArguments, training: PretrainingArguments) -> None:
    """Stop on arguments that do not go together, or are for training with labels."""
    default = PretrainingArguments(training.output_dir)
    for name in UNUSED:
        if getattr(training, name) != getattr(default, name):
            raise SystemExit(f"pretrain: --{name} is for training with labels")
    for name in UNUSED_OF_MODEL:
        if getattr(model, name) is not None:
            raise SystemExit(f"pretrain: --{name} is for training with labels; pretraining has one stride")
    if training.metric_for_best_model.removeprefix("eval_") != "loss" or training.greater_is_better:
        raise SystemExit("pretrain: --metric_for_best_model is the loss, of which the lowest is best")
    if training.push_when_done:
        raise SystemExit(
            "pretrain: --push_to_hub is for trained models; "
            f"`fftp card {training.output_dir} --repo_id USER/NAME` and `fftp push {training.output_dir} USER/NAME` "
            "publish this"
        )
    refuse_contradictions_of_loop("pretrain", training)
    refuse_patches_of_nothing("pretrain", model)
    refuse_output_dir("pretrain", training.output_dir, goes_on_there(training))
