"""Tag a recording in the browser: labels, timeline, and the spectrogram with the model's patches; or listen live.

python app.py FOLDER_OR_HUB_ID    # or set MODEL_ID
"""

import os
import sys
import threading
import time

import gradio
import numpy as np
import soundfile
import soxr
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from transformers import Pipeline, pipeline

TOP_LABELS = 5
# The browser sends sound so often. What comes while the model is busy replaces what waits, so sound may be missing: it
# is, where so much less came than time went by. The model goes on with what comes, and times count what did not.
LIVE_SECONDS = 0.25
MISSING_SECONDS = 1.0
# The model looks at least so often.
LONGEST_HOP = 1.0
# Rows of the table that is sent as often.
MOST_EVENTS = 50


def draw_start(path: str, tag: Pipeline) -> Figure:
    """The recording's start, as far as the model's position table goes: under the patch grid, and what spoke in it."""
    config, extractor = tag.model.config, tag.feature_extractor
    # 10 ms, cut to whole samples.
    shift = extractor.sampling_rate * 10 // 1000 / extractor.sampling_rate
    with soundfile.SoundFile(path) as file:
        samples = file.read(int(config.max_length * shift * file.samplerate), always_2d=True)
        sound = soxr.resample(samples.mean(axis=1), file.samplerate, extractor.sampling_rate)
    features = extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="pt").to(tag.model.device)
    # Windows of 25 ms; the extractor may have padded what is shorter than those of its training.
    real = max(1, (len(sound) - extractor.sampling_rate * 25 // 1000) // (extractor.sampling_rate * 10 // 1000) + 1)
    values = features["input_values"][0, :real].cpu().numpy()
    features["input_values"] = features["input_values"].to(tag.model.dtype)
    frames, bins = values.shape
    # Frame classifiers explain nothing.
    explains = hasattr(tag.model, "explain")
    figure = Figure(figsize=(9, 6 if explains else 3), layout="constrained")
    axis, *others = figure.subplots(2 if explains else 1, 1, sharex=True, squeeze=False)[:, 0]
    seconds = frames * shift
    extent = (0, seconds, 0, bins)
    axis.imshow(values.T, origin="lower", aspect="auto", cmap="magma", extent=extent)
    height, across, down = config.patch_size[0], config.time_stride, config.frequency_stride
    # The code of older models knows no patches that stretch.
    width = config.patch_frames() if hasattr(config, "patch_frames") else config.patch_size[1]
    for row in range(0, bins - height + 1, down):
        for start in range(0, frames - width + 1, across):
            corner, size = (start * shift, row), (width * shift, height)
            axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=0.6, alpha=0.6))
    axis.set(xlabel="time (s)", ylabel="mel bin", title=f"The first {seconds:.1f} s, and the patches of the model")
    for other in others:
        best = tag.model.config.id2label[tag.model(**features).logits.argmax().item()]
        relevance = tag.model.explain(**features, num_frames=real)[0, :real].cpu().numpy()
        most = np.quantile(np.abs(relevance), 0.999)
        other.imshow(relevance.T, origin="lower", aspect="auto", cmap="RdBu_r", extent=extent, vmin=-most, vmax=most)
        other.set(xlabel="time (s)", ylabel="mel bin")
        # A name may hold what matplotlib takes for mathematics.
        other.set_title(f"What in it spoke for {best} (red) and against (blue)", parse_math=False)
    return figure


class LiveSession:
    """One visitor's microphone: a stream of the model, and the events in it so far.

    Args:
        tag: The pipeline "audio-tagging".
        rate: Rate of the microphone in Hz.
    """

    def __init__(self, tag: Pipeline, rate: int):
        self.rate = rate
        self.resampler = soxr.ResampleStream(rate, tag.feature_extractor.sampling_rate, 1, dtype="float32")
        # The code of older models does not say.
        window = getattr(tag, "window_seconds", None)
        hop = LIVE_SECONDS if window is None else min(window / 10, LONGEST_HOP)
        self.stream = tag.model.stream(tag.feature_extractor, hop_seconds=hop, memory_seconds=window)
        self.labels, self.scores, self.events = self.stream.tracker.labels, {}, []
        # When the sound began and was ended, how much came, and how much did not.
        self.began, self.ended, self.came, self.missing = None, None, 0.0, 0.0
        # The page may end the sound while the model is busy with it.
        self.lock = threading.Lock()

    def hear(self, samples: np.ndarray, threshold: float | None) -> None:
        """Take integer PCM, (samples,) or (samples, channels); events begin at a score of `threshold`."""
        now = time.monotonic()
        with self.lock:
            if self.ended is not None or not len(samples):
                return
            self.stream.set_threshold(threshold)
            self.count_missing(len(samples) / self.rate, now)
            mono = (samples.reshape(len(samples), -1) / -np.iinfo(samples.dtype).min).mean(axis=1).astype(np.float32)
            for answer in self.stream.push(self.resampler.resample_chunk(mono)):
                self.scores = dict(zip(self.labels, answer.scores.tolist(), strict=True))
                self.note(answer.changes)

    def count_missing(self, seconds: float, now: float) -> None:
        """Count what is missing before sound that is so long and came at a time."""
        if self.began is None:
            self.began = now - seconds
        self.came += seconds
        missing = now - self.began - self.came - self.missing
        if missing > MISSING_SECONDS:
            self.missing += missing

    def finish(self) -> None:
        """End what still sounds; what comes after that is not heard."""
        with self.lock:
            if self.ended is None:
                self.ended = time.monotonic()
                self.note(self.stream.finish())

    def is_over(self) -> bool:
        """Whether it was ended so long ago that what comes now belongs to another."""
        return self.ended is not None and time.monotonic() - self.ended > MISSING_SECONDS

    def note(self, changes: list) -> None:
        """Write down what begins or ends."""
        for change in changes:
            seconds = round(change.seconds + self.missing, 2)
            if change.kind == "begin":
                self.events.insert(0, [seconds, None, change.label])
            else:
                for row in self.events:
                    if row[1] is None and row[2] == change.label:
                        row[1] = seconds
        del self.events[MOST_EVENTS:]


def build_app(tag: Pipeline, model: str) -> gradio.Blocks:
    """The page for one model.

    Args:
        tag: The pipeline "audio-tagging".
        model: Folder or Hub id, to name on the page.
    """
    # Thresholds that the model was calibrated to, if it was.
    has_own = bool(getattr(tag.model.config, "thresholds", None))

    def answer(
        path: str | None, threshold: float, takes_own: bool
    ) -> tuple[dict[str, float], list[list], Figure | None]:
        if path is None:
            raise gradio.Error("Upload or record a sound first.")
        try:
            # The code of older models has no default of their own.
            chosen = {} if takes_own else {"threshold": threshold}
            tagged = tag(path, top_k=TOP_LABELS, **chosen)
        except ValueError as error:
            raise gradio.Error(str(error)) from error
        rows = [
            [round(item["start"], 2), round(item["end"], 2), item["label"], round(item["score"], 3)]
            for item in tagged["timeline"]
        ]
        try:
            picture = draw_start(path, tag)
        except (ValueError, soundfile.LibsndfileError):
            # The pipeline mends files that soundfile alone cannot read.
            picture = None
        return {item["label"]: item["score"] for item in tagged["labels"]}, rows, picture

    def hear(
        chunk: tuple[int, np.ndarray] | None, threshold: float, takes_own: bool, session: LiveSession | None
    ) -> tuple[dict[str, float] | None, list[list], LiveSession | None]:
        if chunk is None:
            return None, [], None
        rate, samples = chunk
        if session is None or session.rate != rate or session.is_over():
            session = LiveSession(tag, rate)
        session.hear(samples, None if takes_own else threshold)
        return session.scores or None, session.events, session

    def finish(session: LiveSession | None) -> list[list]:
        if session is None:
            return []
        session.finish()
        return session.events

    with gradio.Blocks(title="Audio tagging") as app:
        gradio.Markdown(f"# Audio tagging with full-frequency patches\n\nModel: `{os.path.basename(model)}`")
        threshold = gradio.Slider(0.05, 0.95, 0.5, step=0.05, label="Lowest score at which a label is heard")
        own = gradio.Checkbox(has_own, visible=has_own, label="The model's own score for each label instead")
        with gradio.Tab("Recording"):
            with gradio.Row():
                with gradio.Column():
                    sound = gradio.Audio(sources=["upload", "microphone"], type="filepath", label="Sound")
                    button = gradio.Button("Tag", variant="primary")
                labels = gradio.Label(num_top_classes=TOP_LABELS, label="Labels")
            timeline = gradio.Dataframe(headers=["start (s)", "end (s)", "label", "score"], label="Timeline")
            spectrogram = gradio.Plot(label="Spectrogram")
            button.click(answer, [sound, threshold, own], [labels, timeline, spectrogram])
        # Frame classifiers have no streams. The page loads what encodes sound with the tab's children: were that
        # when the tab opens, whoever records at once would record nothing.
        with gradio.Tab("Live", visible=hasattr(tag.model, "stream"), render_children=True):
            with gradio.Row():
                microphone = gradio.Audio(sources=["microphone"], type="numpy", streaming=True, label="Microphone")
                live_labels = gradio.Label(num_top_classes=TOP_LABELS, label="Now")
            events = gradio.Dataframe(headers=["start (s)", "end (s)", "label"], label="Events, the latest first")
            session = gradio.State(None)
            microphone.stream(
                hear, [microphone, threshold, own, session], [live_labels, events, session],
                stream_every=LIVE_SECONDS, time_limit=None, concurrency_limit=None, show_progress="hidden",
            )  # fmt: skip
            # A new recording is a new stream.
            microphone.start_recording(lambda: None, outputs=session)
            microphone.stop_recording(finish, session, events)
    return app


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MODEL_ID")
    if not chosen:
        raise SystemExit("app.py: name a model: python app.py FOLDER_OR_HUB_ID, or set MODEL_ID")
    build_app(pipeline("audio-tagging", model=chosen, trust_remote_code=True), chosen).launch()
