"""Tag a recording in the browser: labels, timeline, and the spectrogram with the model's patches.

python app.py FOLDER_OR_HUB_ID    # or set MODEL_ID
"""

import os
import sys

import gradio
import soundfile
import soxr
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from transformers import Pipeline, pipeline

SECONDS_PER_FRAME = 0.01
TOP_LABELS = 5


def draw_patches(path: str, tag: Pipeline) -> Figure:
    """The spectrogram of the recording's start, as far as the model's position table goes, under the patch grid."""
    config, extractor = tag.model.config, tag.feature_extractor
    with soundfile.SoundFile(path) as file:
        samples = file.read(int(config.max_length * SECONDS_PER_FRAME * file.samplerate), always_2d=True)
        sound = soxr.resample(samples.mean(axis=1), file.samplerate, extractor.sampling_rate)
    features = extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="np")["input_values"][0]
    frames, bins = features.shape
    figure = Figure(figsize=(9, 3), layout="constrained")
    axis = figure.subplots()
    seconds = frames * SECONDS_PER_FRAME
    axis.imshow(features.T, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, bins))
    (height, width), across, down = config.patch_size, config.time_stride, config.frequency_stride
    for row in range(0, bins - height + 1, down):
        for start in range(0, frames - width + 1, across):
            corner, size = (start * SECONDS_PER_FRAME, row), (width * SECONDS_PER_FRAME, height)
            axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=0.6, alpha=0.6))
    axis.set(xlabel="time (s)", ylabel="mel bin", title=f"The first {seconds:.1f} s, and the patches of the model")
    return figure


def build_app(tag: Pipeline, model: str) -> gradio.Blocks:
    """The page for one model.

    Args:
        tag: The pipeline "audio-tagging".
        model: Folder or Hub id, to name on the page.
    """

    def answer(path: str | None, threshold: float) -> tuple[dict[str, float], list[list], Figure]:
        if path is None:
            raise gradio.Error("Upload or record a sound first.")
        try:
            tagged = tag(path, top_k=TOP_LABELS, threshold=threshold)
        except ValueError as error:
            raise gradio.Error(str(error)) from error
        rows = [
            [round(item["start"], 2), round(item["end"], 2), item["label"], round(item["score"], 3)]
            for item in tagged["timeline"]
        ]
        return {item["label"]: item["score"] for item in tagged["labels"]}, rows, draw_patches(path, tag)

    with gradio.Blocks(title="Audio tagging") as app:
        gradio.Markdown(f"# Audio tagging with full-frequency patches\n\nModel: `{os.path.basename(model)}`")
        with gradio.Row():
            with gradio.Column():
                sound = gradio.Audio(sources=["upload", "microphone"], type="filepath", label="Sound")
                threshold = gradio.Slider(0.05, 0.95, 0.5, step=0.05, label="Lowest score at which a label is heard")
                button = gradio.Button("Tag", variant="primary")
            labels = gradio.Label(num_top_classes=TOP_LABELS, label="Labels")
        timeline = gradio.Dataframe(headers=["start (s)", "end (s)", "label", "score"], label="Timeline")
        spectrogram = gradio.Plot(label="Spectrogram")
        button.click(answer, [sound, threshold], [labels, timeline, spectrogram])
    return app


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MODEL_ID")
    if not chosen:
        raise SystemExit("app.py: name a model: python app.py FOLDER_OR_HUB_ID, or set MODEL_ID")
    build_app(pipeline("audio-tagging", model=chosen, trust_remote_code=True), chosen).launch()
