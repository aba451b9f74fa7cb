"""What transformers' common suites need to know of our classes. `run.py` puts this file where they can be imported.

The pipeline suite cannot run: the source distribution lacks its tests (`tests/pipelines`), and it loads its models
from the Hub. What it would check of the two pipelines is in test_run.py, test_push.py and
test_audio_tagging_pipeline.py.
"""

import random
import unittest

import numpy as np
import torch
from transformers.models.auto import modeling_auto

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import (
    FFTPConfig,
    FFTPForAudioClassification,
    FFTPForAudioFrameClassification,
    FFTPForPreTraining,
    FFTPModel,
)

from .test_configuration_common import ConfigTester
from .test_modeling_common import ModelTesterMixin
from .test_sequence_feature_extraction_common import SequenceFeatureExtractionTestMixin

# The suites ask these tables which inputs a class takes; registered classes are not in them.
modeling_auto.MODEL_MAPPING_NAMES["fftp"] = "FFTPModel"
modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES["fftp"] = "FFTPForAudioClassification"


class FFTPModelTester:
    """Small models and inputs for them."""

    def __init__(self, parent: unittest.TestCase, **fields):
        self.parent = parent
        self.fields = {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37,
            "max_length": 24, "num_mel_bins": 16, "patch_size": (16, 4), "frequency_stride": 16, "time_stride": 2,
            "num_labels": 3,
        } | fields  # fmt: skip
        config = self.get_config()
        self.batch_size, self.hidden_size = 3, config.hidden_size
        self.num_hidden_layers, self.num_attention_heads = config.num_hidden_layers, config.num_attention_heads
        # Of attention masks, and of hidden states.
        self.seq_length = config.max_length
        self.encoder_seq_length = self.key_length = config.num_patches + config.count_class_tokens()
        # Of patches that are left out.
        self.num_masks, self.mask_length = 0, config.num_patches
        self.is_training = True

    def get_config(self) -> FFTPConfig:
        return FFTPConfig(**self.fields)

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        return config, {"input_values": torch.randn(self.batch_size, config.max_length, config.num_mel_bins)}


class CommonTests(ModelTesterMixin):
    """The model suite, for one backbone and all heads."""

    all_model_classes = (
        FFTPModel,
        FFTPForAudioClassification,
        FFTPForAudioFrameClassification,
        FFTPForPreTraining,
    )
    # The input is no text: there are no token embeddings to resize.
    test_resize_embeddings = False
    fields: dict = {}  # noqa: RUF012

    def setUp(self):
        self.model_tester = FFTPModelTester(self, **self.fields)
        size = {"hidden_size": 32, "num_attention_heads": 4}
        self.config_tester = ConfigTester(self, config_class=FFTPConfig, has_text_modality=False, **size)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels and model_class is FFTPForAudioFrameClassification:
            steps = self.model_tester.get_config().patch_grid[1]
            inputs["labels"] = torch.zeros(self.model_tester.batch_size, steps, dtype=torch.long)
        if model_class is FFTPForPreTraining:
            # The suites compare runs, and expect as many tokens as there are patches: none is hidden.
            patches = self.model_tester.get_config().num_patches
            inputs["bool_masked_pos"] = torch.zeros(len(inputs["input_values"]), patches, dtype=torch.bool)
        return inputs

    def test_model_get_set_embeddings(self):
        """As in the suite, but what embeds spectrograms is no `nn.Embedding`."""
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            replacement = type(model.get_input_embeddings())(model.config)
            model.set_input_embeddings(replacement)
            assert model.get_input_embeddings() is replacement

    def test_config(self):
        self.config_tester.run_common_tests()


# As the extractor never pads so, the models take it for a mistake.
for name in [name for name in dir(CommonTests) if "pad_left" in name]:
    setattr(CommonTests, name, unittest.skip("padding on the left is refused")(getattr(CommonTests, name)))


class ASTTest(CommonTests, unittest.TestCase):
    """The AST backbone."""


class MambaTest(CommonTests, unittest.TestCase):
    """The Mamba backbone. It has no attention."""

    fields = {"backbone": "mamba"}  # noqa: RUF012
    has_attentions = False


class ConvNextTest(CommonTests, unittest.TestCase):
    """The ConvNeXt backbone. It has no attention."""

    fields = {"backbone": "convnext"}  # noqa: RUF012
    has_attentions = False


class ExtractorTester:
    """Clips of unequal length as the extractor suite wants them."""

    def __init__(self):
        self.batch_size, self.min_seq_length, self.max_seq_length, self.feature_size = 7, 400, 2000, 1
        self.seq_length_diff = (self.max_seq_length - self.min_seq_length) // (self.batch_size - 1)

    def prepare_feat_extract_dict(self):
        return {"feature_size": 1, "num_mel_bins": 16, "sampling_rate": 16000, "padding_value": 0.0}

    def prepare_inputs_for_common(self, equal_length=False, numpify=False):
        lengths = [self.min_seq_length + index * self.seq_length_diff for index in range(self.batch_size)]
        clips = [[random.random() for _ in range(self.max_seq_length if equal_length else n)] for n in lengths]
        return [np.asarray(clip) for clip in clips] if numpify else clips


class FeatureExtractorTest(SequenceFeatureExtractionTestMixin, unittest.TestCase):
    """The feature extractor."""

    feature_extraction_class = FFTPFeatureExtractor

    def setUp(self):
        self.feat_extract_tester = ExtractorTester()
