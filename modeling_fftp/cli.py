"""The command `fftp`. A sub-command imports what it calls, so that `fftp --help` waits for nothing."""

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

# Options are named as in train.py and transformers, with underscores; hyphens do as well.
SETTINGS = {"token_normalize_func": lambda name: name.replace("-", "_"), "help_option_names": ["--help", "-h"]}

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
)

TrainedFolder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a trained model.")]
TimeStride = Annotated[
    int | None,
    typer.Option("--time_stride", min=1, help="Frames between patches: more are faster; default: the model's."),
]
WindowSeconds = Annotated[
    float | None,
    typer.Option("--window_seconds", help="Seconds heard at once; default: as long as the clips of the training."),
]
HopSeconds = Annotated[
    float | None, typer.Option("--hop_seconds", help="Seconds from one window to the next; default: half a window.")
]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE", help="Recordings of any length, rate and channels; folders; patterns; @FILE, a list of them."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an output that a run did not finish.")]
Shard = Annotated[
    str, typer.Option("--shard", help="A share of the recordings, such as 3/16; the last writes the output.")
]
BatchSize = Annotated[int, typer.Option("--batch_size", min=1, help="Windows at a time.")]
# Of commands that take the arguments of trainings.
PASSES_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
# Optional packages, and the extra that installs each.
OPTIONAL = {"onnx", "onnxruntime", "onnxscript", "gradio", "sounddevice"}


@contextmanager
def errors_in_one_line(kinds: type[Exception] | tuple[type[Exception], ...] = Exception) -> Iterator[None]:
    """Show what is wrong with the input without a traceback, unless FFTP_TRACEBACK is set."""
    try:
        yield
    except BrokenPipeError:
        # Whoever reads has enough; typer ends quietly.
        raise
    except kinds as error:
        if os.environ.get("FFTP_TRACEBACK"):
            raise
        raise SystemExit(f"fftp: {describe(error)}") from error


def quietly() -> AbstractContextManager[None]:
    """`errors_in_one_line`, and no bar for the loading of weights."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return errors_in_one_line()


@contextmanager
def errors_of_input() -> Iterator[None]:
    """`errors_in_one_line` for bad arguments and data alone; other errors keep their traceback."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError, StrictDataclassError
    from safetensors import SafetensorError

    # The last is what a full disk becomes.
    with errors_in_one_line((ValueError, OSError, DatasetsError, HTTPError, StrictDataclassError, SafetensorError)):
        yield


def describe(error: Exception) -> str:
    """An error in words."""
    if isinstance(error, ModuleNotFoundError) and error.name in OPTIONAL:
        return f"this needs {error.name}: pip install {error.name}"
    if type(error).__name__.startswith("StrictDataclass") and error.__cause__ is not None:
        # What a config says of its own fields, without the name of its validator.
        return str(error.__cause__)
    if isinstance(error, (OSError, ValueError, ImportError)):
        return str(error)
    return f"{type(error).__name__}: {error} (FFTP_TRACEBACK=1 shows where)"


def show_version(is_wanted: bool) -> None:
    """Print the version and end."""
    if is_wanted:
        print(f"fftp {version('fftp')}")
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Audio classification with full-frequency patches."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal cannot show stops nothing; files are UTF-8, unless somebody says otherwise.
        is_file = not sys.stdout.isatty() and "PYTHONIOENCODING" not in os.environ
        sys.stdout.reconfigure(encoding="utf-8" if is_file else None, errors="backslashreplace")


@app.command(add_help_option=False, context_settings=PASSES_ON | {"help_option_names": []})
def train(context: typer.Context) -> None:
    """Train or fine-tune a model: fftp train RECIPE --dataset_name DATA --output_dir FOLDER.

    RECIPE is the name of one that this package brings, or a JSON file. `fftp train --help` lists all options.
    """
    from modeling_fftp.training.run import run

    with errors_of_input():
        run(context.args)


@app.command(add_help_option=False, context_settings=PASSES_ON | {"help_option_names": []})
def pretrain(context: typer.Context) -> None:
    """Learn from sound without labels: fftp pretrain DATA --output_dir FOLDER.

    DATA is any folder of sound. `fftp train --model_name_or_path FOLDER` starts from the result.
    """
    from modeling_fftp.training.pretraining.pretrain import pretrain as run_pretraining

    with errors_of_input():
        run_pretraining(context.args)


@app.command(add_help_option=False, context_settings=PASSES_ON | {"help_option_names": []})
def probe(context: typer.Context) -> None:
    """Classify by a frozen model: fftp probe DATA --model MODEL --output_dir FOLDER.

    For any clip classifier or encoder that `fftp train` starts from, in minutes at most for some thousand clips. DATA
    and its options are as there. FOLDER is a model like others.
    """
    from modeling_fftp.training.probing.probe import probe as run_probe

    with errors_of_input():
        run_probe(context.args)


@app.command(add_help_option=False, context_settings=PASSES_ON | {"help_option_names": []})
def inspect(context: typer.Context) -> None:
    """Report on a data set without training: fftp inspect DATA.

    It names splits, classes, lengths, and what looks wrong. DATA and its options are as in `fftp train`.
    """
    with errors_in_one_line():
        from modeling_fftp.training.inspect import inspect as report

        print(report(context.args))


@app.command()
def tag(
    sources: Sources,
    model: Annotated[str, typer.Option("--model", help="Folder or Hub id.")],
    form: Annotated[
        str | None,
        typer.Option("--format", help="text, jsonl, csv, parquet, audacity or raven; default: by --output, or text."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", help="File, or for audacity and raven folder, to create.")
    ] = None,
    rows: Annotated[
        str, typer.Option("--rows", help="Of a table: events, files (their best labels), or windows (all scores).")
    ] = "events",
    resume: Resume = False,
    shard: Shard = "1/1",
    top_k: Annotated[int, typer.Option("--top_k", min=1, help="Labels per file.")] = 5,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", min=0, max=1, help="Lowest score in the timeline; default: each label's own."),
    ] = None,
    batch_size: BatchSize = 8,
    window_seconds: WindowSeconds = None,
    hop_seconds: HopSeconds = None,
    time_stride: TimeStride = None,
    real_time_factor: Annotated[
        float | None,
        typer.Option(
            "--real_time_factor",
            help="Choose the densest stride that takes at most this many seconds per second of sound here.",
        ),
    ] = None,
) -> None:
    """List the sounds in recordings and when they occur. What cannot be read is named, and the status is 1."""
    from modeling_fftp.serving import tag as tagging
    from modeling_fftp.serving.parts import Part
    from modeling_fftp.serving.recordings import find_recordings

    with quietly():
        form = tagging.choose_format(form, as_json, output, rows)
        if resume and output is None:
            raise ValueError("--resume goes on with an output; name it with --output")
        part = Part.parse(shard).of_process()
        recordings = find_recordings(sources)
        tagger = tagging.load_tagger(model)
        heard = {"window_seconds": window_seconds, "hop_seconds": hop_seconds, "batch_size": batch_size}
        time_stride = tagging.choose_stride(tagger, time_stride, real_time_factor, part, resume, **heard)
        options = {"top_k": top_k, "threshold": threshold, "time_stride": time_stride, **heard}
        options["return_windows"] = rows == "windows"
        if output is None:
            share = part.of(recordings)
            if part.count > 1:
                where = f"part {part.index + 1} of {part.count}"
                typer.echo(f"fftp: {where}: {len(share)} of {len(recordings)} recordings", err=True)
            failed = tagging.print_answers(tagger, share, form, rows, **options)
        else:
            failed = tagging.write_answers(tagger, recordings, output, part, resume, form, rows, **options)
    raise typer.Exit(int(failed > 0))


@app.command()
def embed(
    sources: Sources,
    model: Annotated[str, typer.Option("--model", help="Folder or Hub id; of a classifier the head is left out.")],
    output: Annotated[Path, typer.Option("--output", help="Parquet file to create.")],
    per: Annotated[str, typer.Option("--per", help="A vector per recording, window or step.")] = "recording",
    resume: Resume = False,
    shard: Shard = "1/1",
    batch_size: BatchSize = 8,
    window_seconds: WindowSeconds = None,
    hop_seconds: HopSeconds = None,
    time_stride: TimeStride = None,
) -> None:
    """Turn recordings into vectors: a table of file, start, end and embedding."""
    from modeling_fftp.serving import embed as embedding
    from modeling_fftp.serving.parts import Part
    from modeling_fftp.serving.recordings import find_recordings

    with quietly():
        part = Part.parse(shard).of_process()
        recordings = find_recordings(sources)
        options = {"per": per, "batch_size": batch_size, "time_stride": time_stride}
        options |= {"window_seconds": window_seconds, "hop_seconds": hop_seconds}
        failed = embedding.write_embeddings(
            embedding.load_embedder(model), recordings, output, part, resume, **options
        )  # fmt: skip
    raise typer.Exit(int(failed > 0))


@app.command()
def explain(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A recording.")],
    model: Annotated[str, typer.Option("--model", help="Folder or Hub id of a clip classifier.")],
    label: Annotated[str | None, typer.Option("--label", help="Default: the one with the highest score.")] = None,
    start: Annotated[
        float,
        typer.Option("--start", min=0, help="Second at which the explained window begins."),
    ] = 0.0,
    method: Annotated[
        str,
        typer.Option(
            "--method", help="gradient (integrated, from the steady background), or rollout (of an AST's attention)."
        ),
    ] = "gradient",
    output: Annotated[Path | None, typer.Option("--output", help="Picture to write: PNG, SVG or PDF.")] = None,
) -> None:
    """Say which moments of a recording spoke for a label."""
    from modeling_fftp.atomic_write import refuse_unwritable
    from modeling_fftp.hub.figures import save_figure
    from modeling_fftp.serving import explain as explaining
    from modeling_fftp.serving.tag import load_tagger

    with quietly():
        if output is not None:
            explaining.refuse_other_forms(output)
            refuse_unwritable(output.parent)
        tagger = load_tagger(model)
        if tagger.is_framewise:
            raise ValueError(f"{model} is a frame classifier, whose events `fftp tag` lists")
        if method == "rollout":
            tagger.model.set_attn_implementation("eager")
        explanation = explaining.explain_recording(file, tagger.model, tagger.feature_extractor, label, start, method)
        print(explaining.describe(explanation))
        if output is not None:
            save_figure(explaining.draw(explanation, tagger.feature_extractor.sampling_rate), output)


@app.command()
def listen(
    model: Annotated[str, typer.Option("--model", help="Folder or Hub id.")],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]", help="- for raw 16-bit PCM from another program, or a file; default: the microphone."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", min=0, max=1, help="Score at which an event begins; default: each label's own."),
    ] = None,
    hop_seconds: Annotated[
        float | None,
        typer.Option("--hop_seconds", help="From one look to the next; default: one patch, or a tenth of a window."),
    ] = None,
    memory_seconds: Annotated[
        float | None,
        typer.Option(
            "--memory_seconds",
            help="What counts as now: the time in which sound fades to half, or the length of a sliding window; "
            "default: the length that the model was trained with.",
        ),
    ] = None,
    time_stride: TimeStride = None,
    rate: Annotated[
        int | None, typer.Option("--rate", min=1000, help="Rate of raw PCM in Hz; default: the model's.")
    ] = None,
    channels: Annotated[
        int | None, typer.Option("--channels", min=1, help="Channels of raw PCM, interleaved; default: 1.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="Microphone: number or a part of its name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per change.")] = False,
) -> None:
    """Name sounds as they begin and end, live: arecord -t raw -f S16_LE -r 16000 | fftp listen - --model M."""
    from modeling_fftp.serving import listen as live

    with quietly():
        stream = live.load_stream(model, hop_seconds, memory_seconds, time_stride, threshold)
        render = live.render_change_json if as_json else live.render_change
        with live.open_sound(source, stream.model.config.sampling_rate, device, rate, channels) as blocks:
            for change in live.listen(stream, blocks):
                print(render(change), flush=True)


@app.command()
def export(
    folder: TrainedFolder,
    output: Annotated[
        Path | None, typer.Option("--output", help="Default: FOLDER/model[_int8][_merged][_strideN].onnx.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="int8 weights: less than a third of the size, faster.")] = False,
    token_merge_layers: Annotated[
        list[int] | None,
        typer.Option(
            "--token_merge_layers",
            help="Merge neighbouring tokens after this layer, counted from 1; repeat for more. Default: as the model.",
        ),
    ] = None,
    time_stride: TimeStride = None,
) -> None:
    """Write a model as ONNX: spectrograms of any number and length in, logits out."""
    with quietly():
        from modeling_fftp.serving.export import export as write_onnx

        # Of packages that play no part here, and of what torch will change in itself.
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        warnings.simplefilter("ignore", FutureWarning)
        print(write_onnx(folder, output, int8, token_merge_layers or None, time_stride))


@app.command()
def card(
    folder: TrainedFolder,
    repo_id: Annotated[
        str | None, typer.Option("--repo_id", help="Hub id that the card's snippet loads; default: the folder's name.")
    ] = None,
    license: Annotated[
        str | None,
        typer.Option("--license", help="Licence of the weights, by its id on the Hub; default: the last card's."),
    ] = None,
    revision: Annotated[str, typer.Option("--revision", help="Branch that the card's snippet loads.")] = "main",
) -> None:
    """Write the model card of a trained folder, README.md, from the results in it."""
    with errors_in_one_line():
        from modeling_fftp.hub.card import write_card

        print(write_card(folder, repo_id, license, revision))


@app.command()
def push(
    folder: TrainedFolder,
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="user/name, or a name under the logged-in user.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str, typer.Option("--revision", help="Branch to push to.")] = "main",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another model.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry_run", help="List what would go, and push nothing.")] = False,
) -> None:
    """Upload a trained model to the Hub, in one commit."""
    from huggingface_hub.utils import validate_repo_id

    from modeling_fftp.hub.push import files_to_push, refuse_foreign_snippet
    from modeling_fftp.hub.push import push as push_folder

    with errors_in_one_line():
        validate_repo_id(repo_id)
        if dry_run:
            files = files_to_push(folder)
            # Only the Hub knows the user's name.
            if "/" in repo_id:
                refuse_foreign_snippet(folder, repo_id, revision)
            for path in files:
                print(f"{path.stat().st_size:>12,} bytes  {path.name}")
        else:
            print(push_folder(folder, repo_id, private=private, revision=revision, overwrite=overwrite))


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder or Hub id of an AST, ViT, DeiT, DINOv2 or FFTP model; or a checkpoint file of SSAST or AuM.",
        ),
    ],
    output_folder: Annotated[Path, typer.Argument(metavar="OUTPUT_FOLDER", help="Folder to create.")],
    kind: Annotated[
        str | None, typer.Option("--kind", help="ast, vit, deit, dinov2, fftp, ssast or aum; default: found out.")
    ] = None,
    patch_size: Annotated[
        tuple[int, int] | None, typer.Option("--patch_size", help="Mel bins and frames; default: as the source.")
    ] = None,
    frequency_stride: Annotated[
        int | None,
        typer.Option(
            "--frequency_stride", help="Mel bins between patches; default: the source's, or the size of new patches."
        ),
    ] = None,
    time_stride: Annotated[
        int | None,
        typer.Option(
            "--time_stride", help="Frames between patches; default: the source's, or the size of new patches."
        ),
    ] = None,
    patch_init: Annotated[
        str | None,
        typer.Option(
            "--patch_init", help="For another --patch_size: pi_resize (default), resize, least_squares or random."
        ),
    ] = None,
    sound: Annotated[
        Path | None, typer.Option("--sound", help="Folder of sound that least_squares fits the patch embedding to.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Draws a random patch embedding; default: 0.")] = None,
    max_length: Annotated[
        int | None, typer.Option("--max_length", help="Vision models: frames that positions cover; default: 1000.")
    ] = None,
    sampling_rate: Annotated[
        int | None, typer.Option("--sampling_rate", help="Vision models: rate of sound, in Hz; default: 16000.")
    ] = None,
    strides: Annotated[
        tuple[int, int] | None,
        typer.Option("--strides", help="SSAST, AuM: mel bins and frames between its patches; default: their size."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="SSAST, AuM: CSV with the columns index and display_name.")
    ] = None,
    problem_type: Annotated[
        str | None,
        typer.Option("--problem_type", help="SSAST, AuM: default: multi_label_classification. AST: the source's."),
    ] = None,
    pooling: Annotated[
        str | None, typer.Option("--pooling", help="SSAST, fine-tuned: mean or cls; AST of its authors: cls.")
    ] = None,
    mean: Annotated[
        float | None, typer.Option("--mean", help="SSAST, AuM: of the training audio; default: AudioSet.")
    ] = None,
    std: Annotated[
        float | None, typer.Option("--std", help="SSAST, AuM: of the training audio; default: AudioSet.")
    ] = None,
) -> None:
    """Turn weights from elsewhere into an FFTP model that computes the same, or into one with other patches."""
    options = {
        "max_length": max_length, "sampling_rate": sampling_rate, "strides": strides, "labels": labels,
        "problem_type": problem_type, "pooling": pooling, "mean": mean, "std": std,
    }  # fmt: skip
    geometry = {
        "patch_size": patch_size, "frequency_stride": frequency_stride, "time_stride": time_stride,
        "patch_init": patch_init,
    }  # fmt: skip
    options, geometry = ({name: x for name, x in given.items() if x is not None} for given in (options, geometry))
    with errors_in_one_line():
        from modeling_fftp.convert.convert import convert as convert_source

        clips = None
        if sound is not None:
            from modeling_fftp.training.data.unlabelled import read_sound

            clips = partial(read_sound, sound)
        convert_source(source, output_folder, kind, geometry, clips, seed, **options)


@app.command()
def space(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or Hub id.")],
) -> None:
    """Serve a page for the browser that tags sounds, as the Space in hub_cards/space does."""
    with errors_in_one_line():
        from hub_cards.space.app import build_app
        from modeling_fftp.serving.tag import load_tagger

        build_app(load_tagger(model), model).launch()


if __name__ == "__main__":
    app(prog_name="fftp")
