"""What does not go together in an `FFTPTrainer`, by whatever program it is made; said before it trains."""

from transformers import Trainer
from transformers.trainer_utils import SaveStrategy, has_length

from modeling_fftp.heads_fftp import CLIPS, bare_model, find_task
from modeling_fftp.window_pipeline_fftp import check_extractor


def refuse_contradictions_of_trainer(trainer: Trainer) -> None:
    """Refuse a trainer whose model, data and arguments do not go together.

    Args:
        trainer: An `FFTPTrainer`, as far as it is made.

    Raises:
        ValueError: They do not.
    """
    _refuse_data(trainer)
    _refuse_smoothing(trainer)
    if trainer.teacher is not None or trainer.stride_distillation is not None:
        refuse_losses_beside_answers(trainer)
    _refuse_strides(trainer)
    _refuse_averaging(trainer)
    _refuse_layer_decay(trainer)


def _refuse_data(trainer: Trainer) -> None:
    """Refuse clips or a collator that do not go with the model or its teacher.

    Raises:
        ValueError: Clips without a number to balance, another extractor, or a teacher that hears nothing.
    """
    extractor = getattr(trainer.data_collator, "feature_extractor", None)
    config = getattr(bare_model(trainer.model), "config", None)
    if extractor is not None and config is not None:
        check_extractor(extractor, config)
    if trainer.class_balanced and not has_length(trainer.train_dataset):
        raise ValueError("class_balanced draws clips by their number; an iterable data set has none")
    strategy = trainer.args.train_sampling_strategy
    if trainer.class_balanced and strategy != "random":
        raise ValueError(
            f"class_balanced draws clips by their classes; drop it or train_sampling_strategy={strategy!r}"
        )
    if trainer.teacher is not None and not getattr(trainer.data_collator, "defer_features", False):
        raise ValueError("a teacher needs the sound that SpecMaskDataCollator(defer_features=True) leaves")


def _refuse_smoothing(trainer: Trainer) -> None:
    """Refuse transformers' own label smoothing of labels that are mixed.

    Raises:
        ValueError: There is some.
    """
    if trainer.args.label_smoothing_factor and getattr(trainer.data_collator, "mixup", None) is not None:
        raise ValueError(
            "label_smoothing_factor cannot smooth mixed labels; SpecMaskDataCollator(label_smoothing=) can"
        )


def refuse_losses_beside_answers(trainer: Trainer) -> None:
    """Refuse losses that would not reach batches which learn from answers.

    Raises:
        ValueError: There is one.
    """
    if trainer.args.label_smoothing_factor:
        raise ValueError(
            "label_smoothing_factor does not reach batches that learn from answers; "
            "SpecMaskDataCollator(label_smoothing=) does"
        )
    if trainer.compute_loss_func is not None:
        raise ValueError(
            "compute_loss_func does not reach batches that learn from answers; a `loss_function` of the model does"
        )


def _refuse_layer_decay(trainer: Trainer) -> None:
    """Refuse a decay that has no optimizer or no blocks to be for.

    Raises:
        ValueError: It cannot be applied.
    """
    if trainer.layer_decay is None:
        return
    if trainer.optimizer is not None:
        raise ValueError("layer_decay is for the optimizer that Trainer makes; split_by_depth is for another")
    model = bare_model(trainer.model)
    if not hasattr(getattr(model, "config", None), "num_hidden_layers"):
        raise ValueError(f"layer_decay counts blocks; {type(model).__name__} has no config.num_hidden_layers")


def _refuse_averaging(trainer: Trainer) -> None:
    """Refuse an average that would be replaced, or that nobody could take.

    Raises:
        ValueError: It cannot be what the training leaves.
    """
    if trainer.averaging is None:
        return
    if trainer.averaging.last_epochs is not None:
        if trainer.args.load_best_model_at_end:
            raise ValueError("load_best_model_at_end would put one epoch's weights in place of the average")
        if trainer.train_dataset is not None and not has_length(trainer.train_dataset):
            raise ValueError("the last epochs of an iterable data set are not known; average by ema_decay")
        if trainer.args.save_strategy == SaveStrategy.STEPS:
            raise ValueError("a checkpoint inside an epoch would miss its end: save_strategy must not be 'steps'")
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ValueError("weights cannot be averaged where FSDP or DeepSpeed keep only a part of them")


def _refuse_strides(trainer: Trainer) -> None:
    """Refuse what cannot train for several strides.

    Raises:
        ValueError: Processes that cannot agree on a stride, or nobody to learn from.
    """
    draws = bool(getattr(trainer.data_collator, "time_strides", ()))
    trains = trainer.train_dataset is not None
    # accelerate deals out what has no length, too.
    deals = trainer.args.accelerator_config.dispatch_batches or not has_length(trainer.train_dataset)
    if draws and trains and trainer.args.world_size > 1 and deals:
        raise ValueError(
            "time_strides: one process deals out the clips (dispatch_batches, or a data set without a length), "
            "but no strides"
        )
    if trainer.stride_distillation is None:
        return
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ValueError("stride_distillation: processes that share a model would run it unequally often")
    if len(trainer.model.config.time_strides or ()) < 2 or find_task(trainer.model) != CLIPS:
        raise ValueError("stride_distillation is for clip classifiers with several config.time_strides")
