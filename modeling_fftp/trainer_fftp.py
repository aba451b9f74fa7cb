"""What transformers' Trainer lacks for these models."""

from torch import nn
from transformers import Trainer

# Parameters beside biases and norms that weight decay would only pull away from where they belong: the scan's decay
# rates and skip weights (mamba-ssm marks them so), positions and class tokens.
UNDECAYED = ("A_log", "A_log_reverse", "D", "position_embeddings.weight", "cls_token", "distillation_token")


class FFTPTrainer(Trainer):
    """Trainer that decays weights only."""

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that weight decay applies to."""
        names = super().get_decay_parameter_names(model)
        return [name for name in names if not f".{name}".endswith(tuple(f".{ending}" for ending in UNDECAYED))]
