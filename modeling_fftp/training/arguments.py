"""What a training can be told: by a recipe, a JSON file of these arguments, and by the command line, which wins."""

import difflib
import json
from argparse import ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import HfArgumentParser, TrainingArguments

from hub_cards import list_recipes

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
            "least_squares (fitted to the training clips); default: what docs/start.md recommends."
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
    patch_size: list[int] | None = field(
        default=None, metadata={"help": "Mel bins and frames, or one number for squares; default: 128 10."}
    )
    frequency_stride: int | None = field(default=None, metadata={"help": "Mel bins between patches; default: 128."})
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
    hidden_dropout_prob: float | None = field(default=None, metadata={"help": "AST, ConvNeXt: default: 0."})
    attention_probs_dropout_prob: float | None = field(default=None, metadata={"help": "AST: default: 0."})
    drop_path_rate: float | None = field(
        default=None, metadata={"help": "Stochastic depth of the last block; default: 0."}
    )
    layer_norm_eps: float | None = field(default=None, metadata={"help": "Default: 1e-12; ConvNeXt: 1e-6."})
    layer_scale_init_value: float | None = field(
        default=None, metadata={"help": "ConvNeXt: initial factor on what a block adds; default: 1."}
    )
    state_size: int | None = field(default=None, metadata={"help": "Mamba: states per channel; default: 16."})
    expand: int | None = field(default=None, metadata={"help": "Mamba: inner width in hidden sizes; default: 2."})
    attn_implementation: str | None = field(
        default=None, metadata={"help": "eager, sdpa, flash_attention_2, ...; default: transformers' choice."}
    )

    # Fields that say nothing of a checkpoint's weights; subclasses have some.
    not_of_weights: ClassVar[tuple[str, ...]] = ()

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

    mixup_probability: float = 0.5
    mixup_alpha: float = 10.0
    speed: float = field(default=0.0, metadata={"help": "Largest relative change of speed."})
    colored_noise: float = field(default=0.0, metadata={"help": "Share of clips with noise added to the sound."})
    colored_noise_snr: list[float] = field(
        default_factory=lambda: [10.0, 40.0], metadata={"help": "Lowest and highest signal-to-noise ratio in dB."}
    )
    roll_frames: int = 10
    stretch_time: float = field(default=0.0, metadata={"help": "Largest relative change of tempo."})
    stretch_frequency: float = field(default=0.0, metadata={"help": "Largest relative shift of the mel axis."})
    gain: float = field(default=0.0, metadata={"help": "Largest offset in normalised log units."})
    filter_augment: float = field(
        default=0.0, metadata={"help": "Largest offset of a random filter's bands in normalised log units."}
    )
    noise: float = field(default=0.1, metadata={"help": "Largest amplitude of uniform noise, normalised log units."})
    spec_mask_budget: float = field(default=0.2, metadata={"help": "Masked cells, or their share below 1."})
    spec_mask_full_share: float = 0.7
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
    teacher_share: float = field(default=0.5, metadata={"help": "Of the loss; the rest is that of the labels."})
    teacher_temperature: float = field(default=1.0, metadata={"help": "Divides the logits of both."})
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

    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 0.1
    num_train_epochs: float = 40
    per_device_train_batch_size: int = 64
    per_device_eval_batch_size: int = 64
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    save_total_limit: int | None = 1
    load_best_model_at_end: bool = True
    logging_strategy: str = "epoch"
    remove_unused_columns: bool = False
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
    onset_collar: float = field(
        default=0.2, metadata={"help": "Frames: seconds by which a right event may begin early or late."}
    )
    offset_collar: float = field(
        default=0.2, metadata={"help": "Frames: the same for its end, or a fifth of its length, if that is more."}
    )
    layer_decay: float | None = field(
        default=None,
        metadata={"help": "Learning rate of a block as a multiple of that of the next, such as 0.75; default: 1."},
    )
    freeze_backbone: bool = field(default=False, metadata={"help": "Train the head alone."})
    class_balanced: bool = field(default=False, metadata={"help": "Draw clips of rare classes more often."})
    ema_decay: float | None = field(default=None, metadata={"help": "Result: moving average of the weights."})
    average_last_epochs: int | None = field(
        default=None, metadata={"help": "Result: mean of the weights after each of the last epochs."}
    )
    auto_bf16: bool = field(
        default=False, metadata={"help": "bf16 where the processor multiplies it faster than float32; logged."}
    )

    hub_license: str | None = field(default=None, metadata={"help": "Licence of the weights, for the card."})

    def __post_init__(self):
        """Let bf16 mean bf16 autocast on a machine without an accelerator too; an average has no best epoch."""
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        words = {"true": True, "false": None}
        self.resume_from_checkpoint = words.get(str(self.resume_from_checkpoint).lower(), self.resume_from_checkpoint)
        if not self.do_train:
            self.eval_strategy = self.save_strategy = "no"
            self.load_best_model_at_end = False
        elif self.ema_decay or self.average_last_epochs:
            self.load_best_model_at_end = False
        elif self.load_best_model_at_end:
            self.metric_for_best_model = self.metric_for_best_model or TASK_METRIC
        # Trainer would push every checkpoint, and a pickle; the run pushes the finished folder.
        self.push_when_done, self.push_to_hub = self.push_to_hub, False
        self.bf16 = self.bf16 or (self.auto_bf16 and gains_from_bfloat16(on_cpu=self.use_cpu))
        super().__post_init__()


# Arguments of data that sound without labels has as well.
WITHOUT_LABELS = (
    "dataset_name", "dataset_config_name", "dataset_data_dir", "dataset_revision", "audio_column_name",
    "validation_fraction", "validation_column", "validation_value", "max_seconds", "max_left_out", "num_proc",
)  # fmt: skip

ARGUMENTS = (ModelArguments, DataArguments, AugmentationArguments, DistillationArguments, FFTPTrainingArguments)


# What belongs to one machine or one run, and not into a recipe.
NOT_IN_RECIPE = (
    "output_dir", "dataset_name", "num_proc", "resume_from_checkpoint", "disable_tqdm", "report_to", "run_name",
    "use_cpu", "features_on_device", "push_to_hub", "hub_model_id", "hub_token", "hub_private_repo", "hub_revision",
    "dataloader_num_workers", "do_train", "teacher_trust_remote_code",
)  # fmt: skip


# Where these name something on this machine, the recipe has its bare name.
PATHS = ("model_name_or_path", "class_names_file", "teacher")


def find_recipe(groups: Sequence) -> dict[str, Any]:
    """The arguments that differ from their defaults: with the same data they train the same again.

    Raises:
        TypeError: An argument that JSON cannot hold.
    """
    recipe = {}
    for group in groups:
        if isinstance(group, TrainingArguments):
            given, default = group.to_dict(), type(group)(output_dir=group.output_dir).to_dict()
        else:
            given, default = vars(group), vars(type(group)())
        for name in [item.name for item in fields(group) if item.init and item.name not in NOT_IN_RECIPE]:
            if given[name] != default[name]:
                recipe[name] = given[name]
    for name in PATHS:
        if name in recipe and Path(recipe[name]).exists():
            recipe[name] = Path(recipe[name]).resolve().name
    if recipe.get("auto_bf16"):
        recipe.pop("bf16", None)
    return json.loads(json.dumps(recipe))


class HelpFormatter(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Shows defaults where there are any, and the recipes in lines of their own."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


def parse_arguments(arguments: list[str]) -> tuple:
    """Dataclasses from a recipe, if the first word names one, and the options, which win.

    Raises:
        SystemExit: A recipe that is not there, unknown arguments, or some that do not go together.
    """
    parser = HfArgumentParser(
        ARGUMENTS,
        allow_abbrev=False,
        prog="fftp train",
        usage="fftp train [RECIPE] --dataset_name DATA --output_dir FOLDER [OPTION ...]",
        epilog="\n  ".join(("RECIPE is a JSON file of options, or one of", *list_recipes())),
        formatter_class=HelpFormatter,
    )
    names = [item.name for group in ARGUMENTS for item in fields(group) if item.init]
    if arguments and not arguments[0].startswith("-"):
        recipe = read_recipe(arguments[0])
        refuse_unknown(recipe, names, arguments[0])
        if "teacher_trust_remote_code" in recipe:
            raise SystemExit("train: whether to trust a teacher's code is for the command line, not for a recipe")
        parser.set_defaults(**recipe)
        arguments = arguments[1:]
    *groups, unknown = parser.parse_args_into_dataclasses(arguments, return_remaining_strings=True)
    refuse_unknown([name.removeprefix("--") for name in unknown], names, "the command line")
    refuse_contradictions(*groups)
    return tuple(groups)


def read_recipe(source: str) -> dict[str, Any]:
    """A recipe by its path, which ends in .json, or by the name of its folder in `hub_cards`.

    Raises:
        SystemExit: There is none.
    """
    recipes = list_recipes()
    path = Path(source) if source.endswith(".json") else recipes.get(source)
    if path is None:
        near = difflib.get_close_matches(source, recipes, n=3, cutoff=0.0)
        raise SystemExit(
            f"train: no recipe {source!r}. Expected a JSON file, whose name ends in .json, or a name such as "
            f"{', '.join(near)}; `fftp train --help` lists all"
        )
    if not path.is_file():
        raise SystemExit(f"train: {source} is not a file; expected a recipe, a JSON file of arguments")
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise SystemExit(f"train: {source} is not valid JSON: {error}") from error
    if not isinstance(recipe, dict):
        raise SystemExit(f"train: {source} holds a {type(recipe).__name__}; expected an object of arguments")
    return recipe


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
    if Path(training.output_dir, "model.safetensors").exists() and not training.resume_from_checkpoint:
        raise SystemExit(f"train: {training.output_dir} holds a model already; choose another --output_dir")


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


def refuse_precision(target: float | None, command: str = "train") -> None:
    """Stop on a share that is none."""
    if target is not None and not 0 < target <= 1:
        raise SystemExit(f"{command}: --target_precision {target} must lie in (0, 1]")


def changed_arguments(group: Any) -> list[str]:
    """Names of the arguments of a group that are not as by default."""
    return [name for name, value in vars(group).items() if value != getattr(type(group)(), name)]


def refuse_unknown(given, names: list[str], origin: str, command: str = "train") -> None:
    """Stop on misspelt arguments, with the nearest valid name."""
    for name in given:
        if name not in names:
            if name in list_recipes():
                raise SystemExit(f"train: the recipe {name!r} must come first, before all options")
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SystemExit(f"{command}: unknown argument {name!r} in {origin}{hint}")
