"""What is printed of a label is one line that no terminal obeys."""

import numpy as np
import pytest

from modeling_fftp.events_fftp import EventChange
from modeling_fftp.serving import explain, listen, tag

LABEL = "\x1b[31mred\x1b[0m\n\tand\r more"


@pytest.mark.parametrize("what", ["tag", "listen", "explain"])
def test_labels_are_printed_in_one_line(what):
    entry = {"start": 0.0, "end": 1.0, "label": LABEL, "score": 0.5}
    empty = np.zeros((1, 1))
    lines = {
        "tag": lambda: tag.render_table({"file": "a.wav", "duration": 1.0, "labels": [entry], "timeline": []}),
        "listen": lambda: listen.render_change(EventChange("begin", LABEL, 1.0, 0.5)),
        "explain": lambda: explain.describe(
            explain.Explanation(LABEL, "gradient", 0.5, 0.1, 0.0, empty, empty, empty[0], [])
        ),
    }[what]()
    assert r"\x1b[31mred\x1b[0m and more" in lines
    assert "\x1b" not in lines
    assert lines.count("\n") == (2 if what == "tag" else 0)
