"""Looks at a data set as a training would, and trains nothing."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from .command_line import parse_with_data
from .data.arguments import DataArguments
from .data.decoding import decode_dataset
from .data.held_out import hold_out_group
from .data.parquet_splits import open_splits
from .data.plan import build_decoder, decoders_of, find_roles
from .data.report import find_split_facts, render_report
from .data.sources import load_splits
from .data.splits import ROLES
from .data.streaming import find_sampled_facts, read_clips


def inspect(arguments: Sequence[str]) -> str:
    """A report on a data set, as Markdown; sound is decoded, with `--streaming true` that of some clips, but not kept.

    Args:
        arguments: Words of the command line: the data set, then options of `DataArguments`.

    Raises:
        SystemExit: Arguments that are unknown or missing.
        ValueError: Data that cannot be trained on, whatever is left out of it.
    """
    (data,) = parse_with_data([DataArguments], arguments, "inspect", "fftp inspect DATA [OPTION ...]")
    # Says which columns are read, and what is passed over.
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    splits, _ = find_roles(data, ROLES, open_splits if data.streaming else load_splits)
    decoder = replace(build_decoder(data, next(iter(splits.values()))), keeps_sound=False)
    classes, clips, left_out = [*decoder.labels.values()], {}, {}
    for role, own_decoder in decoders_of(splits, decoder).items():
        if data.streaming:
            clips[role], left_out[role] = read_clips(splits[role], own_decoder, data.max_left_out)
        else:
            group = [data.validation_column] if data.validation_column and role == "train" else []
            clips[role], left_out[role] = decode_dataset(
                splits[role], own_decoder, keep_columns=group, num_proc=data.num_proc
            )
    if data.validation_column:
        train, validation = hold_out_group(clips["train"], data.validation_column, data.validation_value)
        clips |= {"train": train, "validation": validation}
    facts = {}
    for role in (role for role in ROLES if role in clips):
        if data.streaming:
            looked, unusable = clips[role].look()
            facts[role] = find_sampled_facts(looked, classes, left_out.get(role, []) + unusable)
        else:
            facts[role] = find_split_facts(clips[role], classes, left_out.get(role, []))
    return render_report(facts, data.dataset_name, decoder.sampling_rate)
