"""Arguments that are missing, make no sense or do not go together: said before anything is read."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from modeling_fftp.atomic_write import refuse_unwritable
from modeling_fftp.configuration_fftp import lies_in
from modeling_fftp.hub.metrics import NAMES, ONE_CLASS

from .arguments import TASK_METRIC, FFTPTrainingArguments, ModelArguments, RunArguments
from .checkpoints import holds_checkpoint
from .data.arguments import DataArguments, SourceArguments

# Where the values of arguments lie, in the notation of intervals.
LIMITS = {
    "sampling_rate": "[1000, inf)",
    "max_seconds": "[0.025, inf)", "max_train_samples": "[1, inf)", "validation_fraction": "(0, 1)",
    "max_left_out": "[0, 1]", "mixup_probability": "[0, 1]", "mixup_alpha": "(0, inf)", "speed": "[0, 1)",
    "colored_noise": "[0, 1]", "roll_frames": "[0, inf)", "stretch_time": "[0, 1)", "stretch_frequency": "[0, 1)",
    "gain": "[0, inf)", "filter_augment": "[0, inf)", "noise": "[0, inf)", "spec_mask_budget": "[0, inf)",
    "spec_mask_full_share": "[0, 1]", "spec_mask_time_stride": "[1, inf)", "spec_augment_bins": "[0, inf)",
    "spec_augment_frames": "[0, inf)", "teacher_share": "(0, 1]", "teacher_temperature": "(0, inf)",
    "label_smoothing_factor": "[0, 1)", "stride_distillation": "[0, 1)", "target_precision": "(0, 1]",
    "onset_collar": "[0, inf)", "offset_collar": "[0, inf)", "layer_decay": "(0, 1]", "ema_decay": "(0, 1)",
    "average_last_epochs": "[1, inf)", "num_train_epochs": "(0, inf)", "learning_rate": "[0, inf)",
    "weight_decay": "[0, inf)", "max_grad_norm": "[0, inf]", "per_device_train_batch_size": "[1, inf)",
    "per_device_eval_batch_size": "[1, inf)", "gradient_accumulation_steps": "[1, inf)",
    "eval_accumulation_steps": "[1, inf)", "dataloader_num_workers": "[0, inf)",
}  # fmt: skip
# Results of a split, as evaluations name them, that clips of any kind have.
METRICS = ("loss", *(name for name in NAMES if name not in ONE_CLASS))


def refuse_beyond_limits(command: str, *groups: Any, **others: str) -> None:
    """Stop on a value outside of `LIMITS`, or of others for this command."""
    for group in groups:
        for name, interval in (LIMITS | others).items():
            value = getattr(group, name, None)
            if value is not None and not lies_in(value, interval):
                raise SystemExit(f"{command}: --{name} {value} must lie in {interval}")


def refuse_contradictions(arguments: RunArguments) -> None:
    """Stop on arguments that are missing or do not go together."""
    model, data, augmentation, _, training = arguments
    if not data.dataset_name:
        raise SystemExit("train: --dataset_name is missing: a Hub id, a local folder, or a table")
    refuse_beyond_limits("train", *arguments)
    refuse_contradictions_of_data("train", data)
    if data.cache_features and data.features_on_device:
        raise SystemExit("train: --cache_features leaves nothing to compute on the device; drop one of the two")
    takes_an_order = training.class_balanced or training.train_sampling_strategy != "random"
    if data.streaming and (data.cache_features or takes_an_order):
        raise SystemExit(
            "train: --streaming reads clips in its own order and keeps none; drop --cache_features, --class_balanced "
            "and --train_sampling_strategy"
        )
    if data.cache_features and (augmentation.mixup_probability or augmentation.speed or augmentation.colored_noise):
        raise SystemExit("train: --cache_features goes with --mixup_probability 0, --speed 0 and --colored_noise 0")
    refuse_patches_of_nothing("train", model)
    budget = augmentation.spec_mask_budget
    if budget == 1 or (budget > 1 and budget != int(budget)):
        raise SystemExit(f"train: --spec_mask_budget {budget:g}: expected a number of cells, or their share, below 1")
    if training.target_precision is not None and not training.calibrate:
        raise SystemExit("train: --target_precision chooses thresholds; drop it or --calibrate false")
    if training.freeze_backbone and model.model_name_or_path is None:
        raise SystemExit("train: --freeze_backbone keeps a checkpoint's weights; name it with --model_name_or_path")
    if not training.do_train and model.model_name_or_path is None:
        raise SystemExit("train: --do_train false evaluates a checkpoint; name it with --model_name_or_path")
    if training.push_when_done or training.hub_model_id is not None:
        try:
            validate_repo_id(training.repository_name)
        except HFValidationError as error:
            raise SystemExit(f"train: --hub_model_id {training.repository_name}: {error}") from error
    if training.push_when_done and not training.do_train:
        raise SystemExit("train: --push_to_hub pushes what was trained; without training use `fftp push`")
    best = training.metric_for_best_model
    if best is not None and best.removeprefix("eval_") not in (TASK_METRIC, *METRICS, *ONE_CLASS):
        raise SystemExit(f"train: --metric_for_best_model {best}: expected one of {', '.join((*METRICS, *ONE_CLASS))}")
    low, *high = augmentation.colored_noise_snr
    if len(high) != 1 or low > high[0]:
        raise SystemExit(
            f"train: --colored_noise_snr {augmentation.colored_noise_snr}: expected two ratios in dB, the lower first"
        )
    refuse_contradictions_of_training(data, training)
    refuse_contradictions_of_frames(arguments)
    refuse_contradictions_of_teaching(arguments)
    refuse_contradictions_of_strides(arguments)
    refuse_output_dir("train", training.output_dir, goes_on_there(training))


def refuse_contradictions_of_data(command: str, source: SourceArguments) -> None:
    """Stop on clips that are chosen in two ways, or by half of what it takes."""
    if (source.validation_column is None) != (source.validation_value is None):
        raise SystemExit(
            f"{command}: --validation_column and --validation_value go together: a column and one of its groups"
        )
    if isinstance(source, DataArguments) and (both := {*source.exclude_labels} & {*source.none_labels}):
        raise SystemExit(
            f"{command}: --exclude_labels and --none_labels both name {both.pop()!r}; expected one of them"
        )


def refuse_patches_of_nothing(command: str, model: ModelArguments) -> None:
    """Stop where patches are adapted, but no checkpoint has any."""
    if model.patch_init is not None and model.model_name_or_path is None:
        raise SystemExit(f"{command}: --patch_init adapts a checkpoint; name it with --model_name_or_path")


def refuse_contradictions_of_training(data: DataArguments, training: FFTPTrainingArguments) -> None:
    """Stop on what transformers' Trainer or ours would refuse later, or trip over."""
    refuse_contradictions_of_loop("train", training)
    for name, wanted in (
        ("prediction_loss_only", False), ("eval_do_concat_batches", True), ("batch_eval_metrics", False),
    ):  # fmt: skip
        if getattr(training, name) is not wanted:
            raise SystemExit(f"train: --{name} {getattr(training, name)} leaves nothing to measure")
    if training.label_names not in (None, ["labels"]):
        raise SystemExit(f"train: --label_names {training.label_names}: the labels of every batch are called 'labels'")
    for name in ("bf16_full_eval", "fp16_full_eval"):
        if getattr(training, name):
            raise SystemExit(
                f"train: --{name} would round the weights that are saved, since an evaluation after the training "
                "casts the model itself; drop it, --bf16 or --fp16 holds for evaluations too"
            )
    if training.class_balanced and training.train_sampling_strategy != "random":
        raise SystemExit("train: --class_balanced draws clips by their classes; drop it or --train_sampling_strategy")
    if training.class_balanced and data.none_labels:
        raise SystemExit("train: --class_balanced draws clips by their classes; those of --none_labels have none")


def refuse_contradictions_of_loop(command: str, training: FFTPTrainingArguments) -> None:
    """Stop on what no training can do, with labels or without."""
    chooses_epoch = training.load_best_model_at_end and training.eval_strategy == IntervalStrategy.EPOCH
    if chooses_epoch and training.max_steps <= 0 and training.eval_delay > training.num_train_epochs:
        raise SystemExit(
            f"{command}: --eval_delay {training.eval_delay:g} is beyond --num_train_epochs "
            f"{training.num_train_epochs:g}: no epoch would validate, of which to keep the best"
        )
    if training.ema_decay and training.average_last_epochs:
        raise SystemExit(f"{command}: --ema_decay and --average_last_epochs are two averages; expected one")
    if training.average_last_epochs and training.save_strategy == SaveStrategy.STEPS:
        raise SystemExit(
            f"{command}: --average_last_epochs does not go with --save_strategy steps: a checkpoint inside an epoch "
            "would miss its end"
        )
    if training.dataloader_persistent_workers and not training.dataloader_num_workers:
        raise SystemExit(f"{command}: --dataloader_persistent_workers needs --dataloader_num_workers above 0")
    for name in ("ema_decay", "average_last_epochs", "stride_distillation"):
        if getattr(training, name) and (is_asked_for("fsdp", training) or is_asked_for("deepspeed", training)):
            raise SystemExit(f"{command}: --{name} needs whole weights; FSDP and DeepSpeed keep only a part of them")


def is_asked_for(name: str, training: FFTPTrainingArguments) -> bool:
    """Whether the arguments ask for "fsdp" or "deepspeed", or `accelerate launch` does, by what it tells processes."""
    return bool(getattr(training, name)) or os.environ.get(f"ACCELERATE_USE_{name.upper()}") == "true"


def refuse_contradictions_of_frames(arguments: RunArguments) -> None:
    """Stop on what has no meaning, or no place, for steps in time."""
    _, data, augmentation, distillation, training = arguments
    collars = ("onset_collar", "offset_collar")
    if data.task == "clips":
        if given := [name for name in collars if getattr(training, name) is not None]:
            raise SystemExit(f"train: --{given[0]} is about events; add --task frames")
        return
    given = {
        "streaming": data.streaming, "cache_features": data.cache_features,
        "features_on_device": data.features_on_device, "stretch_time": augmentation.stretch_time,
        "teacher": distillation.teacher, "label_smoothing_factor": training.label_smoothing_factor,
        "class_balanced": training.class_balanced, "target_precision": training.target_precision,
        "stride_distillation": training.stride_distillation, "eval_time_strides": training.eval_time_strides,
    }  # fmt: skip
    if unused := [name for name, value in given.items() if value]:
        raise SystemExit(f"train: --{unused[0]} does not go with --task frames")
    if is_asked_for("fsdp", training):
        raise SystemExit("train: FSDP does not go with --task frames, whose events one process measures alone")


def refuse_contradictions_of_teaching(arguments: RunArguments) -> None:
    """Stop on arguments of a teacher that have no effect, or that exclude others."""
    _, data, _, distillation, training = arguments
    given = changed_arguments(distillation)
    if distillation.teacher is None and given:
        raise SystemExit(f"train: --{given[0]} is about a teacher; name it with --teacher")
    if distillation.teacher is not None and not training.do_train:
        raise SystemExit("train: --teacher teaches; --do_train false only evaluates")
    if distillation.teacher_only:
        of_sound = {item.name for item in fields(SourceArguments)}
        unused = [name for name in changed_arguments(data) if name not in of_sound]
        unused += [name for name in ("teacher_share",) if name in given]
        unused += [name for name in ("class_balanced", "label_smoothing_factor") if getattr(training, name)]
        if unused:
            raise SystemExit(f"train: --{unused[0]} has no effect on sound without labels; drop it or --teacher_only")


def refuse_contradictions_of_strides(arguments: RunArguments) -> None:
    """Stop on strides that make no sense, or a densest one that has nobody to teach."""
    model, _, augmentation, distillation, training = arguments
    for name, strides in (("time_strides", model.time_strides), ("eval_time_strides", training.eval_time_strides)):
        if min(strides or [1]) < 1:
            raise SystemExit(f"train: --{name} {strides}: expected frames, each at least 1")
    if augmentation.spec_mask_time_stride is not None:
        if model.time_strides:
            raise SystemExit("train: with --time_strides masks follow each batch's; drop --spec_mask_time_stride")
        if not augmentation.spec_mask_budget:
            raise SystemExit("train: --spec_mask_time_stride places masks; drop it or --spec_mask_budget 0")
    if training.eval_time_strides and not training.do_train:
        raise SystemExit(
            "train: --eval_time_strides measures what a training leaves; --do_train false evaluates at --time_stride"
        )
    share = training.stride_distillation
    if share and len(model.time_strides or ()) < 2:
        raise SystemExit("train: --stride_distillation teaches other strides; name them with --time_strides")
    if share and distillation.teacher is not None:
        raise SystemExit("train: --stride_distillation and --teacher are two teachers; drop one of the two")


def goes_on_there(training: FFTPTrainingArguments) -> bool:
    """Whether a training goes on from a checkpoint of its own output folder, so that it may replace what is there."""
    checkpoint = training.resume_from_checkpoint
    if not (training.do_train and checkpoint):
        return False
    if checkpoint is True or not Path(checkpoint).is_dir():
        # What is no checkpoint is refused as that.
        return True
    return Path(checkpoint).resolve().parent == Path(training.output_dir).resolve()


def refuse_output_dir(command: str, folder: str, resumes: bool = False) -> None:
    """Stop where a model or a part of one is already, which only a resumed run may replace, or none can be written."""
    if not folder:
        raise SystemExit(f"{command}: --output_dir is empty; expected the folder to create")
    path = Path(folder).absolute()
    if (path / "model.safetensors").exists() and not resumes:
        raise SystemExit(f"{command}: {folder} holds a model already; choose another --output_dir")
    if not resumes and holds_checkpoint(path):
        raise SystemExit(
            f"{command}: {folder} holds checkpoints of a training that did not end; go on with it by "
            "--resume_from_checkpoint true, or choose another --output_dir"
        )
    try:
        refuse_unwritable(path)
    except OSError as error:
        raise SystemExit(f"{command}: --output_dir {error}") from error


def changed_arguments(group: Any) -> list[str]:
    """Names of the arguments of a group that are not as by default."""
    default = type(group)()
    return [name for name, value in vars(group).items() if value != getattr(default, name)]
