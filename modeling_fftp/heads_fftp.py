"""Which head a model has, told by the names of its classes: the code of a folder has classes of its own."""

from torch import nn

from .configuration_fftp import FFTPConfig

# What a model tells apart, in the words of `fftp train --task`.
CLIPS, FRAMES = "clips", "frames"
HEADS = {
    "FFTPForAudioClassification": CLIPS,
    "FFTPForAudioFrameClassification": FRAMES,
    "FFTPOnnxForAudioClassification": CLIPS,
    "FFTPOnnxForAudioFrameClassification": FRAMES,
}
# Models without one.
HEADLESS = ("FFTPModel", "FFTPForPreTraining")


def bare_model(model: nn.Module) -> nn.Module:
    """The model behind adapters of PEFT and torch.compile."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(model, "_orig_mod", model)


def find_task(model: nn.Module) -> str | None:
    """`CLIPS` or `FRAMES`, which the head of a model tells apart, or None where it has no such head.

    Subclasses count, among them those that FSDP makes.
    """
    names = [parent.__name__ for parent in type(bare_model(model)).__mro__]
    return next((HEADS[name] for name in names if name in HEADS), None)


def is_headless(config: FFTPConfig) -> bool:
    """Whether the weights of a config were saved without a head."""
    return bool(config.architectures) and config.architectures[0] in HEADLESS


def find_saved_task(config: FFTPConfig) -> str | None:
    """`CLIPS` or `FRAMES`, by the head that the weights of a config were saved with, or None."""
    return next((HEADS[name] for name in config.architectures or () if name in HEADS), None)
