"""A process of two that exchanges tensors, forks, and ends at once.

Without `let_exchanges_end` four of five runs are aborted, and the fork does not wait.
"""

import os
import sys
import threading
import time

import torch
from torch import distributed

from modeling_fftp.training.processes import let_exchanges_end

distributed.init_process_group("gloo")
let_exchanges_end()
let_exchanges_end()

# A thread that waits for the interpreter's lock runs before a fork, though nothing else makes Python release it.
ran = []


def wait_for_lock():
    while True:
        time.sleep(1e-4)
        ran.append(True)


threading.Thread(target=wait_for_lock, daemon=True).start()
sys.setswitchinterval(1000)
ran.clear()
child = os.fork()
if child == 0:
    os._exit(0)
assert ran
os.waitpid(child, 0)

for _ in range(200):
    distributed.all_gather([torch.empty(1000) for _ in range(2)], torch.ones(1000))
