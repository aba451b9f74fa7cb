"""Folders that appear only when they are complete."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def save_folder(output_folder: str | os.PathLike) -> Iterator[Path]:
    """A scratch folder that takes the name `output_folder` when the block ends, and goes away when it fails.

    Raises:
        FileExistsError: `output_folder` exists and is not an empty folder.
    """
    output = Path(output_folder).absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output_folder} exists and is not an empty folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch:
        complete = Path(scratch, "complete")
        complete.mkdir()
        yield complete
        if output.exists():
            # Not every system replaces an empty folder.
            output.rmdir()
        os.replace(complete, output)
