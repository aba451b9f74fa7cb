"""Run the blocks of pages in order, as a reader does; `test_docs.py` starts this in a process of its own.

Reads {page: [[language, text], ...]} as JSON from the standard input. Writes to the named file, by page, what each
block prints, or the error that the page ends with.
"""

import contextlib
import io
import json
import subprocess
import sys
import traceback
from pathlib import Path


def run_blocks(blocks: list[list[str]]) -> list[str]:
    """What each block prints; the Python blocks of a page share their names."""
    names, outputs = {"__name__": "__main__"}, []
    for language, text in blocks:
        printed = io.StringIO()
        if language == "python":
            with contextlib.redirect_stdout(printed):
                exec(compile(text, "<block>", "exec"), names)
        else:
            done = subprocess.run(["bash", "-euc", text], stdout=subprocess.PIPE, text=True, check=True)
            printed.write(done.stdout)
        outputs.append(printed.getvalue())
    return outputs


def run_page(blocks: list[list[str]]) -> list[str] | str:
    """Outputs, or an error."""
    try:
        return run_blocks(blocks)
    except Exception:
        return traceback.format_exc()


if __name__ == "__main__":
    results = {page: run_page(blocks) for page, blocks in json.load(sys.stdin).items()}
    Path(sys.argv[1]).write_text(json.dumps(results), encoding="utf-8")
