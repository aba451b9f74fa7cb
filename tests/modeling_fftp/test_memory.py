"""Memory that is freed stays with the process."""

import os
import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, torch
from modeling_fftp.memory import keep_freed_memory

def allocate_and_free():
    tensors = [torch.ones(2**21) for _ in range(16)]

if {keeps}:
    keep_freed_memory()
for _ in range(3):
    allocate_and_free()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    allocate_and_free()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_is_used_again_without_page_faults():
    # By itself glibc adapts its thresholds, and what happens to lie above a tensor decides whether it is given back.
    # Fixed at their defaults it gives back every tensor.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    faults = {}
    for keeps in (True, False):
        command = [sys.executable, "-c", COUNT_FAULTS.format(keeps=keeps)]
        faults[keeps] = int(subprocess.check_output(command, env=environment, text=True))
    assert 10 * faults[True] < faults[False]
