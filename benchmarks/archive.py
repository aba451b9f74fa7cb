"""Archives by the command `fftp tag`: time, memory, and whether a run that was killed ends with the same table.

    make demo
    python -m benchmarks.archive demo_output/model

One archive is many short files, the demo's sounds in WAV; the other is one long recording in FLAC, as
`benchmarks.long_recording` writes it.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soundfile

from benchmarks.long_recording import write_recording
from benchmarks.report import describe_machine, name_machine, render_table, run_benchmark
from benchmarks.timing import time_call
from demo.sounds import KINDS, write_sounds
from modeling_fftp.serving.journal import Journal
from modeling_fftp.serving.parts import Part

ROUNDS = 3


def tag_command(model: str, archive: Path, table: Path) -> list[str]:
    """What a user would type."""
    return [
        sys.executable, "-m", "modeling_fftp", "tag", str(archive), "--model", model, "--output", str(table),
        "--rows", "windows",
    ]  # fmt: skip


def tag(model: str, archive: Path, table: Path, *options: str) -> None:
    """Run the command to its end."""
    subprocess.run([*tag_command(model, archive, table), *options], check=True, stderr=subprocess.DEVNULL)


def kill_half_way(model: str, archive: Path, table: Path, files: int) -> int:
    """Kill the command once half of the files are done; return how many were."""
    journal = Journal.of(table, Part()).path
    process = subprocess.Popen(tag_command(model, archive, table), stderr=subprocess.DEVNULL)
    while not journal.exists() or count_finished(journal) < files // 2:
        if process.poll() is not None:
            raise RuntimeError("the command ended before it could be killed")
        time.sleep(0.01)
    process.kill()
    process.wait()
    return count_finished(journal)


def count_finished(journal: Path) -> int:
    """Recordings in a journal, whose first line holds the settings."""
    return journal.read_bytes().count(b"\n") - 1


def measure(model: str, count: int, minutes: float, seed: int) -> dict:
    """Tag both archives; kill the run over short files and go on with it."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        clips, long = scratch / "clips", scratch / "long"
        long.mkdir()
        write_sounds(clips, {"all": count // len(KINDS)}, seed)
        paths = [*clips.rglob("*.wav")]
        hours = {"short": sum(soundfile.info(path).duration for path in paths) / 3600}
        hours["long"] = write_recording(long / "recording.flac", minutes, seed)[-1][1] / 3600
        times = {"short": [], "long": []}
        for number in range(ROUNDS):
            for name, archive in (("short", clips), ("long", long)):
                table = scratch / f"{name}{number}.csv"
                times[name].append(time_call(lambda archive=archive, table=table: tag(model, archive, table)))
        broken = scratch / "broken.csv"
        finished = kill_half_way(model, clips, broken, len(paths))
        tag(model, clips, broken, "--resume")
        is_same = broken.read_bytes() == (scratch / "short0.csv").read_bytes()
    return {
        "model": model,
        "machine": describe_machine(),
        "files": len(paths),
        "hours": hours,
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "rounds": ROUNDS,
        # Of the largest of the processes.
        "peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        "finished_when_killed": finished,
        "same_table": is_same,
    }


def render(results: dict) -> str:
    """Markdown."""
    names = {"short": f"{results['files']} short files, WAV", "long": "1 long recording, stereo FLAC"}
    rows = [
        [
            names[name],
            f"{results['hours'][name]:.2f}",
            f"{seconds:.1f} s",
            f"{results['hours'][name] / seconds * 60:.1f}",
        ]
        for name, seconds in results["seconds"].items()
    ]
    same = "the same as" if results["same_table"] else "NOT the same as"
    return f"""# Archives by `fftp tag`

`python -m benchmarks.archive {results["model"]}` on {name_machine(results["machine"])}: the
demo's model, scores of all windows to a CSV file, median of {results["rounds"]} runs of the command with its start.

{render_table(["archive", "hours", "time", "hours per minute"], rows)}
The largest process needed {results["peak_mib"]:.0f} MiB at its peak. A run over the short files that was killed after
{results["finished_when_killed"]} of them, and resumed, wrote a table that is {same} that of a run in one go.
"""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="demo_output/model", help="trained on the demo's sounds")
    parser.add_argument("--files", type=int, default=2000, help="short ones")
    parser.add_argument("--minutes", type=float, default=60, help="of the long one")
    parser.add_argument("--seed", type=int, default=0)
    run_benchmark(
        "archive", parser, lambda given: measure(given.model, given.files, given.minutes, given.seed), render
    )


if __name__ == "__main__":
    main()
