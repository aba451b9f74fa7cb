"""Which head a model has, whatever is around it."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import pipeline

from modeling_fftp import FFTPForAudioClassification, FFTPForAudioFrameClassification, FFTPModel
from modeling_fftp.heads_fftp import CLIPS, FRAMES, find_saved_task, find_task
from modeling_fftp.serving.onnx_model import FFTPOnnxForAudioFrameClassification


class OwnClassifier(FFTPForAudioClassification):
    """What a user may derive, and what FSDP makes of a class."""


@pytest.mark.parametrize(
    ("model_class", "task"),
    [
        (FFTPForAudioClassification, CLIPS),
        (OwnClassifier, CLIPS),
        (FFTPForAudioFrameClassification, FRAMES),
        (FFTPModel, None),
    ],
)
def test_a_head_is_known_behind_what_wraps_it(make_config, model_class, task):
    model = model_class(make_config())
    assert find_task(model) == task
    assert find_task(torch.compile(model)) == task
    assert find_task(get_peft_model(model, LoraConfig(target_modules="all-linear"))) == task


def test_a_head_is_known_by_what_was_saved(make_config, tmp_path):
    for model_class, task in ((OwnClassifier, None), (FFTPForAudioFrameClassification, FRAMES), (FFTPModel, None)):
        model_class(make_config()).save_pretrained(tmp_path)
        assert find_saved_task(model_class.config_class.from_pretrained(tmp_path)) == task
    assert find_task(object.__new__(FFTPOnnxForAudioFrameClassification)) == FRAMES


def test_a_class_of_ones_own_tags(make_config, extractor, speech):
    tag = pipeline("audio-tagging", model=OwnClassifier(make_config()), feature_extractor=extractor, device="cpu")
    assert tag(speech)["duration"] == 2.0
