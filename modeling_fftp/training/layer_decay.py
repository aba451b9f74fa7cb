"""Learning rates that fall from the head down to the embeddings, as fine-tuning of pretrained transformers needs."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def find_depth(name: str, num_layers: int) -> int:
    """Count the blocks above a parameter, and the head: 0 for the last norm, and for a head or a decoder."""
    if name.startswith("decoder."):
        return 0
    if match := LAYER.search(name):
        return num_layers - int(match[1])
    return num_layers + 1 if "embeddings." in name else 0


def split_by_depth(
    groups: Sequence[dict[str, Any]], names: Mapping[int, str], num_layers: int, decay: float
) -> list[dict[str, Any]]:
    """Groups of an optimizer, each split by depth, with its learning rate times `decay` to the power of the depth.

    Source: Clark et al. 2020 (ELECTRA), appendix; Bao et al. 2022 (BEiT).

    Args:
        groups: Parameters and their options. Those of the head come first in the result, since Trainer logs the rate
            of the first.
        names: Names of the parameters, by identity.
        num_layers: Blocks of the model.
        decay: Ratio of the learning rates of two blocks that follow each other.
    """
    split = {}
    for index, group in enumerate(groups):
        for parameter in group["params"]:
            split.setdefault((find_depth(names[id(parameter)], num_layers), index), []).append(parameter)
    return [
        {**groups[index], "params": parameters, "lr": groups[index]["lr"] * decay**depth}
        for (depth, index), parameters in sorted(split.items(), key=lambda item: item[0])
    ]
