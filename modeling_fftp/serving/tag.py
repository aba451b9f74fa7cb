"""Labels and timelines of files, as text to read or as JSON."""

import json
from pathlib import Path
from typing import Any

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.audio_tagging_fftp import FFTPAudioTaggingPipeline


def load_tagger(model: str | Path) -> FFTPAudioTaggingPipeline:
    """The pipeline "audio-tagging" of a folder or Hub id, by the code of this package and none from the Hub.

    Raises:
        OSError: There is no such model.
        ValueError: It is no clip classifier of this package.
    """
    try:
        config, _ = FFTPConfig.get_config_dict(model)
    except OSError as error:
        raise OSError(f"{model} is no folder with a model, and the Hub did not give one: {error}") from error
    architecture = (config.get("architectures") or [None])[0]
    if architecture != FFTPForAudioClassification.__name__:
        raise ValueError(
            f"{model} holds {architecture} of type {config.get('model_type')!r}; expected "
            f"{FFTPForAudioClassification.__name__}"
        )
    return FFTPAudioTaggingPipeline(
        model=FFTPForAudioClassification.from_pretrained(model),
        feature_extractor=FFTPFeatureExtractor.from_pretrained(model),
    )


def render_table(file: str | Path, answer: dict[str, Any]) -> str:
    """What the pipeline says of a file, as two tables in plain text."""
    names = [entry["label"] for entry in (*answer["labels"], *answer["timeline"])]
    width = max(map(len, ("label", *names)))
    lines = [f"{file}: {answer['duration']:.2f} s", f"  {'label':<{width}}  score"]
    lines += [f"  {entry['label']:<{width}}  {entry['score']:.3f}" for entry in answer["labels"]]
    if answer["timeline"]:
        lines.append(f"  {'start':>9}  {'end':>9}  {'label':<{width}}  score")
        lines += [
            f"  {entry['start']:>7.2f} s  {entry['end']:>7.2f} s  {entry['label']:<{width}}  {entry['score']:.3f}"
            for entry in answer["timeline"]
        ]
    return "\n".join(lines)


def render_json(file: str | Path, answer: dict[str, Any]) -> str:
    """The same as one line of JSON."""
    return json.dumps({"file": str(file), **answer}, ensure_ascii=False)
