"""A process of two that exchanges tensors and ends at once. Without `end_in_order` four of five runs are aborted."""

import torch
from torch import distributed

from modeling_fftp.training.processes import end_in_order

distributed.init_process_group("gloo")
end_in_order()
for _ in range(200):
    distributed.all_gather([torch.empty(1000) for _ in range(2)], torch.ones(1000))
