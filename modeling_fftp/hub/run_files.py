"""Names of the files that a training leaves beside the model: results in JSON, and pictures."""

import json
from pathlib import Path

# Splits that are evaluated, in the order of a card.
EVALUATED = ("validation", "test")

# Of JSON files, without the ending.
RECIPE, ARGUMENTS, DATA, TRAIN = "recipe", "arguments", "data_results", "train_results"
TRAINER_STATE = "trainer_state"
PROBE, CALIBRATION, STRIDES, EFFICIENCY = (
    "probe_results", "calibration_results", "strides_results", "efficiency_results",
)  # fmt: skip
# Of pictures.
CURVES, RELIABILITY, EXPLANATION = "training.png", "reliability.png", "explanation.png"
RECONSTRUCTION = "reconstruction.png"


def results_of(split: str) -> str:
    """Of what is measured on a split."""
    return f"{split}_results"


def per_class_of(split: str) -> str:
    """Of what is measured on a split for each class."""
    return f"{split}_per_class"


def events_of(split: str) -> str:
    """Of what is measured on a split for events."""
    return f"{split}_events"


# Of files that are published, as patterns.
PUBLISHED = (f"{RECIPE}.json", *(f"{of('*')}.json" for of in (results_of, per_class_of, events_of)))
PICTURES = (CURVES, RELIABILITY, EXPLANATION, RECONSTRUCTION)
# Of what is measured and drawn of weights; `Trainer` makes a summary of its own.
OF_WEIGHTS = (
    *(f"{of(split)}.json" for split in EVALUATED for of in (results_of, per_class_of, events_of)),
    *(f"{name}.json" for name in (CALIBRATION, STRIDES, EFFICIENCY, "all_results")),
    RELIABILITY,
    EXPLANATION,
)


def read_results(folder: str | Path, name: str) -> dict | None:
    """Read `NAME.json` of a training; None where there is none.

    Raises:
        ValueError: The file is no JSON, as a full disk leaves it.
    """
    path = Path(folder, f"{name}.json")
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
