"""Names of files that no text can hold."""

import os
from pathlib import Path


def as_text(path: Path) -> tuple[str, str | None]:
    """A path as Unicode, and what is wrong with it."""
    try:
        str(path).encode()
        return str(path), None
    except UnicodeEncodeError:
        written = os.fsencode(path).decode("utf-8", "backslashreplace")
        return written, "the name of the file or of its folder is not UTF-8; rename it"
