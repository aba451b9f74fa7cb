"""README and docs: commands are valid, and blocks that are not marked as long run and print what the page says."""

import argparse
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from markdown_it import MarkdownIt

from modeling_fftp.cli import app
from modeling_fftp.training.command_line import parse_arguments
from tests.support import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NUMBER = re.compile(r"\d+\.\d+")
# Relative: scores of a model that another processor trained.
TOLERANCE = 0.2


@dataclass
class Block:
    """A fenced block of a page, with the output that stands below it."""

    page: Path
    language: str
    text: str
    line: int
    is_long: bool
    output: str | None = None

    def __str__(self):
        return f"{self.page.stem}-{self.line}"


def read_blocks(page: Path) -> list[Block]:
    blocks, before = [], None
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "fence" and token.info == "text":
            assert before.type == "fence", f"{page}: line {token.map[0] + 1}: output of no block"
            blocks[-1].output = token.content
        elif token.type == "fence" and token.info:
            is_long = before.type == "html_block" and before.content.startswith("<!-- long: ")
            blocks.append(Block(page, token.info, token.content, token.map[0] + 1, is_long))
        before = token
    return blocks


BLOCKS = [block for page in PAGES for block in read_blocks(page)]
SHELL = [block for block in BLOCKS if block.language == "sh"]


def test_pages_hold_code_in_languages_that_are_tested():
    assert {block.language for block in BLOCKS} <= {"python", "sh"}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=str)
def test_python_blocks_compile(block):
    compile(block.text, str(block), "exec")


def check_fftp(words: list[str], monkeypatch) -> None:
    name, *words = words
    if name == "train":
        parse_arguments(words)
    else:
        typer.main.get_command(app).get_command(None, name).make_context(name, words)


def check_python(words: list[str], monkeypatch) -> None:
    """A file of the checkout, or a module with `-m`."""
    if words[0] == "train.py":
        parse_arguments(words[1:])
        return
    option, module, *arguments = words
    assert option == "-m"
    if module == "pytest":
        assert all((ROOT / word.split("::")[0]).exists() for word in arguments if word.startswith("tests"))
        return
    parse = argparse.ArgumentParser.parse_args

    def parse_alone(parser, *given):
        parse(parser, *given)
        raise SystemExit("parsed")

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_alone)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    found = importlib.import_module(module)
    # A package runs what its `__main__` holds.
    found = importlib.import_module(f"{module}.__main__") if hasattr(found, "__path__") else found
    with pytest.raises(SystemExit, match=r"^parsed$"):
        found.main()


def check_make(words: list[str], monkeypatch) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(words) <= set(targets)


def check_pip(words: list[str], monkeypatch) -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = {name for word in words for name in re.findall(r"\[(\w+)\]", word)}
    assert extras <= set(config["options.extras_require"])


def check_launcher(words: list[str], monkeypatch) -> None:
    """accelerate and torchrun start a file of the checkout, or the package."""
    if "modeling_fftp" in words:
        check_fftp(words[words.index("modeling_fftp") + 1 :], monkeypatch)
    else:
        check_python(words[words.index("train.py") :], monkeypatch)


def check_recorder(words: list[str], monkeypatch) -> None:
    """Another program, whose output `fftp` takes."""
    check_fftp(words[words.index("fftp") + 1 :], monkeypatch)


CHECKS = {
    "fftp": check_fftp, "python": check_python, "make": check_make, "pip": check_pip, "accelerate": check_launcher,
    "torchrun": check_launcher, "arecord": check_recorder,
}  # fmt: skip


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_are_valid(block, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    for line in block.text.replace("\\\n", " ").splitlines():
        program, *words = shlex.split(line.split(" > ")[0], comments=True)
        with monkeypatch.context() as patch:
            CHECKS[program](words, patch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_in_sentences_are_valid(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for command in re.findall(r"`python -m ([^`]+)`", page.read_text(encoding="utf-8")):
        with monkeypatch.context() as patch:
            check_python(["-m", *command.split()], patch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_readme_is_one_that_people_finish():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1200


@pytest.fixture(scope="module")
def after_demo(tmp_path_factory):
    """Folder in which the demo has run, with its output."""
    folder = tmp_path_factory.mktemp("docs")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "demo"], check=True, cwd=folder, env=environment, stdout=subprocess.PIPE)
    return folder


def test_the_demo_learns_and_finds_what_it_heard(after_demo):
    results = json.loads((after_demo / "demo_output" / "model" / "test_results.json").read_text(encoding="utf-8"))
    assert results["test_accuracy"] > 0.9
    assert (after_demo / "demo_output" / "patches.png").stat().st_size > 100_000


@pytest.fixture(scope="module")
def outputs(after_demo):
    """By page, what its blocks that are not long print there, or the error that it ended with."""
    folder = after_demo / "pages"
    folder.mkdir()
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules"),
    }  # fmt: skip
    blocks = {
        page.name: [[block.language, block.text] for block in read_blocks(page) if not block.is_long] for page in PAGES
    }
    command = [sys.executable, str(ROOT / "tests" / "run_page.py"), str(folder / "outputs.json")]
    done = subprocess.run(
        command, input=json.dumps(blocks), cwd=after_demo, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "outputs.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run_and_print_what_the_page_says(page, outputs):
    assert isinstance(outputs[page.name], list), outputs[page.name]
    blocks = [block for block in read_blocks(page) if not block.is_long]
    for block, output in zip(blocks, outputs[page.name], strict=True):
        if block.output is not None:
            numbers = [[float(number) for number in NUMBER.findall(text)] for text in (output, block.output)]
            assert NUMBER.sub("#", output).split() == NUMBER.sub("#", block.output).split(), block
            assert numbers[0] == pytest.approx(numbers[1], rel=TOLERANCE), block
