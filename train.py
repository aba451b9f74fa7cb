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
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

import evaluate
import torch
from datasets import ClassLabel, Dataset, List
from transformers import EvalPrediction, HfArgumentParser, TrainingArguments, set_seed

from feature_extraction import FFTPFeatureExtractor, SpecAugment, SpecMask, SpecMaskDataCollator
from feature_extraction.audio_dataset_fftp import (
    AUDIO_COLUMNS,
    LABEL_COLUMNS,
    ClipDecoder,
    class_names,
    compute_features,
    decode_dataset,
    find_column,
    hold_out_fraction,
    hold_out_group,
    load_splits,
    read_class_names,
    report_left_out,
)
from feature_extraction.augment_fftp import (
    ColoredNoise,
    FilterAugment,
    Mixup,
    RandomCrop,
    RandomGain,
    SpeedPerturb,
    Stretch,
    TimeRoll,
    UniformNoise,
)
from feature_extraction.log_mel_fftp import num_frames
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.trainer_fftp import FFTPTrainer, WeightAveraging, multiplies_bfloat16

logger = logging.getLogger("train")

SAMPLING_RATE = 16000
METRIC = Path(__file__).parent / "hub_cards" / "metrics" / "audio_tagging"
# The metric of the best checkpoint until the data says whether that is accuracy or mAP.
TASK_METRIC = "score"
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
    state_size: int = field(default=16, metadata={"help": "States per channel of the Mamba backbone."})
    expand: int = field(default=2, metadata={"help": "Inner width of a Mamba block in hidden sizes."})
    attn_implementation: str | None = field(
        default=None, metadata={"help": "eager, sdpa, flash_attention_2, ...; default: transformers' choice."}
    )


@dataclass
class DataArguments:
    """Where sound and labels come from."""

    dataset_name: str | None = field(default=None, metadata={"help": "Hub id, local folder, or CSV/JSON file."})
    dataset_config_name: str | None = None
    dataset_data_dir: str | None = field(default=None, metadata={"help": "Folder inside the Hub data set."})
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Hub revision; refs/convert/parquet for data sets that are scripts."}
    )
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
    label_separator: str | None = field(
        default=None,
        metadata={"help": "What stands between classes where one string holds several."},
    )
    class_names_file: str | None = field(
        default=None,
        metadata={"help": "CSV of index, id and display name, like AudioSet's; the labels are ids."},
    )
    exclude_labels: list[str] = field(default_factory=list, metadata={"help": "Classes whose clips are not used."})
    max_left_out: float = field(
        default=0.05,
        metadata={"help": "Largest share of undecodable or mislabelled clips to go on without."},
    )
    cache_features: bool = field(
        default=False, metadata={"help": "Compute features once, not per batch; without mixup and cropping."}
    )
    num_proc: int | None = field(default=None, metadata={"help": "Processes that decode the sound."})


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
    spec_augment_bins: int = field(default=0, metadata={"help": "Highest frequency mask of SpecAugment, in mel bins."})
    spec_augment_frames: int = field(default=0, metadata={"help": "Widest time mask of SpecAugment, in frames."})


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
    class_balanced: bool = field(default=False, metadata={"help": "Draw clips of rare classes more often."})
    ema_decay: float | None = field(default=None, metadata={"help": "Result: moving average of the weights."})
    average_last_epochs: int | None = field(
        default=None, metadata={"help": "Result: mean of the weights after each of the last epochs."}
    )
    auto_bf16: bool = field(
        default=False, metadata={"help": "bf16 where the processor multiplies it, else float32; logged."}
    )

    def __post_init__(self):
        """Let bf16 mean bf16 autocast on a machine without an accelerator too; an average has no best epoch."""
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        words = {"true": True, "false": None}
        self.resume_from_checkpoint = words.get(str(self.resume_from_checkpoint).lower(), self.resume_from_checkpoint)
        if self.ema_decay or self.average_last_epochs:
            self.load_best_model_at_end = False
        elif self.load_best_model_at_end:
            self.metric_for_best_model = self.metric_for_best_model or TASK_METRIC
        self.bf16 = self.bf16 or (self.auto_bf16 and multiplies_bfloat16(on_cpu=self.use_cpu))
        super().__post_init__()


ARGUMENTS = (ModelArguments, DataArguments, AugmentationArguments, FFTPTrainingArguments)


def parse_arguments(arguments: list[str]) -> tuple:
    """Dataclasses from a recipe (a first argument that ends in .json) and the command line, which wins."""
    parser = HfArgumentParser(ARGUMENTS, allow_abbrev=False)
    names = [item.name for group in ARGUMENTS for item in fields(group) if item.init]
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
    if not training.do_train and groups[0].model_name_or_path is None:
        raise SystemExit("train.py: --do_train false evaluates a checkpoint; name it with --model_name_or_path")
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


def build_decoder(arguments: DataArguments, train: Dataset) -> ClipDecoder:
    """What the training split says about columns and classes."""
    audio_column = find_column(train, "audio", arguments.audio_column_name)
    label_column = find_column(train, "label", arguments.label_column_name)
    labels, is_multi_label = class_names(train, label_column, arguments.label_separator)
    names = {label: label for label in labels}
    if arguments.class_names_file:
        names = read_class_names(Path(arguments.class_names_file))
    unknown = [label for label in arguments.exclude_labels if label not in names]
    if unknown:
        raise ValueError(f"--exclude_labels {unknown[0]!r} is not among the classes {[*names]}")
    feature = train.features[label_column]
    feature = feature.feature if isinstance(feature, List) else feature
    return ClipDecoder(
        audio_column,
        label_column,
        {label: name for label, name in names.items() if label not in arguments.exclude_labels},
        SAMPLING_RATE,
        index_names=feature.names if isinstance(feature, ClassLabel) else None,
        is_multi_label=is_multi_label,
        separator=arguments.label_separator,
        excluded=arguments.exclude_labels,
        folder=Path(arguments.dataset_name).parent,
    )


def load_clips(arguments: DataArguments, training: FFTPTrainingArguments) -> tuple[dict[str, Dataset], ClipDecoder]:
    """Decoded splits, "train" and "validation" among them, and how they were decoded."""
    source = (arguments.dataset_name, arguments.dataset_config_name)
    splits = load_splits(*source, arguments.dataset_data_dir, arguments.dataset_revision)
    if arguments.train_split_name not in splits:
        raise ValueError(f"no split {arguments.train_split_name!r} in {arguments.dataset_name}; it has {[*splits]}")
    decoder = build_decoder(arguments, splits[arguments.train_split_name])
    roles = {"train": "train_split_name", "validation": "validation_split_name", "test": "test_split_name"}
    names = {role: getattr(arguments, field_name) for role, field_name in roles.items()}
    group = arguments.validation_column
    if not training.do_train and names["validation"] in splits and not group:
        del names["train"]
    clips, left_out = {}, {}
    for role, name in names.items():
        if name in splits:
            columns = [group] if group and role == "train" else []
            decoded, left_out[name] = decode_dataset(
                splits[name], decoder, keep_columns=columns, num_proc=arguments.num_proc
            )
            clips[role] = decoded.with_format("numpy")
    sizes = {names[role]: len(split) for role, split in clips.items()}
    report_left_out(left_out, sizes, arguments.max_left_out, Path(training.output_dir, "left_out_clips.csv"))
    if group:
        clips["train"], clips["validation"] = hold_out_group(clips["train"], group, arguments.validation_value)
    elif "validation" not in clips:
        clips["train"], clips["validation"] = hold_out_fraction(
            clips["train"], arguments.validation_fraction, training.seed
        )
        logger.warning(
            "No split %r: %d of %d clips, drawn with seed %d, validate. Clips of one speaker or recording may be on "
            "both sides; --validation_column keeps groups together.",
            arguments.validation_split_name,
            len(clips["validation"]),
            len(clips["validation"]) + len(clips["train"]),
            training.seed,
        )
    if arguments.max_train_samples and "train" in clips:
        shuffled = clips["train"].shuffle(seed=training.seed)
        clips["train"] = shuffled.select(range(min(arguments.max_train_samples, len(shuffled))))
    return clips, decoder


def build_model(
    model_arguments: ModelArguments,
    train: Dataset,
    max_seconds: float,
    names: list[str],
    problem_type: str,
    keep_classes: bool,
) -> tuple[FFTPForAudioClassification, FFTPFeatureExtractor]:
    """A new model with an extractor that knows the training audio's statistics, or a checkpoint with a new head."""
    settings = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        "problem_type": problem_type,
    }
    shape = dict(vars(model_arguments))
    source = shape.pop("model_name_or_path")
    if source:
        known = [*FFTPConfig.from_pretrained(source).id2label.values()]
        if keep_classes and known != names:
            raise ValueError(f"{source} tells apart {known}; the data has {names}")
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
    arguments: AugmentationArguments,
    extractor: FFTPFeatureExtractor,
    config: FFTPConfig,
    max_seconds: float | None,
    label_smoothing: float,
) -> SpecMaskDataCollator:
    """The training collator with what the recipe turns on; no crop without `max_seconds`."""
    transforms = [
        (arguments.stretch_time or arguments.stretch_frequency)
        and Stretch(arguments.stretch_time, arguments.stretch_frequency),
        arguments.roll_frames and TimeRoll(arguments.roll_frames),
        arguments.gain and RandomGain(arguments.gain),
        arguments.filter_augment and FilterAugment(arguments.filter_augment),
        arguments.noise and UniformNoise(arguments.noise),
        (arguments.spec_augment_bins or arguments.spec_augment_frames)
        and SpecAugment(arguments.spec_augment_bins, arguments.spec_augment_frames),
    ]
    budget, full_share = arguments.spec_mask_budget, arguments.spec_mask_full_share
    mixup = Mixup(arguments.mixup_alpha, arguments.mixup_probability) if arguments.mixup_probability else None
    return SpecMaskDataCollator(
        extractor,
        SpecMask.from_config(config, budget, full_share) if budget else None,
        speed=SpeedPerturb(arguments.speed) if arguments.speed else None,
        crop=RandomCrop(round(max_seconds * SAMPLING_RATE)) if max_seconds else None,
        mixup=mixup,
        noise=ColoredNoise(arguments.colored_noise, *arguments.colored_noise_snr) if arguments.colored_noise else None,
        label_smoothing=label_smoothing,
        num_labels=config.num_labels,
        transforms=[transform for transform in transforms if transform],
    )


def build_scorer(names: list[str]) -> Callable[[EvalPrediction], dict]:
    """Gives all results of the metric `audio_tagging` from logits and labels."""
    # In memory: processes that evaluate side by side share no files.
    metric = evaluate.load(str(METRIC), keep_in_memory=True)
    return lambda prediction: metric.compute(
        predictions=prediction.predictions, references=prediction.label_ids, class_names=names
    )


def only_numbers(results: dict) -> dict[str, float]:
    """The results that are one number."""
    return {name: value for name, value in results.items() if isinstance(value, float)}


def evaluate_split(trainer: FFTPTrainer, clips: Dataset, name: str, scorer: Callable, metric: str) -> None:
    """Evaluate a split, and write its results and those of each class."""
    prediction = trainer.predict(clips, metric_key_prefix=name)
    trainer.log_metrics(name, prediction.metrics)
    trainer.save_metrics(name, prediction.metrics)
    if trainer.is_world_process_zero():
        results = scorer(prediction)
        path = Path(trainer.args.output_dir, f"{name}_per_class.json")
        details = {key: results[key] for key in ("per_class", "left_out")}
        path.write_text(json.dumps(details, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        score = "not defined" if results[metric] is None else f"{results[metric]:.4f}"
        print(f"{name} {metric}: {score} on {len(clips)} clips, results in {trainer.args.output_dir}")


def run_training(trainer: FFTPTrainer, groups: tuple, label_smoothing: float) -> None:
    """Train, and leave the model, the extractor, all arguments and the results in the output folder."""
    training = trainer.args
    if trainer.is_world_process_zero():
        os.makedirs(training.output_dir, exist_ok=True)
        recipe = {key: value for group in groups for key, value in vars(group).items()} | training.to_dict()
        recipe["label_smoothing_factor"] = label_smoothing
        Path(training.output_dir, "arguments.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    result = trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_state()
    trainer.save_metrics("train", result.metrics)


def main(arguments: list[str]) -> None:
    """Run the whole training."""
    model_arguments, data, augmentation, training = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    set_seed(training.seed)
    precision = "bfloat16 autocast" if training.bf16 else "float16 autocast" if training.fp16 else "float32"
    batch = training.train_batch_size * training.gradient_accumulation_steps * training.world_size
    logger.info(
        "Precision %s, effective batch %d clips (%d processes), learning rate %g",
        precision,
        batch,
        training.world_size,
        training.learning_rate,
    )

    with training.main_process_first(desc="decoding"):
        clips, decoder = load_clips(data, training)
    metric = "map" if decoder.is_multi_label else "accuracy"
    if training.metric_for_best_model == TASK_METRIC:
        training.metric_for_best_model = metric
    longest = max(map(len, clips.get("train", clips["validation"]).data.column("audio"))) / SAMPLING_RATE
    max_seconds = data.max_seconds or min(MAX_SECONDS, longest)

    problem_type = "multi_label_classification" if decoder.is_multi_label else "single_label_classification"
    classes = [*decoder.labels.values()]
    model, extractor = build_model(
        model_arguments, clips.get("train"), max_seconds, classes, problem_type, keep_classes=not training.do_train
    )
    if data.cache_features:
        on_sound = (augmentation.speed, augmentation.mixup_probability, augmentation.colored_noise)
        if any(on_sound) or longest > max_seconds:
            raise SystemExit(
                "train.py: --cache_features goes with --mixup_probability 0, --speed 0, --colored_noise 0 and no crops"
            )
        with training.main_process_first(desc="features"):
            clips, max_seconds = {role: compute_features(split, extractor) for role, split in clips.items()}, None
    # Ours smooths what mixup mixed as well; transformers' own would refuse that.
    label_smoothing, training.label_smoothing_factor = training.label_smoothing_factor, 0.0
    collator = build_collator(augmentation, extractor, model.config, max_seconds, label_smoothing)
    scorer = build_scorer(classes)
    averaging = None
    if training.ema_decay or training.average_last_epochs:
        averaging = WeightAveraging(training.ema_decay, training.average_last_epochs)
    trainer = FFTPTrainer(
        model=model,
        args=training,
        data_collator=collator,
        train_dataset=clips.get("train"),
        eval_dataset=clips["validation"],
        processing_class=extractor,
        compute_metrics=lambda prediction: only_numbers(scorer(prediction)),
        callbacks=[collator],
        class_balanced=training.class_balanced,
        averaging=averaging,
    )
    if training.do_train:
        run_training(trainer, (model_arguments, data, augmentation), label_smoothing)
    for name in ("validation", "test"):
        if name in clips:
            evaluate_split(trainer, clips[name], name, scorer, metric)


if __name__ == "__main__":
    main(sys.argv[1:])
