"""The model card: every number from a results file, nothing about what is not known, a snippet that runs."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from huggingface_hub import ModelCard

from modeling_fftp import FFTPForAudioClassification, FFTPModel
from modeling_fftp.hub.card import write_card
from modeling_fftp.hub.run_files import read_results
from modeling_fftp.training.run import run


@pytest.fixture
def bare_folder(make_config, extractor, tmp_path):
    """A model and its extractor, and nothing known about them."""
    labels = ["cat", "dog", "owl", "bee"]
    config = make_config(id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)})
    FFTPForAudioClassification(config).save_pretrained(tmp_path / "animals")
    extractor.save_pretrained(tmp_path / "animals")
    return tmp_path / "animals"


def test_what_is_not_known_is_left_out(bare_folder):
    card = write_card(bare_folder).read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == ["Use", "Intended use and limits", "Citation"]
    assert "cat, dog, owl, bee" in card
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata == {
        "library_name": "transformers",
        "metrics": ["accuracy"],
        "pipeline_tag": "audio-classification",
        "tags": ["audio-tagging", "fftp", "arxiv:2508.21243"],
    }
    assert not re.search(r"None|nan|not measured|\{\{|undefined", card)


def test_how_much_of_a_clip_is_heard(bare_folder, extractor):
    assert "longer clips interpolate it" in write_card(bare_folder).read_text(encoding="utf-8")
    extractor.truncation, extractor.padding, extractor.max_length = True, "max_length", 100
    extractor.save_pretrained(bare_folder)
    (bare_folder / "README.md").unlink()
    text = write_card(bare_folder).read_text(encoding="utf-8")
    assert "It hears 1 s at once: longer clips are cut to that and shorter ones padded," in text
    assert "longer clips interpolate it" not in text


def test_only_what_looks_both_ways_is_called_bidirectional(bare_folder, make_config):
    for variant, is_bidirectional in (("fo-fo", False), ("fo-bi", True)):
        FFTPForAudioClassification(make_config(backbone="mamba", mamba_variant=variant)).save_pretrained(bare_folder)
        card = write_card(bare_folder).read_text(encoding="utf-8")
        assert ("bidirectional" in card, "only looks back" in card) == (is_bidirectional, not is_bidirectional)


def test_a_model_of_regression_has_no_card(bare_folder, make_config):
    FFTPForAudioClassification(make_config(num_labels=1, problem_type="regression")).save_pretrained(bare_folder)
    with pytest.raises(ValueError, match="problem_type 'regression'; cards are for classifiers"):
        write_card(bare_folder)


def test_every_figure_is_that_of_a_results_file(bare_folder):
    files = {
        "recipe": {"model_name_or_path": "someone/base", "num_train_epochs": 3, "ema_decay": 0.9,
                   "load_best_model_at_end": False},
        "data_results": {
            "dataset": "someone/animals", "hub_id": "someone/animals", "license": "cc-by-4.0",
            "left_out": {"train": 2},
            "splits": {"train": {"clips": 1234, "hours": 3.456}, "test": {"clips": 77, "hours": 0.5}},
        },
        "train_results": {"epoch": 3.0, "train_runtime": 750.0},
        "test_results": {"test_accuracy": 0.87654, "test_map": 0.91234, "test_loss": 0.5},
        "test_per_class": {
            "per_class": {
                name: {"positives": 10 + i, "average_precision": precision}
                for i, (name, precision) in enumerate({"cat": 0.8, "dog": 0.95, "owl": None, "bee": 0.7}.items())
            }
        },
        "efficiency_results": {
            "seconds": 1.0, "parameters": 5_530_000, "tokens": 18, "multiply_adds": 123_000_000, "flops": 456_000_000,
            "milliseconds": 7.89, "machine": {"processor": "Some CPU", "threads": 2},
        },
    }  # fmt: skip
    for name, content in files.items():
        (bare_folder / f"{name}.json").write_text(json.dumps(content))
    card = write_card(bare_folder, "me/animals", license="mit").read_text(encoding="utf-8")
    for line in (
        "Fine-tuned from [someone/base](https://huggingface.co/someone/base). 3 epochs in 12.5 minutes.",
        "someone/animals (licence: cc-by-4.0)",
        "| train | 1234 | 3.46 | 2 |",
        "| test | 77 | 0.5 | 0 |",
        "| split | accuracy | mAP |",
        "| test | 0.8765 | 0.9123 |",
        "| dog | 11 | 0.950 |\n| cat | 10 | 0.800 |\n| bee | 13 | 0.700 |",
        "| parameters | 5.53 M |",
        "| patches | 18 |",
        "| multiply-adds of the linear layers, as the paper counts | 0.123 G |",
        "| FLOPs, attention included | 0.456 G |",
        "| time, features included | 7.9 ms, float32, 2 threads of Some CPU |",
        'pipeline("audio-tagging", model="me/animals", trust_remote_code=True)',
    ):
        assert line in card
    assert "optimistic" not in card
    data = ModelCard.load(bare_folder / "README.md").data
    assert (data.license, data.base_model, data.datasets) == ("mit", "someone/base", "someone/animals")
    (result,) = data.eval_results
    assert (result.dataset_split, result.metric_type, result.metric_value) == ("test", "accuracy", 0.8765)


def test_what_data_say_of_themselves_is_text(bare_folder):
    data = {"dataset": "a<b>", "hub_id": None, "license": "<img src=x>\n\n# Free", "left_out": {}, "splits": {}}
    write_results(bare_folder, data_results=data)
    assert r"a\<b\> (licence: \<img src=x\> # Free)" in write_card(bare_folder).read_text(encoding="utf-8")


@pytest.mark.parametrize("model_class", [FFTPForAudioClassification, FFTPModel])
def test_a_card_that_is_written_again_keeps_its_licence(bare_folder, model_class):
    model_class.from_pretrained(bare_folder).save_pretrained(bare_folder)
    for given, expected in ((None, None), ("mit", "mit"), (None, "mit"), ("cc-by-4.0", "cc-by-4.0")):
        assert ModelCard.load(write_card(bare_folder, "me/animals", license=given)).data.license == expected


@pytest.mark.parametrize("model_class", [FFTPForAudioClassification, FFTPModel])
def test_a_card_that_was_edited_is_kept(bare_folder, model_class, caplog):
    model_class.from_pretrained(bare_folder).save_pretrained(bare_folder)
    written = write_card(bare_folder)
    edited, kept = written.read_text(encoding="utf-8") + "Recorded in my garden.\n", bare_folder / "README.edited.md"
    assert write_card(bare_folder, "me/animals") == written
    assert not kept.exists()
    written.write_text(edited, encoding="utf-8")
    write_card(bare_folder)
    assert kept.read_text(encoding="utf-8") == edited
    assert "garden" not in written.read_text(encoding="utf-8")
    assert "README.edited.md" in caplog.text


def test_a_local_base_is_no_hub_id(bare_folder):
    (bare_folder / "recipe.json").write_text('{"model_name_or_path": "ckpt"}')
    card = write_card(bare_folder).read_text(encoding="utf-8")
    assert "Fine-tuned from `ckpt`, a checkpoint that is not on the Hub." in card
    assert "base_model" not in card


def test_values_that_would_break_a_table(bare_folder):
    (bare_folder / "test_results.json").write_text('{"test_accuracy": NaN, "test_map": 0.5}')
    per_class = {"per_class": {"a|b": {"positives": 1, "average_precision": 0.5}}}
    (bare_folder / "test_per_class.json").write_text(json.dumps(per_class))
    card = write_card(bare_folder).read_text(encoding="utf-8")
    assert "| split | mAP |" in card
    assert "| a\\|b | 1 | 0.500 |" in card


def write_results(folder, **files):
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("data", "expected", "is_held_out"),
    [
        ({"split_names": {"train": "train", "validation": "dev"}, "config": "balanced"}, ("dev", "balanced"), False),
        ({"split_names": {"train": "train", "validation": None}, "validation_group": None}, None, True),
        ({"split_names": {}, "labelled_by": "someone/teacher"}, None, False),
    ],
    ids=["another name", "held out", "labelled by a teacher"],
)
def test_the_hub_is_told_what_the_data_set_calls_a_split(bare_folder, data, expected, is_held_out):
    splits = {role: {"clips": 4, "hours": 0.1} for role in ("train", "validation")}
    data = {"dataset": "a/b", "hub_id": "a/b", "license": None, "left_out": {}, "splits": splits} | data
    write_results(bare_folder, data_results=data, validation_results={"validation_accuracy": 0.5})
    data = ModelCard.load(write_card(bare_folder)).data
    found = [(result.dataset_split, result.dataset_config) for result in data.eval_results or ()]
    assert found == ([] if expected is None else [expected])
    text = (bare_folder / "README.md").read_text(encoding="utf-8")
    assert ("held out of the split to train on, drawn at random" in text) == is_held_out


def test_what_a_split_lacks_is_said(bare_folder):
    per_class = {name: {"positives": 1, "average_precision": 0.5} for name in ("cat", "dog", "owl")}
    write_results(
        bare_folder,
        test_results={"test_accuracy": 0.5},
        test_per_class={"per_class": per_class, "left_out": ["bee"]},
    )
    text = write_card(bare_folder).read_text(encoding="utf-8")
    assert "Means over classes leave out 1 of 4, of which the test split has no clips." in text


def test_labels_that_markdown_would_change(bare_folder, make_config):
    labels = ["<unk>", "_silence_", "dog_bark", "a\nb|c"]
    FFTPForAudioClassification(make_config(id2label=dict(enumerate(labels)))).save_pretrained(bare_folder)
    text = write_card(bare_folder).read_text(encoding="utf-8")
    assert r"\<unk\>, \_silence\_, dog_bark, a b\|c." in text


def test_the_stride_of_a_later_training(bare_folder, make_config):
    config = make_config(num_labels=4, time_stride=10, position_stride=5)
    FFTPForAudioClassification(config).save_pretrained(bare_folder)
    strides = [{"time_stride": 10, "accuracy": 0.5, "tokens": 9, "multiply_adds": 1e9, "milliseconds": 1.0}]
    efficiency = {
        "seconds": 1.0, "parameters": 1, "tokens": 9, "multiply_adds": 1, "flops": 1, "milliseconds": 1.0,
        "machine": {"processor": "Some CPU", "threads": 2},
    }  # fmt: skip
    write_results(
        bare_folder,
        strides_results=strides,
        efficiency_results=efficiency,
        validation_results={"validation_accuracy": 0.5},
        recipe={"time_stride": 10},
    )
    assert "Its own is 10; it was trained for 10." in write_card(bare_folder).read_text(encoding="utf-8")


def test_a_licence_of_ones_own_and_several_edits_are_kept(bare_folder, caplog):
    card = bare_folder / "README.md"
    text = "---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\n---\n# Mine\n"
    for number in (1, 2):
        card.write_text(text + str(number), encoding="utf-8")
        data = ModelCard.load(write_card(bare_folder)).data.to_dict()
        assert [data[name] for name in ("license", "license_name", "license_link")] == ["other", "mine", "LICENSE"]
    for number, name in ((1, "README.edited.md"), (2, "README.edited.2.md")):
        assert (bare_folder / name).read_text(encoding="utf-8") == text + str(number)
    card.write_text("---\ntags: [a, b\n---\n", encoding="utf-8")
    write_card(bare_folder)
    assert "cannot be read, so the new card names no licence" in caplog.text


def test_the_snippet_loads_the_branch_of_the_card(bare_folder):
    text = write_card(bare_folder, "me/animals", revision="v2").read_text(encoding="utf-8")
    assert 'model="me/animals", revision="v2", trust_remote_code=True)' in text


def test_an_encoders_card_loads_no_branch(make_config, tmp_path):
    FFTPModel(make_config()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="revision 'v2': the card of an encoder names `fftp train`"):
        write_card(tmp_path, "me/encoder", revision="v2")


def test_a_trained_folder_has_a_card_whose_snippet_runs(trained, clip_folder, tmp_path):
    card = (trained / "README.md").read_text(encoding="utf-8")
    sections = [
        "Use",
        "Intended use and limits",
        "Data",
        "Training",
        "Evaluation",
        "Scores",
        "What it listens to",
        "Efficiency",
        "Citation",
    ]
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == sections
    assert (trained / "training.png").read_bytes().startswith(b"\x89PNG")
    assert str(trained.parent) not in card
    assert "so that split's figures are optimistic" in card
    accuracy = json.loads((trained / "validation_results.json").read_text())["validation_accuracy"]
    assert f"| validation | {round(accuracy, 4)} |" in card
    assert "| train | 36 |" in card
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    shutil.copy(clip_folder / "validation" / "low" / "2.wav", tmp_path / "recording.wav")
    shutil.copytree(trained, tmp_path / trained.name)
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "'label': 'low'" in done.stdout


def test_the_recipe_of_a_trained_folder_trains_the_same_again(trained, clip_folder, tmp_path):
    recipe = json.loads((trained / "recipe.json").read_text())
    assert recipe["num_train_epochs"] == 20
    assert not recipe.keys() & {"output_dir", "dataset_name", "disable_tqdm"}
    run([*map(str, (trained / "recipe.json", "--dataset_name", clip_folder, "--output_dir", tmp_path))])
    assert (tmp_path / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_a_folder_without_a_model_and_names_of_no_repository_are_refused(trained, tmp_path):
    """As of an evaluation."""
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json; expected a folder that a training left"):
        write_card(tmp_path)
    with pytest.raises(ValueError, match="bad id!!"):
        write_card(trained, "bad id!!")


def test_results_that_are_no_json_are_named(tmp_path):
    (tmp_path / "recipe.json").touch()
    with pytest.raises(ValueError, match=r"recipe\.json is no JSON: Expecting value"):
        read_results(tmp_path, "recipe")
