"""Parts of what is done on a GPU: each in a process of its own, with a time limit and results case by case."""

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.gpu import checks, paper, speed, training
from benchmarks.gpu.setting import Setting
from benchmarks.report import read_lines, write_lines

PARTS = {"right": checks, "fast": speed, "training": training, "paper": paper}
# Seconds; all of them together fit into half an hour.
LIMITS = {"right": 240, "fast": 570, "training": 150, "paper": 570}
# How a process says that its device can do no more, and what is on record of a case that it did not survive.
BROKEN, UNFINISHED = 3, "it did not end"


class Records:
    """Results of cases, in a file of JSON lines."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> list[dict]:
        """All of them."""
        return read_lines(self.path)

    def keep(self, record: dict) -> None:
        """Add a record, in place of that of the same case on the same device."""
        others = [kept for kept in self.read() if identify(kept) != identify(record)]
        write_lines(self.path, [*others, record])

    def forget_unfinished(self) -> None:
        """Drop what stands for a case whose time was up, so that a later run begins it anew: it is the last record."""
        if (kept := self.read()) and kept[-1].get("failed") == UNFINISHED:
            write_lines(self.path, kept[:-1])

    def forget_failed(self, parts: Sequence[str], device: str) -> None:
        """Drop the failures of a device in some parts, so that a run tries these cases again."""
        kept = self.read()
        failed = [item for item in kept if "failed" in item and item["part"] in parts and item["device"] == device]
        write_lines(self.path, [item for item in kept if item not in failed])

    def missing(self, part: str, device: str, cases: dict) -> list[str]:
        """Cases that have no result."""
        done = {item["case"] for item in self.read() if (item["part"], item["device"]) == (part, device)}
        return [case for case in cases if case not in done]


def identify(record: dict) -> tuple[str, str, str]:
    """What a record is of."""
    return record["part"], record["case"], record["device"]


def run_part(part: str, setting: Setting, records: Records) -> None:
    """Run the cases of a part that have no result."""
    cases = PARTS[part].list_cases(setting)
    for case in records.missing(part, setting.name, cases):
        record = {"part": part, "case": case, "device": setting.name, "torch": torch.__version__}
        # What stays if this process does not survive it.
        records.keep(record | {"failed": UNFINISHED})
        setting.clear()
        started = time.perf_counter()
        result = run_case(cases[case])
        records.keep(record | result | {"seconds": round(time.perf_counter() - started, 1)})
        print(part, case, result, flush=True)
        # A capture that failed leaves torch unable to make another.
        if "failed" in result and (is_broken(setting.device) or "CUDA graph" in case):
            sys.exit(BROKEN)


def run_case(case: Callable[[], dict]) -> dict:
    """The result of a case, or why there is none."""
    try:
        return case()
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        # Of the output of another process the end says what went wrong.
        return {"failed": f"{type(error).__name__}: {str(error).strip()[-500:]}"}


def is_broken(device: torch.device) -> bool:
    """Whether a device does nothing any more, as a GPU after an illegal access to memory."""
    try:
        torch.zeros(1, device=device).item()
    except RuntimeError:
        return True
    return False


def run_limited(part: str, words: list[str], limit: float, records: Records) -> None:
    """Run a part in processes of its own, another one where the device broke, until its time is up."""
    end = time.monotonic() + limit
    while (left := end - time.monotonic()) > 0:
        before = len(records.read())
        # In a session of its own, so that what a case started ends with it.
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu", "--part", part, *words], start_new_session=True
        )
        try:
            code = process.wait(left)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            records.forget_unfinished()
            print(f"{part}: its {limit:.0f} seconds are over", flush=True)
            return
        # It ended, or it will not get any further. The case that broke it is on record; another process does the rest.
        if code == 0 or len(records.read()) == before:
            return
