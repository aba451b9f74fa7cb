"""The pipeline "audio-tagging": recordings of any length, to labels and to a timeline of them."""

from typing import Any

import torch
from transformers import AutoModelForAudioClassification
from transformers.pipelines import PIPELINE_REGISTRY

from .events_fftp import filter_lengths, find_segments, median_filter
from .heads_fftp import FRAMES, find_task
from .scores_fftp import check_threshold, is_multi_label, is_regression, label_names, label_thresholds, probabilities
from .window_pipeline_fftp import FFTPWindowPipeline

AGGREGATIONS = ("mean", "max")


class FFTPAudioTaggingPipeline(FFTPWindowPipeline):
    """Labels of a recording of any length, and when they sound.

        tag = pipeline("audio-tagging", model=MODEL, trust_remote_code=True)
        tag("recording.flac", batch_size=4)

    Windows slide over the recording; sound is read from disk as they need it, so an hour is never in memory at once.
    A clip classifier has scores for each window, a frame classifier for each step in time, which every moment takes
    from the window whose middle is nearest.

    A call takes what `read_blocks` takes, or a list of that, and these arguments:

    Args:
        window_seconds: Length of a window; the default is that of the model's position table. A recording that is not
            longer is one window of its own length, without padding.
        hop_seconds: Seconds from one window to the next; the default is half a window.
        time_stride: Frames between the model's patches, more for speed and fewer for accuracy; the default is the
            model's.
        top_k: Labels to return, those with the highest scores; None is all.
        threshold: Lowest score at which the timeline takes a label as heard; the default is the label's own, from
            `config.thresholds`, or else 0.5.
        max_gap_seconds: Longest gap that the timeline closes between two stretches of one label, where their mean
            score over the gap stays above the threshold; the default is the length of a window, as what is shorter
            cannot be told from one weak window, and 0 for a frame classifier, whose config may hold a median filter.
        return_windows: Whether to return the scores of every window, or step, as well.
        aggregation: How a recording's scores come from those of its windows, "mean" or "max"; the default is "max"
            where a clip can have several labels, and "mean" where it has one.

    Returns (one per recording):
        "labels": [{"label", "score"}, ...], highest first; "timeline": [{"start", "end", "label", "score"}, ...] in
        seconds, in order of start; "duration" in seconds; and on request "windows": [{"start", "end", "scores"}, ...],
        scores in the order of the model's labels. A moment's score is the mean over the windows that hold it, or that
        of its step; a timeline entry's the mean over its time.
    """

    task_name = "audio-tagging"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        task = find_task(self.model)
        if task is None:
            name = type(self.bare_model).__name__
            raise ValueError(f"audio-tagging needs a clip or frame classifier; the model is a {name}")
        self.is_framewise = task == FRAMES
        if is_regression(self.model.config):
            raise ValueError("audio-tagging needs a classifier; this model's problem_type is 'regression'")

    def _sanitize_parameters(self, **given) -> tuple[dict, dict, dict]:
        steps = super()._sanitize_parameters(**given)
        # Now, not after hours of sound.
        names = ("aggregation", "top_k", "threshold", "max_gap_seconds")
        aggregation, top_k, threshold, max_gap = (given.get(name) for name in names)
        if aggregation is not None and aggregation not in AGGREGATIONS:
            raise ValueError(f"aggregation={aggregation!r} is unknown; expected one of {', '.join(AGGREGATIONS)}")
        if top_k is not None and (top_k < 1 or top_k % 1):
            raise ValueError(f"top_k={top_k} must be a whole number of at least 1, or None for all labels")
        if max_gap is not None and not max_gap >= 0:
            raise ValueError(f"max_gap_seconds={max_gap} must be a length, 0 or more")
        if threshold is not None:
            check_threshold(threshold)
        return steps

    def _forward(self, model_inputs: dict[str, Any], time_stride: int | None = None) -> dict[str, Any]:
        span, is_last = model_inputs.pop("span"), model_inputs.pop("is_last")
        # Models of an older package know no strides.
        stride = {} if time_stride is None else {"time_stride": time_stride}
        scores = probabilities(self.model(**model_inputs, **stride).logits.float(), self.model.config)
        if not self.is_framewise:
            return {"scores": scores, "span": span, "is_last": is_last}
        return {"scores": scores, "count": self.count_steps(span, time_stride), "span": span, "is_last": is_last}

    def _read_scores(
        self, model_outputs: list[dict[str, Any]], time_stride: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of windows or steps, (windows, labels), and start and end of each in seconds, (windows, 2)."""
        windows = self.spans(model_outputs)
        if not self.is_framewise:
            return torch.cat([output["scores"] for output in model_outputs]), windows
        # Windows of one batch are padded to the longest.
        scores = [output["scores"][0, : output["count"].item()] for output in model_outputs]
        return self.join_steps(scores, windows, time_stride)

    def postprocess(
        self,
        model_outputs: list[dict[str, Any]],
        top_k: int | None = 5,
        threshold: float | None = None,
        max_gap_seconds: float | None = None,
        aggregation: str | None = None,
        return_windows: bool = False,
        time_stride: int | None = None,
    ) -> dict[str, Any]:
        """Labels and timeline from the scores of all windows."""
        config = self.model.config
        aggregation = aggregation or ("max" if is_multi_label(config) else "mean")
        top_k = config.num_labels if top_k is None else min(int(top_k), config.num_labels)
        scores, spans = self._read_scores(model_outputs, time_stride)
        max_gap = max_gap_seconds
        if max_gap is None:
            max_gap = 0.0 if self.is_framewise else spans.diff().max().item()
        names = label_names(config)
        thresholds = label_thresholds(names, config.thresholds, threshold)
        smooth = median_filter(scores, filter_lengths(config, time_stride)) if self.is_framewise else scores
        whole = scores.mean(dim=0) if aggregation == "mean" else scores.amax(dim=0)
        best = whole.topk(top_k)
        windows = {}
        if return_windows:
            rows = zip(spans.tolist(), scores.tolist(), strict=True)
            windows["windows"] = [{"start": start, "end": end, "scores": row} for (start, end), row in rows]
        return {
            "labels": [
                {"label": names[index], "score": score}
                for index, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ],
            "timeline": [
                {"start": start, "end": end, "label": names[index], "score": score}
                for start, end, index, score in find_segments(smooth, spans, thresholds, max_gap)
            ],
            "duration": model_outputs[-1]["span"][0, 1].item() / self.feature_extractor.sampling_rate,
            **windows,
        }


# Here, so that the pipeline is known to whoever holds a model, be it by the code of a folder.
if "audio-tagging" not in PIPELINE_REGISTRY.get_supported_tasks():
    PIPELINE_REGISTRY.register_pipeline("audio-tagging", FFTPAudioTaggingPipeline, AutoModelForAudioClassification)

__all__ = ["FFTPAudioTaggingPipeline"]
