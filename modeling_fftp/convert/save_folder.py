"""Folders that hold something only when it is complete."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def save_folder(output_folder: str | os.PathLike) -> Iterator[Path]:
    """A scratch folder whose files become those of `output_folder` when the block ends; it goes away when that fails.

    An empty folder that is there stays the one it is: it may be a mount, a link, or where the user is.

    Raises:
        FileExistsError: `output_folder` exists and is not an empty folder.
    """
    output = Path(output_folder).absolute()
    exists = output.exists()
    if exists and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output_folder} exists and is not an empty folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    # Beside it or in it: always on its disk.
    with tempfile.TemporaryDirectory(dir=output if exists else output.parent, prefix=f".{output.name}-") as scratch:
        complete = Path(scratch, "complete")
        complete.mkdir()
        yield complete
        if not exists:
            os.replace(complete, output)
            return
        # Without the config nothing is a model.
        for path in sorted(complete.iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, output / path.name)
