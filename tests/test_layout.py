"""The rules of the layout: which files go to the Hub, and which way imports run."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from feature_extraction import FFTPFeatureExtractor, waveforms_fftp
from modeling_fftp import (
    FFTPForAudioClassification,
    FFTPForAudioFrameClassification,
    FFTPForPreTraining,
    FFTPModel,
    audio_stream_fftp,
    window_pipeline_fftp,
)
from modeling_fftp.training.run import run, train_and_publish
from tests.support import BACKBONES, ROOT

PACKAGES = ("feature_extraction", "hub_cards", "modeling_fftp")
FILES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MODELS = (FFTPModel, FFTPForAudioClassification, FFTPForAudioFrameClassification)
SHIPPED = [path for path in FILES if path.stem.endswith("_fftp")]


def names_of_shipped(package: str) -> set[str]:
    return {path.name for path in SHIPPED if path.parts[0] == package}


def imported_modules(path: Path) -> set[str]:
    """Absolute names of what a file imports anywhere in it."""
    package, names = path.parent.parts, set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*start, *(node.module or "").split("."))).strip(".")
            names.add(module)
            # A name may be a module too.
            folder = ROOT.joinpath(*module.split("."))
            for alias in node.names:
                if (folder / f"{alias.name}.py").exists() or (folder / alias.name).is_dir():
                    names.add(f"{module}.{alias.name}")
    return names


def test_no_file_but_those_beside_the_package_has_the_suffix():
    assert {path.parent.as_posix() for path in SHIPPED} == {"feature_extraction", "modeling_fftp"}


@pytest.mark.parametrize("backbone", ["ast", "fo-bi", "convnext"])
@pytest.mark.parametrize("model_class", [*MODELS, FFTPForPreTraining])
def test_a_model_is_saved_with_every_file_that_has_the_suffix(model_class, backbone, make_config, tmp_path):
    model_class(make_config(**BACKBONES[backbone])).save_pretrained(tmp_path)
    # What only pretraining needs goes with what it made.
    others = set() if model_class is FFTPForPreTraining else {"pretraining_fftp.py"}
    assert {path.name for path in tmp_path.glob("*.py")} == names_of_shipped("modeling_fftp") - others


def test_the_extractor_is_saved_with_every_file_that_has_the_suffix(tmp_path):
    FFTPFeatureExtractor().save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("*.py")} == names_of_shipped("feature_extraction")


def test_the_packages_share_no_name_of_a_shipped_file():
    assert not names_of_shipped("modeling_fftp") & names_of_shipped("feature_extraction")


def test_train_py_lists_the_steps_of_the_run_in_their_order():
    steps = re.findall(r"^    (\w+) {2,}(\w+\.py) ", (ROOT / "train.py").read_text(encoding="utf-8"), re.MULTILINE)
    folder = ROOT / "modeling_fftp" / "training"
    assert all(f"\ndef {step}(" in (folder / file).read_text(encoding="utf-8") for step, file in steps)
    whole = inspect.getsource(run) + inspect.getsource(train_and_publish)
    places = [whole.index(f"{step}(") for step, _ in steps]
    assert len(places) == 8
    assert places == sorted(places)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_run_one_way(path):
    ours = {name for name in imported_modules(path) if name.split(".")[0] in (*PACKAGES, "train")}
    folder = path.parent.as_posix()
    if path in SHIPPED:
        assert ours <= {f"{folder}.{shipped.stem}" for shipped in SHIPPED}
    if folder == "feature_extraction":
        assert not {name for name in ours if name.startswith("modeling_fftp")}
    if path.name != "__main__.py" and path != Path("hub_cards/render_card.py"):
        assert not ours & {"modeling_fftp.cli", "train"}
    if folder == "modeling_fftp/training/data":
        others = {name.split(".")[2] for name in ours if name.startswith("modeling_fftp.training.")}
        assert others <= {"data"}
    # Of the sub-packages only training calls others: a run may start from foreign weights, and ends with its card.
    if path.parts[0] == "modeling_fftp" and len(path.parts) >= 3:
        others = {name.split(".")[1] for name in ours if name.startswith("modeling_fftp.")}
        helpers = {"atomic_write", "memory", "pretrained", "sound_folders"}
        allowed = {path.parts[1], *helpers, *(shipped.stem for shipped in SHIPPED)}
        assert others <= (allowed | {"convert", "hub", "serving"} if path.parts[1] == "training" else allowed)


def test_limits_that_stand_on_both_sides_are_equal():
    """Shipped files of either package import nothing of the other."""
    assert audio_stream_fftp.LARGEST_SAMPLE == waveforms_fftp.LARGEST_SAMPLE
    assert audio_stream_fftp.MAX_CHANNELS == waveforms_fftp.MAX_CHANNELS
    assert window_pipeline_fftp.LARGEST_FLOAT == waveforms_fftp.LARGEST_FLOAT
