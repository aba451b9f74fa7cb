"""What a saved folder holds beside the weights, so that it opens elsewhere: Auto classes, pipelines, and our code."""

import shutil
import sys
from pathlib import Path
from typing import Any

from transformers import Pipeline, PreTrainedModel
from transformers.dynamic_module_utils import get_relative_import_files

from .audio_embedding_fftp import FFTPAudioEmbeddingPipeline
from .audio_tagging_fftp import FFTPAudioTaggingPipeline
from .heads_fftp import CLIPS, FRAMES, find_task
from .scores_fftp import is_regression

# The Auto classes, and what they open in the file of our models.
OF_CLIPS, OF_FRAMES = "AutoModelForAudioClassification", "AutoModelForAudioFrameClassification"
AUTO_CLASSES = {
    "AutoModel": "FFTPModel", OF_CLIPS: "FFTPForAudioClassification", OF_FRAMES: "FFTPForAudioFrameClassification",
}  # fmt: skip
AUTO_CLASS_OF_TASK = {CLIPS: OF_CLIPS, FRAMES: OF_FRAMES}


def name_auto_classes(model: PreTrainedModel) -> dict[str, str]:
    """`auto_map` of a model: the Auto classes that can open its weights, beside those of other classes."""
    # A checkpoint of another head may have named Auto classes that cannot open this one.
    unfit = (OF_CLIPS, "AutoModelForPreTraining")
    given = getattr(model.config, "auto_map", None) or {}
    others = {name: code for name, code in given.items() if name not in unfit and not lies_elsewhere(code)}
    # A frame classifier's clip-level state was never trained.
    left_out = OF_CLIPS if find_task(model) == FRAMES else None
    return others | {name: f"modeling_fftp.{opened}" for name, opened in AUTO_CLASSES.items() if name != left_out}


def lies_elsewhere(code: Any) -> bool:
    """Whether an entry of a checkpoint names code of another repository, which would run in whoever opens the folder.

    Such code is not saved with the weights, and nobody who trained on from them was asked to trust it.
    """
    return "--" in str(code)


def name_pipelines(model: PreTrainedModel) -> dict[str, dict[str, Any]]:
    """`custom_pipelines` of a model: those of its head, beside those that a user registered."""
    given = getattr(model.config, "custom_pipelines", None) or {}
    pipelines = {
        name: entry for name, entry in given.items() if name != "audio-tagging" and not lies_elsewhere(entry["impl"])
    }
    pipelines["audio-embedding"] = _as_entry(FFTPAudioEmbeddingPipeline, "AutoModel")
    task = find_task(model)
    if task is not None and not is_regression(model.config):
        pipelines["audio-tagging"] = _as_entry(FFTPAudioTaggingPipeline, AUTO_CLASS_OF_TASK[task])
    return pipelines


def _as_entry(pipeline: type[Pipeline], auto_class: str) -> dict[str, Any]:
    return {"impl": f"{pipeline.__module__.split('.')[-1]}.{pipeline.__name__}", "pt": [auto_class], "type": "audio"}


def save_code(model: PreTrainedModel, folder: Path) -> None:
    """Copy the file of a model's class, or of ours that it is made from, and all that it imports."""
    ours = next(parent for parent in type(model).__mro__ if parent.__module__.endswith("_fftp"))
    file = sys.modules[ours.__module__].__file__
    folder.mkdir(parents=True, exist_ok=True)
    for name in (file, *get_relative_import_files(file)):
        shutil.copyfile(name, folder / Path(name).name)
