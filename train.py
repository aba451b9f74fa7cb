"""Train or fine-tune an FFTP model on an audio data set.

    python train.py hub_cards/NAME/recipe.json --dataset_name DATA --output_dir FOLDER

A recipe is a JSON file of the arguments below; what the command line says wins over it. DATA is a Hub id, a local
data-set folder (parquet with embedded audio, or one folder of sound files per class), or a CSV or JSON file with a
column of paths. Sound of any rate and channel count is decoded by soundfile and resampled by soxr.
"""

import difflib
import json
import logging
import os
import sys
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path

import torch
from datasets import Dataset
from sklearn.metrics import accuracy_score, average_precision_score
from transformers import EvalPrediction, HfArgumentParser, TrainingArguments, set_seed

from feature_extraction import FFTPFeatureExtractor, SpecMask, SpecMaskDataCollator
from feature_extraction.audio_dataset_fftp import (
    AUDIO_COLUMNS,
    LABEL_COLUMNS,
    class_names,
    decode_dataset,
    find_column,
    hold_out_fraction,
    hold_out_group,
    load_splits,
)
from feature_extraction.augment_fftp import Mixup, RandomCrop, RandomGain, Stretch, TimeRoll, UniformNoise
from feature_extraction.log_mel_fftp import num_frames
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.trainer_fftp import FFTPTrainer

logger = logging.getLogger("train")

SAMPLING_RATE = 16000
# Longest training clip unless --max_seconds says otherwise.
MAX_SECONDS = 10.0


@dataclass
class ModelArguments:
    """What to train. A checkpoint fixes all but the labels; without one the fields below shape a new model."""

    model_name_or_path: str | None = field(default=None, metadata={"help": "FFTP checkpoint to fine-tune."})
    backbone: str = field(default="ast", metadata={"help": "ast or mamba."})
    mamba_variant: str = field(default="fo-bi", metadata={"help": "fo-fo, fo-bi or bi-bi."})
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    patch_size: list[int] = field(default_factory=lambda: [128, 10], metadata={"help": "Mel bins and frames."})
    frequency_stride: int = field(default=128, metadata={"help": "Mel bins between two patches."})
    time_stride: int = field(default=5, metadata={"help": "Frames between two patches."})
    pooling: str = field(default="cls", metadata={"help": "cls or mean."})
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    drop_path_rate: float = 0.0
    layer_norm_eps: float = 1e-12
    attn_implementation: str | None = field(
        default=None, metadata={"help": "eager, sdpa, flash_attention_2, ...; default: transformers' choice."}
    )


@dataclass
class DataArguments:
    """Where sound and labels come from."""

    dataset_name: str | None = field(default=None, metadata={"help": "Hub id, local folder, or CSV/JSON file."})
    dataset_config_name: str | None = None
    audio_column_name: str | None = field(default=None, metadata={"help": f"Default: one of {AUDIO_COLUMNS}."})
    label_column_name: str | None = field(default=None, metadata={"help": f"Default: one of {LABEL_COLUMNS}."})
    train_split_name: str = "train"
    validation_split_name: str = "validation"
    test_split_name: str = "test"
    validation_fraction: float = field(
        default=0.1, metadata={"help": "Share of the training clips to validate on where there is no such split."}
    )
    validation_column: str | None = field(
        default=None, metadata={"help": "Column that groups clips (fold, speaker): one group validates instead."}
    )
    validation_value: str | None = field(default=None, metadata={"help": "The group that validates."})
    max_seconds: float | None = field(
        default=None,
        metadata={"help": "Length of training clips; longer ones are cropped. Default: the longest, <= 10."},
    )
    max_train_samples: int | None = None
    num_proc: int | None = field(default=None, metadata={"help": "Processes that decode the sound."})


@dataclass
class AugmentationArguments:
    """Changes to training clips; 0 turns one off."""

    mixup_probability: float = 0.5
    mixup_alpha: float = 10.0
    roll_frames: int = 10
    stretch_time: float = field(default=0.0, metadata={"help": "Largest relative change of tempo."})
    stretch_frequency: float = field(default=0.0, metadata={"help": "Largest relative shift of the mel axis."})
    gain: float = field(default=0.0, metadata={"help": "Largest offset in normalised log units."})
    noise: float = field(default=0.1, metadata={"help": "Largest amplitude of uniform noise, normalised log units."})
    spec_mask_budget: float = field(default=0.2, metadata={"help": "Masked cells, or their share below 1."})
    spec_mask_full_share: float = 0.7


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

    def __post_init__(self):
        """Let bf16 mean bf16 autocast on a machine without an accelerator too."""
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        super().__post_init__()


def parse_arguments(arguments: list[str]) -> tuple:
    """Dataclasses from a recipe (a first argument that ends in .json) and the command line, which wins."""
    parser = HfArgumentParser(
        (ModelArguments, DataArguments, AugmentationArguments, FFTPTrainingArguments), allow_abbrev=False
    )
    names = [item.name for group in parser.dataclass_types for item in fields(group) if item.init]
    if arguments and arguments[0].endswith(".json"):
        recipe = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        refuse_unknown(recipe, names, arguments[0])
        parser.set_defaults(**recipe)
        arguments = arguments[1:]
    *groups, unknown = parser.parse_args_into_dataclasses(arguments, return_remaining_strings=True)
    refuse_unknown([name.removeprefix("--") for name in unknown], names, "the command line")
    data = groups[1]
    if data.dataset_name is None:
        raise SystemExit("train.py: --dataset_name is missing: a Hub id, a local folder, or a CSV or JSON file")
    if (data.validation_column is None) != (data.validation_value is None):
        raise SystemExit(
            "train.py: --validation_column and --validation_value go together: a column and one of its groups"
        )
    training = groups[-1]
    if Path(training.output_dir, "model.safetensors").exists() and not training.resume_from_checkpoint:
        raise SystemExit(f"train.py: {training.output_dir} holds a model already; choose another --output_dir")
    return tuple(groups)


def refuse_unknown(given, names: list[str], origin: str) -> None:
    """Stop on misspelt arguments, with the nearest valid name."""
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SystemExit(f"train.py: unknown argument {name!r} in {origin}{hint}")


def load_clips(arguments: DataArguments, seed: int) -> tuple[dict[str, Dataset], list[str], bool]:
    """Decoded splits, "train" and "validation" among them, the class names, and whether clips have several labels."""
    splits = load_splits(arguments.dataset_name, arguments.dataset_config_name)
    if arguments.train_split_name not in splits:
        raise ValueError(f"no split {arguments.train_split_name!r} in {arguments.dataset_name}; it has {[*splits]}")
    train = splits[arguments.train_split_name]
    audio_column = find_column(train, "audio", arguments.audio_column_name)
    label_column = find_column(train, "label", arguments.label_column_name)
    labels, is_multi_label = class_names(train, label_column)
    roles = {"train": "train_split_name", "validation": "validation_split_name", "test": "test_split_name"}
    decode = partial(
        decode_dataset,
        audio_column=audio_column,
        label_column=label_column,
        labels=labels,
        sampling_rate=SAMPLING_RATE,
        folder=Path(arguments.dataset_name).parent,
        num_proc=arguments.num_proc,
    )
    group = arguments.validation_column
    clips = {
        role: decode(splits[name], keep_columns=[group] if group and role == "train" else []).with_format("numpy")
        for role, name in ((role, getattr(arguments, field_name)) for role, field_name in roles.items())
        if name in splits
    }
    if group:
        clips["train"], clips["validation"] = hold_out_group(clips["train"], group, arguments.validation_value)
    elif "validation" not in clips:
        clips["train"], clips["validation"] = hold_out_fraction(clips["train"], arguments.validation_fraction, seed)
        logger.warning(
            "No split %r: %d of %d clips, drawn with seed %d, validate. Clips of one speaker or recording may be on "
            "both sides; --validation_column keeps groups together.",
            arguments.validation_split_name,
            len(clips["validation"]),
            len(clips["validation"]) + len(clips["train"]),
            seed,
        )
    if arguments.max_train_samples:
        shuffled = clips["train"].shuffle(seed=seed)
        clips["train"] = shuffled.select(range(min(arguments.max_train_samples, len(shuffled))))
    return clips, labels, is_multi_label


def build_model(
    model_arguments: ModelArguments, train: Dataset, max_seconds: float, labels: list[str], problem_type: str
) -> tuple[FFTPForAudioClassification, FFTPFeatureExtractor]:
    """A new model with an extractor that knows the training audio's statistics, or a checkpoint with a new head."""
    names = dict(enumerate(labels))
    settings = {
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
        "problem_type": problem_type,
    }
    shape = dict(vars(model_arguments))
    source = shape.pop("model_name_or_path")
    if source:
        settings["attn_implementation"] = model_arguments.attn_implementation
        model = FFTPForAudioClassification.from_pretrained(source, ignore_mismatched_sizes=True, **settings)
        extractor = FFTPFeatureExtractor.from_pretrained(source)
        if extractor.sampling_rate != SAMPLING_RATE:
            raise ValueError(
                f"{source} is for sound at {extractor.sampling_rate} Hz; train.py gives {SAMPLING_RATE} Hz"
            )
        return model, extractor
    max_length = max(shape["patch_size"][-1], num_frames(round(max_seconds * SAMPLING_RATE), SAMPLING_RATE))
    config = FFTPConfig(max_length=max_length, **shape, **settings)
    extractor = FFTPFeatureExtractor(config.num_mel_bins, SAMPLING_RATE, max_length)
    extractor.mean, extractor.std = extractor.measure(example["audio"] for example in train)
    logger.info("Training audio: mean %.4f, std %.4f (natural log of mel energies)", extractor.mean, extractor.std)
    return FFTPForAudioClassification(config), extractor


def build_collator(
    arguments: AugmentationArguments, extractor: FFTPFeatureExtractor, config: FFTPConfig, max_seconds: float
) -> SpecMaskDataCollator:
    """The training collator with what the recipe turns on."""
    transforms = [
        (arguments.stretch_time or arguments.stretch_frequency)
        and Stretch(arguments.stretch_time, arguments.stretch_frequency),
        arguments.roll_frames and TimeRoll(arguments.roll_frames),
        arguments.gain and RandomGain(arguments.gain),
        arguments.noise and UniformNoise(arguments.noise),
    ]
    budget, full_share = arguments.spec_mask_budget, arguments.spec_mask_full_share
    mixup = Mixup(arguments.mixup_alpha, arguments.mixup_probability) if arguments.mixup_probability else None
    return SpecMaskDataCollator(
        extractor,
        SpecMask.from_config(config, budget, full_share) if budget else None,
        crop=RandomCrop(round(max_seconds * SAMPLING_RATE)),
        mixup=mixup,
        num_labels=config.num_labels,
        transforms=[transform for transform in transforms if transform],
    )


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy, or for several labels per clip the mean average precision over classes that have positives."""
    logits, labels = prediction.predictions, prediction.label_ids
    if labels.ndim == 1:
        return {"accuracy": accuracy_score(labels, logits.argmax(axis=-1))}
    has_positives = labels.any(axis=0)
    return {"map": average_precision_score(labels[:, has_positives], logits[:, has_positives])}


def main(arguments: list[str]) -> None:
    """Run the whole training."""
    model_arguments, data, augmentation, training = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    set_seed(training.seed)

    with training.main_process_first(desc="decoding"):
        clips, labels, is_multi_label = load_clips(data, training.seed)
    metric = "map" if is_multi_label else "accuracy"
    training.metric_for_best_model = training.metric_for_best_model or metric
    longest = max(map(len, clips["train"].data.column("audio"))) / SAMPLING_RATE
    max_seconds = data.max_seconds or min(MAX_SECONDS, longest)

    problem_type = "multi_label_classification" if is_multi_label else "single_label_classification"
    model, extractor = build_model(model_arguments, clips["train"], max_seconds, labels, problem_type)
    collator = build_collator(augmentation, extractor, model.config, max_seconds)
    trainer = FFTPTrainer(
        model=model,
        args=training,
        data_collator=collator,
        train_dataset=clips["train"],
        eval_dataset=clips["validation"],
        processing_class=extractor,
        compute_metrics=compute_metrics,
        callbacks=[collator],
    )
    if trainer.is_world_process_zero():
        os.makedirs(training.output_dir, exist_ok=True)
        groups = (model_arguments, data, augmentation)
        recipe = {key: value for group in groups for key, value in vars(group).items()} | training.to_dict()
        Path(training.output_dir, "arguments.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    result = trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_state()
    trainer.save_metrics("train", result.metrics)
    for name in ("validation", "test"):
        if name in clips:
            metrics = trainer.evaluate(clips[name], metric_key_prefix=name)
            trainer.save_metrics(name, metrics)
            score = metrics[f"{name}_{metric}"]
            print(f"{name} {metric}: {score:.4f} on {len(clips[name])} clips, model in {training.output_dir}")


if __name__ == "__main__":
    main(sys.argv[1:])
