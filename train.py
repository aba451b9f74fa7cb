"""Train or fine-tune an FFTP model on an audio data set.

    python train.py hub_cards/NAME/recipe.json --dataset_name DATA --output_dir FOLDER

A recipe is a JSON file of the arguments in modeling_fftp/arguments.py; the command line wins over it. DATA is a Hub
id, a local data-set folder (parquet with embedded audio, or one folder of sound files per class), or a CSV or JSON
file with a column of paths. Sound of any rate and channel count is decoded by soundfile and resampled by soxr.
"""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import evaluate
import torch
import yaml
from datasets import ClassLabel, Dataset, List
from huggingface_hub import DatasetCard, HfApi
from huggingface_hub.errors import HfHubHTTPError
from transformers import EvalPrediction, set_seed

from feature_extraction import FFTPFeatureExtractor, SpecAugment, SpecMask, SpecMaskDataCollator
from feature_extraction.augmentation import (
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
from hub_cards import METRIC
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.hub.card import write_card
from modeling_fftp.hub.efficiency import measure_efficiency
from modeling_fftp.hub.push import push, refuse_other_model
from modeling_fftp.training.arguments import (
    TASK_METRIC,
    AugmentationArguments,
    DataArguments,
    FFTPTrainingArguments,
    ModelArguments,
    find_recipe,
    parse_arguments,
)
from modeling_fftp.training.audio_dataset import (
    ClipDecoder,
    class_names,
    clip_lengths,
    compute_features,
    decode_dataset,
    find_column,
    hold_out_fraction,
    hold_out_group,
    load_splits,
    read_class_names,
    report_left_out,
)
from modeling_fftp.training.memory import keep_freed_memory
from modeling_fftp.training.trainer import FFTPTrainer, WeightAveraging

logger = logging.getLogger("train")

SAMPLING_RATE = 16000
# Longest training clip unless --max_seconds says otherwise.
MAX_SECONDS = 10.0


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


def load_clips(
    arguments: DataArguments, training: FFTPTrainingArguments
) -> tuple[dict[str, Dataset], ClipDecoder, dict[str, int]]:
    """Decoded splits, "train" and "validation" among them, how they were decoded, and how many clips each left out."""
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
    return clips, decoder, {role: len(left_out[name]) for role, name in names.items() if left_out.get(name)}


def describe_data(arguments: DataArguments, lengths: dict[str, list[int]], left_out: dict[str, int]) -> dict:
    """What the card says about the data; `lengths` are those of the clips of each split in samples."""
    source = arguments.dataset_name
    is_local = Path(source).exists()
    try:
        license = DatasetCard.load(Path(source, "README.md") if is_local else source).data.license
        license = ", ".join(license) if isinstance(license, list) else license
    except (OSError, ValueError, yaml.YAMLError, HfHubHTTPError) as error:
        logger.info("The licence of the data is not known: %s", error)
        license = None
    return {
        "dataset": Path(source).resolve().name if is_local else source,
        "hub_id": None if is_local else source,
        "license": license,
        "splits": {
            role: {"clips": len(samples), "hours": sum(samples) / SAMPLING_RATE / 3600}
            for role, samples in lengths.items()
        },
        "left_out": left_out,
    }


def write_results(training: FFTPTrainingArguments, name: str, results: dict) -> None:
    """Write `NAME.json` into the output folder."""
    if training.process_index == 0:
        path = Path(training.output_dir, f"{name}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def build_model(
    model_arguments: ModelArguments,
    train: Dataset,
    max_seconds: float,
    names: list[str],
    problem_type: str,
    keep_classes: bool,
) -> tuple[FFTPForAudioClassification, FFTPFeatureExtractor]:
    """A new model with an extractor that knows the training audio's statistics, or a checkpoint with its own.

    The head of a checkpoint for other classes starts anew, also where there are as many.
    """
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
        if model_arguments.token_merge_layers is not None:
            settings["token_merge_layers"] = model_arguments.token_merge_layers
        model = FFTPForAudioClassification.from_pretrained(source, ignore_mismatched_sizes=True, **settings)
        if known != names:
            logger.info("%s tells apart other classes: the head starts anew", source)
            with torch.no_grad():
                model.classifier.dense.weight.normal_(0, model.config.initializer_range)
                model.classifier.dense.bias.zero_()
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
    features_on_device: bool = False,
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
    min_snr, max_snr = arguments.colored_noise_snr
    noise = ColoredNoise(arguments.colored_noise, min_snr, max_snr) if arguments.colored_noise else None
    mixup = Mixup(arguments.mixup_alpha, arguments.mixup_probability) if arguments.mixup_probability else None
    return SpecMaskDataCollator(
        extractor,
        SpecMask.from_config(config, budget, full_share) if budget else None,
        speed=SpeedPerturb(arguments.speed) if arguments.speed else None,
        crop=RandomCrop(round(max_seconds * SAMPLING_RATE)) if max_seconds else None,
        mixup=mixup,
        noise=noise,
        label_smoothing=label_smoothing,
        num_labels=config.num_labels,
        transforms=[transform for transform in transforms if transform],
        defer_features=features_on_device,
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
        write_results(trainer.args, f"{name}_per_class", {key: results[key] for key in ("per_class", "left_out")})
        score = "not defined" if results[metric] is None else f"{results[metric]:.4f}"
        print(f"{name} {metric}: {score} on {len(clips)} clips, results in {trainer.args.output_dir}")


def run_training(trainer: FFTPTrainer, groups: tuple, label_smoothing: float) -> None:
    """Train, and leave the model, the extractor, all arguments and the results in the output folder."""
    training = trainer.args
    arguments = {key: value for group in groups for key, value in vars(group).items()} | training.to_dict()
    write_results(training, "arguments", arguments | {"label_smoothing_factor": label_smoothing})
    result = trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_state()
    trainer.save_metrics("train", result.metrics)


def main(arguments: list[str]) -> None:
    """Run the whole training."""
    keep_freed_memory()
    model_arguments, data, augmentation, training = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if training.push_when_done:
        find_repository(training)
    recipe = find_recipe((model_arguments, data, augmentation, training))
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
        clips, decoder, left_out = load_clips(data, training)
    metric = "map" if decoder.is_multi_label else "accuracy"
    if training.metric_for_best_model == TASK_METRIC:
        training.metric_for_best_model = metric
    lengths = {role: clip_lengths(split) for role, split in clips.items()}
    described = describe_data(data, lengths, left_out)
    longest = max(lengths.get("train", lengths["validation"])) / SAMPLING_RATE
    max_seconds = data.max_seconds or min(MAX_SECONDS, longest)

    problem_type = "multi_label_classification" if decoder.is_multi_label else "single_label_classification"
    classes = [*decoder.labels.values()]
    model, extractor = build_model(
        model_arguments, clips.get("train"), max_seconds, classes, problem_type, keep_classes=not training.do_train
    )
    if training.push_when_done:
        check_repository(model, training)
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
    collator = build_collator(
        augmentation, extractor, model.config, max_seconds, label_smoothing, data.features_on_device
    )
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
    if training.do_train and trainer.is_world_process_zero():
        write_results(training, "recipe", recipe)
        write_results(training, "data_results", described)
        seconds = min(longest, MAX_SECONDS)
        write_results(training, "efficiency_results", measure_efficiency(training.output_dir, seconds))
        publish(training)


def find_repository(training: FFTPTrainingArguments) -> None:
    """Full name of the repository to push to; raises where nobody is logged in."""
    user = HfApi(token=training.hub_token).whoami()["name"]
    name = training.hub_model_id or Path(training.output_dir).resolve().name
    training.hub_model_id = name if "/" in name else f"{user}/{name}"
    logger.info("Will push to %s", training.hub_model_id)


def check_repository(model: FFTPForAudioClassification, training: FFTPTrainingArguments) -> None:
    """Find out now, not after hours of training, that the repository holds another model."""
    api, repo_id = HfApi(token=training.hub_token), training.hub_model_id
    config = json.loads(model.config.to_json_string()) | {"architectures": [type(model).__name__]}
    try:
        refuse_other_model(api, repo_id, training.hub_revision or "main", config)
    except ValueError as error:
        raise SystemExit(
            f"train.py: {error}. Choose another --hub_model_id; or train without --push_to_hub, then "
            f"`python -m modeling_fftp.hub.push {training.output_dir} {repo_id} --overwrite`"
        ) from error


def publish(training: FFTPTrainingArguments) -> None:
    """Write the card, and push where that is wanted."""
    folder, repo_id = training.output_dir, training.hub_model_id
    write_card(folder, repo_id, training.hub_license)
    if training.push_when_done:
        private, revision = bool(training.hub_private_repo), training.hub_revision or "main"
        try:
            print(push(folder, repo_id, private=private, revision=revision, token=training.hub_token))
        except ValueError as error:
            raise SystemExit(
                f"train.py: {error}. {folder} is complete; `python -m modeling_fftp.hub.push {folder} {repo_id}` pushes it"
            ) from error


if __name__ == "__main__":
    main(sys.argv[1:])
