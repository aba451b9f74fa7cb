"""Tables that name recordings without all the folders that these lie in, as UrbanSound8K's and BirdCLEF's do."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from modeling_fftp.sound_folders import is_sound, walk

from .file_names import in_one_form

logger = logging.getLogger(__name__)


def complete_names(names: Sequence[str | None], folder: Path) -> list[str | None] | None:
    """Paths of recordings that lie somewhere below a folder, and none of them in it.

    Args:
        names: Names of files, with suffix or without, and maybe with some of their folders; None where a row has none.
        folder: What paths start from.

    Returns:
        Paths from the folder on, and names as they are where nothing is found; None where names say where they lie
        from the folder on, or are nowhere.

    Raises:
        ValueError: Several recordings have one of the names.
    """
    wanted = {name: PurePosixPath(in_one_form(name.replace("\\", "/"))).parts for name in names if name}
    depths = {len(parts) for parts in wanted.values()}
    # Where some names have more folders than others, they may well be whole.
    if len(depths) != 1 or depths == {0} or not folder.is_dir():
        return None
    here = {in_one_form(name) for path in folder.iterdir() for name in (path.name, path.stem)}
    if any(parts[0] in here or parts[0] in ("/", "..") for parts in wanted.values()):
        return None
    (depth,), found = depths, defaultdict(list)
    for path in filter(is_sound, walk(folder)):
        place = path.relative_to(folder)
        *above, _ = map(in_one_form, place.parts[-depth:])
        for name in {path.name, path.stem}:
            found[*above, in_one_form(name)].append(place)
    places = {name: found[parts] for name, parts in wanted.items() if parts in found}
    if not places:
        return None
    for name, paths in places.items():
        if len(paths) > 1:
            raise ValueError(
                f"the table names {name!r} without its folder, and {paths[0]} and {paths[1]} in {folder} are called "
                "so; expected their paths"
            )
    logger.info("Names without their folders: %d of %d recordings found below %s", len(places), len(wanted), folder)
    return [str(places[name][0]) if name in places else name for name in names]
