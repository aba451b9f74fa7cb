"""What a folder's model costs is counted of what it computes."""

import pytest

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.hub.efficiency import measure_efficiency


@pytest.mark.parametrize(("padding", "tokens"), [("longest", 18), ("max_length", 59)])
def test_what_the_extractor_pads_is_counted(make_config, tmp_path, padding, tokens):
    FFTPForAudioClassification(make_config(max_length=300)).save_pretrained(tmp_path)
    FFTPFeatureExtractor(max_length=300, padding=padding).save_pretrained(tmp_path)
    assert measure_efficiency(tmp_path, 1.0)["tokens"] == tokens
