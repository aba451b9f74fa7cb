"""Arguments that are missing, make no sense or do not go together: said before anything is read."""

import os
from pathlib import Path
from typing import Any

from .arguments import (
    WITHOUT_LABELS,
    AugmentationArguments,
    DistillationArguments,
    FFTPTrainingArguments,
    ModelArguments,
)
from .data.arguments import DataArguments


def refuse_contradictions(
    model: ModelArguments,
    data: DataArguments,
    augmentation: AugmentationArguments,
    distillation: DistillationArguments,
    training: FFTPTrainingArguments,
) -> None:
    """Stop on arguments that are missing or do not go together."""
    if data.dataset_name is None:
        raise SystemExit("train: --dataset_name is missing: a Hub id, a local folder, or a CSV or JSON file")
    if (data.validation_column is None) != (data.validation_value is None):
        raise SystemExit(
            "train: --validation_column and --validation_value go together: a column and one of its groups"
        )
    if data.cache_features and data.features_on_device:
        raise SystemExit("train: --cache_features leaves nothing to compute on the device; drop one of the two")
    if both := {*data.exclude_labels} & {*data.none_labels}:
        raise SystemExit(f"train: --exclude_labels and --none_labels both name {both.pop()!r}; expected one of them")
    if data.max_train_samples is not None and data.max_train_samples < 1:
        raise SystemExit(f"train: --max_train_samples {data.max_train_samples} must be at least 1")
    if data.streaming and (data.cache_features or training.class_balanced):
        raise SystemExit(
            "train: --streaming reads clips in their order and keeps none; drop --cache_features and --class_balanced"
        )
    if model.patch_init is not None and model.model_name_or_path is None:
        raise SystemExit("train: --patch_init adapts a checkpoint; name it with --model_name_or_path")
    refuse_precision(training.target_precision)
    if training.target_precision is not None and not training.calibrate:
        raise SystemExit("train: --target_precision chooses thresholds; drop it or --calibrate false")
    if training.freeze_backbone and model.model_name_or_path is None:
        raise SystemExit("train: --freeze_backbone keeps a checkpoint's weights; name it with --model_name_or_path")
    if training.layer_decay is not None and not 0 < training.layer_decay <= 1:
        raise SystemExit(f"train: --layer_decay {training.layer_decay} must lie in (0, 1]")
    if not training.do_train and model.model_name_or_path is None:
        raise SystemExit("train: --do_train false evaluates a checkpoint; name it with --model_name_or_path")
    if training.push_when_done and not training.do_train:
        raise SystemExit("train: --push_to_hub pushes what was trained; without training use `fftp push`")
    if not 0 < data.validation_fraction < 1:
        raise SystemExit(f"train: --validation_fraction {data.validation_fraction} must lie between 0 and 1")
    low, *high = augmentation.colored_noise_snr
    if len(high) != 1 or low > high[0]:
        raise SystemExit(
            f"train: --colored_noise_snr {augmentation.colored_noise_snr}: expected two ratios in dB, the lower first"
        )
    refuse_contradictions_of_frames(data, augmentation, distillation, training)
    refuse_contradictions_of_teaching(data, distillation, training)
    refuse_contradictions_of_strides(model, augmentation, distillation, training)
    refuse_output_dir("train", training.output_dir, bool(training.resume_from_checkpoint))


def refuse_contradictions_of_frames(
    data: DataArguments,
    augmentation: AugmentationArguments,
    distillation: DistillationArguments,
    training: FFTPTrainingArguments,
) -> None:
    """Stop on what has no meaning, or no place, for steps in time."""
    collars = {name: getattr(training, name) for name in ("onset_collar", "offset_collar")}
    for name, seconds in collars.items():
        if seconds < 0:
            raise SystemExit(f"train: --{name} {seconds} must not be negative")
    if data.task == "clips":
        if given := [name for name in changed_arguments(training) if name in collars]:
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


def refuse_contradictions_of_teaching(
    data: DataArguments, distillation: DistillationArguments, training: FFTPTrainingArguments
) -> None:
    """Stop on arguments of a teacher that have no effect, or that exclude others."""
    given = changed_arguments(distillation)
    if distillation.teacher is None and given:
        raise SystemExit(f"train: --{given[0]} is about a teacher; name it with --teacher")
    if distillation.teacher is not None and not training.do_train:
        raise SystemExit("train: --teacher teaches; --do_train false only evaluates")
    if not 0 < distillation.teacher_share <= 1 or distillation.teacher_temperature <= 0:
        raise SystemExit(
            f"train: --teacher_share {distillation.teacher_share} must lie in (0, 1], --teacher_temperature "
            f"{distillation.teacher_temperature} above 0"
        )
    if distillation.teacher_only:
        unused = [name for name in changed_arguments(data) if name not in WITHOUT_LABELS]
        unused += [name for name in ("teacher_share",) if name in given]
        unused += ["class_balanced"] if training.class_balanced else []
        if unused:
            raise SystemExit(f"train: --{unused[0]} has no effect on sound without labels; drop it or --teacher_only")


def refuse_contradictions_of_strides(
    model: ModelArguments,
    augmentation: AugmentationArguments,
    distillation: DistillationArguments,
    training: FFTPTrainingArguments,
) -> None:
    """Stop on strides that make no sense, or a densest one that has nobody to teach."""
    for name, strides in (("time_strides", model.time_strides), ("eval_time_strides", training.eval_time_strides)):
        if min(strides or [1]) < 1:
            raise SystemExit(f"train: --{name} {strides}: expected frames, each at least 1")
    if augmentation.spec_mask_time_stride is not None:
        if augmentation.spec_mask_time_stride < 1:
            raise SystemExit(
                f"train: --spec_mask_time_stride {augmentation.spec_mask_time_stride}: expected at least 1"
            )
        if model.time_strides:
            raise SystemExit("train: with --time_strides masks follow each batch's; drop --spec_mask_time_stride")
        if not augmentation.spec_mask_budget:
            raise SystemExit("train: --spec_mask_time_stride places masks; drop it or --spec_mask_budget 0")
    if training.eval_time_strides and not training.do_train:
        raise SystemExit(
            "train: --eval_time_strides measures what a training leaves; --do_train false evaluates at --time_stride"
        )
    share = training.stride_distillation
    if not 0 <= share < 1:
        raise SystemExit(f"train: --stride_distillation {share} must lie in [0, 1)")
    if share and len(model.time_strides or ()) < 2:
        raise SystemExit("train: --stride_distillation teaches other strides; name them with --time_strides")
    if share and distillation.teacher is not None:
        raise SystemExit("train: --stride_distillation and --teacher are two teachers; drop one of the two")


def refuse_output_dir(command: str, folder: str, resumes: bool = False) -> None:
    """Stop where a model is already, which only a resumed run may replace, or where none can be written."""
    path = Path(folder).absolute()
    if (path / "model.safetensors").exists() and not resumes:
        raise SystemExit(f"{command}: {folder} holds a model already; choose another --output_dir")
    there = next(place for place in (path, *path.parents) if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        reason = "cannot be written to" if there.is_dir() else "is a file"
        raise SystemExit(f"{command}: --output_dir {folder}: {there} {reason}")


def refuse_precision(target: float | None, command: str = "train") -> None:
    """Stop on a share that is none."""
    if target is not None and not 0 < target <= 1:
        raise SystemExit(f"{command}: --target_precision {target} must lie in (0, 1]")


def changed_arguments(group: Any) -> list[str]:
    """Names of the arguments of a group that are not as by default."""
    return [name for name, value in vars(group).items() if value != getattr(type(group)(), name)]
