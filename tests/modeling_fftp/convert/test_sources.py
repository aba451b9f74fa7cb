"""`fftp convert`: which kind a source is, what options it takes, and what arrives in the folder."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, ViTConfig, ViTModel

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPForAudioClassification, FFTPForAudioFrameClassification
from modeling_fftp.cli import app
from modeling_fftp.convert.convert import adapt, convert
from modeling_fftp.convert.sources import find_kind, load

SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}


@pytest.fixture
def vit(tmp_path):
    ViTModel(ViTConfig(**SMALL)).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def test_the_kind_is_recognised_and_can_be_said(vit, tmp_path):
    assert find_kind(vit) == "vit"
    assert load(vit, "vit").knows_sound is False
    with pytest.raises(ValueError, match="vit is of the kind 'vit', not 'ast'"):
        load(vit, "ast")
    with pytest.raises(ValueError, match=r"--kind bert is unknown; expected one of ast, fftp"):
        load(vit, "bert")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds an adapter, not a model"):
        load(tmp_path / "adapter")
    with pytest.raises(FileNotFoundError, match="neither a folder or a file here nor a Hub id"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"--labels is not for .*'vit'; that knows \['max_length', 'sampling_rate'\]"):
        load(vit, labels=tmp_path / "labels.csv")
    with pytest.raises(FileNotFoundError, match=r"missing\.pth"):
        load(tmp_path / "missing.pth")


def test_other_patches_come_with_a_masking_extractor(vit, tmp_path):
    arguments = ["convert", vit, tmp_path / "out", "--patch_size", 128, 10, "--time_stride", 5, "--max_length", 200]
    app([*map(str, arguments)], standalone_mode=False)
    model, extractor = (kind.from_pretrained(tmp_path / "out") for kind in (AutoModel, AutoFeatureExtractor))
    config = model.config
    assert (config.patch_size, config.frequency_stride, config.time_stride) == ((128, 10), 128, 5)
    assert model.embeddings.position_embeddings.weight.shape == (39, 48)
    features = extractor([torch.randn(16000), torch.randn(9000)], sampling_rate=16000, return_tensors="pt")
    assert features["attention_mask"].sum(dim=1).tolist() == [98, 54]
    assert model(**features).last_hidden_state.shape == (2, 1 + 18, 48)


def test_what_is_adapted_stays_as_it_is(vit):
    converted = load(vit)
    # As that of transformers' AST.
    converted.extractor.return_attention_mask = False
    adapted = adapt(converted, patch_size=(128, 10), frequency_stride=128)
    assert (adapted.extractor.return_attention_mask, converted.extractor.return_attention_mask) == (True, False)


def test_an_own_model_gets_other_patches_and_keeps_its_head(tmp_path):
    torch.manual_seed(0)
    model = FFTPForAudioClassification(FFTPConfig(**SMALL, max_length=200, num_labels=3))
    model.save_pretrained(tmp_path / "model")
    FFTPFeatureExtractor(mean=-7.0).save_pretrained(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "out", geometry={"time_stride": 10})
    changed = AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    assert changed.classifier.dense.weight.equal(model.classifier.dense.weight)
    assert changed.config.time_stride == 10
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "out").mean == -7.0
    with pytest.raises(ValueError, match="--sound is for --patch_init least_squares"):
        convert(tmp_path / "model", tmp_path / "other", geometry={"time_stride": 10}, sound=lambda rate: [])
    with pytest.raises(ValueError, match="patch_init='nearest' is unknown"):
        convert(tmp_path / "model", tmp_path / "other", geometry={"patch_size": (128, 20), "patch_init": "nearest"})
    # Another stride leaves the embedding as it is.
    with pytest.raises(ValueError, match="patch_init='random' is for other patches"):
        convert(tmp_path / "model", tmp_path / "other", geometry={"time_stride": 10, "patch_init": "random"})
    with pytest.raises(StrictDataclassClassValidationError, match="time_stride=0 must be at least 1"):
        convert(tmp_path / "model", tmp_path / "other", geometry={"time_stride": 0})
    with pytest.raises(ValueError, match="patch_init='resize' is for other patches"):
        convert(tmp_path / "model", tmp_path / "other", geometry={"patch_init": "resize"})
    assert not (tmp_path / "other").exists()


def test_an_empty_folder_is_filled_and_not_replaced(vit, tmp_path):
    """It may be a mount, which nobody can rename, or a link."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    inode = (tmp_path / "there").stat().st_ino
    convert(vit, tmp_path / "link")
    assert (tmp_path / "there").stat().st_ino == inode
    assert {"config.json", "model.safetensors"} <= {path.name for path in (tmp_path / "there").iterdir()}
    assert not [path for path in (tmp_path / "there").iterdir() if path.is_dir()]
    assert AutoModel.from_pretrained(tmp_path / "link").config.model_type == "fftp"
    with pytest.raises(FileExistsError, match="exists and is not an empty folder"):
        convert(vit, tmp_path / "there")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="--seed is for --patch_init random"):
        convert(vit, tmp_path / "empty", seed=5)
    with pytest.raises(ValueError, match="--labels is not for"):
        convert(vit, tmp_path / "empty", labels=tmp_path)
    assert not any((tmp_path / "empty").iterdir())


def test_thresholds_go_with_the_patches_that_they_were_chosen_for(tmp_path, caplog):
    config = FFTPConfig(**SMALL, max_length=200, num_labels=3, thresholds={"LABEL_0": 0.3})
    FFTPForAudioClassification(config).save_pretrained(tmp_path / "model")
    FFTPFeatureExtractor().save_pretrained(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "same")
    assert FFTPConfig.from_pretrained(tmp_path / "same").thresholds == {"LABEL_0": 0.3}
    convert(tmp_path / "model", tmp_path / "other", geometry={"patch_size": (128, 5)})
    assert FFTPConfig.from_pretrained(tmp_path / "other").thresholds is None
    assert "thresholds were chosen for the source's patches: dropped" in caplog.text


def test_a_frame_classifier_keeps_its_head(tmp_path):
    torch.manual_seed(0)
    model = FFTPForAudioFrameClassification(FFTPConfig(**SMALL, max_length=200, num_labels=3))
    model.save_pretrained(tmp_path / "model")
    FFTPFeatureExtractor().save_pretrained(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "out", geometry={"time_stride": 10})
    changed = FFTPForAudioFrameClassification.from_pretrained(tmp_path / "out")
    assert changed.classifier.dense.weight.equal(model.classifier.dense.weight)
    assert changed(torch.randn(1, 200, 128)).logits.shape == (1, 20, 3)


def test_a_class_of_ones_own_does_not_lose_its_head(tmp_path):
    class Own(FFTPForAudioClassification):
        pass

    Own(FFTPConfig(**SMALL, num_labels=3)).save_pretrained(tmp_path)
    FFTPFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"was saved by Own, whose head is not known here: load the folder by the cl"):
        convert(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    FFTPForAudioClassification.from_pretrained(tmp_path).save_pretrained(tmp_path)
    convert(tmp_path, tmp_path / "out")
    assert FFTPForAudioClassification.from_pretrained(tmp_path / "out").num_labels == 3


def test_least_squares_are_fitted_to_a_folder_of_sound(vit, tmp_path, clip_folder):
    arguments = ["convert", vit, tmp_path / "out", "--patch_size", 128, 10, "--patch_init", "least_squares"]
    with pytest.raises(SystemExit, match="fits the patch embedding to sound; none was given"):
        app([*map(str, arguments)], standalone_mode=False)
    app([*map(str, arguments), "--sound", str(clip_folder)], standalone_mode=False)
    assert AutoModel.from_pretrained(tmp_path / "out").config.patch_size == (128, 10)
