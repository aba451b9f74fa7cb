"""From sound to features: the extractor, SpecMask and the training collator."""

from .collator import SpecMaskDataCollator
from .feature_extraction_fftp import FFTPFeatureExtractor
from .spec_mask import SpecAugment, SpecMask

FFTPFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")

__all__ = ["FFTPFeatureExtractor", "SpecAugment", "SpecMask", "SpecMaskDataCollator"]
