"""A whole training: from a recipe and a data set to a folder that holds what users of the model need."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset

from feature_extraction import FFTPFeatureExtractor, SpecMaskDataCollator
from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.hub.efficiency import ON_CPU, measure_efficiency
from modeling_fftp.hub.figures import save_figure
from modeling_fftp.hub.metrics import ONE_CLASS
from modeling_fftp.hub.run_files import CALIBRATION, EFFICIENCY, EVALUATED, EXPLANATION, STRIDES
from modeling_fftp.modeling_fftp import FFTPPreTrainedModel
from modeling_fftp.serving.explain import draw, explain_recording

from .arguments import TASK_METRIC, FFTPTrainingArguments, RunArguments
from .calibration import Calibration, apply_calibration, fit_calibration, measure_calibration
from .class_balanced_sampler import ClassBalancedSampler, labels_of
from .collator import build_collator, changes_sound
from .command_line import find_recipe, parse_arguments
from .contradictions import METRICS
from .data.arguments import MAX_SECONDS
from .data.description import describe_data
from .data.features import compute_features
from .data.loading import Clips, cut_recordings, load_clips, warn_of_crops
from .data.plan import plan_data
from .data.recording_pieces import RecordingPieces
from .data.sampling import spread_sounds
from .data.streaming import stream_clips
from .evaluation import Scorer, build_scorer, evaluate_split, evaluate_strides, only_numbers
from .events.evaluation import choose_postprocessing, evaluate_events, score_steps, set_collars
from .model import build_model, read_config, read_crop_seconds, refuse_truncation
from .model_arguments import find_sampling_rate, refuse_impossible
from .publishing import check_repository, publish
from .results import forget_results, write_results
from .resuming import Resumed, find_resumed, measured_of_all, write_beginning
from .session import begin, build_averaging, measure_no_epoch, report_setting, train_or_go_on, try_out
from .teaching.distillation import BATCH, Distillation, Teacher, add_answers
from .teaching.teacher_labels import load_unlabelled_clips
from .trainer import FFTPTrainer

# Schedules that follow a metric.
WATCHING = ("reduce_lr_on_plateau", "greedy")
# Clips of which the longest is explained on the card.
EXPLAINED = 20


def run(words: Sequence[str]) -> None:
    """Load, train, evaluate, publish.

    Args:
        words: Of the command line: a recipe, by its name or path, if there is one, then options.

    Raises:
        SystemExit: Arguments that are wrong or do not go together.
        ValueError: Data or a checkpoint that cannot be used.
    """
    arguments = parse_arguments([*words])
    with begin(arguments.training):
        train_and_publish(arguments)


def train_and_publish(arguments: RunArguments) -> None:
    """The steps of a run, into a folder that no other run writes to."""
    training = arguments.training
    report_setting(training)
    recipe = find_recipe(arguments)
    refuse_impossible(arguments.model, training.do_train)
    if training.do_train:
        try_out(training)
    if arguments.data.task == "frames":
        set_collars(training, arguments.model.model_name_or_path)
    resumed = find_resumed(training, recipe)
    clips, teacher = load_data(arguments, resumed)
    if "validation" not in clips.splits:
        measure_no_epoch(training)
    if training.do_train and training.class_balanced:
        # What it refuses is said before features are computed.
        ClassBalancedSampler(torch.as_tensor(np.asarray(labels_of(clips.splits["train"]))))
    described = describe_data(arguments.data, clips)
    if arguments.distillation.teacher_only:
        described["labelled_by"] = recipe["teacher"]
    max_seconds = find_crop_seconds(arguments, clips)
    if clips.is_framewise:
        clips = cut_recordings(clips, max_seconds)
    elif training.do_train:
        warn_of_crops(clips, max_seconds)
    model, extractor = build_model(arguments.model, clips, max_seconds, training.do_train, training.freeze_backbone)
    if training.do_train:
        refuse_truncation(extractor, max_seconds)
    if resumed is not None:
        resumed.refuse_other_data(described)
        resumed.refuse_other_model(arguments.model, model)
        # Only row groups come in an order of their own.
        if getattr(clips.splits["train"], "groups", None):
            resumed.refuse_other_workers(training.dataloader_num_workers)
    if training.push_when_done:
        check_repository(model, training)
    validating = clips.sample("validation")
    clips, teacher, crop_seconds = prepare_sound(clips, teacher, extractor, arguments, max_seconds)

    choose_metric(training, clips)
    if training.do_train:
        # Now, so that a resumption can be held to it.
        write_beginning(training, arguments[:-1], recipe, described)
    # Ours smooths what mixup mixed as well; transformers' own would refuse that.
    label_smoothing, training.label_smoothing_factor = training.label_smoothing_factor, 0.0
    # A teacher hears the sound that the collator leaves to the trainer.
    on_device = arguments.data.features_on_device or teacher is not None
    collator = build_collator(
        arguments.augmentation, extractor, model.config, crop_seconds, label_smoothing, on_device, clips.is_framewise
    )
    scorer = build_scorer(clips.classes)
    scorer = score_steps(scorer) if clips.is_framewise else scorer
    trainer = build_trainer(arguments, model, extractor, collator, clips, scorer, teacher)

    if training.do_train:
        calibration = train(trainer, clips)
    else:
        calibration = None
        # Of other data or another model, beside which these would be read as theirs.
        forget_results(training)
    evaluate_splits(trainer, clips, scorer, calibration)
    if training.do_train:
        finish(trainer, clips, validating)


def find_crop_seconds(arguments: RunArguments, clips: Clips) -> float:
    """Length of the crops to learn from: what is asked for, unless all clips are shorter.

    A new model's windows have this length too; it would not know the end of longer ones. So a frame classifier that is
    only measured hears pieces as long as the crops that it learned from, where nothing else is asked for.
    """
    model, data, *_, training = arguments
    if data.streaming and data.max_seconds:
        # Not all lengths are known.
        return data.max_seconds
    learned = read_crop_seconds(model.model_name_or_path) if clips.is_framewise and not training.do_train else None
    return min(data.max_seconds or learned or MAX_SECONDS, clips.longest_seconds)


def prepare_sound(
    clips: Clips, teacher: Teacher | None, extractor: FFTPFeatureExtractor, arguments: RunArguments, max_seconds: float
) -> tuple[Clips, Teacher | None, float | None]:
    """Compute once what does not change between epochs: the teacher's logits, and features.

    Returns:
        The clips, with a teacher's answers and features in place of sound where these are known; who answers batch by
        batch, and what these are cropped to in seconds, as far as it takes either.

    Raises:
        SystemExit: Features were to be computed once, and an augmentation changes the sound of every batch.
    """
    data, training = arguments.data, arguments.training
    if data.streaming or changes_sound(arguments.augmentation, clips.longest_seconds, max_seconds):
        if data.cache_features:
            raise SystemExit(
                f"train: --cache_features leaves nothing to crop; drop it, or let --max_seconds {max_seconds:g} be at "
                f"least {clips.longest_seconds:g}, the length of the longest clip"
            )
        return clips, teacher, max_seconds
    if teacher is not None:
        with training.main_process_first(desc="answers"):
            clips.splits["train"] = add_answers(clips.splits["train"], teacher)
    if data.cache_features:
        with training.main_process_first(desc="features"):
            features = {role: compute_features(split, extractor) for role, split in clips.splits.items()}
        clips = replace(clips, splits=features)
    is_known = teacher is not None or data.cache_features
    return clips, None, None if is_known else max_seconds


def finish(trainer: FFTPTrainer, clips: Clips, validating: Dataset | None) -> None:
    """Measure what the saved model costs, draw what it listens to, and publish it.

    Args:
        trainer: The model's trainer.
        clips: All of the run.
        validating: Sound that validates.
    """
    training, strides = trainer.args, trainer.args.eval_time_strides or trainer.model.config.time_strides
    seconds = min(clips.longest_seconds, MAX_SECONDS)
    if strides and "validation" in clips.splits and not clips.is_framewise:
        measured = evaluate_strides(trainer, clips.splits["validation"], clips.metric, strides, seconds)
        write_results(training, STRIDES, measured)
    if trainer.is_world_process_zero():
        write_results(training, EFFICIENCY, measure_efficiency(training.output_dir, seconds))
        if validating and not clips.is_framewise:
            explain_longest(validating, training.output_dir)
        publish(training)


def explain_longest(clips: Dataset, folder: str) -> None:
    """Save a picture of what spoke in the longest of some clips, for the card."""
    longest = max(spread_sounds(clips, EXPLAINED), key=len)
    model = FFTPForAudioClassification.from_pretrained(folder, **ON_CPU).eval()
    extractor = FFTPFeatureExtractor.from_pretrained(folder)
    explanation = explain_recording(np.asarray(longest), model, extractor)
    save_figure(draw(explanation, extractor.sampling_rate), Path(folder, EXPLANATION))


def evaluate_splits(trainer: FFTPTrainer, clips: Clips, scorer: Scorer, calibration: Calibration | None) -> None:
    """Evaluate every split but that which trains, and write what a calibration changed."""
    measured = {}
    for name in EVALUATED:
        if name in clips.splits:
            prediction = evaluate_split(trainer, clips.splits[name], name, scorer, clips.metric)
            if clips.is_framewise:
                evaluate_events(trainer, clips.splits[name], name, prediction.metrics)
            elif calibration is not None:
                measured[name] = measure_calibration(*prediction[:2], trainer.model.config, calibration)
    if measured:
        write_results(trainer.args, CALIBRATION, asdict(calibration) | measured)


def load_data(arguments: RunArguments, resumed: Resumed | None) -> tuple[Clips, Teacher | None]:
    """The clips, and who teaches their classes, if anybody does."""
    model, data, _, distillation, training = arguments
    teacher, rate = None, find_sampling_rate(model)
    if distillation.teacher:
        # Before clips are decoded for hours.
        dtype = torch.bfloat16 if training.bf16 else torch.float16 if training.fp16 else None
        source, is_trusted = distillation.teacher, distillation.teacher_trust_remote_code
        teacher = Teacher(source, rate, training.device, dtype, is_trusted)
    plan = None
    if not distillation.teacher_only:
        config = None if training.do_train else read_config(model.model_name_or_path, data.task)
        plan = plan_data(data, training, config, rate)
    classes = teacher.classes if plan is None else plan.classes
    if resumed is not None:
        resumed.refuse_other_classes(classes)
    if teacher is not None:
        teacher.choose(classes)
    refuse_metric_of_one_class(training, (teacher if plan is None else plan.decoder).is_multi_label)
    if plan is None:
        clips = load_unlabelled_clips(data, training, teacher, rate)
    else:
        if teacher is not None:
            teacher.refuse_other_kind(plan.decoder.is_multi_label)
        clips = (stream_clips if data.streaming else load_clips)(plan, data, training)
    if teacher is None:
        return clips, None
    longest = round(find_crop_seconds(arguments, clips) * rate)
    teacher.report([sound[:longest] for sound in spread_sounds(clips.sample("train"), BATCH)])
    return clips, teacher


def refuse_metric_of_one_class(training: FFTPTrainingArguments, is_multi_label: bool) -> None:
    """Refuse to choose the best checkpoint by what clips with several classes do not have.

    Raises:
        ValueError: The arguments name such a metric.
    """
    if is_multi_label and (training.metric_for_best_model or "").removeprefix("eval_") in ONE_CLASS:
        raise ValueError(
            f"--metric_for_best_model {training.metric_for_best_model} is for clips with one class each; expected one "
            f"of {', '.join(METRICS)}"
        )


def choose_metric(training: FFTPTrainingArguments, clips: Clips) -> None:
    """Let the best checkpoint be that of the task's metric unless the arguments name another."""
    if training.metric_for_best_model == TASK_METRIC:
        train = clips.splits.get("train")
        # Of steps average precision stands still once they are in the right order, long before scores are far apart.
        # But what learned without times may be in that order with scores that no loss would have.
        by_loss = isinstance(train, RecordingPieces) and train.is_timed
        training.metric_for_best_model = "loss" if by_loss else clips.metric
        training.greater_is_better = not by_loss
    if training.lr_scheduler_type in WATCHING:
        # By themselves they take every metric for a loss.
        mode = {"mode": "max" if training.greater_is_better else "min"}
        training.lr_scheduler_kwargs = mode | (training.lr_scheduler_kwargs or {})
    # It grows with mAUC, and is infinite where that is 1.
    if (training.metric_for_best_model or "").removeprefix("eval_") == "d_prime":
        training.metric_for_best_model = "mauc"


def build_trainer(
    arguments: RunArguments,
    model: FFTPPreTrainedModel,
    extractor: FFTPFeatureExtractor,
    collator: SpecMaskDataCollator,
    clips: Clips,
    scorer: Scorer,
    teacher: Teacher | None,
) -> FFTPTrainer:
    """The trainer of a run."""
    training, distillation = arguments.training, arguments.distillation
    return FFTPTrainer(
        model=model,
        args=training,
        data_collator=collator,
        train_dataset=clips.splits.get("train"),
        eval_dataset=clips.splits.get("validation"),
        processing_class=extractor,
        compute_metrics=lambda prediction: only_numbers(scorer(prediction)),
        class_balanced=training.do_train and training.class_balanced,
        averaging=build_averaging(training),
        layer_decay=training.layer_decay,
        teacher=teacher,
        distillation=Distillation(distillation.share, distillation.teacher_temperature),
        stride_distillation=Distillation(training.stride_distillation) if training.stride_distillation else None,
    )


def train(trainer: FFTPTrainer, clips: Clips) -> Calibration | None:
    """Train, and leave the model, the extractor and the results in the output folder.

    Returns:
        What the scores were calibrated by, if they were.
    """
    training = trainer.args
    result = train_or_go_on(trainer)
    # Before calibration, so that a failure there loses nothing; and again after it.
    trainer.save_model()
    forget_results(training)
    calibration = None
    if training.calibrate and trainer.eval_dataset is not None:
        if clips.is_framewise:
            choose_postprocessing(trainer)
        else:
            calibration = calibrate(trainer)
    trainer.save_model()
    trainer.save_state()
    trainer.save_metrics("train", measured_of_all(result.metrics, training))
    return calibration


def calibrate(trainer: FFTPTrainer) -> Calibration:
    """Choose a temperature and thresholds on the clips that validate, and let the model have them."""
    prediction, model = trainer.predict(trainer.eval_dataset), trainer.model
    wanted = trainer.args.target_precision
    calibration = fit_calibration(prediction.predictions, prediction.label_ids, model.config, wanted)
    apply_calibration(model, calibration)
    return calibration
