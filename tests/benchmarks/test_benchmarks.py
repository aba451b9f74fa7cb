"""Benchmarks: turns, memory, what is compared, and reports that say what was measured."""

import argparse
import re
import sys
import time
from itertools import groupby

import pytest
import torch

from benchmarks import (
    archive,
    attention,
    calibration,
    compare,
    data_memory,
    efficiency,
    efficiency_report,
    features,
    growth,
    inference,
    live,
    live_words,
    long_recording,
    report,
    scan,
    training,
    training_step,
)
from benchmarks.efficiency_report import BASELINE, PEAK, Results
from benchmarks.report import RESULTS, read_results, write_json
from benchmarks.study.study import GRIDS
from benchmarks.timing import Stopwatch, peak_memory, summarise, time_in_turn
from tests.benchmarks.memory_use import allocate
from tests.support import needs_compiler

MODEL = "FFTP-AST, stride 5"
BENCHMARKS = {
    "archive": archive.render, "attention": attention.render, "calibration": calibration.render,
    "data_memory": data_memory.render,
    "efficiency": efficiency_report.render,
    "features": features.render,
    "growth": growth.render, "inference": inference.render, "live": live.render,
    "live_words": live_words.render,
    "long_recording": long_recording.render, "scan": scan.render, "training": training.render,
}  # fmt: skip


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_report_says_what_the_kept_results_say(name):
    assert (RESULTS / f"{name}.md").read_text(encoding="utf-8") == BENCHMARKS[name](read_results(name))


def test_the_readme_has_the_kept_results():
    readme = efficiency_report.README.read_text(encoding="utf-8")
    table = efficiency_report.render_summary(Results(read_results("efficiency")))
    assert efficiency_report.replace_block(readme, table) == readme
    with pytest.raises(ValueError, match="lacks the marks"):
        efficiency_report.replace_block("no marks", "table")


def test_a_report_is_written_anew_without_measuring(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    measured = []

    def measure(given):
        measured.append(given.size)
        return {"milliseconds": 1.5}

    for words, unit in (["--size", "small"], "ms"), (["--report"], "milliseconds"):
        parser = argparse.ArgumentParser()
        parser.add_argument("--size")
        monkeypatch.setattr(sys, "argv", ["x", *words])
        report.run_benchmark("x", parser, measure, lambda results, unit=unit: f"{results['milliseconds']} {unit}\n")
        assert (tmp_path / "results" / "x.md").read_text(encoding="utf-8") == f"1.5 {unit}\n"
    assert measured == ["small"]


def read_times(text):
    """Times in a text, in tenths of a millisecond, with the ratio behind them if they have one."""
    found = re.findall(r"(\d+\.\d+) ms( \(\d+\.\dx\))?", text)
    return {f"{float(number):.1f} ms{ratio}" for number, ratio in found}


def test_times_on_the_page_of_speed_are_kept_results():
    """Those of each section stand in the reports that it links."""
    page = (RESULTS.parent.parent / "docs" / "speed.md").read_text(encoding="utf-8")
    assert len(read_times(page)) > 15
    for section in page.split("\n## "):
        linked = [RESULTS / name for name in re.findall(r"results/(\w+\.md)", section)]
        kept = set().union(*(read_times(path.read_text(encoding="utf-8")) for path in linked))
        kept |= {time.split(" (")[0] for time in kept}
        assert {time for time in read_times(section) if time not in kept} == set()


def test_every_benchmark_keeps_one_file_of_results_and_one_report():
    files = {path.name for path in RESULTS.iterdir() if path.suffix != ".png"}
    grids = [path.stem for path in GRIDS.glob("*.json")]
    lines = [*grids, "gpu"]
    results = {f"{name}.json" for name in BENCHMARKS} | {f"{name}.jsonl" for name in lines}
    assert files == results | {f"{name}.md" for name in [*BENCHMARKS, *lines]}


def test_the_share_of_the_peak_is_a_ratio_of_rates():
    """A forward pass of 100 GFLOPs in 1 s beside a product of 200 in 1 s; 16 clips take 20 s."""
    group = {"what": "forward", "size": "base", "seconds": 10.0, "precision": "float32"}
    times = {(MODEL, 1): 1000, (PEAK, 1): 1000, (MODEL, 16): 20000, (PEAK, 16): 1000}
    records = [group | {"model": model, "batch": batch, "median_ms": ms} for (model, batch), ms in times.items()]
    records.append(group | {"what": "training step", "model": MODEL, "batch": 4, "median_ms": 800})
    counts = [{"model": MODEL, "size": "base", "seconds": 10.0, "flops": 1e11}]
    results = Results({"peak_flops": 2e11, "records": records, "counts": counts})
    group = {"size": "base", "seconds": 10.0, "precision": "float32"}
    assert results.share_of_peak(MODEL, batch=1, **group) == 0.5
    assert results.share_of_peak(MODEL, batch=16, **group) == 0.4
    assert results.share_of_peak(MODEL, batch=1, **(group | {"precision": "bfloat16"})) is None
    assert results.step_per_clip(model=MODEL, size="base") == 200


def test_calls_run_in_turn_and_equally_often():
    order = []

    def wait(name):
        order.append(name)
        time.sleep(0.01)

    times = time_in_turn({"a": lambda: wait("a"), "b": lambda: wait("b")}, seconds=0.0)
    assert [name for name, _ in groupby(order)] == ["a", "b"] * 5
    # Some calls of each turn only warm up.
    assert order.count("a") > 10
    assert min(times["a"] + times["b"]) >= 0.01
    assert [len(taken) for taken in times.values()] == [3, 3]
    assert summarise([1.0, 2.0, 3.0, 4.0, 5.0]) == {"median_ms": 3000, "low_ms": 2000, "high_ms": 4000, "rounds": 5}


def test_counts_tell_what_transformers_computes_from_what_we_do():
    ours, theirs = (efficiency.count(name, "tiny", 10.24) for name in ("AST, square 16/10", BASELINE))
    assert theirs["flops"] > ours["flops"] > 2 * ours["multiply_adds"]
    assert theirs["tokens"] == 1212
    assert ours["parameters"] == pytest.approx(theirs["parameters"], rel=0.01)


def test_a_stopped_run_goes_on_with_what_is_missing(tmp_path):
    arguments = (["tiny"], [10.0], 0.0, tmp_path / "efficiency.json")
    groups = [group for group, _ in efficiency.list_groups(*arguments[:2])]
    memory = [
        {"what": what, "model": name, "size": "tiny", "batch": 16}
        for what in ("forward", "training step")
        for name in efficiency.CONTENDERS
    ]
    results = {"records": [dict(group) for group in groups], "memory": memory}
    efficiency.measure(results, *arguments)
    assert not list(tmp_path.iterdir())
    del results["records"][0]
    efficiency.measure(results, *arguments)
    assert [record["model"] for record in results["records"][-2:]] == [BASELINE, "FFTP"]
    assert [path.name for path in tmp_path.iterdir()] == ["efficiency.json"]


def test_a_run_goes_on_only_where_it_began(tmp_path):
    path, machine = tmp_path / "efficiency.json", efficiency.describe_machine()
    results = {"machine": machine, "counts": [{"model": name} for name in efficiency.CONTENDERS], "records": []}
    write_json(path, results)
    assert efficiency.resume(path) == results
    peak = {"model": PEAK, "precision": "float32", "median_ms": 1e9}
    write_json(path, results | {"records": [peak]})
    with pytest.raises(ValueError, match=r"took 1e\+09 ms, and takes .* ms now; measure anew"):
        efficiency.resume(path)
    write_json(path, results | {"machine": machine | {"processor": "another"}})
    with pytest.raises(ValueError, match=r"measured on .*another"):
        efficiency.resume(path)
    write_json(path, results | {"counts": results["counts"][1:]})
    with pytest.raises(ValueError, match=r"has the models .*; expected .*transformers AST"):
        efficiency.resume(path)


@pytest.mark.parametrize(
    ("capabilities", "units"),
    [(["avx512_f", "avx512_vnni", "amx_tile"], " (AVX-512, VNNI, AMX)"), (["avx512_f"], " (AVX-512)"), ([], "")],
)
def test_processors_of_one_name_are_told_apart(capabilities, units, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    name = efficiency.describe_machine()["processor"]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(capabilities, True))
    assert efficiency.describe_machine()["processor"] == name + units


def test_peak_memory_is_that_of_the_call():
    small, large = (peak_memory(allocate, mebibytes) for mebibytes in (50, 250))
    assert large - small == pytest.approx(200, abs=20)


@pytest.mark.parametrize("name", [BASELINE, MODEL, "FFTP-ConvNeXt, stride 5", "FFTP-AuM, stride 5"])
def test_contenders_run(name, monkeypatch):
    monkeypatch.setitem(efficiency.SIZES, "tiny", (48, 3))
    for precision, dtype in efficiency.PRECISIONS.items():
        call = efficiency.classify(name, "tiny", 0.5, precision)
        assert call.func.model.dtype == dtype
        assert len(call()) == efficiency.LABELS
        assert efficiency.forward(name, "tiny", 0.5, 2, precision)().dtype == dtype
    if name in efficiency.EXPORTED:
        threads = torch.get_num_threads()
        assert len(efficiency.classify_int8(name, "tiny", 0.5)()) == efficiency.LABELS
        assert torch.get_num_threads() == threads
    assert efficiency.extract(name, 0.5, 2)()["input_values"].shape[0] == 2


def test_a_training_step_changes_the_weights(monkeypatch):
    models, build = [], efficiency.build_model
    monkeypatch.setattr(efficiency, "build_model", lambda *given: models.append(build(*given)) or models[-1])
    steps = efficiency.training_steps(MODEL, "tiny", 0.2, 2)
    before = torch.cat([parameter.detach().flatten() for parameter in models[0].parameters()])
    for step in steps.values():
        step()
        after = torch.cat([parameter.detach().flatten() for parameter in models[0].parameters()])
        assert not torch.equal(before, after)
        before = after


def test_the_parts_of_a_step_add_up_to_it(tmp_path):
    clips = training_step.make_clips(str(tmp_path / "clips"))
    model, collator, _ = training_step.build(str(tmp_path))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    watch = Stopwatch()
    training_step.run_step(watch, clips, model, collator, optimizer, has_bfloat16=False)
    assert all(len(taken) == 1 and taken[0] > 0 for taken in watch.milliseconds.values())
    parts = training.find_parts(watch.milliseconds)
    assert sum(parts[part] for part in training.DATA_PARTS[1:]) >= watch.milliseconds["collator"][0] - 1e-6
    twice = {part: [taken[0], 3 * taken[0]] for part, taken in watch.milliseconds.items()}
    assert training.find_parts(twice)["forward"] == pytest.approx(2 * parts["forward"])


def test_batches_of_kept_and_computed_features_are_compared(monkeypatch):
    monkeypatch.setattr(features, "CLIP_SECONDS", (1,))
    monkeypatch.setattr(features, "BATCH", 2)
    records = features.measure(seconds=0.0)
    assert [(record["seconds"], record["rounds"]) for record in records] == [(1, 3), (1, 3)]


def test_ways_to_compute_attention_are_compared(monkeypatch):
    monkeypatch.setattr(attention, "TOKENS", (20,))
    monkeypatch.setattr(attention, "TOTAL_TOKENS", 40)
    records = attention.measure(seconds=0.0)
    assert [record["way"] for record in records] == [*attention.WAYS]
    # One rounds as the other does.
    assert all(0 < record["error"] < 0.02 for record in records)


@needs_compiler
def test_scans_are_compared(monkeypatch):
    for name in ("BATCH", "DIM", "LENGTH", "STATE"):
        monkeypatch.setattr(scan, name, 3)
    scans = {name: call for name, call in scan.build_scans(None).items() if name != "mambapy, parallel scan"}
    records = scan.measure_scans(scans, seconds=0.0)
    assert [record["scan"] for record in records] == [*scans] * 2
    scans["wrong"] = lambda **inputs: scans[scan.OURS](**inputs) + 1
    with pytest.raises(AssertionError, match="not close"):
        scan.measure_scans(scans, seconds=0.0)


def test_ways_to_run_a_model_are_compared(clip_folder, make_config, extractor, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "TORCH", {"float32": (torch.float32, False, ())})
    clips = inference.load_splits(str(clip_folder))["validation"]
    names = sorted(set(clips["label"]))
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    torch.manual_seed(0)
    inference.FFTPForAudioClassification(make_config(num_labels=len(names), **labels)).save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    inference.export(tmp_path, **inference.ONNX[inference.INT8])
    ways = inference.measure_accuracy(tmp_path, clips, ["float32", inference.INT8])
    assert ways["float32"]["as_float32"] == 1.0
    assert all(0 <= result["accuracy"] <= 1 for result in ways.values())
    monkeypatch.setattr(inference, "MIXED_CLIPS", 4)
    monkeypatch.setattr(inference, "CLIP_SECONDS", (0.2, 0.6))
    assert len(inference.measure_batching(tmp_path, 0.0)) == 3


def test_models_that_merge_elsewhere_are_refused(make_config, tmp_path):
    make_config(num_hidden_layers=4, token_merge_layers=(2,)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has token_merge_layers=\(2,\); expected \(\)"):
        inference.measure(tmp_path, tmp_path, "clips", "validation", 0.0)


def test_exponents_are_slopes_of_logarithms():
    sizes = [1, 10, 100, 1000, 10000]
    assert growth.exponents(sizes, [2, 20, 200, 20000, 2000000]) == pytest.approx((1.0, 2.0))


def test_saved_models_are_compared_by_their_own_code(make_config, extractor, tmp_path):
    for name in ("before", "after"):
        inference.FFTPForAudioClassification(make_config()).save_pretrained(tmp_path / name)
        extractor.save_pretrained(tmp_path / name)
    folders = [str(tmp_path / name) for name in ("before", "after")]
    medians = compare.measure(folders, clip_seconds=0.5, batch_size=1, dtype="float32", rounds=2)
    assert f"| {folders[0]} | {medians[0]:.2f} ms | 1.000 |" in compare.render(folders, medians)
    with (tmp_path / "after" / "modeling_fftp.py").open("a", encoding="utf-8") as code:
        code.write("\nraise RuntimeError('the code of this folder')\n")
    with pytest.raises(RuntimeError, match="the code of this folder"):
        compare.measure(folders, clip_seconds=0.5, batch_size=1, dtype="float32", rounds=2)
