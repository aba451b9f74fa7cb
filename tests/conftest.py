"""Fixtures shared by the tests: sounds, tiny models, folders of clips, and a process without this package."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

if not torch.cuda.is_available():
    # Triton reads this when the kernels are defined: without a GPU its interpreter runs them.
    os.environ["TRITON_INTERPRET"] = "1"

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig
from tests.support import ROOT, run_training

LONGEST = (
    "test_compiling.py", "test_docs.py", "test_export.py", "test_modeling.py", "test_packaging.py", "test_run.py",
)  # fmt: skip
SHARED_DATASETS = ROOT.parent / "shared" / "datasets"

# Everything that a loaded checkpoint must not need: our own packages and whatever is optional.
HIDE_PACKAGES = """
import sys
HIDDEN = {"modeling_fftp", "feature_extraction", "mamba_ssm", "triton", "torchaudio", "torchcodec", "soundfile",
          "soxr", "librosa", "datasets", "evaluate", "sklearn", "matplotlib"}
class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)
sys.meta_path = [Hiding(finder) for finder in sys.meta_path]
"""


def pytest_configure(config):
    """One thread for each worker of pytest-xdist, which has one processor, and for the processes it starts."""
    if getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that no worker ends long after the others."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture
def shared_dataset():
    """Path of a data set under ../shared/datasets; skips where it is not there."""

    def find(name: str) -> Path:
        path = SHARED_DATASETS / name
        if not path.is_dir():
            pytest.skip(f"needs the real recordings of {path}")
        return path

    return find


@pytest.fixture(autouse=True)
def seed():
    """Tests that draw from torch's default generator draw alike in every run, in whatever order they run."""
    torch.manual_seed(0)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def decoder_class():
    """A stand-in for torchcodec's AudioDecoder, which `datasets` gives for sound; its data is (channels, samples)."""

    class AudioDecoder:
        def __init__(self, sound, rate):
            self.samples = SimpleNamespace(data=torch.as_tensor(np.atleast_2d(sound)), sample_rate=rate)

        def get_all_samples(self):
            return self.samples

    return AudioDecoder


@pytest.fixture
def make_config():
    """A small FFTP config; keywords override."""

    def make(**overrides) -> FFTPConfig:
        fields = {
            "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96,
            "max_length": 100,
        }  # fmt: skip
        labels = {} if {"id2label", "label2id"} & overrides.keys() else {"num_labels": 4}
        return FFTPConfig(**(fields | labels | overrides))

    return make


@pytest.fixture
def batch():
    """Features of three clips, two of them padded, the second shorter than a patch."""
    torch.manual_seed(1)
    mask = torch.ones(3, 100, dtype=torch.long)
    mask[0, 61:] = mask[1, 5:] = 0
    return {"input_values": torch.randn(3, 100, 128), "attention_mask": mask}


@pytest.fixture
def extractor():
    return FFTPFeatureExtractor()


@pytest.fixture(scope="session")
def speech():
    """Two seconds of a speech-like sound at 16 kHz: a gliding harmonic voice with pauses, over faint noise."""
    rng = np.random.default_rng(0)
    time = np.arange(32000) / 16000
    pitch = 120 + 40 * np.sin(2 * np.pi * 1.5 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    voice = sum(np.sin(k * phase) / k for k in range(1, 30))
    envelope = np.clip(np.sin(2 * np.pi * 2 * time), 0, 1) ** 0.5
    return (0.1 * voice * envelope + 0.001 * rng.normal(size=len(time))).astype(np.float32)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """An audio folder of three kinds of sound: folders low, high and noise in train and validation; 8 to 44.1 kHz."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 4)):
        for kind in ("low", "high", "noise"):
            (folder / split / kind).mkdir(parents=True)
            for index in range(count):
                rate = (8000, 16000, 44100)[index % 3]
                time = np.arange(int(rate * rng.uniform(0.3, 0.8))) / rate
                tone = np.sin(2 * np.pi * {"low": 200, "high": 2500, "noise": 0}[kind] * rng.uniform(0.8, 1.2) * time)
                sound = rng.normal(size=len(time)) * (0.3 if kind == "noise" else 0.01) + 0.3 * tone
                stereo = np.stack([sound, sound], axis=1) if index % 2 else sound
                soundfile.write(folder / split / kind / f"{index}.wav", stereo, rate)
    return folder


@pytest.fixture(scope="session")
def trained(clip_folder, tmp_path_factory):
    """Folder of a run over the audio folder that is long enough to tell three sounds apart."""
    output = tmp_path_factory.mktemp("trained")
    run_training(output, "--dataset_name", clip_folder, "--num_train_epochs", 20, "--learning_rate", "2e-3", "--bf16")
    return output


@pytest.fixture
def run_without_package(tmp_path):
    """Run code in a fresh process in which neither package nor anything optional can be imported."""

    def run(code: str, **variables: str) -> str:
        environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"} | variables
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            [sys.executable, "-c", HIDE_PACKAGES + code], capture_output=True, text=True, env=environment, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
