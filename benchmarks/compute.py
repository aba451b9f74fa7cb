"""The paper's measure of compute."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from modeling_fftp import FFTPConfig, FFTPForAudioClassification


def multiply_adds(config: FFTPConfig, frames: int) -> int:
    """Multiply-adds of the linear layers for one clip of so many frames, as the paper counts; attention is left out.

    The patch embedding is a linear layer over patches. The selective scan, which is none, is left out as well.
    """
    with torch.device("meta"):
        model = FFTPForAudioClassification(config).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, frames, config.num_mel_bins))
    flops = {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}
    return sum(flops.get(name, 0) for name in ("aten.addmm", "aten.mm")) // 2
