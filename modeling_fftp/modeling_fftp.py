"""FFTP models: patch embedding, positions, class tokens, backbone and classification head."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_fftp import FFTPConfig
from .layers_ast_fftp import FFTPAttention, FFTPTransformerLayer
from .layers_mamba_fftp import FFTPMambaLayer, FFTPMambaMixer, FFTPStateSpace


class FFTPPatchEmbeddings(nn.Module):
    """One convolution from a spectrogram to patch tokens (arXiv 2508.21243, section 3.1).

    With `patch_size` (mel bins, frames) as high as the spectrogram every token sees the whole frequency axis; square
    patches are other numbers. The convolution is computed as one matrix product over the patches: the same numbers,
    and a backward pass that costs about as much as the forward one, which torch's CPU convolution does not reach.
    """

    def __init__(self, config: FFTPConfig):
        super().__init__()
        self.num_mel_bins = config.num_mel_bins
        self.patch_frames = config.patch_size[1]
        self.projection = nn.Conv2d(
            1,
            config.hidden_size,
            kernel_size=config.patch_size,
            stride=(config.frequency_stride, config.time_stride),
        )

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """(batch, frames, mel bins) to (batch, hidden, frequency patches, time patches); at least one of each."""
        if input_values.ndim != 3 or input_values.shape[-1] != self.num_mel_bins:
            raise ValueError(
                f"input_values has shape {tuple(input_values.shape)}; expected (batch, frames, {self.num_mel_bins} "
                "mel bins)"
            )
        missing = self.patch_frames - input_values.shape[1]
        if missing > 0:
            input_values = nn.functional.pad(input_values, (0, 0, 0, missing))
        (height, width), (down, across) = self.projection.kernel_size, self.projection.stride
        patches = input_values.transpose(1, 2).unfold(1, height, down).unfold(2, width, across)
        tokens = nn.functional.linear(patches.flatten(3), self.projection.weight.flatten(1), self.projection.bias)
        return tokens.permute(0, 3, 1, 2)


class FFTPPositionEmbeddings(nn.Module):
    """Learned positions as a function of time.

    The table covers `config.max_length` frames. A clip within it takes the head of the table, a longer clip
    interpolates the table linearly to its own length, whatever else is in its batch.
    """

    def __init__(self, config: FFTPConfig):
        super().__init__()
        self.frequency_patches, self.time_patches = config.patch_grid
        self.weight = nn.Parameter(torch.zeros(config.num_patches, config.hidden_size))

    def forward(self, time_patches: int, valid_patches: torch.Tensor) -> torch.Tensor:
        """Positions of a grid of patches.

        Args:
            time_patches: Patches along time in the padded batch.
            valid_patches: Real patches along time of each clip, (batch, 1), or (1, 1) where all clips agree.

        Returns:
            (batch or 1, frequency patches * time_patches, hidden), frequency-major like the patches.
        """
        scale = self.time_patches / valid_patches.clamp(min=self.time_patches)
        steps = torch.arange(time_patches, device=self.weight.device)
        source = ((steps + 0.5) * scale - 0.5).clamp(0, self.time_patches - 1)
        lower = source.long()
        upper = (lower + 1).clamp(max=self.time_patches - 1)
        rows = torch.arange(self.frequency_patches, device=self.weight.device)[None, :, None] * self.time_patches
        start = nn.functional.embedding((rows + lower[:, None]).flatten(1), self.weight)
        end = nn.functional.embedding((rows + upper[:, None]).flatten(1), self.weight)
        fraction = (source - lower)[:, None].expand(-1, self.frequency_patches, -1).flatten(1)
        return torch.lerp(start, end, fraction[..., None].to(start.dtype))


class FFTPEmbeddings(nn.Module):
    """Patch tokens with positions, joined by the class tokens, and the mask over all of them.

    The AST backbone has a class and a distillation token in front. The Mamba backbone has one class token in the
    middle of the real tokens (Erol et al. 2024, section 3.2), and real tokens come before padding, so that a scan in
    either direction meets them as it would without padding.
    """

    def __init__(self, config: FFTPConfig):
        super().__init__()
        self.config = config
        self.is_sequential = config.backbone == "mamba"
        self.patch_embeddings = FFTPPatchEmbeddings(config)
        self.position_embeddings = FFTPPositionEmbeddings(config)
        if config.pooling == "cls":
            # The positions of class tokens are constants, so they are part of the tokens.
            self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
            if not self.is_sequential:
                self.distillation_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Embed a batch of spectrograms.

        Args:
            input_values: (batch, frames, mel bins).
            attention_mask: (batch, frames), 1 at real frames, padding on the right.

        Returns:
            Tokens (batch, class tokens + patches, hidden); the mask over them, (batch, class tokens + patches), true
            where every frame of the patch is real, or None without `attention_mask`; and the places of the class
            tokens, (batch or 1, class tokens).
        """
        if attention_mask is not None:
            if attention_mask.shape != input_values.shape[:2]:
                raise ValueError(
                    f"attention_mask has shape {tuple(attention_mask.shape)}; expected "
                    f"{tuple(input_values.shape[:2])}, the (batch, frames) of input_values"
                )
            # A clip shorter than one patch sees padding: zeros, whatever value the padding came with.
            input_values = input_values.masked_fill(attention_mask[..., None] == 0, 0.0)
        patches = self.patch_embeddings(input_values)
        frequency_patches, time_patches = patches.shape[2:]
        patches = patches.flatten(2).transpose(1, 2)
        if attention_mask is None:
            token_mask = None
            valid_patches = torch.tensor([[time_patches]], device=patches.device)
        else:
            valid_patches = self.config.time_patches(attention_mask.sum(dim=1, keepdim=True))
            is_valid = torch.arange(time_patches, device=patches.device) < valid_patches
            token_mask = is_valid.repeat(1, frequency_patches)
        tokens = patches + self.position_embeddings(time_patches, valid_patches)
        join = self._insert_class_token if self.is_sequential else self._prepend_class_tokens
        tokens, token_mask, class_places = join(tokens, token_mask)
        return self.dropout(tokens), token_mask, class_places

    def _prepend_class_tokens(
        self, patches: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Class and distillation token in front of the patches (batch, patches, hidden)."""
        if self.config.pooling == "mean":
            return patches, mask, patches.new_empty(1, 0, dtype=torch.long)
        class_tokens = torch.cat((self.cls_token, self.distillation_token), dim=1)
        tokens = torch.cat((class_tokens.expand(patches.shape[0], -1, -1), patches), dim=1)
        mask = None if mask is None else nn.functional.pad(mask, (2, 0), value=True)
        return tokens, mask, torch.arange(2, device=patches.device)[None]

    def _insert_class_token(
        self, patches: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Real patches first, and the class token in their middle."""
        batch, num_patches, hidden_size = patches.shape
        if mask is not None:
            # With several patches along frequency, padding stands between the rows.
            order = mask.logical_not().int().argsort(dim=1, stable=True)
            patches = patches.gather(1, order[..., None].expand_as(patches))
            num_valid = mask.sum(dim=1, keepdim=True)
        else:
            num_valid = torch.tensor([[num_patches]], device=patches.device)
        if self.config.pooling == "mean":
            mask = None if mask is None else torch.arange(num_patches, device=patches.device) < num_valid
            return patches, mask, patches.new_empty(1, 0, dtype=torch.long)
        middle = num_valid // 2
        places = torch.arange(num_patches + 1, device=patches.device)
        source = torch.where(places == middle, num_patches, places - (places > middle).long())
        tokens = torch.cat((patches, self.cls_token.expand(batch, -1, -1)), dim=1)
        tokens = tokens.gather(1, source[..., None].expand(batch, -1, hidden_size))
        return tokens, None if mask is None else places <= num_valid, middle


class FFTPPreTrainedModel(PreTrainedModel):
    """Weight initialisation and what transformers must know of the models."""

    config: FFTPConfig
    base_model_prefix = "fftp"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    # The loss is a mean over clips; Trainer averages it over accumulated batches.
    accepts_loss_kwargs = False
    _no_split_modules = ["FFTPEmbeddings", "FFTPTransformerLayer", "FFTPMambaLayer"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": [FFTPTransformerLayer, FFTPMambaLayer],
        "attentions": FFTPAttention,
    }

    def get_input_embeddings(self) -> FFTPPatchEmbeddings:
        """The patch embedding."""
        return self.base_model.embeddings.patch_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the patch embedding."""
        self.base_model.embeddings.patch_embeddings = value

    def save_pretrained(self, *args, **kwargs):
        """Save as transformers does; `AutoModel` opens the folder of any head as the base model."""
        self.config.auto_map = {"AutoModel": f"{FFTPModel.__module__.split('.')[-1]}.{FFTPModel.__name__}"} | (
            getattr(self.config, "auto_map", None) or {}
        )
        return super().save_pretrained(*args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, (FFTPMambaMixer, FFTPStateSpace)):
            module.initialise(self.config)
        elif isinstance(module, FFTPEmbeddings):
            for name in ("cls_token", "distillation_token"):
                if hasattr(module, name):
                    init.trunc_normal_(getattr(module, name), std=self.config.initializer_range)
        elif isinstance(module, FFTPPositionEmbeddings):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)


class FFTPModel(FFTPPreTrainedModel):
    """Spectrograms to token states, without a head."""

    def __init__(self, config: FFTPConfig):
        super().__init__(config)
        layer, norm = (
            (FFTPMambaLayer, nn.RMSNorm) if config.backbone == "mamba" else (FFTPTransformerLayer, nn.LayerNorm)
        )
        self.embeddings = FFTPEmbeddings(config)
        self.layers = nn.ModuleList([layer(config, index) for index in range(config.num_hidden_layers)])
        self.layernorm = norm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Encode a batch of spectrograms.

        Args:
            input_values: Normalised log-mel spectrograms, (batch, frames, mel bins).
            attention_mask: (batch, frames), 1 at real frames, padding on the right. Padding never changes the result.
            **kwargs: `output_hidden_states`, `output_attentions` and options of the attention implementation.

        Returns:
            `last_hidden_state` (batch, class tokens + patches, hidden), `pooler_output` (batch, hidden), and on
            request `hidden_states` (one more than layers) and `attentions` (batch, heads, tokens, tokens) of every
            layer.
        """
        hidden_states, token_mask, class_places = self.embeddings(input_values, attention_mask)
        layer_mask = token_mask
        if self.config.backbone == "ast":
            layer_mask = create_bidirectional_mask(
                config=self.config, inputs_embeds=hidden_states, attention_mask=token_mask
            )
        for layer in self.layers:
            hidden_states = layer(hidden_states, layer_mask, **kwargs)
        hidden_states = self.layernorm(hidden_states.to(self.layernorm.weight.dtype))
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states, pooler_output=self._pool(hidden_states, token_mask, class_places)
        )

    def _pool(
        self, hidden_states: torch.Tensor, token_mask: torch.Tensor | None, class_places: torch.Tensor
    ) -> torch.Tensor:
        """(batch, tokens, hidden) to (batch, hidden): the mean of the class tokens, or of the real patch tokens."""
        if self.config.pooling == "cls":
            index = class_places[..., None].expand(hidden_states.shape[0], -1, hidden_states.shape[-1])
            return hidden_states.gather(1, index).mean(dim=1)
        if token_mask is None:
            return hidden_states.mean(dim=1)
        weights = token_mask[..., None].to(hidden_states.dtype)
        return (hidden_states * weights).sum(dim=1) / weights.sum(dim=1)


class FFTPClassificationHead(nn.Module):
    """One linear layer, behind a LayerNorm on the AST backbone, as in AST and AuM."""

    def __init__(self, config: FFTPConfig):
        super().__init__()
        is_ast = config.backbone == "ast"
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if is_ast else nn.Identity()
        self.dense = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(..., hidden) to (..., labels)."""
        return self.dense(self.layernorm(hidden_states))


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, problem_type: str | None) -> torch.Tensor:
    """Mean loss over clips, in float32.

    Args:
        logits: (batch, labels).
        labels: For "single_label_classification" indices (batch,), or distributions (batch, labels) as mixup makes
            them; for "multi_label_classification" targets in [0, 1], (batch, labels); for "regression" values like
            `logits`, or (batch,) where there is one label.
        problem_type: One of those three.

    Returns:
        A scalar.

    Raises:
        ValueError: Labels whose shape does not belong to the problem type, or an unknown problem type.
    """
    logits, labels = logits.float(), labels.to(logits.device)
    if problem_type == "regression" and labels.ndim < logits.ndim and logits.shape[-1] == 1:
        labels = labels.unsqueeze(-1)
    has_indices = problem_type == "single_label_classification" and labels.ndim < logits.ndim
    expected = logits.shape[:-1] if has_indices else logits.shape
    if labels.shape != expected:
        raise ValueError(
            f"labels has shape {tuple(labels.shape)}; {problem_type} with logits {tuple(logits.shape)} expects "
            f"{tuple(expected)}"
        )
    if problem_type == "single_label_classification":
        return nn.functional.cross_entropy(logits, labels.long() if has_indices else labels.float())
    if problem_type == "multi_label_classification":
        return nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
    if problem_type == "regression":
        return nn.functional.mse_loss(logits, labels.float())
    raise ValueError(
        f"problem_type={problem_type!r} is unknown; expected 'single_label_classification', "
        "'multi_label_classification' or 'regression'"
    )


class FFTPForAudioClassification(FFTPPreTrainedModel):
    """An FFTP model with a linear head on the pooled state: one set of labels per clip."""

    def __init__(self, config: FFTPConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.fftp = FFTPModel(config)
        self.classifier = FFTPClassificationHead(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """Classify a batch of clips.

        Args:
            input_values: Normalised log-mel spectrograms, (batch, frames, mel bins).
            attention_mask: (batch, frames), 1 at real frames, padding on the right. Padding never changes the result.
            labels: Targets in the form that `classification_loss` takes for `config.problem_type`.
            **kwargs: Passed to the base model.

        Returns:
            `logits` (batch, labels), `loss` where labels are given, and on request `hidden_states` and `attentions`.
        """
        outputs = self.fftp(input_values, attention_mask=attention_mask, **kwargs)
        logits = self.classifier(outputs.pooler_output)
        loss = None if labels is None else classification_loss(logits, labels, self.config.problem_type)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = ["FFTPForAudioClassification", "FFTPModel", "FFTPPreTrainedModel"]
