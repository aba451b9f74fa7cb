"""Turn a transformers AST checkpoint into an FFTP model with square patches that computes the same."""

from pathlib import Path

import torch
from transformers import ASTFeatureExtractor, ASTForAudioClassification

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.pretrained import load_pretrained

from .audioset import build_feature_extractor, find_problem_type
from .converted import Converted

SHARED_FIELDS = (
    "num_mel_bins", "max_length", "patch_size", "frequency_stride", "time_stride", "hidden_size", "num_hidden_layers",
    "num_attention_heads", "intermediate_size", "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob",
    "layer_norm_eps", "initializer_range", "qkv_bias", "id2label", "label2id",
)  # fmt: skip


def convert_state_dict(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename AST's weights; the positions of the two class tokens become part of the tokens."""
    converted = {
        name.replace("audio_spectrogram_transformer.", "fftp.", 1): tensor for name, tensor in state_dict.items()
    }
    positions = converted.pop("fftp.embeddings.position_embeddings")[0]
    converted["fftp.embeddings.cls_token"] = converted["fftp.embeddings.cls_token"] + positions[0]
    converted["fftp.embeddings.distillation_token"] = converted["fftp.embeddings.distillation_token"] + positions[1]
    converted["fftp.embeddings.position_embeddings.weight"] = positions[2:]
    return converted


def convert_model(source: ASTForAudioClassification, problem_type: str | None = None) -> FFTPForAudioClassification:
    """The FFTP model whose logits equal those of an AST model."""
    fields = {name: getattr(source.config, name) for name in SHARED_FIELDS}
    fields["problem_type"] = problem_type or find_problem_type(source.config)
    model = FFTPForAudioClassification(FFTPConfig(**fields)).to(source.dtype)
    model.load_state_dict(convert_state_dict(source.state_dict()))
    return model.eval()


def convert_feature_extractor(source: ASTFeatureExtractor) -> FFTPFeatureExtractor:
    """The FFTP extractor that gives an AST model the input it was trained on."""
    fields = ("max_length", "mean", "std", "num_mel_bins", "sampling_rate", "do_normalize")
    return build_feature_extractor(**{name: getattr(source, name) for name in fields})


def load_ast(source: str | Path, problem_type: str | None = None) -> Converted:
    """An AST checkpoint.

    Args:
        source: Folder or Hub id.
        problem_type: The config's; default: that of the source, or of AudioSet for as many labels.

    Raises:
        ValueError: Weights that are missing or damaged, or an unknown problem type.
    """
    classifier, _ = load_pretrained(ASTForAudioClassification, source)
    model = convert_model(classifier, problem_type)
    extractor = convert_feature_extractor(ASTFeatureExtractor.from_pretrained(source))
    model.config.sampling_rate = extractor.sampling_rate
    return Converted(model, extractor)
