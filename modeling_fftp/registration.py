"""Makes transformers' Auto classes and pipelines know the models, when it is imported."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
)
from transformers.pipelines import PIPELINE_REGISTRY

from feature_extraction import FFTPFeatureExtractor

from .audio_tagging_fftp import FFTPAudioTaggingPipeline
from .configuration_fftp import FFTPConfig
from .modeling_fftp import FFTPForAudioClassification, FFTPForAudioFrameClassification, FFTPModel

AutoConfig.register("fftp", FFTPConfig)
AutoFeatureExtractor.register(FFTPConfig, FFTPFeatureExtractor)
AutoModel.register(FFTPConfig, FFTPModel)
AutoModelForAudioClassification.register(FFTPConfig, FFTPForAudioClassification)
AutoModelForAudioFrameClassification.register(FFTPConfig, FFTPForAudioFrameClassification)
PIPELINE_REGISTRY.register_pipeline("audio-tagging", FFTPAudioTaggingPipeline, AutoModelForAudioClassification)
# Saved folders carry the code files and say which class they are for.
FFTPConfig.register_for_auto_class()
FFTPModel.register_for_auto_class("AutoModel")
FFTPForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")
FFTPForAudioFrameClassification.register_for_auto_class("AutoModelForAudioFrameClassification")
