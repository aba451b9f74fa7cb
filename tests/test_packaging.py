"""The wheel and the source distribution: what a user without a checkout has."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time

import pytest
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from tests.support import ROOT, TINY

build = pytest.importorskip("build", reason="needs build: pip install -e '.[test]'")


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Folder of a wheel and a source distribution; the wheel is made of the latter."""
    # A copy, since setuptools writes into the folder that it builds from.
    source, output = tmp_path_factory.mktemp("source") / "fftp", tmp_path_factory.mktemp("dist")
    ignored = shutil.ignore_patterns(".*", "build", "runs", "demo_output", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory):
    """Folder with the installed wheel; what it depends on comes from this environment."""
    folder = tmp_path_factory.mktemp("installed")
    (wheel,) = distributions.glob("*.whl")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    return folder


@pytest.fixture
def environment(installed):
    return os.environ | {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def fftp(installed, environment, tmp_path):
    """Run the command of the wheel in an empty folder; what it prints."""

    def run(*words):
        command = [sys.executable, installed / "bin" / "fftp", *words]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_every_sub_command_works_from_the_wheel(fftp, installed, environment, clip_folder, tmp_path):
    code = "import modeling_fftp as m, hub_cards as h; print(m.__version__, m.__file__, h.__file__)"
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True).stdout
    version, *files = output.split()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert all(file.startswith(str(installed)) for file in files)

    recipe = "fftp-ast-tiny-speech-commands-ar"
    fftp("train", recipe, "--dataset_name", clip_folder, "--output_dir", "words", *TINY)
    assert (tmp_path / "words" / "model.safetensors").exists()
    assert json.loads((tmp_path / "words" / "recipe.json").read_text())["hidden_size"] == 48
    clip = clip_folder / "validation" / "low" / "0.wav"
    assert json.loads(fftp("tag", clip, "--model", "words", "--json"))["file"] == str(clip)

    shape = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    ASTForAudioClassification(ASTConfig(**shape)).save_pretrained(tmp_path / "ast")
    ASTFeatureExtractor().save_pretrained(tmp_path / "ast")
    card, export, listed = in_one_process(
        environment, tmp_path, ["card", "words", "--repo_id", "user/words"], ["export", "words", "--int8"],
        ["push", "words", "user/words", "--dry_run"], ["convert", "ast", "converted"],
    )  # fmt: skip
    assert card.strip() == "words/README.md"
    assert 'model="user/words"' in (tmp_path / "words" / "README.md").read_text()
    assert export.strip() == "words/model_int8.onnx"
    names = {line.split()[-1] for line in listed.splitlines()}
    assert {"README.md", "model.safetensors", "model_int8.onnx", "recipe.json", "modeling_fftp.py"} <= names
    assert json.loads((tmp_path / "converted" / "config.json").read_text())["model_type"] == "fftp"


def in_one_process(environment, folder, *commands):
    """What several commands print, run by the wheel in one process, which imports once; those that print anything."""
    code = f"""
from modeling_fftp.cli import app
for words in {commands!r}:
    app(words, standalone_mode=False)
    print("END")
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [output for output in done.stdout.split("END\n") if output.strip()]


def test_the_space_of_the_wheel_starts(installed, environment, trained, tmp_path):
    pytest.importorskip("gradio", reason="needs gradio: pip install gradio")
    command = [sys.executable, str(installed / "bin" / "fftp"), "space", str(trained)]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=tmp_path,
            env=environment | {"GRADIO_ANALYTICS_ENABLED": "False"},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while "http://127.0.0.1:" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
    finally:
        process.terminate()
        process.wait()


def test_the_source_distribution_has_all_tests(distributions, tmp_path):
    (archive,) = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    tests = {path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py")}
    assert tests == {path.relative_to(unpacked) for path in (unpacked / "tests").rglob("*.py")}
    for name in ("Makefile", "constraints.txt", "pyproject.toml", "demo/recipe.json", "train.py"):
        assert (unpacked / name).read_bytes() == (ROOT / name).read_bytes()
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=unpacked)
    assert done.returncode == 0, done.stdout
