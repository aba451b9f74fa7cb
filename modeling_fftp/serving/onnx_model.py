"""Classifiers from ONNX files, in the place of torch models in transformers' pipelines.

    fftp export FOLDER --int8

    model = FFTPOnnxForAudioClassification.from_pretrained(FOLDER, "model_int8.onnx")
    extractor = FFTPFeatureExtractor.from_pretrained(FOLDER)
    classify = pipeline("audio-classification", model=model, feature_extractor=extractor, device="cpu")

Needs onnxruntime.
"""

import copy
import json
from pathlib import Path
from typing import Self

import onnxruntime
import torch
from torch import nn
from transformers import AutoModelForAudioClassification, AutoModelForAudioFrameClassification
from transformers.modeling_outputs import ModelOutput, SequenceClassifierOutput, TokenClassifierOutput
from transformers.utils import cached_file

from modeling_fftp.configuration_fftp import FFTPConfig
from modeling_fftp.pretrained import hash_weights
from modeling_fftp.scores_fftp import label_names


class FFTPOnnxModel(nn.Module):
    """A classifier for pipelines in the place of a torch model, computed by onnxruntime on the CPU; it cannot train.

    onnxruntime has threads of its own. `torch.set_num_threads(1)`, once the model is open, keeps those of torch, which
    computes the features, from competing with them.

    Args:
        path: File that `fftp export` wrote.
        config: Config of the model that it was made of.
        num_threads: Threads of onnxruntime; default: as many as torch has now.

    Raises:
        ValueError: The file is a classifier of another kind, or has other labels than the config.
    """

    # What pipelines ask of a model.
    device = torch.device("cpu")
    dtype = torch.float32
    main_input_name = "input_values"
    input_modalities = ("audio",)
    # What the kinds differ in.
    kind: str
    num_dimensions: int
    output_class: type[ModelOutput]

    def __init__(self, path: str | Path, config: FFTPConfig, num_threads: int | None = None):
        super().__init__()
        self.eval()
        self.path = path
        self.num_threads = torch.get_num_threads() if num_threads is None else num_threads
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.num_threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.metadata = self.session.get_modelmeta().custom_metadata_map
        self.config = copy.deepcopy(config)
        self.config.time_stride = int(self.metadata.get("time_stride", config.time_stride))
        labels = json.loads(self.metadata.get("labels", "[]"))
        expected = label_names(config)
        outputs = self.session.get_outputs()[0].shape
        if labels != expected or len(outputs) != self.num_dimensions:
            raise ValueError(
                f"{path} has {len(labels)} labels, {labels[:3]}..., and logits of {len(outputs)} dimensions; "
                f"config.json has {len(expected)} labels, {expected[:3]}..., and a {self.kind} classifier "
                f"{self.num_dimensions} dimensions: export again"
            )

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, file_name: str = "model.onnx", num_threads: int | None = None, **hub_options
    ) -> Self:
        """Open the file of a folder, or of a repository on the Hub.

        Args:
            folder: Folder or Hub id.
            file_name: File that `fftp export` wrote: "model.onnx", "model_int8.onnx", "model_int8_merged.onnx".
            num_threads: See the class.
            **hub_options: `revision`, `token`, `cache_dir`, ...

        Raises:
            OSError: There is no such file.
            ValueError: The folder holds other weights than those that the file was made of.
        """
        path = cached_file(folder, file_name, **hub_options)
        model = cls(path, FFTPConfig.from_pretrained(folder, **hub_options), num_threads)
        if hash_weights(folder) not in (None, model.metadata.get("weights")):
            raise ValueError(f"{path} was made of other weights than those in {folder}: export again")
        return model

    def __reduce__(self):
        # A session cannot be pickled, and the workers of a pipeline get the model with it.
        return type(self), (self.path, self.config, self.num_threads)

    def can_generate(self) -> bool:
        """No."""
        return False

    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        time_stride: int | None = None,
    ) -> ModelOutput:
        """Classify a batch of clips, or their steps.

        Args:
            input_values: Normalised log-mel spectrograms, (batch, frames, mel bins).
            attention_mask: (batch, frames), 1 at real frames, padding on the right.
            time_stride: Must be the file's, which has no other.

        Returns:
            `logits`, (batch, labels), or (batch, steps, labels) of a frame classifier.

        Raises:
            ValueError: Another time stride.
        """
        if time_stride not in (None, self.config.time_stride):
            raise ValueError(
                f"time_stride={time_stride}: {self.path} has {self.config.time_stride}; "
                f"`fftp export --time_stride {time_stride}` writes another"
            )
        if attention_mask is None:
            attention_mask = torch.ones(input_values.shape[:2], dtype=torch.long)
        feed = {
            "input_values": input_values.detach().float().cpu().numpy(),
            "attention_mask": attention_mask.long().cpu().numpy(),
        }
        (logits,) = self.session.run(None, feed)
        return self.output_class(logits=torch.from_numpy(logits))


class FFTPOnnxForAudioClassification(FFTPOnnxModel):
    """`FFTPForAudioClassification` by onnxruntime."""

    kind, num_dimensions, output_class = "clip", 2, SequenceClassifierOutput


class FFTPOnnxForAudioFrameClassification(FFTPOnnxModel):
    """`FFTPForAudioFrameClassification` by onnxruntime."""

    kind, num_dimensions, output_class = "frame", 3, TokenClassifierOutput


class FFTPOnnxConfig(FFTPConfig):
    """Registers the classes, since pipelines log an error about models that no Auto class knows; has no other use."""


AutoModelForAudioClassification.register(FFTPOnnxConfig, FFTPOnnxForAudioClassification)
AutoModelForAudioFrameClassification.register(FFTPOnnxConfig, FFTPOnnxForAudioFrameClassification)
