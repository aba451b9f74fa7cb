"""What a saved folder names as its code is saved with it."""

import json

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPForAudioClassification

OWN, THEIRS = "own_heads.Own", "somebody/else--theirs.Model"


def test_code_of_another_repository_is_not_named(make_config, tmp_path):
    """It would run in whoever opens the folder, although nobody who trained on from the checkpoint trusted it."""
    model, extractor = FFTPForAudioClassification(make_config()), FFTPFeatureExtractor()
    model.config.auto_map = {"AutoModel": THEIRS, "AutoModelForAudioXVector": OWN, "AutoProcessor": THEIRS}
    model.config.custom_pipelines = {
        "audio-classification": {"impl": THEIRS, "pt": ["AutoModel"], "type": "audio"},
        "audio-embedding": {"impl": THEIRS, "pt": ["AutoModel"], "type": "audio"},
        "own": {"impl": OWN, "pt": ["AutoModel"], "type": "audio"},
    }
    extractor.auto_map = {"AutoFeatureExtractor": THEIRS, "AutoProcessor": THEIRS}
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    files = [(tmp_path / name).read_text() for name in ("config.json", "preprocessor_config.json")]
    assert not any("--" in text for text in files)
    config, preprocessor = map(json.loads, files)
    assert config["auto_map"]["AutoModel"] == "modeling_fftp.FFTPModel"
    assert config["auto_map"]["AutoModelForAudioXVector"] == OWN
    assert config["custom_pipelines"].keys() == {"audio-embedding", "audio-tagging", "own"}
    assert preprocessor["auto_map"] == {"AutoFeatureExtractor": "feature_extraction_fftp.FFTPFeatureExtractor"}
