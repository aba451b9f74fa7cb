"""Sound files in folders, by their names."""

import os
from collections.abc import Iterator
from pathlib import Path

try:
    import soundfile
except ImportError:
    soundfile = None

# RAW has no header, so nothing says what it holds.
AUDIO_FORMATS = (
    set() if soundfile is None else {*soundfile.available_formats()} - {"RAW"} | {"OGA", "OPUS", "AIF", "WAVE"}
)
# What archives, notebooks, Python and disks leave behind; names that begin with a dot are hidden.
LEFTOVERS = ("__MACOSX", "__pycache__", "lost+found", "System Volume Information", "$RECYCLE.BIN")


def is_sound(path: Path) -> bool:
    """Whether a file's name is that of a format that libsndfile reads."""
    return path.suffix[1:].upper() in AUDIO_FORMATS


def walk(folder: Path) -> Iterator[Path]:
    """Visible files below a folder in the order of their paths; links are followed, but not in circles.

    What is no file, such as a pipe, which might never end, is passed over.

    Raises:
        OSError: A folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    seen = set()
    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        # Numbers of inodes would not do: some network drives of Windows have none.
        if (place := os.path.realpath(root)) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(filter(is_visible, folders))
        paths = (Path(root, name) for name in sorted(filter(is_visible, files)))
        # Links that lead nowhere are named by whoever cannot read them.
        yield from (path for path in paths if path.is_file() or (path.is_symlink() and not path.exists()))


def is_visible(name: str) -> bool:
    """Whether a file or folder of this name is looked at."""
    return not name.startswith(".") and name not in LEFTOVERS
