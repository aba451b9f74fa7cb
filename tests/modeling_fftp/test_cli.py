"""The command `fftp`: quick help, tags of files, errors in one line, and old names that say the new ones."""

import json
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser

import pytest
from transformers import ASTConfig, ASTForAudioClassification
from typer.testing import CliRunner

import modeling_fftp
from modeling_fftp import FFTPModel
from modeling_fftp.cli import app
from tests.support import ROOT


@pytest.fixture
def fftp():
    """Run a sub-command; its exit status, output and errors."""

    def run(*words):
        result = CliRunner().invoke(app, [str(word) for word in words])
        message = result.exception.code if isinstance(result.exception, SystemExit) else ""
        return result.exit_code, result.stdout, f"{result.stderr}{message}"

    return run


def imported(*command, cwd=None):
    """Top-level packages that a command imports, and what it prints."""
    words = [sys.executable, "-X", "importtime", *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, check=True)
    return {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}, done.stdout


@pytest.mark.parametrize("kind", ["script", "module"])
def test_help_imports_nothing_heavy(kind, tmp_path):
    (tmp_path / "fftp").write_text("from modeling_fftp.cli import app\napp()")
    command = [tmp_path / "fftp"] if kind == "script" else ["-m", "modeling_fftp"]
    for words in (["--help"], ["tag", "--help"]):
        packages, output = imported(*command, *words)
        assert "--help" in output
        assert "typer" in packages
        assert not packages & {"torch", "transformers", "datasets", "numpy"}


def test_the_package_is_the_command():
    command = [sys.executable, "-m", "modeling_fftp", "--help"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Usage: fftp" in output
    assert all(name in output for name in ("train", "tag", "export", "push", "card", "convert", "space"))


REGISTERED = """
from transformers import AutoConfig
print(type(AutoConfig.for_model("fftp")).__module__)
"""


@pytest.mark.parametrize("kind", ["script", "package", "folder named fftp", "no arguments"])
def test_a_bare_import_registers_the_classes(kind, tmp_path):
    code = f"import modeling_fftp\n{REGISTERED}"
    if kind == "script":
        command = ["-c", code]
    elif kind == "no arguments":
        command = ["-c", f"import sys\nsys.argv = []\n{code}"]
    else:
        name = "ours" if kind == "package" else "fftp"
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("import modeling_fftp")
        (tmp_path / name / "__main__.py").write_text(code)
        command = ["-m", name] if kind == "package" else [name]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == ["modeling_fftp.configuration_fftp"], done.stderr


def test_the_version_is_that_of_the_distribution():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert modeling_fftp.__version__ == setup["metadata"]["version"]


def test_tags_of_files(fftp, trained, clip_folder):
    files = [clip_folder / "validation" / kind / "0.wav" for kind in ("low", "noise")]
    status, output, _ = fftp("tag", *files, "--model", trained, "--top_k", 2)
    assert status == 0
    blocks = re.split(r"^(?=\S)", output, flags=re.MULTILINE)[1:]
    for file, block in zip(files, blocks, strict=True):
        assert block.startswith(f"{file}: 0.")
        first, second = (line.split() for line in block.splitlines()[2:4])
        assert first[0] == file.parent.name
        assert float(first[1]) > float(second[1])
        start, _, end, _, label, score = block.splitlines()[-1].split()
        assert (float(start), label, score) == (0.0, *first)
        assert f": {end} s" in block


def test_tags_as_json_and_files_that_cannot_be_read(fftp, trained, clip_folder, tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    files = [tmp_path / "text.wav", tmp_path / "missing.wav", clip_folder / "validation" / "high" / "1.wav"]
    status, output, errors = fftp("tag", *files, "--model", trained, "--json", "--threshold", 0.9)
    assert status == 1
    (line,) = output.splitlines()
    answer = json.loads(line)
    assert answer["file"] == str(files[-1])
    assert answer["labels"][0]["label"] == "high"
    assert all(entry["score"] >= 0.9 for entry in answer["timeline"])
    for file in files[:2]:
        assert f"{file}: cannot decode" in errors


def test_a_name_that_the_terminal_cannot_show_stops_nothing(trained, clip_folder, tmp_path):
    files = [shutil.copy(clip_folder / "validation" / "low" / "0.wav", tmp_path / name) for name in ("é.wav", "z.wav")]
    command = [sys.executable, "-m", "modeling_fftp", "tag", *files, "--model", trained, "--format", "csv"]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\xe9.wav" in done.stdout
    assert b"z.wav" in done.stdout


def test_errors_are_one_line(fftp, trained, tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    cases = (
        (("push", tmp_path, "words", "--dry_run"), "fftp: .* lacks config.json"),
        (("card", tmp_path / "nowhere"), "fftp: .*nowhere is not a folder"),
        (("export", tmp_path / "nowhere"), "fftp: .*nowhere is not a folder"),
        (("export", trained, "--output", tmp_path / "none" / "model.onnx"), "fftp: .*none is not a folder"),
        (("export", trained, "--token_merge_layers", 99), "fftp: .*99.* layers"),
        (("convert", trained, tmp_path / "out", "--mean", 1.0), "fftp: --mean is not for a source of the kind 'fftp'"),
        (("convert", tmp_path / "text.pth", tmp_path / "out"), r"fftp: .*text\.pth is not a checkpoint"),
        (("convert", "missing.pth", tmp_path / "out"), r"fftp: .*No such file.*missing\.pth"),
    )
    for words, message in cases:
        status, _, errors = fftp(*words)
        assert status == 1, words
        assert re.search(message, errors, flags=re.DOTALL), errors
        assert "Traceback" not in errors


def test_a_missing_package_is_named_with_the_line_that_installs_it(fftp, trained, monkeypatch):
    for command, package in (("export", "onnx"), ("space", "gradio")):
        monkeypatch.setitem(sys.modules, package, None)
        for module in ("modeling_fftp.serving.export", "hub_cards.space.app"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        _, _, errors = fftp(command, trained)
        assert errors == f"fftp: this needs {package}: pip install {package}"


@pytest.mark.parametrize("kind", ["another package", "no head"])
def test_only_classifiers_tag(fftp, make_config, extractor, clip_folder, tmp_path, kind):
    shape = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    models = {"another package": lambda: ASTForAudioClassification(ASTConfig(**shape))}
    models |= {"no head": lambda: FFTPModel(make_config())}
    models[kind]().save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    status, output, errors = fftp("tag", clip_folder / "validation" / "low" / "0.wav", "--model", tmp_path)
    assert status == 1
    assert "score" not in output
    assert "expected FFTPForAudioClassification or FFTPForAudioFrameClassification" in errors


def test_options_may_be_spelt_with_hyphens(fftp, trained):
    status, output, _ = fftp("push", trained, "words", "--dry-run")
    assert status == 0
    assert "model.safetensors" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fftp-ast-tiny-speech", "--dataset_name", "x"], "or a name such as fftp-ast-tiny-speech-commands-ar"),
        (["zzz", "--dataset_name", "x"], "or a name such as fftp-"),
        (["no.json", "--dataset_name", "x"], "no.json is not a file"),
        (["--output_dir", "x", "fftp-ast-tiny-speech-commands-ar"], "must come first"),
    ],
)
def test_recipes_that_are_not_there(fftp, words, message):
    status, _, errors = fftp("train", *words)
    assert status == 1
    assert message in errors


def test_the_old_command_of_the_card_works(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "words")
    command = [sys.executable, "-m", "hub_cards.render_card", str(folder), "--repo_id", "user/words"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.split() == [str(folder / "README.md")]


@pytest.mark.parametrize("name", ["feature_extraction.py", "feature_extraction/__init__.py"])
def test_files_in_the_way_are_named(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise SystemExit('a script of the user')")
    done = subprocess.run([sys.executable, "-c", "import modeling_fftp"], capture_output=True, text=True, cwd=tmp_path)
    assert f"ImportError: {tmp_path / name} is in the way of the package" in done.stderr


@pytest.mark.parametrize("command", ["train", "pretrain", "probe"])
def test_a_folder_that_cannot_be_is_refused_before_data_are_read(fftp, tmp_path, command):
    (tmp_path / "file").touch()
    words = {"train": ["--dataset_name", "nothing"], "pretrain": ["nothing"], "probe": ["nothing", "--model", "none"]}
    _, _, message = fftp(command, *words[command], "--output_dir", tmp_path / "file" / "model")
    assert message == f"{command}: --output_dir {tmp_path}/file/model: {tmp_path}/file is a file"
