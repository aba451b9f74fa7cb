"""Splits of parquet files, of which nothing is copied."""

from pathlib import Path

from datasets import Dataset, load_dataset_builder
from datasets.packaged_modules.parquet.parquet import Parquet

from modeling_fftp.sound_folders import is_sound, walk

from .hub_source import find_builder, find_converted
from .parquet_rows import ParquetRows
from .sources import (
    USUAL,
    Columns,
    features_of,
    find_shards,
    lists_events,
    load_splits,
    read_names,
    refuse_unread,
    split_column,
)
from .splits import role_of


def open_splits(
    source: str,
    config_name: str | None = None,
    data_dir: str | None = None,
    revision: str | None = None,
    columns: Columns = USUAL,
) -> dict[str, ParquetRows | Dataset]:
    """Splits of a data set by their names, of which nothing is copied; otherwise like `load_splits`."""
    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() == ".parquet" and not lists_events(features_of(path), columns):
        rows = ParquetRows([str(path)])
        if len(roles_in_column(rows)) < 2:
            return {"train": rows}
    if path.exists():
        files = [*walk(path)] if path.is_dir() else []
        shards = find_shards(files)
        if not shards or any(map(is_sound, files)):
            return load_splits(source, config_name, data_dir, revision, columns)
        if not (config_name or data_dir):
            refuse_unread(path, shards)
        builder = load_dataset_builder(str(path), config_name, data_dir=data_dir)
    else:
        builder = find_builder(source, config_name, data_dir, revision)
        if not isinstance(builder, Parquet) and revision is None:
            builder = find_converted(source, config_name, data_dir)
    if not isinstance(builder, Parquet):
        raise ValueError(f"{source} is not a data set of parquet files; without --streaming it may load")
    files = builder.config.data_files
    splits = {str(name): ParquetRows(paths, builder.info.features) for name, paths in files.items()}
    if len(splits) == 1:
        refuse_split_column(*splits.values())
    return splits


def roles_in_column(rows: ParquetRows) -> set[str]:
    """The roles of the splits that a column names, if there is one."""
    column = split_column(rows.column_names)
    return {role for name in read_names(rows, column) if (role := role_of(str(name)))} if column is not None else set()


def refuse_split_column(rows: ParquetRows) -> None:
    """Stop where a column would divide the only split, since clips to test on would train."""
    roles = roles_in_column(rows)
    if len(roles) > 1:
        raise ValueError(
            f"the column {split_column(rows.column_names)!r} divides the data into {sorted(roles)}, which --streaming "
            "does not; drop it, or give each split files of its own"
        )
