"""What the benchmarks share: turns, memory, and a report that says what its results say."""

import time
from itertools import groupby

import numpy as np
import pytest
import torch

from benchmarks import attention, efficiency, efficiency_report, features, growth, inference, training, training_step
from benchmarks.efficiency_report import BASELINE, PEAK, Results
from benchmarks.report import write_json
from benchmarks.timing import peak_memory, summarise, time_in_turn

MODEL = "FFTP-AST, stride 5"


@pytest.fixture
def results():
    """A forward pass of 100 GFLOPs in 1 s beside a product of 200 in 1 s; 16 clips take 20 s."""

    def record(model, milliseconds, what="forward", batch=1, size="base", precision="float32"):
        group = {"what": what, "size": size, "seconds": 10.0, "batch": batch}
        return group | {"model": model, "precision": precision, "median_ms": milliseconds}

    counts = {"size": "base", "seconds": 10.0, "parameters": 87e6, "tokens": 199, "multiply_adds": 5e10, "flops": 1e11}
    return {
        "machine": {"processor": "X", "threads": 2, "torch": "2.13.0", "torchaudio": False},
        "peak_flops": 2e11,
        "counts": [counts | {"model": name} for name in (BASELINE, MODEL)],
        "records": [
            record(MODEL, 1000), record(PEAK, 1000), record(MODEL, 20000, batch=16), record(PEAK, 1000, batch=16),
            record(MODEL, 50, "pipeline"), record(BASELINE, 500, "pipeline"),
            record(MODEL, 20, "pipeline", precision="int8"), record(MODEL, 800, "training step", batch=4),
        ],
        "memory": [{"what": "forward", "model": MODEL, "size": "base", "batch": 16, "mib": 512.4}],
    }  # fmt: skip


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
    results = {"machine": machine, "counts": [{"model": name} for name in efficiency.CONTENDERS]}
    write_json(path, results)
    assert efficiency.resume(path) == results
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


def allocate(mebibytes):
    """A call that needs this much memory while it runs."""
    return lambda: np.ones(mebibytes << 17).sum()


def test_peak_memory_is_that_of_the_call():
    small, large = (peak_memory(allocate, mebibytes) for mebibytes in (50, 250))
    assert large - small == pytest.approx(200, abs=20)


def test_the_report_says_what_was_measured(results, tmp_path, monkeypatch):
    assert Results(results).share_of_peak(MODEL, size="base", seconds=10.0, batch=1, precision="float32") == 0.5
    assert Results(results).share_of_peak(MODEL, size="base", seconds=10.0, batch=16, precision="float32") == 0.4
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- benchmarks.efficiency -->\nold\n<!-- end -->\nafter\n", encoding="utf-8")
    monkeypatch.setattr(efficiency_report, "README", readme)
    monkeypatch.setattr(efficiency_report, "RESULTS", tmp_path)
    efficiency_report.write_report(results, tmp_path)
    report = (tmp_path / "efficiency.md").read_text(encoding="utf-8")
    line = next(line for line in report.splitlines() if line.startswith(f"| {MODEL} |"))
    assert "| 1000.0 ms | 20000.0 ms | not measured |" in line
    assert line.endswith("| 40% | not measured | 200.0 ms | not measured | 512 MiB | not measured |")
    assert (tmp_path / "efficiency.png").stat().st_size > 5000
    assert f"| {MODEL}, float32 | 1000.0 ms (50%) | 1250.0 ms (40%) |" in report
    assert f"| {MODEL}, float32 | 50.0 ms (10.0x) |" in report
    assert f"| {MODEL}, int8 | 20.0 ms (25.0x) |" in report
    assert f"| {MODEL}, bfloat16 | not measured |" in report
    assert f"{BASELINE}, int8" not in report
    text = readme.read_text(encoding="utf-8")
    assert "old" not in text
    assert f"| {MODEL} |{' not measured |' * 3} 50.0 ms (10.0x) | not measured | 20.0 ms (25.0x) |" in text
    assert text.startswith("before\n")
    assert text.endswith("<!-- end -->\nafter\n")
    with pytest.raises(ValueError, match="lacks the marks"):
        efficiency_report.replace_block("no marks", "table")


@pytest.mark.parametrize("name", [BASELINE, MODEL, "FFTP-AuM, stride 5"])
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
    watch = training_step.Stopwatch()
    training_step.run_step(watch, clips, model, collator, optimizer, has_bfloat16=False)
    assert all(len(taken) == 1 and taken[0] > 0 for taken in watch.milliseconds.values())
    parts = training.find_parts(watch.milliseconds)
    assert sum(parts[part] for part in training.DATA_PARTS[1:]) >= watch.milliseconds["collator"][0] - 1e-6
    twice = {part: [taken[0], 3 * taken[0]] for part, taken in watch.milliseconds.items()}
    assert training.find_parts(twice)["forward"] == pytest.approx(2 * parts["forward"])
    times = {"float32": dict.fromkeys(training.PARTS, 8.0), "bfloat16": dict.fromkeys(training.PARTS, 9.0)}
    results = {
        "machine": {"processor": "X", "threads": 2, "torch": "2.13.0"},
        "parts": {"this code": {"chosen": "float32", "times": times}},
        "checkpointing": [{"way": "gradient checkpointing", "milliseconds": 12.3, "mib": 45.6}],
        "workers": {"0": 100.4},
    }
    report = training.render({"X": results, "Y": results})
    assert report.count("\n## ") == 2
    assert "| this code, **float32** | 8.0 ms (12%) |" in report
    assert "| this code, bfloat16 | 9.0 ms (12%) |" in report
    assert "| 64 ms | 1000 | 25% |" in report
    assert "| gradient checkpointing | 12 ms | 46 MiB |" in report
    assert "| 0 |\n|---|\n| 100 |" in report


def test_batches_of_kept_and_computed_features_are_compared(monkeypatch):
    monkeypatch.setattr(features, "CLIP_SECONDS", (1,))
    monkeypatch.setattr(features, "BATCH", 2)
    records = features.measure(seconds=0.0)
    assert [(record["seconds"], record["rounds"]) for record in records] == [(1, 3), (1, 3)]
    report = features.render({"machine": {"threads": 2}, "records": records})
    assert f"| computed once | {records[1]['median_ms']:.0f} ms |" in report


def test_ways_to_compute_attention_are_compared(monkeypatch):
    monkeypatch.setattr(attention, "TOKENS", (20,))
    monkeypatch.setattr(attention, "TOTAL_TOKENS", 40)
    records = attention.measure(seconds=0.0)
    report = attention.render({"machine": efficiency.describe_machine(), "records": records})
    kernel, written = (record["median_ms"] for record in records if record["precision"] == "bfloat16")
    assert f"| {kernel:.1f} ms | {written:.1f} ms ({kernel / written:.1f}x) |" in report


def test_ways_to_run_a_model_are_compared(clip_folder, make_config, extractor, tmp_path, monkeypatch):
    monkeypatch.setattr(
        inference, "TORCH", {"float32": (torch.float32, False, ()), "merged": (torch.bfloat16, False, (1,))}
    )
    monkeypatch.setitem(efficiency.SIZES, "base", (48, 3))
    clips = inference.load_splits(str(clip_folder))["validation"]
    names = sorted(set(clips["label"]))
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    torch.manual_seed(0)
    config = make_config(num_labels=len(names), num_hidden_layers=4, **labels)
    inference.FFTPForAudioClassification(config).save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    for options in inference.ONNX.values():
        inference.export(tmp_path, **options)
    ways = inference.measure_accuracy(tmp_path, clips, [*inference.TORCH, *inference.ONNX])
    assert list(ways) == ["float32", "merged", "ONNX, float32", "ONNX, int8", "ONNX, int8, merged"]
    assert ways["float32"]["as_float32"] == 1.0
    assert all(0 <= result["accuracy"] <= 1 for result in ways.values())
    monkeypatch.setattr(inference, "MIXED_CLIPS", 4)
    monkeypatch.setattr(inference, "CLIP_SECONDS", (0.2, 0.6))
    assert len(inference.measure_batching(tmp_path, 0.0)) == 3
    times = inference.measure_times(tmp_path, 0.0, 0.5)
    results = {
        "machine": {"processor": "X", "threads": 2, "torch": "2.13.0"}, "model": "words", "clips": len(clips),
        "dataset": "clips", "base": {"1 s": times}, "accuracy": ways, "mib": dict.fromkeys(ways, 1.25),
        "batching": {"a": 4.0, "b": 2.0}, "kept_memory": {"default": 0.2, "kept": 0.1},
        "merging": {"model": "m", "accuracy": ways},
    }  # fmt: skip
    report = inference.render(results)
    time, accuracy = times["float32"], ways["float32"]["accuracy"]
    cells = f"{time:.1f} ms ({times[BASELINE] / time:.1f}x) | {accuracy:.2%} | 100.00% | 1.2 MiB"
    assert f"| float32 | {cells} |" in report
    assert "| b | 2.0 s | 2.00 |" in report
    assert "200 ms default, 100 ms kept (" in report


def test_models_that_merge_elsewhere_are_refused(make_config, tmp_path):
    make_config(num_hidden_layers=4, token_merge_layers=(2,)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has token_merge_layers=\(2,\); expected \(\)"):
        inference.measure(tmp_path, tmp_path, "clips", "validation", 0.0)


def test_kept_memory_is_measured_in_other_processes():
    times = inference.measure_kept_memory("tiny", rounds=1)
    assert len(times) == 2
    assert min(times.values()) > 0


def test_exponents_are_slopes_of_logarithms():
    sizes = [1, 10, 100, 1000, 10000]
    assert growth.exponents(sizes, [2, 20, 200, 20000, 2000000]) == pytest.approx((1.0, 2.0))
