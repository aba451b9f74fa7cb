"""Pretraining without labels: from any sound to a folder that `fftp train --model_name_or_path` starts from."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from modeling_fftp import FFTPForPreTraining
from modeling_fftp.hub.encoder_card import write_encoder_card
from modeling_fftp.hub.run_files import RECONSTRUCTION
from modeling_fftp.pretrained import refuse_damaged

from ..command_line import find_recipe
from ..data.sampling import spread
from ..data.sources import is_local, public_name
from ..data.unlabelled import Pieces, SoundArguments, load_pieces
from ..model_arguments import find_sampling_rate, refuse_impossible
from ..resuming import find_resumed, measured_of_all, write_beginning
from ..session import begin, build_averaging, measure_no_epoch, report_setting, train_or_go_on, try_out
from ..trainer import FFTPTrainer
from .arguments import PretrainingArguments, PretrainingModelArguments, parse
from .masked_patches import MaskedPatchCollator
from .model import build, refuse_too_short
from .reconstruction import plot_reconstruction

logger = logging.getLogger(__name__)


def pretrain(arguments: Sequence[str]) -> None:
    """Decode, pretrain, and leave the model, its results, a picture and a card in the output folder.

    Args:
        arguments: Words of the command line: the data, then options.

    Raises:
        SystemExit: Arguments that are wrong or do not go together.
        ValueError: Sound or a checkpoint that cannot be used.
    """
    groups = parse(arguments)
    with begin(groups[-1]):
        pretrain_and_save(*groups)


def pretrain_and_save(
    model_arguments: PretrainingModelArguments, sound: SoundArguments, training: PretrainingArguments
) -> None:
    """The steps of a pretraining, into a folder that no other run writes to."""
    groups = model_arguments, sound, training
    report_setting(training)
    recipe = find_recipe(groups)
    refuse_impossible(model_arguments)
    try_out(training)
    resumed = find_resumed(training, recipe)
    rate = find_sampling_rate(model_arguments)
    with training.main_process_first(desc="decoding"):
        # Crops are drawn from pieces of twice their length.
        pieces = load_pieces(sound, 2 * sound.max_seconds, training, rate)
    seconds = min(sound.max_seconds, pieces.longest_seconds)
    model, extractor = build(model_arguments, pieces.splits["train"], seconds)
    described = describe(sound, pieces)
    if resumed is not None:
        resumed.refuse_other_data(described)
        resumed.refuse_other_model(model_arguments, model)
    refuse_too_short(model.config, pieces, sound.max_seconds)
    collator = MaskedPatchCollator(extractor, model.config, sound.max_seconds, sound.gain)
    if "validation" not in pieces.splits:
        measure_no_epoch(training)
    trainer = FFTPTrainer(
        model=model,
        args=training,
        data_collator=collator,
        train_dataset=pieces.splits["train"],
        eval_dataset=pieces.splits.get("validation"),
        processing_class=extractor,
        averaging=build_averaging(training),
        layer_decay=training.layer_decay,
    )
    # Now, so that a resumption can be held to it.
    write_beginning(training, groups[:2], recipe, described)
    result = train_or_go_on(trainer)
    refuse_damaged(model.state_dict(), "the pretrained model")
    trainer.save_model()
    trainer.save_state()
    trainer.save_metrics("train", measured_of_all(result.metrics, training))
    if "validation" in pieces.splits:
        metrics = trainer.evaluate(metric_key_prefix="validation")
        trainer.log_metrics("validation", metrics)
        trainer.save_metrics("validation", metrics)
    if trainer.is_world_process_zero():
        save_picture(collator, pieces, Path(training.output_dir, RECONSTRUCTION))
        write_encoder_card(training.output_dir, license=training.hub_license)
        print(f"pretrained on {pieces.hours('train'):.2f} hours, results in {training.output_dir}")


def describe(arguments: SoundArguments, pieces: Pieces) -> dict:
    """Describe the sound for the card."""
    source = arguments.dataset_name
    return {
        "dataset": public_name(source),
        "hub_id": None if is_local(source) else source,
        "splits": {role: {"pieces": len(split), "hours": pieces.hours(role)} for role, split in pieces.splits.items()},
        "left_out": pieces.left_out,
    }


def save_picture(collator: MaskedPatchCollator, pieces: Pieces, path: Path) -> None:
    """A picture of the longest of some pieces that are measured on, or learned, as the saved model sees it."""
    split = pieces.splits.get("validation", pieces.splits["train"])
    batch = collator([max((split[index] for index in spread(len(split), 50)), key=lambda piece: len(piece["audio"]))])
    if not batch["bool_masked_pos"].any():
        logger.warning("No picture: the pieces are too short for a patch to be hidden")
        return
    model = FFTPForPreTraining.from_pretrained(path.parent, dtype=torch.float32).eval()
    plot_reconstruction(model, batch["input_values"][0], batch["bool_masked_pos"], path)
