"""What a card says about the data of a run."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from datasets import Dataset
from huggingface_hub import DatasetCard
from huggingface_hub.errors import HfHubHTTPError

from .arguments import DataArguments
from .loading import Clips
from .sources import is_local, public_name
from .strong_labels import EVENTS

logger = logging.getLogger(__name__)


def find_hours(lengths: Sequence[int], count: int, sampling_rate: int) -> float | None:
    """Length of all clips; None where only some lengths are known."""
    return sum(lengths) / sampling_rate / 3600 if len(lengths) == count else None


def find_digest(split: Any, lengths: Sequence[int]) -> str | None:
    """What tells the lengths and labels of clips from others; None where not all of them are known."""
    if not isinstance(split, Dataset) or len(lengths) != len(split):
        return None
    digest = hashlib.blake2b(json.dumps([*lengths]).encode(), digest_size=16)
    kept = [name for name in ("labels", EVENTS) if name in split.column_names]
    for batch in split.select_columns(kept).with_format("arrow").iter(batch_size=1024):
        table, sink = batch.combine_chunks().replace_schema_metadata(None), pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        digest.update(sink.getvalue())
    return digest.hexdigest()


def describe_data(arguments: DataArguments, clips: Clips) -> dict:
    """What the card says about the data.

    Args:
        arguments: Which data.
        clips: Made of them.
    """
    source = arguments.dataset_name
    card, license = Path(source, "README.md").expanduser(), None
    if card.exists() or not is_local(source):
        try:
            license = DatasetCard.load(card if is_local(source) else source).data.license
            license = ", ".join(license) if isinstance(license, list) else license
            if not isinstance(license, str | None):
                raise ValueError(f"a licence is a {type(license).__name__}; expected its name")
        except (OSError, ValueError, TypeError, yaml.YAMLError, HfHubHTTPError) as error:
            license = None
            logger.info("The licence of the data is not known: %s", error)
    return {
        "dataset": public_name(source),
        "hub_id": None if is_local(source) else source,
        "config": arguments.dataset_config_name,
        "license": license,
        "split_names": clips.split_names,
        "validation_group": arguments.validation_column and [arguments.validation_column, arguments.validation_value],
        "splits": {
            role: {
                "clips": len(split),
                "hours": find_hours(clips.lengths[role], len(split), clips.sampling_rate),
                "digest": find_digest(split, clips.lengths[role]),
            }
            for role, split in clips.splits.items()
        },
        "left_out": clips.left_out,
    }
