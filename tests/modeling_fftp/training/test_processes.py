"""Several processes share out the clips of every epoch, and draw masks of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

SCRIPT = Path(__file__).with_name("two_trainings.py")
EXCHANGES = Path(__file__).with_name("many_exchanges.py")
NUM_CLIPS, EPOCHS = 16, 2


@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_see_every_clip_once_an_epoch(tmp_path, workers):
    """Also in a second training: whatever one process draws more than the other must not deal out other clips."""
    launch(SCRIPT, tmp_path, workers)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    share = NUM_CLIPS // 2
    for training in range(2):
        for epoch in range(EPOCHS):
            rows = slice(epoch * share, (epoch + 1) * share)
            seen = [process[training]["seen"][rows] for process in (first, second)]
            assert sorted(seen[0] + seen[1]) == [*range(NUM_CLIPS)]
        masks = [tuple(mask) for process in (first, second) for mask in process[training]["masked"]]
        # Bands of 60 heights at random places: a few of 64 may be alike.
        assert len(set(masks)) > 0.8 * len(masks)
    # One seed decides them all.
    for process in (first, second):
        assert process[0] == process[1]
    # Both train one model, also where a batch is heard twice, at two strides.
    for mine, theirs in zip(first, second, strict=True):
        assert mine["weights"] == theirs["weights"]
    assert first[0]["weights"] != first[2]["weights"]
    assert [clip["seen"] for clip in first] != [clip["seen"] for clip in second]


def test_a_process_that_ends_right_after_an_exchange_is_not_aborted():
    for _ in range(3):
        launch(EXCHANGES)


def launch(script: Path, *words: object) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *map(str, words)], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
