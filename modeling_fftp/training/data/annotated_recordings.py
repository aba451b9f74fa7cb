"""Which recording an annotation is of, by its own name or by those that it gives."""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath

from modeling_fftp.sound_folders import is_sound

from .file_names import in_one_form
from .messages import name_some

# What Raven, BirdNET and Audacity's users put behind the name of a recording.
ENDING = re.compile(
    r"(\.table\.\d+)?(\.birdnet)?(\.(selections?|selection\.table|results|labels))?\.txt$", re.IGNORECASE
)


class Recordings:
    """Sound files by their names, in small letters and one form. Recorders call their files alike at every site.

    Args:
        files: Sound and others.
    """

    def __init__(self, files: Iterable[Path]):
        self.found: dict[str, list[Path]] = defaultdict(list)
        for path in filter(is_sound, files):
            for name in {_key(path.name), _key(path.stem)}:
                self.found[name].append(path)
        # All that folders with sound can have in common with others.
        folders = {path.parent for paths in self.found.values() for path in paths}
        self.tails = {tail for folder in folders for tail in _tails(folder.parts)}

    def lies_beside(self, annotation: Path) -> bool:
        """Whether a recording of an annotation's name lies in its folder."""
        named = self.found.get(_key(ENDING.sub("", annotation.name)), [])
        return any(path.parent == annotation.parent for path in named)

    def find_own(self, annotation: Path) -> Path | None:
        """The recording that an annotation is called after: `a.b.wav` of `a.b.Table.1.selections.txt`.

        Its folder is the annotation's as far as that of any recording is: an annotation of a folder with sound is of
        none elsewhere, and one below `labels/Site A` of none below `sound/Site B` where there is a `sound/Site A`.

        Raises:
            ValueError: Several recordings have the name, and their folders do not tell which is meant.
        """
        found = self._find(ENDING.sub("", annotation.name), annotation.parent.parts, annotation)
        if found is None:
            return None
        most = sum(tail in self.tails for tail in _tails(annotation.parent.parts))
        return found[0] if found[1] == most else None

    def find_named(self, names: Iterable[str], annotation: Path) -> dict[str, Path]:
        """The recordings that a table names, by these names; where there is none, it would lie beside the table.

        The folders of a name count as far as they are there.
        """
        found = {}
        for name in names:
            path = PureWindowsPath(name)
            folders = path.parent.parts or annotation.parent.parts
            place = self._find(path.name, folders, annotation) or self._find(path.stem, folders, annotation)
            if place is not None:
                found[name] = place
        misplaced = _misplaced(found)
        places = {name: recording for name, (recording, _) in found.items() if name not in misplaced}
        return {name: places.get(name, annotation.parent / PureWindowsPath(name).as_posix()) for name in names}

    def _find(self, name: str, folders: Sequence[str], annotation: Path) -> tuple[Path, int] | None:
        """The recording of a name, with suffix or without, and how many of its folders are those that are meant."""
        shared = {path: _count_shared(path.parent.parts, folders) for path in self.found.get(_key(name), [])}
        best = [path for path, count in shared.items() if count == max(shared.values())]
        best = [path for path in best if path.parent == annotation.parent] or best
        if len(best) > 1:
            raise ValueError(f"{annotation} could be of {name_some(map(str, best))}; rename all but one of them")
        return (best[0], shared[best[0]]) if best else None


def _key(name: str) -> str:
    return in_one_form(name).lower()


def _misplaced(found: Mapping[str, tuple[Path, int]]) -> set[str]:
    """Names whose recordings were found, but are those of others.

    Of `rec/A/1.wav` and `rec/B/2.wav`, found as `data/B/1.wav` and `data/B/2.wav`, the second says that `data` is
    `rec`, so the first is another recording. So is, of two names found as one, that with fewer of its folders.
    """
    most: dict[Path, int] = {}
    for recording, count in found.values():
        most[recording] = max(count, most.get(recording, 0))
    surest = max(found, key=lambda name: found[name][1] if PureWindowsPath(name).parent.parts else 0, default="")
    misplaced = {name for name, (recording, count) in found.items() if count < most[recording]}
    if not PureWindowsPath(surest).parent.parts or not (count := found[surest][1]):
        return misplaced
    # Windows' paths also compare as names are found here, in small letters.
    there, here = (_cut_end(PureWindowsPath(path).parent, count) for path in (surest, found[surest][0]))
    for name, (recording, _) in found.items():
        folder = PureWindowsPath(name).parent
        is_below = bool(folder.parts) and folder.is_relative_to(there)
        if is_below and PureWindowsPath(recording).parent != here / folder.relative_to(there):
            misplaced.add(name)
    return misplaced


def _cut_end(folder: PureWindowsPath, count: int) -> PureWindowsPath:
    """A folder without the last few of its parts."""
    return PureWindowsPath(*folder.parts[: len(folder.parts) - count])


def _tails(folders: Sequence[str]) -> list[tuple[str, ...]]:
    """The last of some folders, the last two, and so on, in small letters."""
    names = [name.lower() for name in folders]
    return [tuple(names[start:]) for start in reversed(range(len(names)))]


def _count_shared(folders: Sequence[str], others: Sequence[str]) -> int:
    """How many folders at the end of two paths are called alike."""
    pairs = zip(reversed(folders), reversed(others), strict=False)
    return len([*itertools.takewhile(lambda pair: pair[0].lower() == pair[1].lower(), pairs)])
