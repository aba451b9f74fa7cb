"""What a GPU does with this package: right first, then fast, then training, then the paper at its size.

    python -m benchmarks.gpu --data FOLDER         # all cases that have no result yet, in order of worth
    python -m benchmarks.gpu --only right fast     # some parts
    python -m benchmarks.gpu --retry               # those again that failed
    python -m benchmarks.gpu --report              # report what there is
    python -m benchmarks.gpu --device cpu --tiny --output FOLDER   # a rehearsal

A part runs in a process of its own and has a time limit. Results are kept case by case in `gpu.jsonl`, and a later run
goes on from there; a case that fails, or takes its process down, leaves that as its result. FOLDER holds the data set
esc50.
"""

import argparse
from pathlib import Path

import torch

from benchmarks.gpu.parts import LIMITS, PARTS, Records, run_limited, run_part
from benchmarks.gpu.report import render
from benchmarks.gpu.setting import Setting
from benchmarks.report import RESULTS, write_text


def main() -> None:
    """Measure what is missing, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS], help="parts")
    parser.add_argument("--part", choices=PARTS, help="run this one in this process, without a limit or report")
    parser.add_argument("--data", type=Path, help="folder that holds the data set esc50; without it no paper")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="as small as can be")
    parser.add_argument("--retry", action="store_true", help="also what failed")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    given = parser.parse_args()
    records = Records(given.output / "gpu.jsonl")
    setting = Setting(torch.device(given.device), given.tiny, given.data)
    if given.part:
        run_part(given.part, setting, records)
        return
    if not given.report:
        if setting.device.type == "cuda" and not torch.cuda.is_available():
            parser.error("torch finds no GPU here; --report reports what was measured elsewhere")
        words = ["--device", given.device, "--output", str(given.output)]
        words += ["--data", str(given.data)] if given.data else []
        words += ["--tiny"] if given.tiny else []
        if given.retry:
            records.forget_failed(given.only, setting.name)
        for part in given.only:
            run_limited(part, words, LIMITS[part], records)
    text = render(records.read())
    write_text(given.output / "gpu.md", text)
    print(text)


if __name__ == "__main__":
    main()
