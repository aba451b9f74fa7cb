"""Write a trained folder as ONNX: spectrograms of any number and length in, logits out.

    fftp export FOLDER          # model.onnx
    fftp export FOLDER --int8   # model_int8.onnx, less than a third of the size
    fftp export FOLDER --int8 --token_merge_layers 3   # model_int8_merged.onnx, fewer tokens
    fftp export FOLDER --time_stride 10   # model_stride10.onnx, fewer tokens from the start

The file's metadata holds the labels and the settings of the feature extractor; `onnx_model.py` runs it in pipelines of
transformers. Needs onnx, onnxruntime and onnxscript.
"""

import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxscript.optimizer
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch.export import Dim

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp.atomic_write import refuse_unwritable
from modeling_fftp.configuration_fftp import FFTPConfig
from modeling_fftp.heads_fftp import FRAMES, find_saved_task, find_task
from modeling_fftp.modeling_fftp import CLASSIFIERS, FFTPPreTrainedModel
from modeling_fftp.pretrained import hash_weights, load_pretrained
from modeling_fftp.scores_fftp import label_names

# Numbers in a tensor that may be computed when exporting. The default leaves the patch embedding to be reshaped
# in every call, and the quantizer, which looks for constants, would not see them.
FOLDED_SIZE = 2**26
INPUTS = ("input_values", "attention_mask")


class Exportable(torch.nn.Module):
    """A model as a function of tensors alone, right for clips shorter than one patch too.

    Args:
        model: `FFTPForAudioClassification` or `FFTPForAudioFrameClassification`.
    """

    def __init__(self, model: FFTPPreTrainedModel):
        super().__init__()
        self.model = model
        self.patch_frames, self.time_stride = model.config.patch_frames(), model.config.time_stride
        self.is_framewise = find_task(model) == FRAMES

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits; the padding to at least one patch is masked, so it changes nothing."""
        frames = input_values.shape[1]
        input_values = torch.nn.functional.pad(input_values, (0, 0, 0, self.patch_frames - 1))
        attention_mask = torch.nn.functional.pad(attention_mask, (0, self.patch_frames - 1))
        logits = self.model(input_values, attention_mask).logits
        if not self.is_framewise:
            return logits
        return logits[:, : torch.sym_max((frames - self.patch_frames) // self.time_stride + 1, 1)]


def quantize(model: onnx.ModelProto, path: Path) -> None:
    """Write a model whose linear layers, the patch embedding too, multiply integers; all else stays float32.

    Weights become int8, one scale per output channel, and their inputs uint8, with one scale for each call and layer.
    So with int8 a clip's logits depend, within the rounding, on what else is in its batch, padding included. Weights
    keep to 7 bits: on processors without VNNI, sums of products of 8 bits saturate.

    Source: onnxruntime's documentation of dynamic quantization.
    """
    # It advises to optimise the file first, which gains nothing here: onnxruntime optimises what it loads.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        logging.disable(disabled)


def default_file_name(int8: bool, is_merged: bool, time_stride: int | None = None) -> str:
    """Name of the exported file in the model's folder."""
    stride = "" if time_stride is None else f"_stride{time_stride}"
    return f"model{'_int8' * int8}{'_merged' * is_merged}{stride}.onnx"


def export(
    folder: str | Path,
    output: str | Path | None = None,
    int8: bool = False,
    token_merge_layers: Sequence[int] | None = None,
    time_stride: int | None = None,
) -> Path:
    """Export a model with its head.

    Args:
        folder: With the model and its feature extractor.
        output: File to write; default: `default_file_name` in the folder. It appears only when it is complete.
        int8: Whether to `quantize`.
        token_merge_layers: Replaces the model's own, see `FFTPConfig`; empty: merge nothing.
        time_stride: Frames between patches, in place of the model's own.

    Returns:
        The file. Inputs: `input_values` (batch, frames, mel bins) float32 and `attention_mask` (batch, frames) int64;
        output: `logits`, (batch, labels), or (batch, steps, labels) of a frame classifier.

    Raises:
        ValueError: A model without a head or with weights that are missing or damaged, or an output of another kind.
        FileNotFoundError: There is no such folder, or none to write to.
        OSError: It cannot be written to.
    """
    folder = Path(folder)
    if output is None:
        output = folder / default_file_name(int8, bool(token_merge_layers), time_stride)
    output = Path(output)
    if output.suffix != ".onnx" or output.is_dir():
        raise ValueError(f"{output}: expected a file to write, whose name ends in .onnx")
    for needed in (folder, output.parent):
        if not needed.is_dir():
            raise FileNotFoundError(f"{needed} is not a folder")
    refuse_unwritable(output.parent)
    given = {"token_merge_layers": token_merge_layers, "time_stride": time_stride}
    given = {name: value for name, value in given.items() if value is not None}
    config = FFTPConfig.from_pretrained(folder, scan_implementation="auto", **given)
    task = find_saved_task(config)
    if task is None:
        held = (config.architectures or ["no model"])[0]
        raise ValueError(f"{folder} holds {held}; expected a model with a head, that tells clips or frames apart")
    settings = {"config": config, "attn_implementation": "eager", "dtype": torch.float32}
    model, _ = load_pretrained(CLASSIFIERS[task], folder, **settings)
    program = trace(model)
    program.model.metadata_props.update(describe(config, folder))
    save(program, output, int8)
    return output


def trace(model: FFTPPreTrainedModel) -> torch.onnx.ONNXProgram:
    """The graph of a model, for any number of clips of any length."""
    config = model.config
    clips = torch.zeros(2, config.max_length, config.num_mel_bins)
    dimensions = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    exported = torch.export.export(
        Exportable(model).eval(),
        (clips, torch.ones(clips.shape[:2], dtype=torch.long)),
        dynamic_shapes=dict.fromkeys(INPUTS, dimensions),
    )
    # Servers and viewers show the names of dimensions; those of the mask are the same ones.
    names = dict(zip(INPUTS, ({0: "batch", 1: "frames"}, dimensions), strict=True))
    program = torch.onnx.export(
        exported, input_names=INPUTS, output_names=["logits"], dynamic_shapes=names, dynamo=True, verbose=False
    )
    onnxscript.optimizer.optimize(program.model, input_size_limit=FOLDED_SIZE, output_size_limit=FOLDED_SIZE)
    # onnxruntime's quantizer, ours or a user's, transposes weights and trips over what is recorded of their shapes.
    for weight in program.model.graph.initializers.values():
        weight.shape = None
    return program


def describe(config: FFTPConfig, folder: Path) -> dict[str, str]:
    """What a file says of itself, for other languages and for `FFTPOnnxForAudioClassification`."""
    return {
        "labels": json.dumps(label_names(config), ensure_ascii=False),
        "problem_type": config.problem_type,
        "thresholds": json.dumps(config.thresholds, ensure_ascii=False),
        "median_filter_seconds": json.dumps(config.median_filter_seconds, ensure_ascii=False),
        "patch_size": json.dumps([config.patch_size[0], config.patch_frames()]),
        "token_merge_layers": json.dumps(config.token_merge_layers),
        "time_stride": str(config.time_stride),
        "weights": hash_weights(folder),
        "feature_extractor": FFTPFeatureExtractor.from_pretrained(folder).to_json_string(),
    }


def save(program: torch.onnx.ONNXProgram, output: Path, int8: bool) -> None:
    """Write a file, and one of weights beside it where they are large; both appear when they are complete."""
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        part = Path(scratch, output.name)
        if int8:
            quantize(program.model_proto, part)
        else:
            program.save(part)
        # Weights of gigabytes lie in a file beside the graph, which comes last.
        for path in sorted(Path(scratch).iterdir(), reverse=True):
            os.replace(path, output.with_name(path.name))
