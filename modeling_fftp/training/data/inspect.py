"""Looks at a data set as a training would, and trains nothing."""

from collections.abc import Sequence
from dataclasses import replace

from transformers import HfArgumentParser

from .arguments import DataArguments
from .clips import decode_dataset
from .decoders import build_decoder, decoders_of, find_roles
from .report import find_split_facts, render_report
from .sources import load_splits
from .splits import ROLES
from .streaming import find_sampled_facts, open_splits, read_clips


def inspect(arguments: Sequence[str]) -> str:
    """A report on a data set, as Markdown; sound is decoded, with `--streaming true` that of some clips, but not kept.

    Args:
        arguments: Words of the command line: the data set, then options of `DataArguments`.

    Raises:
        ValueError: Data that cannot be trained on, whatever is left out of it.
    """
    parser = HfArgumentParser(
        DataArguments, allow_abbrev=False, prog="fftp inspect", usage="fftp inspect DATA [OPTION ...]"
    )
    (data,) = parser.parse_args_into_dataclasses(["--dataset_name", *arguments])
    splits = find_roles(data, ROLES, open_splits if data.streaming else load_splits)
    decoder = replace(build_decoder(data, next(iter(splits.values()))), keeps_sound=False)
    classes, facts = [*decoder.labels.values()], {}
    for role, own_decoder in decoders_of(splits, decoder).items():
        if data.streaming:
            labelled, unlabelled = read_clips(splits[role], own_decoder, data.max_left_out)
            clips, unusable = labelled.look()
            facts[role] = find_sampled_facts(clips, classes, unlabelled + unusable)
        else:
            clips, left_out = decode_dataset(splits[role], own_decoder, num_proc=data.num_proc)
            facts[role] = find_split_facts(clips, classes, left_out)
    return render_report(facts, data.dataset_name)
