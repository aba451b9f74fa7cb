"""Rows of parquet files, here or on the Hub, of which no more than a few row groups are in memory."""

import logging
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import fsspec
import pyarrow as pa
from datasets import Features
from pyarrow import parquet

from .sources import refuse_other_columns

logger = logging.getLogger(__name__)

# Of row groups that are in memory at a time, in each process that reads.
MEMORY_BYTES = 64 * 2**20


class ParquetRows:
    """Rows by their number over several files.

    Args:
        files: Paths, or addresses that fsspec opens, such as hf://.
        features: Types of the columns; default: what the files say.

    Raises:
        ValueError: No files, or files of other columns than the first.
    """

    def __init__(self, files: Sequence[str], features: Features | None = None):
        if not files:
            raise ValueError("no parquet files")
        self.files = [*files]
        self.metadata = []
        for file in self.files:
            with fsspec.open(file) as opened:
                self.metadata.append(parquet.ParquetFile(opened).metadata)
        schemas = [metadata.schema.to_arrow_schema() for metadata in self.metadata]
        self.features = features or Features.from_arrow_schema(schemas[0])
        self.column_names = schemas[0].names
        refuse_other_columns(self.files, schemas)
        self._places = [
            (number, group)
            for number, metadata in enumerate(self.metadata)
            for group in range(metadata.num_row_groups)
        ]
        groups = [self.metadata[number].row_group(group) for number, group in self._places]
        self._starts = [0, *accumulate(group.num_rows for group in groups)]
        largest = max((group.total_byte_size for group in groups), default=0)
        # How many may be drawn from at a time.
        self.groups_in_memory = max(1, MEMORY_BYTES // max(1, largest))
        if largest > MEMORY_BYTES:
            logger.warning(
                "A row group of %s takes %.0f MiB, and every process that reads holds one; to_parquet(batch_size=...) "
                "writes smaller ones", self.files[0], largest / 2**20,
            )  # fmt: skip
        self._read: OrderedDict[int, pa.Table] = OrderedDict()

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, key: int | str) -> Any:
        """A row as a dict, or a whole column as a list."""
        if isinstance(key, str):
            return [value for number in range(len(self.files)) for value in self._read_column(number, key)]
        if not 0 <= key < len(self):
            raise IndexError(f"row {key} of {len(self)}")
        group = bisect_right(self._starts, key) - 1
        return self._table(group).slice(key - self._starts[group], 1).to_pylist()[0]

    def __getstate__(self) -> dict[str, Any]:
        """The state for other processes, without what was read."""
        return self.__dict__ | {"_read": OrderedDict()}

    @property
    def groups(self) -> list[range]:
        """Rows of each row group."""
        return [range(start, end) for start, end in zip(self._starts, self._starts[1:], strict=False)]

    def forget(self) -> None:
        """Let go of what was read, before other processes inherit it."""
        self._read.clear()

    def _read_column(self, number: int, name: str) -> list:
        with fsspec.open(self.files[number]) as opened:
            return parquet.ParquetFile(opened, metadata=self.metadata[number]).read([name])[name].to_pylist()

    def _table(self, group: int) -> pa.Table:
        """A row group, from memory if it was among the last."""
        if group not in self._read:
            while len(self._read) >= self.groups_in_memory:
                self._read.popitem(last=False)
            number, place = self._places[group]
            with fsspec.open(self.files[number]) as opened:
                self._read[group] = parquet.ParquetFile(opened, metadata=self.metadata[number]).read_row_group(place)
        self._read.move_to_end(group)
        return self._read[group]
