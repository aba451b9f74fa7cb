"""FFTP models for transformers: configuration, base model and heads.

Importing this package makes transformers' Auto classes and pipelines know them.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from .imports import is_command, refuse_stranger

if TYPE_CHECKING:
    from .configuration_fftp import FFTPConfig
    from .modeling_fftp import (
        FFTPForAudioClassification,
        FFTPForAudioFrameClassification,
        FFTPModel,
        FFTPPreTrainedModel,
    )
    from .pretraining_fftp import FFTPForPreTraining

    __version__: str

__all__ = [
    "FFTPConfig",
    "FFTPForAudioClassification",
    "FFTPForAudioFrameClassification",
    "FFTPForPreTraining",
    "FFTPModel",
    "FFTPPreTrainedModel",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        try:
            return metadata.version("fftp")
        except metadata.PackageNotFoundError as error:
            raise AttributeError("this copy of modeling_fftp is not installed and has no version") from error
    if name in __all__:
        import_module(".registration", __name__)
        module = ".pretraining_fftp" if name == "FFTPForPreTraining" else ".modeling_fftp"
        return getattr(import_module(module, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


refuse_stranger("feature_extraction", "feature_extraction_fftp")
# The command answers --help before torch is imported, which takes seconds; it asks for the classes when it needs them.
if not is_command():
    import_module(".registration", __name__)
