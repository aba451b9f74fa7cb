"""The recordings that a command line names."""

import fnmatch
import glob
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from modeling_fftp.sound_folders import is_sound, is_visible, walk

# First sign of the name of a list of recordings, and what ends a line of it beside its break.
LIST, BLANK = "@", " \t\r"
# Kinds of files that are named as no sound.
MOST_KINDS = 5
# Signs that only patterns have.
WILDCARDS = frozenset("*?")
# The part of a pattern that stands for any number of folders.
RECURSIVE = "**"


def find_recordings(sources: Sequence[str], lists: tuple[str, ...] = (), read: set[str] | None = None) -> list[str]:
    """Recordings that a command line names, each once, however its path is spelled, in its order.

    Args:
        sources: Files; folders, of which every visible sound file counts; patterns such as `2024*/**/*.flac`; and
            `@FILE`, a text file with one source per line. All are relative to the working directory. Folders that a
            pattern matches count as folders do.
        lists: The lists that name these sources, if they come from lists.
        read: Lists that were read already, whose sources would only come again.

    Raises:
        ValueError: A folder or pattern without a sound file, or a list that cannot be read or is in itself.
        OSError: A folder that cannot be read.
    """
    found: list[str] = []
    read = set() if read is None else read
    for source in sources:
        if source.startswith(LIST):
            if source in lists:
                raise ValueError(f"{source}: the list names itself")
            if source not in read:
                read.add(source)
                found += find_recordings(_read_list(source), (*lists, source), read)
        elif os.path.isdir(source):
            files = _only_sound(source, map(str, walk(Path(source))))
            if not files:
                raise ValueError(
                    f"{source}: no sound files in this folder that libsndfile reads; convert others first "
                    "(ffmpeg -i a.m4a a.flac)"
                )
            found += files
        elif glob.has_magic(source) and not os.path.lexists(source):
            files = _only_sound(source, _match(source))
            if not files and WILDCARDS & {*source}:
                raise ValueError(f"{source}: the pattern matches no sound files")
            # Brackets may be part of the name of a file that is not there.
            found += files or [source]
        else:
            # What is not there fails with the others that cannot be read.
            found.append(source)
    first = {os.path.abspath(path): path for path in reversed(found)}
    return [*dict.fromkeys(first[os.path.abspath(path)] for path in found)]


def _match(pattern: str) -> Iterator[str]:
    """Files that a pattern matches, and those in folders that it matches.

    `glob` would follow links in circles below `**`, and look into what systems leave behind; `walk` does neither.
    """
    asked = Path(pattern).parts
    place = asked.index(RECURSIVE) if RECURSIVE in asked else len(asked)
    for found in map(Path, sorted(glob.glob(str(Path(*asked[:place]))))):
        # What a pattern spells out is meant.
        if not all(is_visible(part) or part == name for part, name in zip(found.parts, asked, strict=False)):
            continue
        if found.is_dir():
            files = ((path, path.relative_to(found).parts) for path in walk(found))
            yield from (str(path) for path, parts in files if _fits(parts, asked[place:]))
        elif place == len(asked):
            yield str(found)


def _fits(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether the parts of a path fit those of a pattern, or one of its folders does."""
    if not patterns:
        return True
    if patterns[0] == RECURSIVE:
        return any(_fits(parts[start:], patterns[1:]) for start in range(len(parts)))
    return bool(parts) and fnmatch.fnmatch(parts[0], patterns[0]) and _fits(parts[1:], patterns[1:])


def _only_sound(source: str, paths: Iterable[str]) -> list[str]:
    """The sound files among those of a folder or pattern; how many others there are is said on standard error."""
    files, others = [], Counter()
    for path in paths:
        if is_sound(Path(path)):
            files.append(path)
        else:
            others[Path(path).suffix or "no suffix"] += 1
    if others:
        kinds = ", ".join(f"{count} with {suffix}" for suffix, count in others.most_common(MOST_KINDS))
        print(f"fftp: {source}: {others.total()} files are not read as sound: {kinds}", file=sys.stderr)
    return files


def _read_list(source: str) -> list[str]:
    """The lines of `@FILE` that hold something."""
    try:
        lines = Path(source[len(LIST) :]).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ValueError(f"{source}: the list cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: the list is not UTF-8") from error
    return [line for line in (line.strip(BLANK) for line in lines) if line]
