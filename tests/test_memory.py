"""Memory that is freed stays with the process."""

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
    faults = {
        keeps: int(subprocess.check_output([sys.executable, "-c", COUNT_FAULTS.format(keeps=keeps)], text=True))
        for keeps in (True, False)
    }
    # 8 MiB are 2,048 pages at most.
    assert faults[True] < 2048 < faults[False]
