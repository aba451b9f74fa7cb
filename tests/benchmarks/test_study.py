"""The study: its grid, one real run of it, and a report that tells what was not measured."""

import re
from dataclasses import fields

import numpy as np
import pytest

from benchmarks.study import claims, knee, report, search, starts, step_times
from benchmarks.study.study import GRIDS, Study, run_name
from modeling_fftp.training.arguments import ARGUMENTS

NAMES = sorted(path.stem for path in GRIDS.glob("*.json"))
GRID = Study.load("study").grid


@pytest.fixture
def small_study(clip_folder, tmp_path, monkeypatch):
    """Two arms on a few clips; results go to a temporary folder."""
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(starts, "FOLDER", tmp_path / "starts")
    size = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 96}
    grid = {
        "header": ["# Strides", ""],
        "question": "What holds",
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
    return Study(grid, tmp_path / "small.jsonl")


@pytest.mark.parametrize("name", NAMES)
def test_every_run_of_a_grid_has_a_name_and_valid_arguments(name):
    study = Study.load(name)
    runs = study.list_runs()
    assert len({run_name(run) for run in runs}) == len(runs)
    runs += [search for run in runs for search in study.searches_for(run)]
    names = {item.name for group in ARGUMENTS for item in fields(group) if item.init}
    assert all(set(study.arguments(run) or ()) <= names for run in runs)


def test_arms_at_equal_cost_cost_the_same():
    rows = {
        arm: report.summarise(GRID, GRID["studies"][0], arm, [], [])["multiply_adds"]
        for arm in ("FFTP stride 5", "square 16/10, narrower", "square 16/10, shallower")
    }
    assert rows["square 16/10, narrower"] == pytest.approx(rows["FFTP stride 5"], rel=0.25)
    assert rows["square 16/10, shallower"] == pytest.approx(rows["FFTP stride 5"], rel=0.5)


def test_a_run_is_kept_reported_and_not_repeated(small_study, clip_folder, tmp_path):
    run, other = small_study.list_runs()
    small_study.train(run, clip_folder.parent)
    (result,) = small_study.results()
    assert run_name(result) == run_name(run) == "sounds-stride-5-seed-0"
    assert run_name(other) == "sounds-stride-1-seed-0"
    assert 0 <= result["value"] <= 1
    step = {"task": "sounds", "arm": "stride 5", "milliseconds": 1.25}
    small_study.keep(step)
    small_study.keep(result | {"value": 0.5})
    assert small_study.read() == [result | {"value": 0.5}, step]
    report.write_report("small", small_study.grid, [result], [step])
    text = (tmp_path / "small.md").read_text(encoding="utf-8")
    assert f"{100 * result['value']:.2f} % | 1.25 ms |" in text
    assert (tmp_path / "small-1.png").stat().st_size > 5000
    small_study.grid["tasks"]["sounds"]["also"] = {"map": "mAP"}
    report.write_report("small", small_study.grid, [result | {"also": {"map": 0.25}}], [])
    text = (tmp_path / "small.md").read_text(encoding="utf-8")
    assert "| result | mAP | training step |" in text
    assert f"| {100 * result['value']:.2f} % | 25.00 % |" in text
    small_study.grid["defaults"]["num_hidden_layers"] = 2
    assert not small_study.results()


def test_the_best_learning_rate_is_taken_once_all_were_tried(small_study):
    small_study.grid["search"] = {"seed": 9, "learning_rates": [1e-4, 1e-3], "fold_of_task": {}}
    run, other = small_study.list_runs()
    first, second = small_study.searches_for(run)
    for tried, value in ((first, 0.7), (second, 0.4)):
        assert small_study.arguments(run) is None
        small_study.keep(tried | {"value": value, "arguments": small_study.arguments(tried)})
    assert small_study.arguments(run)["learning_rate"] == 1e-4
    # What was searched is not what is reported.
    assert not small_study.results()
    table = report.render_searches(small_study.grid, small_study.searches())
    assert "| stride 5 | sounds | **70.00 %** | 40.00 % |" in table
    small_study.grid["search"]["arm_of"] = {"stride 1": "stride 5"}
    assert small_study.searches_for(other) == [first, second]
    assert {small_study.arguments(run)["learning_rate"] for run in small_study.list_runs()} == {1e-4}


def test_a_model_of_many_strides_is_chosen_by_their_mean(small_study):
    grid = small_study.grid
    grid["search"] = {"seed": 9, "learning_rates": [1e-4, 1e-3], "fold_of_task": {}}
    grid["arms"]["stride 5"]["time_strides"] = [5, 10]
    run, _ = small_study.list_runs()
    first, second = small_study.searches_for(run)
    for tried, wide in ((first, 0.4), (second, 0.5)):
        strides = {"5": 0.7, "10": wide, "20": 0.9 - wide}
        small_study.keep(tried | {"value": 0.7, "strides": strides, "arguments": small_study.arguments(tried)})
    assert small_study.arguments(run)["learning_rate"] == 1e-3
    table = report.render_searches(grid, small_study.searches())
    assert "| stride 5 | sounds | 55.00 % | **60.00 %** |" in table


@pytest.mark.parametrize(
    ("values", "tried", "best"),
    [
        ({}, [3, 4], None),
        ({3: 0.5}, [3, 4], None),
        ({3: 0.5, 4: 0.6}, [3, 4, 5], None),
        ({3: 0.5, 4: 0.6, 5: 0.4}, [3, 4, 5], 4),
        ({3: 0.5, 4: 0.4, 2: 0.6}, [1, 2, 3, 4], None),
        ({3: 0.5, 4: 0.4, 2: 0.6, 1: 0.7}, [1, 2, 3, 4], 1),
        # What lies beyond a rate that was worse is not asked for.
        ({3: 0.5, 4: 0.6, 5: 0.4, 6: 0.9}, [3, 4, 5], 4),
    ],
)
def test_a_search_goes_on_from_the_better_rate_until_it_gets_worse(values, tried, best):
    rates = [1, 2, 3, 4, 5, 6]
    assert search.rates_to_try(rates, values) == tried
    assert search.choose_rate(rates, values) == best


def test_a_search_may_train_for_fewer_epochs_than_what_is_reported(small_study):
    small_study.grid["search"] = {
        "seed": 9, "learning_rates": [1e-3], "fold_of_task": {}, "epochs_of_task": {"sounds": 2},
    }  # fmt: skip
    small_study.grid["tasks"]["sounds"]["arguments"]["num_train_epochs"] = 5
    run, _ = small_study.list_runs()
    (tried,) = small_study.searches_for(run)
    assert run_name(tried) == "sounds-stride-5-seed-9-rate-0-001-epochs-2"
    assert small_study.arguments(tried)["num_train_epochs"] == 2
    small_study.keep(tried | {"value": 0.5, "arguments": small_study.arguments(tried)})
    assert small_study.arguments(run)["num_train_epochs"] == 5
    small_study.grid["search"]["epochs_of_arm"] = {"stride 5": {"sounds": 4}}
    (tried,) = small_study.searches_for(run)
    assert small_study.arguments(tried)["num_train_epochs"] == 4
    assert small_study.arguments(run) is None


def test_claims_of_one_family_are_corrected_for_their_number(small_study):
    grid = small_study.grid
    runs = [
        {"task": "sounds", "arm": arm, "seed": seed, "value": value}
        for seed, more in enumerate([0.1, 0.11, 0.13])
        for arm, value in (("stride 1", 0.5 + more), ("stride 5", 0.5))
    ]
    (alone,) = claims.judge(grid, runs)
    grid["claims"] = [grid["claims"][0] | {"family": "strides"}] * 3
    together = claims.judge(grid, runs)
    assert [found["p"] for found in together] == pytest.approx([3 * alone["p"]] * 3)
    assert alone["verdict"] == together[0]["verdict"] == "holds"
    assert "| strides | Stride 1 is better | sounds | +11.33 +- " in claims.render_claims(grid, runs)
    assert [claims.show_p(p) for p in (0.0004, 0.001, 0.12)] == ["< 0.001", "0.001", "0.120"]
    assert claims.correct([0.02, 0.01, 0.04]) == pytest.approx([0.04, 0.03, 0.04])
    assert claims.correct([0.9, 0.5]) == [1.0, 1.0]


def test_all_is_trained_once_and_what_is_searched_comes_first(small_study, clip_folder, monkeypatch):
    small_study.grid["search"] = {"seed": 9, "learning_rates": [1e-4, 1e-3], "fold_of_task": {}}
    trained = []
    train = small_study.train
    monkeypatch.setattr(small_study, "train", lambda run, *rest: trained.append(run_name(run)) or train(run, *rest))
    small_study.run_all(clip_folder.parent, None, workers=2, only="another")
    assert not trained
    small_study.run_all(clip_folder.parent, None, workers=2)
    assert len(small_study.results()) == 2
    assert all(len(found) == 2 for found in small_study.searches().values())
    assert len(trained) == len(set(trained)) == 6
    assert trained.index("sounds-stride-5-seed-0") > trained.index("sounds-stride-5-seed-9-rate-0-001")
    small_study.run_all(clip_folder.parent, None, workers=2)
    assert len(trained) == 6


def test_an_arm_may_start_from_pretrained_weights_and_be_taught(small_study, clip_folder, tmp_path):
    grid = small_study.grid
    size = {name: value for name, value in grid["defaults"].items() if name != "per_device_train_batch_size"}
    grid["starts"] = {
        "masked": {
            "command": "pretrain", "per": ["data", "fold"],
            "arguments": size | {"num_train_epochs": 1, "decoder_hidden_size": 48},
        },
        "teacher": {"command": "train", "per": ["task", "seed"], "arguments": size | {"num_train_epochs": 1}},
        "fetched": {"folder": "nowhere", "hint": "weights of somebody"},
    }  # fmt: skip
    grid["arms"]["stride 5"] = {"model_name_or_path": "@masked", "teacher": "@teacher"}
    run, other = small_study.list_runs()
    small_study.train(run, clip_folder.parent)
    made = {path.name for path in (tmp_path / "starts").iterdir() if path.is_dir()}
    assert {name.rsplit("-", 1)[0] for name in made} == {f"masked-{clip_folder.name}", "teacher-sounds-seed-0"}
    (result,) = small_study.results()
    assert 0 <= result["starts"]["teacher"]["validation_accuracy"] <= 1
    assert result["starts"]["masked"]["train_runtime"] > 0
    # A start that is made otherwise is another, and so are results with it.
    grid["starts"]["masked"]["arguments"] = size | {"num_train_epochs": 2, "decoder_hidden_size": 48}
    assert not small_study.results()
    table = report.render_starts(grid, [result])
    assert "| masked | sounds | pretrain | 1 | " in table
    assert f"{100 * result['starts']['teacher']['validation_accuracy']:.2f} %" in table
    grid["arms"]["stride 1"] = {"model_name_or_path": "@fetched"}
    with pytest.raises(FileNotFoundError, match="weights of somebody; --weights names the folder above it"):
        small_study.train(other, clip_folder.parent, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_the_report_says_what_the_kept_results_say(tmp_path, monkeypatch, name):
    kept = (report.RESULTS / f"{name}.md").read_text(encoding="utf-8")
    study = Study.load(name)
    steps = [record for record in study.read() if "seed" not in record]
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    for plot in ("plot", "plot_strides"):
        monkeypatch.setattr(report, plot, lambda *arguments: None)
    report.write_report(name, study.grid, study.results(), steps, study.searches())
    assert (tmp_path / f"{name}.md").read_text(encoding="utf-8") == kept


def test_a_run_is_measured_at_other_strides_too(small_study, clip_folder, tmp_path):
    grid = small_study.grid
    grid["defaults"]["eval_time_strides"] = [5, 20]
    grid["claims"][0]["stride"] = 20
    for run in small_study.list_runs():
        small_study.train(run, clip_folder.parent)
    small_study.measure_steps(seconds=0.0)
    results = small_study.results()
    assert all({*result["strides"]} == {"5", "20"} for result in results)
    five = next(result for result in results if result["arm"] == "stride 5")
    assert five["strides"]["5"] == five["value"]
    steps = [record for record in small_study.read() if "seed" not in record]
    report.write_report("small", grid, results, steps)
    text = (tmp_path / "small.md").read_text(encoding="utf-8")
    by_arm = {result["arm"]: result["strides"]["20"] for result in results}
    cells = " | ".join(f"{100 * by_arm[arm]:.2f} %" for arm in ("stride 5", "stride 1"))
    assert f" ms | {cells} |" in next(line for line in text.splitlines() if line.startswith("| 20 |"))
    assert f"{100 * (by_arm['stride 1'] - by_arm['stride 5']):+.2f}" in text
    assert (tmp_path / "small-1-strides.png").stat().st_size > 5000


def test_arms_with_one_model_are_timed_once(small_study):
    small_grid = small_study.grid
    small_grid["arms"]["masked"] = {"time_stride": 5, "spec_mask_budget": 0.1}
    small_grid["arms"]["elastic"] = {"time_stride": 1, "time_strides": [1, 5]}
    times = step_times.measure_steps(small_grid, "sounds", ["stride 5", "masked", "stride 1", "elastic"], seconds=0.0)
    assert times["masked"] == times["stride 5"] != times["stride 1"]
    configs = step_times.configs_at_strides(small_grid, "sounds", "elastic")
    assert [(config.time_stride, config.position_stride) for config in configs] == [(1, 1), (5, 1)]
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
def test_a_claim_is_judged_over_the_seeds_that_both_arms_have(small_study, differences, verdict):
    small_grid = small_study.grid
    runs = [{"task": "sounds", "arm": "stride 1", "seed": 9, "value": 1.0}]
    for seed, difference in enumerate(differences):
        for arm, value in (("stride 1", 0.5 + seed / 10 + difference), ("stride 5", 0.5 + seed / 10)):
            runs.append({"task": "sounds", "arm": arm, "seed": seed, "value": value})
    (judged,) = claims.judge(small_grid, runs)
    assert judged["differences"] == pytest.approx(differences)
    assert judged["verdict"] == verdict


def test_a_knee_is_found_where_the_curve_has_one():
    strides, rng = np.repeat(np.arange(1.0, 11.0), 5), np.random.default_rng(0)
    values = 0.9 - 0.03 * np.log2(np.maximum(strides / 4, 1.0)) + rng.normal(scale=0.002, size=len(strides))
    place, (low, high), change, (least, most) = knee.find_knee(strides, values)
    assert least < change < most < 0
    assert 3 <= low <= 4 <= high <= 5
    assert place == pytest.approx(4, abs=0.8)
    assert change == pytest.approx(-0.03, abs=0.005)
    found = re.fullmatch(r".* changes by -(\S+) \+- .* leaves (\S+) times .*\n", knee.describe_line(strides, values))
    assert 0 < float(found[1]) < 3
    assert float(found[2]) > 2
    steady = knee.describe_line(strides, 0.9 - 0.01 * strides + rng.normal(scale=0.002, size=50))
    assert "changes by -1.0" in steady
    assert float(re.search(r"leaves (\S+) times", steady)[1]) < 1
    for level in (np.full(50, 0.9), 0.9 - 0.03 * np.log2(strides)):
        by_stride = {stride: [] for stride in range(1, 11)}
        for stride, value in zip(strides, level + rng.normal(scale=0.002, size=50), strict=True):
            by_stride[int(stride)].append(value)
        assert knee.describe_knee(by_stride).startswith("The curve has no knee")


def test_a_study_of_strides_says_where_the_curve_flattens(small_study):
    grid = small_study.grid
    grid["studies"][0]["has_knee"] = True
    curve = {1: 0.9, 2: 0.9, 3: 0.9, 4: 0.86, 6: 0.82}
    grid["arms"] |= {f"stride {stride}": {"time_stride": stride} for stride in curve}
    grid["studies"][0] |= {"seeds": [0, 1], "arms": [f"stride {stride}" for stride in curve]}
    runs = [
        {"task": "sounds", "arm": f"stride {stride}", "seed": seed, "value": value + seed / 1000}
        for stride, value in curve.items()
        for seed in (0, 1)
    ]
    rows = [report.summarise(grid, grid["studies"][0], arm, runs, []) for arm in grid["studies"][0]["arms"]]
    text = report.render("small", grid, runs, [rows], {}, [])
    assert "The result is level up to stride " in text
    grid["studies"][0]["arms"].append("absent")
    grid["arms"]["absent"] = {"time_stride": 9}
    rows.append(report.summarise(grid, grid["studies"][0], "absent", runs, []))
    assert "The result is level" not in report.render("small", grid, runs, [rows], {}, [])


@pytest.mark.parametrize("name", NAMES)
def test_claims_name_arms_and_tasks_of_a_grid(name):
    grid = Study.load(name).grid
    for claim in grid["claims"]:
        arms = {arm for entry in grid["studies"] if entry["task"] == claim["task"] for arm in entry["arms"]}
        assert {claim["better"], claim["than"]} <= arms
