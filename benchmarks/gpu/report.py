"""The report on GPUs, made of their results alone."""

import statistics
from collections import defaultdict

from benchmarks.report import render_table, show

NOTES = (
    "FLOPs of attention and linear layers count, a Mamba's scans do not. Matrix products in float32 do without TF32."
)

HEAD = """# On a GPU

`python -m benchmarks.gpu --data FOLDER` runs what has no result yet, `--report` makes this page of `gpu.jsonl`. Times
are medians, each taken until the device had finished. Forward passes and training steps are of base models on clips of
10 s.
"""
EMPTY = "Nothing was measured yet.\n"


def render(records: list[dict]) -> str:
    """Markdown: a chapter for each device and version of torch."""
    by_device = defaultdict(list)
    for record in records:
        by_device[record["device"], record["torch"]].append(record)
    chapters = [
        f"## {device}, torch {version}\n\n{render_device(found)}" for (device, version), found in by_device.items()
    ]
    return "\n".join([HEAD, *(chapters or [EMPTY])])


def render_device(records: list[dict]) -> str:
    """What was found on one."""
    by_kind = defaultdict(list)
    for record in records:
        kind = "failed" if "failed" in record else "check" if record["part"] == "right" else record["kind"]
        by_kind[kind].append(record)
    sections = {
        "check": render_checks, "forward": lambda found: render_forwards(found, by_kind["peak"]),
        "scan": render_scans, "features": render_features, "training": render_training, "paper": render_paper,
        "failed": render_failures,
    }  # fmt: skip
    return "\n".join(function(by_kind[kind]) for kind, function in sections.items() if by_kind[kind])


def render_checks(records: list[dict]) -> str:
    """Against the CPU, or the naive implementation."""
    rows = []
    for record in records:
        if "left_out" in record:
            rows.append([record["case"], "", "", f"left out: {record['left_out']}"])
            continue
        cells = [f"{record['error']:.1e} ({record['of']})", f"{record['allowed']:.0e}"]
        rows.append([record["case"], *cells, "yes" if record["holds"] else "**no**"])
    return "### Right\n\n" + render_table(["what", "relative error", "allowed", "holds"], rows)


def render_forwards(records: list[dict], peaks: list[dict]) -> str:
    """Forward passes, with their share of the largest matrix product."""
    peak = {record["precision"]: record["tflops"] for record in peaks}
    tables = []
    for batch in sorted({record["batch"] for record in records}):
        rows = []
        for record in records:
            if record["batch"] == batch:
                share = record["tflops"] / peak[record["precision"]] if record["precision"] in peak else None
                rows.append([
                    record["model"], record["precision"], record["mode"], f"{record['milliseconds']:.2f} ms",
                    f"{record['clips_per_second']:.0f}", show(share, ".0%"), show(record["gib"], ".1f", " GiB"),
                ])  # fmt: skip
        header = ["model", "precision", "mode", "time", "clips per second", "share of the peak", "memory"]
        tables.append(f"### Forward, batch {batch}\n\n{render_table(header, rows)}")
    shown = ", ".join(f"{value:.0f} TFLOP/s in {name}" for name, value in peak.items())
    note = f"The peak is that of a large matrix product: {shown or 'not measured'}. {NOTES}\n"
    return "\n".join([*tables, note])


def render_scans(records: list[dict]) -> str:
    """The scan of a base block."""
    names = [*dict.fromkeys(name for record in records for name in record["milliseconds"])]
    rows = [
        [str(record["tokens"]), *(show(record["milliseconds"].get(name), ".3f", " ms") for name in names)]
        for record in records
    ]
    return f"### Selective scan, batch 64, bfloat16\n\n{render_table(['tokens', *names], rows)}"


def render_features(records: list[dict]) -> str:
    """The feature extractor."""
    rows = [
        [record["where"] + (f", {record['threads']} threads" if record["threads"] else ""),
         f"{record['clips_per_second']:.0f}"]
        for record in records
    ]  # fmt: skip
    return f"### Feature extractor\n\n{render_table(['on', 'clips per second'], rows)}"


def render_training(records: list[dict]) -> str:
    """Training steps."""
    names = [*records[0]["parts"]]
    rows = [
        [record["model"], *(f"{record['parts'][name]:.1f}" for name in names), f"{record['clips_per_second']:.0f}",
         show(record["gib"], ".1f", " GiB")]
        for record in records
    ]  # fmt: skip
    header = ["model", *names, "clips per second", "memory"]
    return f"### Training step, batch {records[0]['batch']}, bfloat16; parts in ms\n\n{render_table(header, rows)}"


def render_paper(records: list[dict]) -> str:
    """Trainings at the paper's size."""
    by_arm = defaultdict(list)
    for record in records:
        by_arm[record["arm"]].append(record)
    rows = []
    for arm, found in by_arm.items():
        values = [100 * record["accuracy"] for record in found]
        spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        seconds = statistics.median(record["train_seconds"] for record in found)
        rows.append([arm, str(len(values)), f"{statistics.mean(values):.2f} %{spread}", f"{seconds:.0f} s"])
    return "### From scratch on ESC-50, fold 4\n\n" + render_table(["arm", "seeds", "accuracy", "training"], rows)


def render_failures(records: list[dict]) -> str:
    """What gave no result."""
    rows = [
        [record["part"], record["case"], record["failed"].replace("|", r"\|").replace("\n", " ")] for record in records
    ]
    return "### Failed\n\n" + render_table(["part", "what", "why"], rows)
