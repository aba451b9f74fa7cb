"""Pushing to a Hub on this machine, and loading from it where neither package can be imported."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError
from typer.testing import CliRunner

import modeling_fftp.hub.push
from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.cli import app
from modeling_fftp.hub.card import write_card
from modeling_fftp.hub.push import describe_difference, files_to_push
from modeling_fftp.serving.export import export
from modeling_fftp.training import publishing
from modeling_fftp.training.arguments import FFTPTrainingArguments
from tests.modeling_fftp.hub.hub_server import Hub
from tests.support import ROOT, run_training

CODE = {"configuration_fftp.py", "modeling_fftp.py", "feature_extraction_fftp.py", "log_mel_fftp.py"}


@pytest.fixture
def hub():
    with Hub() as hub:
        yield hub


@pytest.fixture
def model_folder(make_config, extractor, tmp_path):
    """A model with its extractor, a card, and what training leaves beside them."""
    torch.manual_seed(0)
    folder = tmp_path / "model"
    FFTPForAudioClassification(make_config()).save_pretrained(folder)
    extractor.save_pretrained(folder)
    (folder / "README.md").write_text("---\npipeline_tag: audio-classification\n---\n# A model\n")
    (folder / "training_args.bin").write_bytes(b"a pickle")
    (folder / "arguments.json").write_text("{}")
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "optimizer.pt").write_bytes(b"a pickle")
    return folder


@pytest.fixture
def push(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(modeling_fftp.hub.push, "HfApi", partial(HfApi, endpoint=hub.url))
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    return modeling_fftp.hub.push.push


def test_the_command_pushes_what_loads_without_either_package(
    model_folder, hub, run_without_package, speech, extractor, tmp_path
):
    environment = {
        "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test", "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip

    def command(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "modeling_fftp", "push", str(model_folder), "words", *arguments],
            capture_output=True, text=True, env=os.environ | environment, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = {line.split()[-1] for line in command("--dry_run").splitlines()}
    assert not hub.repos
    assert f"{hub.url}/tester/words/commit/" in command("--private")
    assert hub.repos["tester/words"]["private"]
    files = hub.files("tester/words")
    assert files.keys() == listed | {".gitattributes"}
    assert {"config.json", "preprocessor_config.json", "model.safetensors", "README.md"} | CODE <= listed
    assert not [name for name in listed if name.endswith((".bin", ".pt")) or name == "arguments.json"]
    for name in ("config.json", "preprocessor_config.json"):
        assert "auto_map" in json.loads(files[name])

    np.save(tmp_path / "clip.npy", speech)
    output = run_without_package(
        f"""
import json, numpy as np, torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline
sound = np.load({str(tmp_path / "clip.npy")!r})
extractor = AutoFeatureExtractor.from_pretrained("tester/words", trust_remote_code=True)
model = AutoModelForAudioClassification.from_pretrained("tester/words", trust_remote_code=True)
with torch.no_grad():
    logits = model(**extractor(sound, sampling_rate=16000, return_tensors="pt")).logits[0].tolist()
classify, tag = (
    pipeline(task, model="tester/words", trust_remote_code=True) for task in ("audio-classification", "audio-tagging")
)
# Loaded code travels on.
extractor.push_to_hub("tester/copy")
model.push_to_hub("tester/copy")
print(json.dumps([logits, classify(sound), tag(sound, window_seconds=2.0)["labels"]]))
""",
        **environment,
    )
    logits, classified, tagged = json.loads(output.splitlines()[-1])
    model = FFTPForAudioClassification.from_pretrained(model_folder).eval()
    with torch.no_grad():
        expected = model(**extractor(speech, sampling_rate=16000, return_tensors="pt")).logits[0]
    torch.testing.assert_close(torch.tensor(logits), expected, atol=1e-5, rtol=0)
    scores = sorted(expected.softmax(dim=0).tolist(), reverse=True)
    for answer in (classified, tagged):
        assert [item["score"] for item in answer] == pytest.approx(scores, abs=1e-5)
    copy = hub.files("tester/copy")
    assert copy.keys() == files.keys()
    assert all(copy[name] == files[name] for name in files if name.endswith((".py", ".safetensors")))


def test_training_pushes_the_finished_folder(hub, push, monkeypatch, clip_folder, tmp_path):
    monkeypatch.setattr(publishing, "HfApi", modeling_fftp.hub.push.HfApi)
    to_hub = ("--push_to_hub", "true", "--hub_model_id", "words", "--hub_private_repo", "true")
    run_training(tmp_path / "out", "--dataset_name", clip_folder, *to_hub)
    files = hub.files("tester/words")
    assert hub.repos["tester/words"]["private"]
    assert {"README.md", "training.png", "recipe.json", "model.safetensors", *CODE} <= files.keys()
    assert not [name for name in files if name.endswith(".bin") or "checkpoint" in name]
    assert b'model="tester/words"' in files["README.md"]

    run_training(tmp_path / "again", "--dataset_name", clip_folder, *to_hub, "--seed", 1)
    assert hub.files("tester/words")["model.safetensors"] != files["model.safetensors"]
    with pytest.raises(SystemExit, match="tester/words holds another model: position_stride=5 where this one has 10"):
        run_training(tmp_path / "other", "--dataset_name", clip_folder, *to_hub, "--time_stride", 10)
    assert not (tmp_path / "other" / "model.safetensors").exists()


def test_pictures_that_no_card_shows_stay_at_home(model_folder):
    for name in ("habitat.png", "nest.png"):
        (model_folder / name).write_bytes(b"ours")
    card = model_folder / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "![where we recorded](habitat.png)\n", encoding="utf-8")
    pictures = {path.name for path in files_to_push(model_folder) if path.suffix == ".png"}
    assert "habitat.png" in pictures
    assert "nest.png" not in pictures


def test_a_link_out_of_the_folder_is_not_followed(model_folder, tmp_path):
    (tmp_path / "token").write_text("a secret")
    (model_folder / "notes_results.json").symlink_to(tmp_path / "token")
    with pytest.raises(ValueError, match=r"notes_results.json is a link to .*token: expected a file in the folder"):
        files_to_push(model_folder)
    # Those of the Hub's cache lead to its blobs.
    repository = tmp_path / "cache" / "models--a--b"
    shutil.copytree(model_folder, repository / "snapshots" / "1", symlinks=True)
    snapshot = repository / "snapshots" / "1"
    (snapshot / "notes_results.json").unlink()
    (repository / "blobs").mkdir()
    (snapshot / "config.json").rename(repository / "blobs" / "2")
    (snapshot / "config.json").symlink_to("../../blobs/2")
    assert "config.json" in {path.name for path in files_to_push(snapshot)}


def test_a_second_push_changes_only_what_changed(model_folder, push, hub):
    push(model_folder, "words")
    first = dict(hub.files("tester/words"))
    hub.uploads.clear()
    (model_folder / "README.md").write_text("# Another card\n")
    push(model_folder, "words")
    second = hub.files("tester/words")
    assert {name for name in second if second[name] != first.get(name)} == {"README.md"}
    assert hub.uploads == ["README.md"]
    push(model_folder, "words")
    assert hub.uploads == ["README.md"]
    assert len(hub.repos["tester/words"]["commits"]) == 3


def test_a_push_that_breaks_leaves_the_old_revision_and_can_be_repeated(model_folder, push, hub):
    push(model_folder, "words")
    before = dict(hub.files("tester/words"))
    model = FFTPForAudioClassification.from_pretrained(model_folder)
    torch.nn.init.normal_(model.classifier.dense.weight)
    model.save_pretrained(model_folder)
    hub.break_commits = True
    with pytest.raises(HfHubHTTPError):
        push(model_folder, "words")
    assert hub.files("tester/words") == before
    hub.break_commits = False
    push(model_folder, "words")
    assert hub.files("tester/words")["model.safetensors"] == (model_folder / "model.safetensors").read_bytes()


def test_another_model_is_replaced_only_when_told(model_folder, push, hub, make_config):
    push(model_folder, "words")
    before = dict(hub.files("tester/words"))
    FFTPForAudioClassification(make_config(num_labels=7)).save_pretrained(model_folder)
    with pytest.raises(ValueError, match="holds another model: id2label of 4 entries where this one has 7;"):
        push(model_folder, "words")
    assert hub.files("tester/words") == before
    push(model_folder, "words", overwrite=True)
    assert len(json.loads(hub.files("tester/words")["config.json"])["id2label"]) == 7
    hub.commit("tester/words", "main", {"pytorch_model.bin": b"weights of something else"})
    with pytest.raises(ValueError, match=r"pytorch_model\.bin without a config\.json"):
        push(model_folder, "words")
    # A field that a config of ours has as well, of another type.
    foreign = {"model_type": "wav2vec2", "conv_kernel": [10, 3, 3, 3, 3, 2, 2]}
    hub.commit("tester/words", "main", {"config.json": json.dumps(foreign).encode()})
    with pytest.raises(ValueError, match=r"holds another model: one of type 'wav2vec2'; --overwrite replaces it"):
        push(model_folder, "words")


def test_another_model_is_told_by_one_label_of_hundreds():
    there = {str(number): f"sound {number}" for number in range(527)}
    found = describe_difference("id2label", there, there | {"500": "noise"})
    assert found == "id2label['500']='sound 500' where this one has 'noise'"


def test_a_dry_run_refuses_what_a_push_would(model_folder):
    write_card(model_folder, "tester/words")
    runner = CliRunner()
    assert runner.invoke(app, ["push", str(model_folder), "tester/words", "--dry_run"]).exit_code == 0
    refused = runner.invoke(app, ["push", str(model_folder), "tester/others", "--dry_run"])
    assert "the card's snippet loads 'tester/words', not 'tester/others'" in str(refused.exception)


def test_what_an_old_push_left_goes_and_branches_are_kept_apart(model_folder, push, hub):
    push(model_folder, "words")
    on_main = dict(hub.files("tester/words"))
    old = (
        "training_args.bin", "old.pt", "old.pth", "model-00001-of-00002.safetensors", "model_int8.onnx",
        "calibration_results.json", "validation_per_class.json", "validation_events.json", "recipe.json",
        "reliability.png",
    )  # fmt: skip
    hub.commit("tester/words", "trial", on_main | {"photo.png": b"ours", **dict.fromkeys(old, b"old")})
    push(model_folder, "words", revision="trial")
    assert hub.files("tester/words", "trial").keys() == {*on_main, "photo.png"}
    push(model_folder, "words", revision="new-branch")
    assert hub.files("tester/words", "new-branch") == on_main
    assert hub.files("tester/words") == on_main


def test_what_is_private_does_not_go_where_it_is_public(model_folder, push, hub):
    push(model_folder, "words")
    before = dict(hub.files("tester/words"))
    with pytest.raises(ValueError, match="tester/words is public; make it private on its page, or choose another"):
        push(model_folder, "words", private=True)
    assert hub.files("tester/words") == before


def test_another_model_may_have_a_branch_of_its_own(make_config, model_folder, push, hub):
    push(model_folder, "words")
    FFTPForAudioClassification(make_config(num_labels=7)).save_pretrained(model_folder)
    push(model_folder, "words", revision="v2")
    assert len(json.loads(hub.files("tester/words", "v2")["config.json"])["id2label"]) == 7
    FFTPForAudioClassification(make_config(num_labels=5)).save_pretrained(model_folder)
    with pytest.raises(ValueError, match=r"holds another model: .*; --overwrite replaces it"):
        push(model_folder, "words", revision="v2")


def test_results_of_events_are_pushed(model_folder, push, hub):
    (model_folder / "validation_events.json").write_text("{}")
    push(model_folder, "words")
    assert hub.files("tester/words")["validation_events.json"] == b"{}"


def test_onnx_files_are_pushed_unless_older_than_the_weights(model_folder, push, hub):
    path = model_folder / "model_int8.onnx"
    path.write_bytes(b"a graph")
    push(model_folder, "words")
    assert hub.files("tester/words")["model_int8.onnx"] == b"a graph"
    os.utime(path, (0, 0))
    with pytest.raises(ValueError, match=r"model_int8\.onnx is older than the weights"):
        push(model_folder, "words")


def test_onnx_files_of_ours_are_judged_by_the_weights_that_they_were_made_of(model_folder, make_config):
    """Copies and downloads set the times of files in any order."""
    path = export(model_folder)
    os.utime(path, (0, 0))
    assert path in files_to_push(model_folder)
    FFTPForAudioClassification(make_config(num_labels=5)).save_pretrained(model_folder)
    path.touch()
    with pytest.raises(ValueError, match=r"model\.onnx was made of other weights: delete it, or export again"):
        files_to_push(model_folder)


def test_weights_beside_an_onnx_graph_are_pushed(model_folder, push, hub):
    """torch and transformers name them `model.onnx.data`, optimum `model.onnx_data`."""
    names = ("model.onnx", "model.onnx.data", "model_int8.onnx_data")
    for name in names:
        (model_folder / name).write_bytes(b"weights")
    push(model_folder, "words")
    assert {*names} <= hub.files("tester/words").keys()
    for name in names[1:]:
        (model_folder / name).unlink()
    push(model_folder, "words")
    assert not {*names[1:]} & hub.files("tester/words").keys()


def test_a_repository_of_an_earlier_version_is_no_other_model(model_folder, push, hub):
    """Fields that came later, such as the sampling rate, had the value that is their default now."""
    config = json.loads((model_folder / "config.json").read_text())
    (model_folder / "config.json").write_text(
        json.dumps({name: value for name, value in config.items() if name != "sampling_rate"})
    )
    push(model_folder, "words")
    (model_folder / "config.json").write_text(json.dumps(config))
    push(model_folder, "words")
    (model_folder / "config.json").write_text(json.dumps(config | {"sampling_rate": 8000}))
    with pytest.raises(ValueError, match="sampling_rate=16000 where this one has 8000"):
        push(model_folder, "words")


def test_a_model_at_another_stride_is_no_other_model(push, hub, extractor, make_config, tmp_path):
    model = FFTPForAudioClassification(make_config(time_stride=10))
    for name, stride in (("own", 10), ("faster", 20)):
        model.set_time_stride(stride)
        model.save_pretrained(tmp_path / name)
        extractor.save_pretrained(tmp_path / name)
        (tmp_path / name / "README.md").write_text("---\npipeline_tag: audio-classification\n---\n# A model\n")
    # As a version wrote it that knew of no table's stride.
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    del config["position_stride"], config["time_strides"], config["stretch_patches"]
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    push(tmp_path / "own", "words")
    push(tmp_path / "faster", "words")
    assert json.loads(hub.files("tester/words")["config.json"])["time_stride"] == 20


def test_a_card_for_another_repository_is_refused(model_folder, push, hub):
    (model_folder / "README.md").write_text('pipeline("audio-tagging", model="model", trust_remote_code=True)')
    with pytest.raises(ValueError, match=r"loads 'model', not 'tester/words'.*--repo_id tester/words"):
        push(model_folder, "words")
    (model_folder / "README.md").write_text("fftp train --model_name_or_path encoder --dataset_name DATA")
    with pytest.raises(ValueError, match=r"loads 'encoder', not 'tester/words'"):
        push(model_folder, "words")
    assert not hub.repos


def test_a_card_for_another_branch_is_refused(model_folder, push, hub):
    write_card(model_folder, "tester/words")
    push(model_folder, "words")
    with pytest.raises(ValueError, match=r"loads 'tester/words', not 'tester/words@v2': .* --revision v2"):
        push(model_folder, "words", revision="v2")
    write_card(model_folder, "tester/words", revision="v2")
    push(model_folder, "words", revision="v2")
    assert b'revision="v2"' in hub.files("tester/words", "v2")["README.md"]


def test_what_others_put_into_folders_stays(model_folder, push, hub):
    push(model_folder, "words")
    others = {"onnx/model.onnx": b"theirs", "samples/x_results.json": b"{}"}
    stale = {"old.onnx": b"ours", "model.safetensors.index.json": b"{}"}
    hub.commit("tester/words", "main", dict(hub.files("tester/words")) | others | stale)
    push(model_folder, "words")
    left = hub.files("tester/words").keys()
    assert others.keys() <= left
    assert left.isdisjoint(stale)


def test_a_model_that_was_trained_otherwise_is_no_other_model(model_folder, push, hub, make_config):
    push(model_folder, "words")
    FFTPForAudioClassification(make_config(drop_path_rate=0.1, hidden_dropout_prob=0.1)).save_pretrained(model_folder)
    push(model_folder, "words")


def test_a_lost_network_at_the_end_loses_nothing(model_folder, monkeypatch):
    """Where nobody listens, the client raises an error that is neither an OSError nor a ValueError."""
    monkeypatch.setattr(modeling_fftp.hub.push, "HfApi", partial(HfApi, endpoint="http://127.0.0.1:9"))
    # The client tries again, later and later.
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    options = {"report_to": "none", "hub_model_id": "tester/words", "push_to_hub": True, "hub_private_repo": True}
    training = FFTPTrainingArguments(str(model_folder), **options)
    with pytest.raises(SystemExit, match=r"is complete; `fftp push .* tester/words --private` pushes it"):
        publishing.publish(training)
    assert (model_folder / "README.md").read_text().count("tester/words")


def test_no_file_holds_the_token(tmp_path):
    training = FFTPTrainingArguments(str(tmp_path), hub_token="hf_secret", report_to="none")
    # As Trainer does in the output folder and in every checkpoint.
    torch.save(training, tmp_path / "training_args.bin")
    assert b"hf_secret" not in (tmp_path / "training_args.bin").read_bytes()
    assert training.hub_token == "hf_secret"


def test_an_incomplete_folder_is_named(model_folder, push, hub):
    for name in ("README.md", "model.safetensors"):
        (model_folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks README\.md, model\.safetensors"):
        push(model_folder, "words")
    assert not hub.repos


def test_weights_in_two_forms_are_refused(model_folder, push, hub):
    index = model_folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"x": "model-00001-of-00001.safetensors"}}')
    with pytest.raises(ValueError, match=r"model\.safetensors and the shards of model\.safetensors\.index\.json"):
        push(model_folder, "words")
    assert not hub.repos
