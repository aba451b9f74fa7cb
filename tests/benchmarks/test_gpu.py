"""The script for GPUs, rehearsed on a CPU: every case runs, failures stay on record, and another run goes on."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu import checks, parts, report
from benchmarks.gpu.setting import Setting
from benchmarks.report import RESULTS
from tests.support import ROOT

CPU = Setting(torch.device("cpu"), is_tiny=True)


@pytest.fixture
def records(tmp_path):
    return parts.Records(tmp_path / "gpu.jsonl")


def test_every_part_runs(records, clip_folder, tmp_path):
    (tmp_path / "esc50").symlink_to(clip_folder)
    words = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny", "--data", tmp_path]
    first = subprocess.run([*words, "--output", tmp_path], cwd=ROOT, capture_output=True, text=True, check=True)
    found = records.read()
    assert {record["part"] for record in found} == {*parts.PARTS}
    assert not [record for record in found if "failed" in record], first.stdout
    assert all(record["holds"] for record in found if "holds" in record)
    for part, module in parts.PARTS.items():
        cases = module.list_cases(Setting(torch.device("cpu"), is_tiny=True, data=tmp_path))
        assert [record["case"] for record in found if record["part"] == part] == [*cases]
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    for title in ("Right", "Forward, batch 1", "Selective scan", "Feature extractor", "Training step", "From scratch"):
        assert f"### {title}" in text
    # What has a result is not repeated.
    subprocess.run([*words, "--output", tmp_path], cwd=ROOT, check=True, capture_output=True)
    assert records.read() == found


def test_what_fails_is_on_record_and_the_rest_goes_on(records, monkeypatch):
    calls = []

    def fail() -> dict:
        calls.append("fails")
        raise ValueError("no such\nthing")

    def work() -> dict:
        calls.append("works")
        return {"error": 0.5, "allowed": 0.1, "of": "logits", "holds": False}

    monkeypatch.setitem(
        parts.PARTS, "right", SimpleNamespace(list_cases=lambda setting: {"fails": fail, "works": work})
    )
    parts.run_part("right", CPU, records)
    assert calls == ["fails", "works"]
    parts.run_part("right", CPU, records)
    assert calls == ["fails", "works"]
    records.forget_failed(["fast"], CPU.name)
    records.forget_failed(["right"], "another device")
    assert len(records.read()) == 2
    records.forget_failed(["right"], CPU.name)
    parts.run_part("right", CPU, records)
    assert calls == ["fails", "works", "fails"]
    text = report.render(records.read())
    assert "| right | fails | ValueError: no such thing |" in text
    assert "| works | 5.0e-01 (logits) | 1e-01 | **no** |" in text


def test_when_time_is_up_the_case_that_ran_is_begun_anew_and_no_other(records):
    ended = [{"part": "right", "case": case, "device": case, "failed": parts.UNFINISHED} for case in ("a", "b")]
    for record in (*ended, ended[0] | {"case": "c"}):
        records.keep(record)
    records.forget_unfinished()
    assert records.read() == ended
    records.keep({"part": "right", "case": "d", "device": "a", "seconds": 1.0})
    records.forget_unfinished()
    assert len(records.read()) == 3


def test_an_error_that_is_not_finite_does_not_pass():
    value = torch.tensor([1.0, float("nan")])
    found = checks.compare({"a": torch.ones(2), "b": value}, {"a": torch.ones(2), "b": torch.ones(2)}, 1.0)
    assert (found["holds"], found["of"]) == (False, "b")


def test_the_report_says_what_the_kept_results_say():
    kept = (RESULTS / "gpu.md").read_text(encoding="utf-8")
    assert report.render(parts.Records(RESULTS / "gpu.jsonl").read()) == kept
