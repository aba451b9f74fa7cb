"""Looks at a data set as a training would, and trains nothing."""

from collections.abc import Sequence
from dataclasses import replace

from transformers import HfArgumentParser

from .arguments import DataArguments
from .clips import decode_dataset
from .data import build_decoder, find_roles
from .data_report import find_split_facts, render_report
from .splits import ROLES


def inspect(arguments: Sequence[str]) -> str:
    """A report on a data set, as Markdown; sound is decoded, but not kept.

    Args:
        arguments: Words of the command line: the data set, then options of `DataArguments`.

    Raises:
        ValueError: Data that cannot be trained on, whatever is left out of it.
    """
    parser = HfArgumentParser(
        DataArguments, allow_abbrev=False, prog="fftp inspect", usage="fftp inspect DATA [OPTION ...]"
    )
    (data,) = parser.parse_args_into_dataclasses(["--dataset_name", *arguments])
    splits = find_roles(data, ROLES)
    decoder = replace(build_decoder(data, next(iter(splits.values()))), keeps_sound=False)
    classes, facts = [*decoder.labels.values()], {}
    for role in ROLES:
        if role in splits:
            clips, left_out = decode_dataset(splits[role], decoder, num_proc=data.num_proc)
            facts[role] = find_split_facts(clips, classes, left_out)
    return render_report(facts, data.dataset_name)
