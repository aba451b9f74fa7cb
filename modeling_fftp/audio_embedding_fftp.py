"""The pipeline "audio-embedding": recordings of any length, to vectors for search, clustering and probes."""

from typing import Any

import torch
from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY

from .heads_fftp import FRAMES, find_saved_task, find_task
from .window_pipeline_fftp import FFTPWindowPipeline

# What a vector is of.
UNITS = ("recording", "window", "step")


def check_unit(per: str) -> None:
    """Refuse what no vector can be of.

    Raises:
        ValueError: It is none of `UNITS`.
    """
    if per not in UNITS:
        raise ValueError(f"per={per!r} is unknown; expected one of {', '.join(UNITS)}")


class FFTPAudioEmbeddingPipeline(FFTPWindowPipeline):
    """Vectors of a recording of any length: what a model knows of its sound, before any head.

        embed = pipeline("audio-embedding", model=MODEL, trust_remote_code=True)
        vectors = embed("recording.flac", per="window")["embeddings"]

    It takes encoders that were pretrained without labels, and classifiers, whose head it leaves out. For frame
    classifiers, whose pooled state was never trained, a window's vector is the mean of its steps. A call takes what
    `read_blocks` takes, or a list of that, and these arguments:

    Args:
        per: "recording", the mean over its windows; "window", the pooled state of each; or "step", the state of each
            step in time, which every moment takes from the window whose middle is nearest.
        window_seconds: Length of a window; the default is that of the model's position table. A recording that is not
            longer is one window of its own length, without padding.
        hop_seconds: Seconds from one window to the next; the default is half a window.
        time_stride: Frames between the model's patches, more for speed and fewer for accuracy; the default is the
            model's.

    Returns (one per recording):
        "embeddings", float32 array (vectors, hidden); "spans", start and end of each in seconds, float64 array
        (vectors, 2); and "duration" in seconds.
    """

    task_name = "audio-embedding"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        encoder = getattr(self.bare_model, "base_model", None)
        # By name, since a folder's copy of the code has classes of its own.
        if type(encoder).__name__ != "FFTPModel":
            raise ValueError(
                f"audio-embedding needs the states of an FFTP model; the model is a {type(self.bare_model).__name__}"
            )
        # A bare encoder says in its config what it was saved as.
        is_bare = self.bare_model is encoder
        self.pools_steps = (find_saved_task(encoder.config) if is_bare else find_task(self.model)) == FRAMES

    def _sanitize_parameters(self, **given) -> tuple[dict, dict, dict]:
        steps = super()._sanitize_parameters(**given)
        # Now, not after sound is decoded.
        if "per" in given:
            check_unit(given["per"])
        return steps

    def _forward(
        self, model_inputs: dict[str, Any], per: str = "recording", time_stride: int | None = None
    ) -> dict[str, Any]:
        span, is_last = model_inputs.pop("span"), model_inputs.pop("is_last")
        encoder = self.bare_model.base_model
        needs_steps = per == "step" or self.pools_steps
        output = encoder(**model_inputs, pooled_only=not needs_steps, time_stride=time_stride)
        if needs_steps:
            mask = model_inputs.get("attention_mask")
            states, _ = encoder.embeddings.gather_steps(output.last_hidden_state, mask, time_stride)
            count = self.count_steps(span, time_stride)
        else:
            states = output.pooler_output[:, None]
        if per != "step":
            if needs_steps:
                is_real = torch.arange(states.shape[1], device=states.device) < count
                states = (states * is_real[..., None]).sum(dim=1, keepdim=True) / count[..., None]
            count = torch.ones_like(span[:, :1])
        return {"states": states.float(), "count": count, "span": span, "is_last": is_last}

    def postprocess(
        self, model_outputs: list[dict[str, Any]], per: str = "recording", time_stride: int | None = None
    ) -> dict[str, Any]:
        """Vectors and when they are, from the states of all windows."""
        # Windows of one batch are padded to the longest.
        states = [output["states"][0, : output["count"].item()] for output in model_outputs]
        windows = self.spans(model_outputs)
        if per == "step":
            vectors, spans = self.join_steps(states, windows, time_stride)
        else:
            vectors, spans = torch.cat(states), windows
        if per == "recording":
            vectors = vectors.mean(dim=0, keepdim=True)
            spans = torch.stack((windows[:1, 0], windows[-1:, 1]), dim=1)
        return {"embeddings": vectors.numpy(), "spans": spans.numpy(), "duration": windows[-1, 1].item()}


if "audio-embedding" not in PIPELINE_REGISTRY.get_supported_tasks():
    PIPELINE_REGISTRY.register_pipeline("audio-embedding", FFTPAudioEmbeddingPipeline, AutoModel)

__all__ = ["FFTPAudioEmbeddingPipeline", "check_unit"]
