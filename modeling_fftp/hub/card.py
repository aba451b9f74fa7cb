"""The card of a trained folder, made of what training left there; what is not there is left out."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id
from transformers.utils import CONFIG_NAME

from feature_extraction import FFTPFeatureExtractor
from hub_cards import CARD_TEMPLATE
from modeling_fftp import FFTPConfig
from modeling_fftp.heads_fftp import FRAMES, find_saved_task, is_headless
from modeling_fftp.scores_fftp import is_multi_label, is_regression, label_names
from modeling_fftp.times_fftp import table_seconds, window_seconds

from .card_facts import describe_backbone, describe_patches, escape, find_license, save_card
from .encoder_card import write_encoder_card
from .metrics import NAMES, task_metric
from .reliability import plot_reliability
from .run_files import (
    CALIBRATION,
    CURVES,
    DATA,
    EFFICIENCY,
    EVALUATED,
    EXPLANATION,
    PROBE,
    RECIPE,
    RELIABILITY,
    STRIDES,
    TRAIN,
    TRAINER_STATE,
    events_of,
    per_class_of,
    read_results,
    results_of,
)
from .training_curves import plot_training

# Classes in the table of extremes, from either end.
EXTREMES = 5


def write_card(
    folder: str | Path, repo_id: str | None = None, license: str | None = None, revision: str = "main"
) -> Path:
    """Write README.md, and the training curves it shows, into a trained folder, or into that of an encoder.

    Args:
        folder: Folder that a training left.
        repo_id: What the snippet loads; default: the folder's name.
        license: Licence of the weights, by its id on the Hub; without it that of the card before, or none.
        revision: Branch that the snippet loads.

    Raises:
        FileNotFoundError: There is no such folder, whose name transformers would take for a Hub id, or no model in it.
        ValueError: No name of a repository; or the model is one of regression, of which a card would say what is not
            so; or an encoder's card should load a branch.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; expected one that a training left")
    if not (folder / CONFIG_NAME).is_file():
        raise FileNotFoundError(f"{folder} holds no {CONFIG_NAME}; expected a folder that a training left")
    if repo_id is not None:
        validate_repo_id(repo_id)
    config = FFTPConfig.from_pretrained(folder)
    if is_headless(config) and revision != "main":
        raise ValueError(f"revision {revision!r}: the card of an encoder names `fftp train`, which reads main alone")
    if is_headless(config):
        return write_encoder_card(folder, repo_id, license)
    if is_regression(config):
        raise ValueError(f"{folder} holds a model of problem_type 'regression'; cards are for classifiers")
    state = read_results(folder, TRAINER_STATE)
    if state:
        plot_training(state, folder / CURVES)
    facts = collect_facts(folder, config)
    if facts["calibration"]:
        plot_reliability(facts["calibration"]["measured"], folder / RELIABILITY)
    model_id = repo_id or folder.resolve().name
    card = ModelCard.from_template(
        build_metadata(facts, model_id, find_license(folder, license)),
        template_path=str(CARD_TEMPLATE),
        name=model_id.split("/")[-1],
        model_id=model_id,
        revision=None if revision == "main" else revision,
        escape=escape,
        curves=CURVES if state else None,
        **facts,
    )
    return save_card(card, folder)


def collect_facts(folder: Path, config: FFTPConfig) -> dict[str, Any]:
    """Collect what the template shows from the files of a trained folder."""
    recipe, data = read_results(folder, RECIPE), read_results(folder, DATA)
    evaluations = {
        split: {
            name: round(values[f"{split}_{name}"], 4) for name in NAMES if _is_number(values.get(f"{split}_{name}"))
        }
        for split in EVALUATED
        if (values := read_results(folder, results_of(split)))
    }
    shown = {name for values in evaluations.values() for name in values}
    # A recipe keeps of a folder its bare name.
    probe = read_results(folder, PROBE)
    base = probe["model"] if probe else (recipe or {}).get("model_name_or_path", "")
    selects = recipe is not None and recipe.get("load_best_model_at_end", True)
    extractor = FFTPFeatureExtractor.from_pretrained(folder)
    return {
        "config": config,
        "labels": [*map(escape, label_names(config))],
        "is_multi_label": is_multi_label(config),
        "backbone": describe_backbone(config),
        "patches": describe_patches(config),
        "rate": extractor.sampling_rate,
        "cuts": extractor.truncation,
        "pads": extractor.padding == "max_length",
        "window_seconds": f"{window_seconds(config, extractor):.4g}",
        "table_seconds": f"{table_seconds(config):.4g}",
        "base_model": base if "/" in base else None,
        "local_base": base if "/" not in base else None,
        "teacher": (recipe or {}).get("teacher"),
        "is_framewise": find_saved_task(config) == FRAMES,
        "events": {split: found for split in EVALUATED if (found := _find_events(folder, split))},
        "probe": probe,
        "calibration": _find_calibration(folder),
        "recipe": None if recipe is None else json.dumps(recipe, indent=2),
        "data": data,
        "held_out": _describe_held_out(data or {}),
        "train": read_results(folder, TRAIN),
        "evaluations": evaluations,
        "metric_names": {name: text for name, text in NAMES.items() if name in shown},
        "selected_on": "validation" if selects and "validation" in evaluations else None,
        "unmeasured": {split: results["left_out"] for split, results in _per_class(folder) if results.get("left_out")},
        "trained_strides": config.time_strides or [(recipe or {}).get("time_stride") or config.position_stride],
        "extremes": _find_extremes(folder),
        "explanation": EXPLANATION if (folder / EXPLANATION).exists() else None,
        "efficiency": read_results(folder, EFFICIENCY),
        "strides": read_results(folder, STRIDES),
        "task_metric": task_metric(is_multi_label(config)),
    }


def build_metadata(facts: dict[str, Any], name: str, license: dict[str, str]) -> ModelCardData:
    """The card's YAML.

    The Hub has no task for frame classifiers, and transformers no pipeline: they have no `pipeline_tag`, and what is
    measured of their steps is not what the Hub compares clips by. Neither is how often a model agrees with a teacher,
    nor what is measured on clips that were held out of the split to train on.
    """
    data = facts["data"] or {}
    is_comparable = not facts["is_framewise"] and "labelled_by" not in data
    # Those of earlier versions do not say.
    names = data.get("split_names") or {split: split for split in EVALUATED}
    metric = facts["task_metric"]
    results = [
        EvalResult(
            task_type="audio-classification",
            dataset_type=data.get("hub_id") or data["dataset"],
            dataset_name=data["dataset"],
            dataset_config=data.get("config"),
            dataset_split=names[split],
            metric_type=metric,
            metric_name=NAMES[metric],
            metric_value=values[metric],
        )
        for split, values in facts["evaluations"].items()
        if data and is_comparable and metric in values and names.get(split)
    ]
    return ModelCardData(
        pipeline_tag=None if facts["is_framewise"] else "audio-classification",
        library_name="transformers",
        **license,
        datasets=data.get("hub_id"),
        metrics=[metric] if is_comparable else None,
        base_model=facts["base_model"],
        tags=["audio-tagging", "fftp", "arxiv:2508.21243"],
        model_name=name.split("/")[-1] if results else None,
        eval_results=results or None,
    )


def _describe_held_out(data: dict[str, Any]) -> str | None:
    """Which clips validate, where the data set has no split for that."""
    if data.get("split_names", {}).get("validation", "") is not None:
        return None
    if group := data.get("validation_group"):
        column, value = group
        return f"those of which `{column}` is `{value}`"
    return "drawn at random: clips of one speaker or recording may be on both sides"


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _find_calibration(folder: Path) -> dict[str, Any] | None:
    """The calibration of the scores, and what it changed on the last split that has results."""
    results = read_results(folder, CALIBRATION)
    for split in reversed(EVALUATED):
        if results and split in results:
            return results | {"split": split, "measured": results[split], "picture": RELIABILITY}
    return None


def _find_events(folder: Path, split: str) -> dict[str, Any] | None:
    """How well the events of a split are found, and the labels whose events are found least."""
    results = read_results(folder, events_of(split))
    if results is None:
        return None
    known = [(escape(label), value) for label, value in results["per_class"].items() if value is not None]
    return results | {"least": sorted(known, key=lambda row: row[1])[:EXTREMES]}


def _find_extremes(folder: Path) -> dict[str, Any] | None:
    """Best and worst classes of the last split that has results."""
    for split, results in reversed([*_per_class(folder)]):
        rows = [
            (escape(name), values["positives"], values["average_precision"])
            for name, values in results["per_class"].items()
            if values["average_precision"] is not None
        ]
        rows.sort(key=lambda row: -row[2])
        if len(rows) > 2 * EXTREMES:
            rows = rows[:EXTREMES] + rows[-EXTREMES:]
        return {"split": split, "rows": rows}
    return None


def _per_class(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Splits that have results, and those of each class."""
    for split in EVALUATED:
        if results := read_results(folder, per_class_of(split)):
            yield split, results
