"""FFTP models for transformers: configuration, base model and heads."""

from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification

from .configuration_fftp import FFTPConfig
from .modeling_fftp import FFTPForAudioClassification, FFTPModel, FFTPPreTrainedModel

AutoConfig.register("fftp", FFTPConfig)
AutoModel.register(FFTPConfig, FFTPModel)
AutoModelForAudioClassification.register(FFTPConfig, FFTPForAudioClassification)
FFTPConfig.register_for_auto_class()
FFTPModel.register_for_auto_class("AutoModel")
FFTPForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")

__all__ = ["FFTPConfig", "FFTPForAudioClassification", "FFTPModel", "FFTPPreTrainedModel"]
