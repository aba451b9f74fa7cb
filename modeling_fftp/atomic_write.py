"""Files and folders that appear only when they are complete, and that one run at a time writes."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to, whose file takes the place of `path` when the block ends and goes away when it fails.

    It has the suffix of `path`, by which some writers choose a format. The file is on the disk when this returns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    # A link of that name, in a folder of somebody else, would lead what is written to another file.
    part.unlink(missing_ok=True)
    try:
        yield part
        # A disk may do the second first.
        flush(part)
        os.replace(part, path)
        flush(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when the block ends and goes away when it fails.

    An empty folder that is there stays the one it is: it may be a mount, a link, or where the user is. The files are
    on the disk when this returns.

    Raises:
        FileExistsError: `path` exists and is not an empty folder, or another run fills it.
    """
    folder = path.absolute()
    is_there = folder.exists()
    # Beside it or in it: always on its disk.
    part = (folder if is_there else folder.parent) / f".{folder.name}.part"
    lock = f"{part.name}.lock"
    if is_there and (not folder.is_dir() or any(file.name not in (part.name, lock) for file in folder.iterdir())):
        raise FileExistsError(f"{path} exists and is not an empty folder")
    part.parent.mkdir(parents=True, exist_ok=True)
    with alone(part):
        # Of a run that was killed.
        if part.is_symlink():
            part.unlink()
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            yield part
            flush(part, *part.rglob("*"))
            if is_there:
                # Without the config nothing is a model.
                for file in sorted(part.iterdir(), key=lambda file: file.name == "config.json"):
                    os.replace(file, folder / file.name)
                flush(folder)
            else:
                os.replace(part, folder)
                flush(folder.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder that nothing can be written to, or that cannot be made, before anything is computed for it.

    Raises:
        OSError: It is one.
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        reason = "cannot be written to" if there.is_dir() else "is a file"
        raise OSError(f"{folder}: {there} {reason}")


def flush(*paths: Path) -> None:
    """Wait until files, and the names in folders, are on the disk.

    Raises:
        OSError: A file does not get there.
    """
    for path in paths:
        if not path.is_dir():
            with path.open("r+b") as file:
                os.fsync(file.fileno())
        elif os.name == "posix":
            place = os.open(path, os.O_RDONLY)
            try:
                # Some network drives know no such thing.
                with suppress(OSError):
                    os.fsync(place)
            finally:
                os.close(place)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other runs from writing a file or folder; what a killed run held is free.

    Raises:
        FileExistsError: Another run writes it.
    """
    lock = FileLock(f"{path}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise FileExistsError(f"{path} is being written by another run") from error
    try:
        yield
    finally:
        # While it is held: whoever has opened the file by then sees that it is gone, and does not go on with it. On
        # Windows nobody can remove what is open, and filelock does so afterwards.
        with suppress(PermissionError):
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
