"""Errors that say more than "No module named": files of a user in the way of our packages, modules that have moved."""

from importlib.util import find_spec
from pathlib import Path

# Where README has ever sent anybody, and what does it now.
MOVED = {
    "modeling_fftp.convert_ast_fftp": "`fftp convert`",
    "modeling_fftp.convert_aum_fftp": "`fftp convert`",
    "modeling_fftp.export": "`fftp export`, in Python modeling_fftp.serving.export",
    "modeling_fftp.memory": "modeling_fftp.training.memory",
    "modeling_fftp.onnx_model": "modeling_fftp.serving.onnx_model",
    "modeling_fftp.push": "`fftp push`, in Python modeling_fftp.hub.push",
}


class MovedModules:
    """Finder of modules, asked last, that says where one has gone."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Find nothing.

        Raises:
            ModuleNotFoundError: The module has moved.
        """
        if name in MOVED:
            raise ModuleNotFoundError(f"{name} is now {MOVED[name]}", name=name)


def refuse_strangers(*names: str) -> None:
    """Stop where Python would take something else for one of the packages that lie beside this one.

    Raises:
        ImportError: Such a file or folder, by its path.
    """
    root = Path(__file__).resolve().parent.parent
    for name in names:
        spec = find_spec(name)
        if spec is None:
            continue
        found = Path(spec.origin or next(iter(spec.submodule_search_locations)))
        if (found.parent if spec.origin else found).resolve() != root / name:
            raise ImportError(
                f"{found} is in the way of the package {name!r} that modeling_fftp needs: rename it, or start Python "
                "in another folder",
                name=name,
                path=str(found),
            )
