"""Run the blocks of a page in order, as a reader does; `test_docs.py` starts this in a process of its own.

Reads [[language, text], ...] as JSON from the standard input, and writes the outputs as JSON to the named file.
"""

import contextlib
import io
import json
import subprocess
import sys
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


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(run_blocks(json.load(sys.stdin))), encoding="utf-8")
