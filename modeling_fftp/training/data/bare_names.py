"""Tables that name recordings without the folders that these lie in, as UrbanSound8K's does."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from modeling_fftp.sound_folders import is_sound, walk

from .file_names import in_one_form

logger = logging.getLogger(__name__)


def complete_names(names: Sequence[str | None], folder: Path) -> list[str | None] | None:
    """Paths of recordings that lie somewhere below a folder, and none of them in it.

    Args:
        names: Names of files, with suffix or without; None where a row has none.
        folder: What paths start from.

    Returns:
        Paths from the folder on, and names as they are where nothing is found; None where names are paths, lie in the
        folder itself, or are nowhere.

    Raises:
        ValueError: Several recordings have one of the names.
    """
    wanted = {name for name in names if name}
    if not wanted or any("/" in name or "\\" in name for name in wanted) or not folder.is_dir():
        return None
    here = {in_one_form(name) for path in folder.iterdir() for name in (path.name, path.stem)}
    if any(in_one_form(name) in here for name in wanted):
        return None
    found = defaultdict(list)
    for path in filter(is_sound, walk(folder)):
        for name in {path.name, path.stem}:
            found[in_one_form(name)].append(path.relative_to(folder))
    places = {name: found[in_one_form(name)] for name in wanted if in_one_form(name) in found}
    if not places:
        return None
    for name, paths in places.items():
        if len(paths) > 1:
            raise ValueError(
                f"the table names {name!r} without a folder, and {paths[0]} and {paths[1]} in {folder} are called so; "
                "expected their paths"
            )
    logger.info("Names without folders: %d of %d recordings found below %s", len(places), len(wanted), folder)
    return [str(places[name][0]) if name in places else name for name in names]
