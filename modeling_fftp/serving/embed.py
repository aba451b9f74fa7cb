"""The command `fftp embed`: vectors of an archive, as a parquet table."""

import base64
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from modeling_fftp.atomic_write import atomic_write
from modeling_fftp.audio_embedding_fftp import FFTPAudioEmbeddingPipeline, check_unit
from modeling_fftp.modeling_fftp import FFTPModel

from .archive import CHUNK, answer_archive
from .load import load_pipeline, warn_of_gaps
from .parts import Part
from .tables import ROW_GROUP, Answers, keep_readable

# Recordings at a time, where every step has a vector.
STEP_CHUNK = 1


def load_embedder(model: str | Path) -> FFTPAudioEmbeddingPipeline:
    """The pipeline "audio-embedding" of any model of this package; raises as `load_pipeline`."""
    return load_pipeline(FFTPAudioEmbeddingPipeline, [FFTPModel], model)


def write_embeddings(
    embedder: FFTPAudioEmbeddingPipeline,
    recordings: Sequence[str],
    output: Path,
    part: Part,
    resume: bool,
    **options: Any,
) -> int:
    """Write the columns file, start, end and embedding into a parquet file.

    Args:
        embedder: The pipeline "audio-embedding".
        recordings: All of the archive.
        output: See `answer_archive`.
        part: See `answer_archive`.
        resume: See `answer_archive`.
        **options: Options of the pipeline.

    Returns:
        As `answer_archive`.

    Raises:
        FileExistsError: As `answer_archive`.
        ValueError: As `answer_archive`, an output that is not parquet, or something else to embed than there is.
    """
    if output.suffix != ".parquet":
        raise ValueError(f"--output {output}: expected a file whose name ends in .parquet")
    check_unit(options["per"])
    warn_of_gaps(embedder.model.config, options.get("time_stride"))
    chunk = STEP_CHUNK if options["per"] == "step" else CHUNK
    write = partial(write_vectors, size=embedder.model.config.hidden_size)
    return answer_archive(embedder, recordings, as_record, output, write, part, resume, chunk, **options)


def as_record(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer as JSON can hold it: vectors are bytes of float32, so that nothing is lost."""
    vectors = base64.b64encode(answer["embeddings"].astype("<f4").tobytes()).decode()
    return {"duration": answer["duration"], "spans": answer["spans"].tolist(), "embeddings": vectors}


def write_vectors(records: Answers, path: Path, size: int) -> None:
    """A table of the recordings that could be read, with vectors of a size, and one of the others."""
    times = {name: pa.float64() for name in ("start", "end")}
    schema = pa.schema({"file": pa.string(), **times, "embedding": pa.list_(pa.float32(), size)})
    tables, rows = [], 0
    with atomic_write(path) as part, parquet.ParquetWriter(part, schema) as writer:
        for record in keep_readable(records, path):
            tables.append(as_table(record, schema))
            rows += len(tables[-1])
            if rows >= ROW_GROUP:
                writer.write_table(pa.concat_tables(tables), row_group_size=ROW_GROUP)
                tables, rows = [], 0
        if tables:
            writer.write_table(pa.concat_tables(tables))


def as_table(record: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """Rows of one recording."""
    spans = np.asarray(record["spans"])
    values = pa.array(np.frombuffer(base64.b64decode(record["embeddings"]), dtype="<f4"))
    vectors = pa.FixedSizeListArray.from_arrays(values, type=schema.field("embedding").type)
    return pa.table([[record["file"]] * len(spans), spans[:, 0], spans[:, 1], vectors], schema=schema)
