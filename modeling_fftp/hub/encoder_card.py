"""The card of a folder without a head, pretrained or converted, made of what is there."""

import json
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from hub_cards import ENCODER_CARD_TEMPLATE
from modeling_fftp import FFTPConfig

from .card_facts import describe_backbone, describe_patches, escape, find_license, save_card
from .run_files import CURVES, DATA, RECIPE, RECONSTRUCTION, TRAIN, TRAINER_STATE, read_results, results_of
from .training_curves import plot_training


def write_encoder_card(folder: str | Path, repo_id: str | None = None, license: str | None = None) -> Path:
    """Write README.md, and the curves of a pretraining, into a folder without a head.

    Args:
        folder: Folder that `fftp pretrain` or `fftp convert` left.
        repo_id: What the command in it starts from; default: the folder's name.
        license: Licence of the weights, by its id on the Hub; without it that of the card before, or none.
    """
    folder = Path(folder)
    if state := read_results(folder, TRAINER_STATE):
        plot_training(state, folder / CURVES)
    config = FFTPConfig.from_pretrained(folder)
    data, recipe = read_results(folder, DATA), read_results(folder, RECIPE)
    metadata = ModelCardData(
        pipeline_tag="feature-extraction",
        library_name="transformers",
        **find_license(folder, license),
        datasets=data["hub_id"] if data else None,
        tags=["audio", "fftp", "arxiv:2508.21243"],
    )
    model_id = repo_id or folder.resolve().name
    card = ModelCard.from_template(
        metadata,
        template_path=str(ENCODER_CARD_TEMPLATE),
        name=model_id.split("/")[-1],
        model_id=model_id,
        config=config,
        escape=escape,
        backbone=describe_backbone(config),
        patches=describe_patches(config),
        data=data,
        train=read_results(folder, TRAIN),
        validation=read_results(folder, results_of("validation")),
        base=(recipe or {}).get("model_name_or_path"),
        recipe=json.dumps(recipe, indent=2),
        curves=CURVES,
        picture=RECONSTRUCTION if (folder / RECONSTRUCTION).exists() else None,
    )
    return save_card(card, folder)
