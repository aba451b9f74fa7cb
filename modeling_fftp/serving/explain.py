"""The command `fftp explain`: which moments of a recording spoke for a label, in words and as a picture."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.audio_stream_fftp import path_in_errors, read_blocks
from modeling_fftp.explain_fftp import real_frames, steady_background
from modeling_fftp.scores_fftp import probabilities
from modeling_fftp.times_fftp import count_frames, frame_seconds, window_seconds

from .texts import in_one_line, printable

# A moment speaks for a label where its relevance is above this share of the highest.
RELEVANT = 0.5


class Explanation(NamedTuple):
    """Why a model gives a label its score.

    Args:
        label: Name.
        method: "gradient", or "rollout", which knows no label.
        score: Score of the label, in [0, 1].
        background_score: Score of the sound's steady background alone, which no moment speaks for.
        start: Start of the explained stretch in its recording, in seconds.
        spectrogram: Normalised, (frames, mel bins).
        relevance: Relevance of each cell, (frames, mel bins).
        course: Relevance of each frame, averaged over as many as a patch spans, (frames,).
        moments: Start and end in seconds of the stretches that spoke most for the label.
    """

    label: str
    method: str
    score: float
    background_score: float
    start: float
    spectrogram: np.ndarray
    relevance: np.ndarray
    course: np.ndarray
    moments: list[tuple[float, float]]


def explain_recording(
    source: Any,
    model: FFTPForAudioClassification,
    extractor: FFTPFeatureExtractor,
    label: str | None = None,
    start: float = 0.0,
    method: str = "gradient",
) -> Explanation:
    """Explain a stretch of a recording, as long as a window of the pipeline or to the recording's end.

    Args:
        source: Anything that `read_audio` takes.
        model: A clip classifier in evaluation mode.
        extractor: Its feature extractor.
        label: Which; default: the best.
        start: Start of the stretch, in seconds.
        method: See `FFTPForAudioClassification.explain`.

    Raises:
        ValueError: Sound that cannot be read or ends before the stretch, an unknown label, or a method that does not
            fit the model.
    """
    config, rate = model.config, extractor.sampling_rate
    if label is not None and method == "rollout":
        raise ValueError(f"rollout shows attention, whatever the label; drop the label {label!r}, or use gradient")
    if label is not None and label not in config.label2id:
        raise ValueError(f"no label {label!r}; the model has {[*config.label2id]}")
    sound = read_stretch(source, rate, start, window_seconds(config, extractor))
    features = extractor(sound, sampling_rate=rate, return_tensors="pt").to(model.device)
    # An extractor may pad, with a mask or without.
    values, mask = features["input_values"], features.get("attention_mask")
    frames = min(int(count_frames(torch.tensor(len(sound)), rate)), values.shape[1])
    background = {**features, "input_values": steady_background(values, real_frames(values, mask, frames))}
    with torch.no_grad():
        scores, without = (probabilities(model(**one).logits.float(), config)[0] for one in (features, background))
    index = scores.argmax().item() if label is None else config.label2id[label]
    relevance = model.explain(**features, label=index, method=method, num_frames=frames)[0, :frames].cpu().numpy()
    width = config.patch_frames()
    course = np.convolve(relevance.sum(axis=1), np.full(width, 1 / width), mode="same")[: len(relevance)]
    return Explanation(
        label=config.id2label[index],
        method=method,
        score=scores[index].item(),
        background_score=without[index].item(),
        start=start,
        spectrogram=values[0, :frames].float().cpu().numpy(),
        relevance=relevance,
        course=course,
        moments=find_moments(course, start, rate),
    )


def read_stretch(source: Any, sampling_rate: int, start: float, seconds: float) -> np.ndarray:
    """Sound (samples,) from a moment on, so many seconds or what there is; what comes later is not decoded.

    Raises:
        ValueError: Sound that cannot be read, or a moment that lies outside.
    """
    if start < 0:
        raise ValueError(f"start={start:g} s lies before the recording")
    begin, end, passed, kept = round(start * sampling_rate), round((start + seconds) * sampling_rate), 0, []
    with path_in_errors(source):
        for block in read_blocks(source, sampling_rate):
            kept.append(block[max(0, begin - passed) : max(0, end - passed)])
            passed += len(block)
            if passed >= end:
                break
        if begin >= passed:
            length = passed / sampling_rate
            raise ValueError(f"start={start:g} s lies outside the recording, which is {length:.2f} s long")
    return np.concatenate(kept)


def find_moments(course: np.ndarray, start: float, sampling_rate: int) -> list[tuple[float, float]]:
    """Stretches, in seconds, in which the relevance of frames (frames,) is above `RELEVANT` of the highest."""
    if course.max() <= 0:
        return []
    edges = np.flatnonzero(np.diff((course >= RELEVANT * course.max()).astype(int), prepend=0, append=0))
    # To where the next frame begins, so that two moments never overlap.
    _, shift = frame_seconds(sampling_rate)
    return [
        (start + first * shift, start + last * shift)
        for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    ]


def describe(explanation: Explanation) -> str:
    """Label, scores and moments in a line."""
    moments = ", ".join(f"{first:.2f} to {last:.2f} s" for first, last in explanation.moments)
    answer = f"{printable(in_one_line(explanation.label))} {explanation.score:.3f}"
    if explanation.method == "rollout":
        return f"{answer}; attention went to {moments}"
    rest = f"steady background alone {explanation.background_score:.3f}"
    return f"{answer}, {rest}; {moments or 'nothing'} spoke for it"


def refuse_other_forms(path: Path) -> None:
    """Refuse the path of a picture whose suffix names no form that matplotlib writes.

    Raises:
        ValueError: matplotlib cannot write the suffix's format.
    """
    forms = Figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in forms:
        raise ValueError(f"{path}: expected the name of a picture, which ends in one of .{', .'.join(sorted(forms))}")


def draw(explanation: Explanation, sampling_rate: int) -> Figure:
    """The spectrogram, the relevance of its cells, and that of its moments, one above the other."""
    frames, bins = explanation.spectrogram.shape
    shift = frame_seconds(sampling_rate)[1]
    end = explanation.start + frames * shift
    figure = Figure(figsize=(9, 6), layout="constrained")
    sound, cells, course = figure.subplots(3, 1, sharex=True, height_ratios=(2, 2, 1))
    extent = (explanation.start, end, 0, bins)
    sound.imshow(explanation.spectrogram.T, origin="lower", aspect="auto", cmap="magma", extent=extent)
    # A name may hold what matplotlib takes for mathematics.
    sound.set_title(f"{explanation.label} {explanation.score:.3f}", parse_math=False)
    sound.set(ylabel="mel bin")
    # A few cells far from the others would leave the rest pale.
    most = np.quantile(np.abs(explanation.relevance), 0.999)
    cells.imshow(
        explanation.relevance.T, origin="lower", aspect="auto", cmap="RdBu_r", extent=extent, vmin=-most, vmax=most
    )
    is_rollout = explanation.method == "rollout"
    cells.set(
        title="where attention went" if is_rollout else "spoke for the label (red) and against it (blue)",
        ylabel="mel bin",
    )
    course.plot(explanation.start + shift * np.arange(frames), explanation.course)
    course.axhline(0, color="0.7", linewidth=1)
    course.set(xlabel="seconds", ylabel="relevance")
    return figure
