"""Labels and names of files as text in a line."""

import unicodedata


def in_one_line(text: str) -> str:
    """A text without tabs and line breaks, for forms that know no way to write them."""
    return " ".join(text.split())


def printable(text: str) -> str:
    """A text without control characters, which a terminal would obey."""
    return "".join(ascii(sign)[1:-1] if unicodedata.category(sign) == "Cc" else sign for sign in text)
