"""Pretraining without labels: a masked autoencoder over patches."""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import ModelOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_fftp import FFTPConfig
from .embeddings_fftp import FFTPPositionEmbeddings
from .layers_ast_fftp import FFTPTransformerLayer
from .modeling_fftp import FFTPModel, FFTPPreTrainedModel
from .patch_grid_fftp import cut_patches, draw_patch_mask, unseen_cells, visible_first

# Added to the variance of a patch, as in MAE.
EPSILON = 1e-6


@dataclass
class FFTPForPreTrainingOutput(ModelOutput):
    """What `FFTPForPreTraining` returns.

    Args:
        loss: Mean squared error over hidden cells.
        logits: Predicted values of each patch, normalised, (batch, patches, mel bins * frames of a patch).
        mask: Which patches were hidden (1) and which were not (0), (batch, patches).
        hidden_states: Those of the encoder's layers, on request.
        attentions: Those of the encoder's layers, on request.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    mask: torch.LongTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


def decoder_config(config: FFTPConfig) -> FFTPConfig:
    """The configuration of the decoder: a small transformer over the same patches, whatever the backbone."""
    decoder = copy.deepcopy(config)
    decoder.backbone, decoder.pooling, decoder.num_class_tokens = "ast", "mean", 0
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        setattr(decoder, name, getattr(config, f"decoder_{name}"))
    # Without positions it could not tell which patch to predict.
    decoder.use_absolute_position_embeddings = True
    decoder.drop_path_rate = decoder.hidden_dropout_prob = decoder.attention_probs_dropout_prob = 0.0
    return decoder


class FFTPDecoder(nn.Module):
    """Predicts the values of every patch from the states of those that are seen."""

    def __init__(self, config: FFTPConfig):
        super().__init__()
        self.config = decoder_config(config)
        width = self.config.hidden_size
        self.embed = nn.Linear(config.hidden_size, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = FFTPPositionEmbeddings(self.config)
        layers = range(self.config.num_hidden_layers)
        self.layers = nn.ModuleList([FFTPTransformerLayer(self.config, index) for index in layers])
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.head = nn.Linear(width, config.patch_size[0] * config.patch_size[1])

    def forward(
        self,
        states: torch.Tensor,
        places: torch.Tensor,
        is_visible: torch.Tensor,
        valid_patches: torch.Tensor,
        is_real: torch.Tensor,
        time_stride: int,
    ) -> torch.Tensor:
        """Predict all patches.

        Args:
            states: States of the visible patches, (batch, visible, hidden).
            places: Place of each among all patches, (batch, visible).
            is_visible: True where they are real, (batch, visible).
            valid_patches: Real patches along time of each clip, (batch, 1).
            is_real: True where patches are real, (batch, patches).
            time_stride: Frames between patches.

        Returns:
            (batch, patches, mel bins * frames of a patch).
        """
        states = self.embed(states)
        index = places[..., None].expand_as(states)
        hidden_states = self.mask_token.to(states.dtype).expand(len(states), is_real.shape[1], -1)
        states = torch.where(is_visible[..., None], states, hidden_states.gather(1, index))
        hidden_states = hidden_states.scatter(1, index, states)
        time_patches = is_real.shape[1] // self.config.frequency_patches
        hidden_states = hidden_states + self.position_embeddings(time_patches, valid_patches, time_stride)
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=hidden_states, attention_mask=is_real)
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask)
        return self.head(self.layernorm(hidden_states))


class FFTPForPreTraining(FFTPPreTrainedModel):
    """A masked autoencoder: the encoder sees a part of the patches, a light decoder predicts the others.

    All backbones allow it: a transformer attends to the patches that it sees, a Mamba scans them one after another,
    each with its position, and a ConvNeXt sees zeros where a patch is hidden, before every convolution (Woo et al.
    2023, ConvNeXt V2, section 3.1), which saves no time. Token merging is not supported: visible
    tokens have no neighbours to merge with.

    Trainer's `evaluate` computes the loss with `TrainingArguments(label_names=["bool_masked_pos"])` where batches hold
    that, as those of `modeling_fftp.training.pretraining.masked_patches` do.

    Source: He et al. 2022 (MAE); Baade et al. 2022 (MAE-AST) and Huang et al. 2022 (AudioMAE) on spectrograms.
    """

    _no_split_modules = ["FFTPEmbeddings", "FFTPDecoder"]  # noqa: RUF012
    # Which patches are hidden is drawn outside of a graph, where nobody passes them.
    _can_compile_fullgraph = False

    def __init__(self, config: FFTPConfig):
        super().__init__(config)
        if config.token_merge_layers:
            raise ValueError(
                f"token_merge_layers={config.token_merge_layers}: tokens that pretraining sees have no neighbours to "
                "merge with; set it for the trained model"
            )
        self.fftp = FFTPModel(config)
        self.decoder = FFTPDecoder(config)
        self.post_init()
        # Here a decoder's weights have their place.
        self._keys_to_ignore_on_load_unexpected = None

    def set_attn_implementation(self, *args, **kwargs) -> None:
        """Set it for the encoder and the decoder."""
        super().set_attn_implementation(*args, **kwargs)
        self.decoder.config._attn_implementation = self.config._attn_implementation

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FFTPDecoder):
            init.trunc_normal_(module.mask_token, std=self.config.initializer_range)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FFTPForPreTrainingOutput:
        """Hide patches of a batch of clips and predict them.

        Args:
            input_values: Normalised log-mel spectrograms, (batch, frames, mel bins), or sound as `FFTPModel` takes it.
            attention_mask: (batch, frames) or (batch, samples), 1 at real frames or samples, padding on the right.
                Padding is neither seen nor predicted.
            bool_masked_pos: Which patches to hide, (batch, patches), as `draw_patch_mask` gives them. None: drawn with
                torch's default generator.
            **kwargs: Passed to the base model.

        Returns:
            `loss`, the mean squared error over the cells that no visible patch shows, each patch normalised by its own
            mean and standard deviation; `logits`, (batch, patches, cells); `mask`, (batch, patches); and on request
            `hidden_states` and `attentions` of the encoder.
        """
        if "time_stride" in kwargs:
            raise ValueError("pretraining has one stride, that of the config; set_time_stride changes it")
        if self.config.patch_frames() != self.config.patch_size[1]:
            raise ValueError(
                f"time_stride={self.config.time_stride} with stretch_patches: pretraining predicts patches of "
                f"{self.config.patch_size[1]} frames as they are, so strides may not be wider"
            )
        input_values, attention_mask = self._as_features(input_values, attention_mask)
        if attention_mask is not None:
            # A clip shorter than one patch sees padding: zeros, as in the embedding.
            input_values = input_values.masked_fill(attention_mask[..., None] == 0, 0.0)
        embeddings = self.fftp.embeddings
        time_patches = self.config.time_patches(input_values.shape[1])
        valid_patches = embeddings.count_patches(time_patches, attention_mask, input_values.device)
        valid_patches = valid_patches.expand(len(input_values), 1)
        steps = torch.arange(time_patches, device=input_values.device)
        is_real = (steps < valid_patches).repeat(1, self.config.frequency_patches)
        if bool_masked_pos is None:
            bool_masked_pos = draw_patch_mask(self.config, valid_patches[:, 0].tolist(), time_patches)
        bool_masked_pos = bool_masked_pos.to(is_real.device).bool()
        outputs = self.fftp(
            input_values,
            attention_mask=attention_mask,
            bool_masked_pos=bool_masked_pos,
            **{**kwargs, "return_dict": True},
        )
        places, is_visible = visible_first(bool_masked_pos, is_real)
        states = embeddings.take_patches(outputs.last_hidden_state, is_visible.sum(dim=1, keepdim=True))
        if embeddings.keeps_grid:
            states = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]).to(states.device))
        logits = self.decoder(states, places, is_visible, valid_patches, is_real, self.config.time_stride)
        return FFTPForPreTrainingOutput(
            loss=self._loss(logits, input_values, bool_masked_pos, is_real),
            logits=logits,
            mask=bool_masked_pos.long(),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _loss(
        self, logits: torch.Tensor, input_values: torch.Tensor, bool_masked_pos: torch.Tensor, is_real: torch.Tensor
    ) -> torch.Tensor:
        """Mean squared error over the cells that no visible patch shows; 0 where there are none."""
        cells = unseen_cells(bool_masked_pos, is_real, self.config)
        targets, _, _ = normalised_patches(input_values, self.config)
        targets, cells = targets.to(logits.device), cells.to(logits.device)
        errors = (logits.float() - targets).square() * cells
        return errors.sum() / cells.sum().clamp(min=1)


def normalised_patches(
    input_values: torch.Tensor, config: FFTPConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Patches by their own mean and standard deviation, (batch, patches, cells), float32, and these two of each."""
    missing = max(0, config.patch_size[1] - input_values.shape[1])
    patches = cut_patches(nn.functional.pad(input_values.float(), (0, 0, 0, missing)), config)
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True, correction=0)
    deviation = (variance + EPSILON).sqrt()
    return (patches - mean) / deviation, mean, deviation


__all__ = ["FFTPForPreTraining", "FFTPForPreTrainingOutput"]
