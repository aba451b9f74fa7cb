"""Names of files as text."""

import os
import unicodedata
from pathlib import Path


def as_text(path: Path) -> tuple[str, str | None]:
    """A path as Unicode, and what is wrong with it."""
    try:
        str(path).encode()
        return str(path), None
    except UnicodeEncodeError:
        written = os.fsencode(path).decode("utf-8", "backslashreplace")
        return written, "the name of the file or of its folder is not UTF-8; rename it"


def in_one_form(name: str) -> str:
    """A name in one of Unicode's forms; archives of macOS bring another than lists have."""
    return unicodedata.normalize("NFC", name)
