"""What happens when the package is imported: by the command or not, or with a user's files in the way."""

import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path


def is_command() -> bool:
    """Whether the process is the command: the script `fftp`, or `python -m modeling_fftp`."""
    script = Path(sys.argv[0]) if sys.argv else Path()
    if script.name == "-m":
        # What Python puts there until it has found the module to run.
        words = sys.orig_argv
        return words[words.index("-m") + 1] == "modeling_fftp" if "-m" in words else False
    return script.name in ("fftp", "fftp.exe") and script.is_file()


def refuse_stranger(package: str, module: str) -> None:
    """Stop where Python would take a file or folder of the user for a package of ours.

    Args:
        package: The package.
        module: One of its modules, by which to tell it.

    Raises:
        ImportError: Such a file or folder, by its path.
    """
    if package in sys.modules:
        return
    spec = find_spec(package)
    locations = spec and spec.submodule_search_locations
    if spec is None or (locations and PathFinder.find_spec(f"{package}.{module}", locations)):
        return
    found = spec.origin or next(iter(locations))
    raise ImportError(
        f"{found} is in the way of the package {package!r} that modeling_fftp needs: rename it, or start Python in "
        "another folder",
        name=package,
        path=found,
    )
