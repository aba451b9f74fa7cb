"""What tests of several folders share beside fixtures."""

import contextlib
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import distributed

from feature_extraction.log_mel_fftp import log_mel_of_clips
from modeling_fftp import FFTPForAudioClassification
from modeling_fftp.training.checkpoints import last_whole_checkpoint
from modeling_fftp.training.run import run

ROOT = Path(__file__).resolve().parent.parent
# Files that are kept beside the project, where they are.
CASES = ROOT.parent / "shared" / "cases"
TINY = [
    "--hidden_size", "48", "--num_hidden_layers", "2", "--num_attention_heads", "3", "--intermediate_size", "96",
    "--num_train_epochs", "1", "--per_device_train_batch_size", "8", "--disable_tqdm", "true",
]  # fmt: skip

needs_compiler = pytest.mark.skipif(
    shutil.which((shlex.split(os.environ.get("CC", "")) or ["cc"])[0]) is None,
    reason="needs a C compiler: apt-get install gcc",
)
needs_cpp_compiler = pytest.mark.skipif(
    shutil.which("c++") is None, reason="torch.compile needs a C++ compiler: apt-get install g++"
)

# Models that tests of every kind run over.
GEOMETRIES = {
    "full-frequency": {"patch_size": (128, 10), "time_stride": 5},
    "square": {"patch_size": 16, "frequency_stride": 16, "time_stride": 10},
}

BACKBONES = {
    "ast": {},
    "merging": {"num_hidden_layers": 3, "token_merge_layers": (1, 2)},
    "fo-fo": {"backbone": "mamba", "mamba_variant": "fo-fo"},
    "fo-bi": {"backbone": "mamba", "mamba_variant": "fo-bi"},
    "bi-bi": {"backbone": "mamba", "mamba_variant": "bi-bi"},
    "convnext": {"backbone": "convnext"},
}

# Every backbone with every way of pooling that it has.
POOLED = {
    f"{name}-{pooling}": fields | {"pooling": pooling}
    for name, fields in BACKBONES.items()
    for pooling in ("cls", "mean")
    if (name, pooling) != ("convnext", "cls")
}


def log_mel(waveform, num_mel_bins=128, sampling_rate=16000):
    """Log-mel energies (frames, mel bins) of one clip."""
    return log_mel_of_clips([waveform], num_mel_bins, sampling_rate)[0]


def perturb(model):
    """Move every weight at random, so that what begins at zero counts too."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def build_classifier(config, attention="sdpa"):
    """A model in eval mode whose weights, positions too, are far from zero."""
    torch.manual_seed(0)
    config._attn_implementation = attention
    model = FFTPForAudioClassification(config).eval()
    torch.nn.init.normal_(model.fftp.embeddings.position_embeddings.weight)
    return perturb(model)


def run_training(output, *arguments):
    """Train a tiny model."""
    run([*TINY, "--output_dir", str(output), *map(str, arguments)])


def wait_for_checkpoint(folder: Path, process: subprocess.Popen) -> None:
    """Wait until a training has written a checkpoint to its end, or has ended itself."""
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            last_whole_checkpoint(str(folder))
            return
        time.sleep(0.01)


def leave_group() -> NoReturn:
    """End a process of several, without the interpreter's shutdown and without destroying the group.

    One of gloo's threads may still hold a tensor of the last exchange. Dropped during the shutdown it aborts the
    process (https://github.com/pytorch/pytorch/issues/190489); dropped while a DDP model frees its group, each waits
    for the other for ever.
    """
    distributed.barrier()
    os._exit(0)
