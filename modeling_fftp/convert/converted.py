"""What a conversion gives, and what every source is checked for."""

from dataclasses import dataclass

import torch
from torch import nn

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPForAudioClassification, FFTPForAudioFrameClassification, FFTPModel


@dataclass
class Converted:
    """Weights from elsewhere as an FFTP model.

    Args:
        model: With the head that the source has, or the base model where it has none.
        extractor: Gives the model the input that it was trained on.
        knows_sound: Whether the source was trained on sound, so that the extractor's statistics are its own.
        has_new_patches: Whether its patch embedding was adapted to patches of another size.
    """

    model: FFTPModel | FFTPForAudioClassification | FFTPForAudioFrameClassification
    extractor: FFTPFeatureExtractor
    knows_sound: bool = True
    has_new_patches: bool = False


def fill(model: nn.Module, weights: dict[str, torch.Tensor], kind: str) -> None:
    """Load weights, all of which must have their place in a model.

    Args:
        model: The model to fill.
        weights: Weights by their names there.
        kind: What the source should be.

    Raises:
        ValueError: Names the first weight that is missing, unknown, or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"no {kind} checkpoint: {len(wrong)} weights are missing, unknown or of another shape, such as {name}: "
            f"expected {expected.get(name, 'none')}, got {found.get(name, 'none')}"
        )
    model.load_state_dict(weights)
