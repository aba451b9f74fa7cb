"""Makes transformers' Auto classes know the models, when it is imported."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForPreTraining,
    AutoProcessor,
)

from feature_extraction import FFTPFeatureExtractor

from .configuration_fftp import FFTPConfig
from .modeling_fftp import FFTPForAudioClassification, FFTPForAudioFrameClassification, FFTPModel
from .pretraining_fftp import FFTPForPreTraining

AutoConfig.register("fftp", FFTPConfig)
AutoFeatureExtractor.register(FFTPConfig, FFTPFeatureExtractor)
# Without this AutoProcessor would look for an image processor in a folder's code first.
AutoProcessor.register(FFTPConfig, FFTPFeatureExtractor)
AutoModel.register(FFTPConfig, FFTPModel)
AutoModelForAudioClassification.register(FFTPConfig, FFTPForAudioClassification)
AutoModelForAudioFrameClassification.register(FFTPConfig, FFTPForAudioFrameClassification)
AutoModelForPreTraining.register(FFTPConfig, FFTPForPreTraining)
# Saved folders carry the code files and say which class they are for.
FFTPConfig.register_for_auto_class()
FFTPModel.register_for_auto_class("AutoModel")
FFTPForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")
FFTPForAudioFrameClassification.register_for_auto_class("AutoModelForAudioFrameClassification")
FFTPForPreTraining.register_for_auto_class("AutoModelForPreTraining")
