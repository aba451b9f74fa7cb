"""The study: its grid, one real run of it, and a report that tells what was not measured."""

import json
from dataclasses import fields

import pytest

from benchmarks import study, study_report, study_time
from modeling_fftp.training.arguments import ARGUMENTS
from tests.support import ROOT

GRID = json.loads((ROOT / "benchmarks" / "study.json").read_text(encoding="utf-8"))


@pytest.fixture
def small_grid(clip_folder, tmp_path, monkeypatch):
    """Two arms on a few clips; results go to a temporary folder."""
    monkeypatch.setattr(study, "RECORDS", tmp_path / "study.jsonl")
    monkeypatch.setattr(study_report, "RESULTS", tmp_path)
    size = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 96}
    return {
        "defaults": size | {"per_device_train_batch_size": 8},
        "tasks": {
            "sounds": {
                "data": clip_folder.name, "metric": "accuracy", "frames": 80, "labels": 3,
                "arguments": {"num_train_epochs": 1},
            }
        },
        "arms": {"stride 5": {"time_stride": 5}, "stride 1": {"time_stride": 1}},
        "studies": [{"title": "Strides", "task": "sounds", "seeds": [0], "arms": ["stride 5", "stride 1"]}],
        "claims": [{"claim": "Stride 1 is better", "task": "sounds", "better": "stride 1", "than": "stride 5"}],
    }  # fmt: skip


def test_every_run_of_the_grid_has_a_name_and_valid_arguments():
    runs = study.list_runs(GRID)
    assert len({study.run_name(run) for run in runs}) == len(runs)
    names = {item.name for group in ARGUMENTS for item in fields(group) if item.init}
    assert all(set(study.run_arguments(GRID, run)) <= names for run in runs)


def test_arms_at_equal_cost_cost_the_same():
    rows = {
        arm: study_report.summarise(GRID, GRID["studies"][0], arm, [], [])["multiply_adds"]
        for arm in ("FFTP stride 5", "square 16/10, narrower", "square 16/10, shallower")
    }
    assert rows["square 16/10, narrower"] == pytest.approx(rows["FFTP stride 5"], rel=0.25)
    assert rows["square 16/10, shallower"] == pytest.approx(rows["FFTP stride 5"], rel=0.5)


def test_a_run_is_kept_reported_and_not_repeated(small_grid, clip_folder, tmp_path):
    run, other = study.list_runs(small_grid)
    study.train(small_grid, run, clip_folder.parent)
    (result,) = study.find_results(small_grid, study.read_records())
    assert study.run_name(result) == study.run_name(run) == "sounds-stride-5-seed-0"
    assert study.run_name(other) == "sounds-stride-1-seed-0"
    assert 0 <= result["value"] <= 1
    step = {"task": "sounds", "arm": "stride 5", "milliseconds": 1.25}
    study.keep_record(step)
    study.keep_record(result | {"value": 0.5})
    assert study.read_records() == [result | {"value": 0.5}, step]
    study_report.write_report(small_grid, [result], [step])
    report = (tmp_path / "study.md").read_text(encoding="utf-8")
    assert f"{100 * result['value']:.2f} % | 1.25 ms |" in report
    assert (tmp_path / "study-1.png").stat().st_size > 5000
    small_grid["defaults"]["num_hidden_layers"] = 2
    assert not study.find_results(small_grid, study.read_records())


def test_the_report_says_what_the_kept_results_say(tmp_path, monkeypatch):
    kept = (study_report.RESULTS / "study.md").read_text(encoding="utf-8")
    records = study.read_records()
    steps = [record for record in records if "seed" not in record]
    monkeypatch.setattr(study_report, "RESULTS", tmp_path)
    monkeypatch.setattr(study_report, "plot", lambda *arguments: None)
    study_report.write_report(GRID, study.find_results(GRID, records), steps)
    assert (tmp_path / "study.md").read_text(encoding="utf-8") == kept


def test_arms_with_one_model_are_timed_once(small_grid):
    small_grid["arms"]["masked"] = {"time_stride": 5, "spec_mask_budget": 0.1}
    times = study_time.measure_steps(small_grid, "sounds", ["stride 5", "masked", "stride 1"], seconds=0.0)
    assert times["masked"] == times["stride 5"] != times["stride 1"]
    assert min(times.values()) > 0


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([], "not measured"),
        ([0.3], "undecided"),
        ([0.1, 0.1], "undecided"),
        ([0.1, 0.11, 0.12], "holds"),
        ([-0.1, -0.11, -0.12], "the opposite"),
        ([0.1, -0.05, 0.12], "undecided"),
    ],
)
def test_a_claim_is_judged_over_the_seeds_that_both_arms_have(small_grid, differences, verdict):
    runs = [{"task": "sounds", "arm": "stride 1", "seed": 9, "value": 1.0}]
    for seed, difference in enumerate(differences):
        for arm, value in (("stride 1", 0.5 + seed / 10 + difference), ("stride 5", 0.5 + seed / 10)):
            runs.append({"task": "sounds", "arm": arm, "seed": seed, "value": value})
    judged = study_report.judge(small_grid, small_grid["claims"][0], runs)
    assert judged["differences"] == pytest.approx(differences)
    assert judged["verdict"] == verdict


def test_claims_name_arms_and_tasks_of_the_grid():
    for claim in GRID["claims"]:
        arms = {arm for entry in GRID["studies"] if entry["task"] == claim["task"] for arm in entry["arms"]}
        assert {claim["better"], claim["than"]} <= arms
