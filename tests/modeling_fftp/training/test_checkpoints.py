"""Training from a checkpoint: what is refused, what is passed on, and that the folder answers as measured."""

import json
import shutil

import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, pipeline

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.audio_stream_fftp import read_audio
from modeling_fftp.convert.convert import convert
from modeling_fftp.training.arguments import ModelArguments
from modeling_fftp.training.command_line import parse_arguments
from modeling_fftp.training.data.loading import Clips
from modeling_fftp.training.model import build_model
from tests.support import run_training

NAMES = ["low", "noise", "high"]


@pytest.fixture
def checkpoint(make_config, tmp_path):
    """A folder with a model of four labels and its extractor."""
    FFTPForAudioClassification(make_config()).save_pretrained(tmp_path / "checkpoint")
    FFTPFeatureExtractor().save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """An AST as transformers has it, with classes in an order of its own, and what `fftp convert` makes of it."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, max_length=200,
        id2label=dict(enumerate(NAMES)), label2id={name: index for index, name in enumerate(NAMES)},
    )  # fmt: skip
    ASTForAudioClassification(config).save_pretrained(folder / "source")
    ASTFeatureExtractor(max_length=200).save_pretrained(folder / "source")
    convert(str(folder / "source"), folder / "converted")
    return folder


def accuracy_of_pipeline(folder, clip_folder, kinds=NAMES):
    """What a user of the folder gets on the validation clips of these kinds, one after the other."""
    classify = pipeline("audio-classification", model=str(folder), device="cpu")
    paths = sorted(path for path in (clip_folder / "validation").glob("*/*.wav") if path.parent.name in kinds)
    answers = [classify(read_audio(path, 16000), top_k=1)[0]["label"] for path in paths]
    return sum(path.parent.name == answer for path, answer in zip(paths, answers, strict=True)) / len(paths)


def accuracy_of_training(folder):
    return json.loads((folder / "validation_results.json").read_text())["validation_accuracy"]


@pytest.mark.parametrize("caching", ["false", "true"])
def test_a_converted_ast_answers_as_its_training_measured(published, clip_folder, tmp_path, caching):
    """It pads every clip to its length without a mask; training and evaluation must do as the folder says."""
    run_training(
        tmp_path, "--dataset_name", clip_folder, "--model_name_or_path", published / "converted",
        "--num_train_epochs", 12, "--learning_rate", 1e-3, "--mixup_probability", 0, "--spec_mask_budget", 0.05,
        "--noise", 0, "--cache_features", caching,
    )  # fmt: skip
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert (settings["padding"], settings["return_attention_mask"]) == ("max_length", False)
    assert accuracy_of_training(tmp_path) > 0.5
    assert accuracy_of_pipeline(tmp_path, clip_folder) == pytest.approx(accuracy_of_training(tmp_path))


def test_a_published_ast_is_scored_as_transformers_scores_it(published, clip_folder, tmp_path):
    # Of no training, in classes of its own order; the data need not have a training split, nor all classes.
    for split in ("validation", "test"):
        for kind in ("low", "noise"):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
            for path in sorted((clip_folder / "validation" / kind).glob("*.wav")):
                soundfile.write(tmp_path / "data" / split / kind / path.name, *soundfile.read(path))
    evaluate = ["--model_name_or_path", published / "converted", "--do_train", "false"]
    shutil.copytree(tmp_path / "data" / "test", tmp_path / "only" / "test")
    run_training(tmp_path / "of_only", "--dataset_name", tmp_path / "only", *evaluate)
    assert not (tmp_path / "of_only" / "validation_results.json").exists()
    run_training(tmp_path / "out", "--dataset_name", tmp_path / "data", *evaluate)
    expected = accuracy_of_pipeline(published / "source", tmp_path / "data")
    assert accuracy_of_training(tmp_path / "out") == pytest.approx(expected)
    assert (tmp_path / "out" / "test_results.json").exists()
    per_class = json.loads((tmp_path / "out" / "validation_per_class.json").read_text())["per_class"]
    assert [*per_class] == NAMES


def test_another_model_is_evaluated_only_once_converted(published, clip_folder, tmp_path):
    with pytest.raises(ValueError, match=r"source is of the kind 'ast'; `fftp convert` makes an FFTP model of it"):
        run_training(
            tmp_path, "--dataset_name", clip_folder, "--model_name_or_path", published / "source",
            "--do_train", "false",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda weights: weights.pop("fftp.layers.1.mlp.fc1.weight"), r"fftp\.layers\.1\.mlp\.fc1\.weight"),
        (lambda weights: weights.update({"fftp.layernorm.weight": torch.ones(7)}), r"fftp\.layernorm\.weight"),
        (lambda weights: weights.update({"fftp.layers.2.mlp.fc1.bias": torch.ones(7)}), r"fftp\.layers\.2"),
    ],
    ids=["missing", "another shape", "unknown"],
)
def test_incomplete_weights_are_refused(checkpoint, change, name):
    weights = load_file(checkpoint / "model.safetensors")
    change(weights)
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"1 weights are missing, unknown or of another shape, such as {name}"):
        build_model(ModelArguments(str(checkpoint)), Clips({}, NAMES, False, {}, {}), 1.0)


def test_what_changes_no_shape_is_passed_on(checkpoint):
    given = {
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2, "drop_path_rate": 0.3,
        "token_merge_layers": [1], "attn_implementation": "eager",
    }  # fmt: skip
    # What the checkpoint has may be repeated.
    model, _ = build_model(
        ModelArguments(str(checkpoint), hidden_size=48, patch_size=[128, 10], **given),
        Clips({}, NAMES, False, {}, {}),
        1.0,
    )
    assert model.config.hidden_dropout_prob == model.fftp.layers[0].dropout.p == 0.1
    assert model.fftp.layers[0].attention.attention_dropout == 0.2
    assert model.fftp.layers[1].drop_path.rate == 0.3
    assert [*model.config.token_merge_layers] == [1]
    assert model.config._attn_implementation == "eager"
    assert model.num_labels == 3


@pytest.mark.parametrize(
    ("name", "value", "there"),
    [("hidden_size", 96, 48), ("num_hidden_layers", 3, 2), ("pooling", "mean", "cls"), ("expand", 3, 2)],
)
def test_what_cannot_apply_is_refused(checkpoint, name, value, there):
    arguments = ModelArguments(str(checkpoint), **{name: value})
    with pytest.raises(ValueError, match=f"--{name} .* cannot apply: the checkpoint .* has") as refused:
        build_model(arguments, Clips({}, NAMES, False, {}, {}), 1.0)
    assert str(refused.value).endswith(str(there))


def test_one_number_is_a_square_patch(clip_folder, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"patch_size": 16, "frequency_stride": 16, "time_stride": 16}))
    for output, source in (("json", [recipe]), ("line", ["--patch_size", 16, "--frequency_stride", 16])):
        words = map(str, (*source, "--dataset_name", "x", "--output_dir", tmp_path / output))
        model, *_ = parse_arguments([*words])
        assert FFTPConfig(**model.given).patch_size == (16, 16)


@pytest.mark.parametrize("fraction", ["10", "0", "1", "-0.1"])
def test_a_validation_fraction_is_a_fraction(clip_folder, tmp_path, fraction):
    with pytest.raises(SystemExit, match=f"--validation_fraction {float(fraction)} must lie in"):
        run_training(tmp_path, "--dataset_name", clip_folder / "train", "--validation_fraction", fraction)


def test_a_head_keeps_the_classes_that_it_knows(checkpoint, caplog):
    caplog.set_level("INFO")
    start = FFTPForAudioClassification.from_pretrained(checkpoint)
    names = [*start.config.id2label.values()]
    # In another order, with one that is new and without one.
    clips = Clips({}, ["new", *names[:0:-1]], False, {}, {})
    model, _ = build_model(ModelArguments(str(checkpoint)), clips, 1.0)
    for parameter in ("weight", "bias"):
        kept, known = (getattr(one.classifier.dense, parameter) for one in (model, start))
        assert torch.equal(kept[1:], known.flip(0)[:-1])
    assert f"classes that the data lack are forgotten: {names[0]}\n" in caplog.text
    assert "classes that are new to the head: new\n" in caplog.text
    build_model(ModelArguments(str(checkpoint)), Clips({}, ["a", "b"], False, {}, {}), 1.0)
    assert "has no head for these classes: it starts anew" in caplog.text


def test_an_evaluation_never_scores_a_new_head(checkpoint, published, clip_folder, tmp_path):
    evaluate = ["--dataset_name", clip_folder, "--do_train", "false", "--model_name_or_path"]
    # Clips of an excluded class go, the class stays.
    run_training(tmp_path / "without", *evaluate, published / "converted", "--exclude_labels", "noise")
    per_class = json.loads((tmp_path / "without" / "validation_per_class.json").read_text())["per_class"]
    assert [*per_class] == NAMES
    assert per_class["noise"]["positives"] == 0
    expected = accuracy_of_pipeline(published / "converted", clip_folder, kinds=("low", "high"))
    assert accuracy_of_training(tmp_path / "without") == pytest.approx(expected)

    # Nor need it know that class.
    run_training(tmp_path / "two", "--dataset_name", clip_folder, "--exclude_labels", "noise")
    run_training(tmp_path / "again", *evaluate, tmp_path / "two", "--exclude_labels", "noise")
    assert accuracy_of_training(tmp_path / "again") == accuracy_of_training(tmp_path / "two")

    config = FFTPConfig.from_pretrained(checkpoint)
    headless = {name: w for name, w in load_file(checkpoint / "model.safetensors").items() if "classifier" not in name}
    save_file(headless, checkpoint / "model.safetensors", metadata={"format": "pt"})
    clips = Clips({}, [*config.id2label.values()], False, {}, {})
    with pytest.raises(ValueError, match=r"has no head for \['LABEL_0', .*, and none would be trained"):
        build_model(ModelArguments(str(checkpoint)), clips, 1.0, do_train=False)
    model, _ = build_model(ModelArguments(str(checkpoint)), clips, 1.0)
    assert model.classifier.dense.weight.std() > 0
