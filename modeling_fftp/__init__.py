"""FFTP models for transformers: configuration, base model and heads.

Importing this package makes transformers' Auto classes and pipelines know them.
"""

import sys
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .imports import MovedModules, refuse_strangers

if TYPE_CHECKING:
    from .configuration_fftp import FFTPConfig
    from .modeling_fftp import (
        FFTPForAudioClassification,
        FFTPForAudioFrameClassification,
        FFTPModel,
        FFTPPreTrainedModel,
    )

    __version__: str

__all__ = [
    "FFTPConfig",
    "FFTPForAudioClassification",
    "FFTPForAudioFrameClassification",
    "FFTPModel",
    "FFTPPreTrainedModel",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("fftp")
    if name in __all__:
        import_module(".registration", __name__)
        return getattr(import_module(".modeling_fftp", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


refuse_strangers("feature_extraction", "hub_cards")
sys.meta_path.append(MovedModules)
# The command, as a script or as `python -m modeling_fftp`, answers --help before torch is imported, which takes
# seconds; it asks for the classes when it needs them.
if Path(sys.argv[0]).name not in ("fftp", "fftp.exe", "-m"):
    import_module(".registration", __name__)
