"""The command `fftp`: quick help, tags of files, errors in one line, and old names that say the new ones."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
from typer.testing import CliRunner

import modeling_fftp
from modeling_fftp.cli import app
from modeling_fftp.imports import MOVED


@pytest.fixture
def fftp():
    """Run a sub-command; its exit status, output and errors."""

    def run(*words):
        result = CliRunner().invoke(app, [str(word) for word in words])
        message = result.exception.code if isinstance(result.exception, SystemExit) else ""
        return result.exit_code, result.stdout, f"{result.stderr}{message}"

    return run


@pytest.mark.parametrize("words", [["fftp", "--help"], ["-m", "tag", "--help"]])
def test_help_imports_nothing_heavy(words):
    code = f"""
import sys
sys.argv = {words!r}
from modeling_fftp.cli import app
app(sys.argv[1:], standalone_mode=False)
print(sorted(sys.modules.keys() & {{"torch", "transformers", "datasets", "numpy"}}))
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--help" in output
    assert output.splitlines()[-1] == "[]"


def test_the_package_is_the_command():
    command = [sys.executable, "-m", "modeling_fftp", "--help"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Usage: fftp" in output
    assert all(name in output for name in ("train", "tag", "export", "push", "card", "convert", "space"))


def test_a_bare_import_registers_the_classes(trained):
    code = f"""
import modeling_fftp
from transformers import AutoModelForAudioClassification
print(type(AutoModelForAudioClassification.from_pretrained({str(trained)!r})).__module__)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["modeling_fftp.modeling_fftp"]


def test_the_version_is_that_of_the_distribution():
    assert re.fullmatch(r"\d+\.\d+\.\d+", modeling_fftp.__version__)


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


def test_errors_are_one_line(fftp, trained, tmp_path):
    cases = (
        (("tag", "x.wav", "--model", tmp_path), "fftp: "),
        (("card", tmp_path), "fftp: "),
        (("push", tmp_path, "words", "--dry_run"), "lacks config.json"),
        (("export", trained, "--output", tmp_path / "none" / "model.onnx"), "none is not a folder"),
        (("convert", trained, tmp_path / "out", "--mean", 1.0), "--mean is for AuM checkpoints"),
    )
    for words, message in cases:
        status, _, errors = fftp(*words)
        assert status == 1, words
        assert message in errors


def test_options_may_be_spelt_with_hyphens(fftp, trained):
    status, output, _ = fftp("push", trained, "words", "--dry-run")
    assert status == 0
    assert "model.safetensors" in output


@pytest.mark.parametrize(("recipe", "message"), [("fftp-ast-tiny", "near it: fftp-ast-"), ("no.json", "not a file")])
def test_recipes_that_are_not_there(fftp, recipe, message):
    status, _, errors = fftp("train", recipe, "--dataset_name", "x")
    assert status == 1
    assert message in errors


@pytest.mark.parametrize("name", MOVED)
def test_modules_that_have_moved_say_where(name):
    done = subprocess.run([sys.executable, "-m", name, "--help"], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{name} is now {MOVED[name]}" in done.stderr
    for module in re.findall(r"modeling_fftp\.[a-z_.]+", MOVED[name]):
        assert find_spec(module)


def test_the_old_command_of_the_card_works(trained):
    command = [sys.executable, "-m", "hub_cards.render_card", str(trained), "--repo_id", "user/words"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.split() == [str(trained / "README.md")]


@pytest.mark.parametrize("name", ["feature_extraction.py", "hub_cards.py", "feature_extraction/__init__.py"])
def test_files_in_the_way_are_named(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise SystemExit('a script of the user')")
    done = subprocess.run([sys.executable, "-c", "import modeling_fftp"], capture_output=True, text=True, cwd=tmp_path)
    assert f"ImportError: {tmp_path / name} is in the way of the package" in done.stderr
