"""FFTP models: the base model and its heads, over clips and over frames."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, SequenceFeatureExtractor
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, logging
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .cache_fftp import FFTPCache
from .configuration_fftp import SINGLE_LABEL, FFTPConfig
from .embeddings_fftp import FFTPEmbeddings, FFTPPatchEmbeddings, FFTPPositionEmbeddings, check_padding
from .events_fftp import Event, events_to_labels
from .explain_fftp import explain
from .heads_fftp import CLIPS, FRAMES, find_saved_task, is_headless
from .label_fields_fftp import drop_fields_of_labels, drop_unknown_labels, refuse_unknown_labels
from .layers_ast_fftp import FFTPAttention, FFTPTransformerLayer
from .layers_convnext_fftp import FFTPConvNextLayer
from .layers_mamba_fftp import FFTPMambaLayer, FFTPMambaMixer, FFTPRMSNorm, FFTPStateSpace
from .loss_fftp import IGNORED, classification_loss, pool_somewhere
from .saving_fftp import name_auto_classes, name_pipelines, save_code
from .scores_fftp import is_multi_label
from .stream_fftp import FFTPStream
from .times_fftp import token_spans
from .token_merging_fftp import merge_neighbours, restore_tokens
from .tracing_fftp import has_values, takes_other_derivatives
from .window_pipeline_fftp import check_extractor

logger = logging.get_logger(__name__)

# What each backbone is made of.
LAYERS = {
    "ast": (FFTPTransformerLayer, nn.LayerNorm),
    "mamba": (FFTPMambaLayer, FFTPRMSNorm),
    "convnext": (FFTPConvNextLayer, nn.LayerNorm),
}
# Ends of names, behind a dot, of parameters that weight decay would only pull away from where they belong: the scan's
# decay rates and skip weights (mamba-ssm marks them so), a ConvNeXt's layer scale, positions, tokens of their own.
NO_WEIGHT_DECAY = (
    ".A_log", ".A_log_reverse", ".D", ".layer_scale_parameter",
    ".position_embeddings.weight", ".cls_token", ".distillation_token", ".mask_token",
)  # fmt: skip


class FFTPPreTrainedModel(PreTrainedModel):
    """Weight initialisation and what transformers must know of the models."""

    config: FFTPConfig
    base_model_prefix = "fftp"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    # The loss is a mean over clips; Trainer averages it over accumulated batches.
    accepts_loss_kwargs = False
    # Each model adds what else it is made of: accelerate refuses to shard one that lacks a name in the list.
    _no_split_modules = ["FFTPEmbeddings"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": [FFTPTransformerLayer, FFTPMambaLayer, FFTPConvNextLayer],
        "attentions": FFTPAttention,
    }
    # What another head learned has no place here.
    _keys_to_ignore_on_load_unexpected = [r"^decoder\.", r"^classifier\."]  # noqa: RUF012
    _feature_extractor = None

    @property
    def feature_extractor(self) -> SequenceFeatureExtractor | None:
        """The `FFTPFeatureExtractor` of a model that takes sound; set by whoever wants that, and not saved with it."""
        return self.base_model._feature_extractor

    @feature_extractor.setter
    def feature_extractor(self, value: SequenceFeatureExtractor | None) -> None:
        if value is not None:
            check_extractor(value, self.config)
        self.base_model._feature_extractor = value

    def get_input_embeddings(self) -> FFTPPatchEmbeddings:
        """The patch embedding."""
        return self.base_model.embeddings.patch_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the patch embedding, by one whose `forward` takes `time_stride` as well; None is the config's."""
        self.base_model.embeddings.patch_embeddings = value

    def set_time_stride(self, time_stride: int) -> None:
        """Run from now on with another number of frames between patches; it is saved with the model.

        It is a field of the config, so models that were made from one config object all change: give each its own
        (`copy.deepcopy(config)`), or name the stride in the call.

        Raises:
            ValueError: The stride is below 1.
        """
        self.config.time_stride = self.config.resolve_time_stride(time_stride)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters beside biases and norms that weight decay should leave alone; timm asks for them."""
        return {name for name, _ in self.named_parameters() if f".{name}".endswith(NO_WEIGHT_DECAY)}

    def _as_features(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features and mask of what a call was given, which may be sound."""
        if not isinstance(input_values, torch.Tensor):
            raise ValueError(
                f"input_values is of type {type(input_values).__name__}; expected a tensor, as extractors give with "
                "return_tensors='pt'"
            )
        if input_values.ndim == 2:
            return self._extract_features(input_values, attention_mask)
        return input_values, attention_mask

    # The extractor looks at the length and the values of every clip, which cannot be part of a graph.
    @torch.compiler.disable
    def _extract_features(
        self, sound: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features of sound (batch, samples), on its device, and the mask if any."""
        # Rows as wide as a frame are one spectrogram that lacks its batch.
        if self.feature_extractor is None or sound.shape[1] == self.config.num_mel_bins:
            raise ValueError(
                f"input_values has shape {tuple(sound.shape)}; expected (batch, frames, {self.config.num_mel_bins} "
                "mel bins), or (batch, samples) after `model.feature_extractor = extractor`; with PEFT that model is "
                "`get_base_model()`"
            )
        clips = sound
        if attention_mask is not None:
            if attention_mask.shape != sound.shape:
                raise ValueError(
                    f"attention_mask has shape {tuple(attention_mask.shape)}; expected {tuple(sound.shape)}, the "
                    "(batch, samples) of input_values"
                )
            attention_mask = attention_mask != 0
            check_padding(attention_mask)
            lengths = attention_mask.sum(dim=1).tolist()
            clips = [clip[:length] for clip, length in zip(sound, lengths, strict=True)]
        features = self.feature_extractor.extract_batch(clips)
        return features["input_values"], features.get("attention_mask")

    def save_pretrained(self, save_directory: str | os.PathLike, is_main_process: bool = True, *args, **kwargs):
        """Save as transformers does; the folder opens by every Auto class whose head can use its weights.

        Our code is saved for models of every class, also those that are defined in a notebook or another file. What
        was chosen for labels that have been renamed since is dropped: no model would open with it.

        Raises:
            ValueError: A head whose outputs are not the labels of the config, or weights for another grid of patches:
                nothing would open the folder.
        """
        self.base_model.embeddings.refuse_other_shape()
        dense = getattr(getattr(self, "classifier", None), "dense", None)
        num_outputs, num_labels = getattr(dense, "out_features", None), self.config.num_labels
        if num_outputs not in (None, num_labels):
            raise ValueError(
                f"the head has {num_outputs} outputs, and the config {num_labels} labels; set config.id2label and "
                "config.label2id to those of the head"
            )
        drop_unknown_labels(self.config)
        self.config.custom_pipelines = name_pipelines(self)
        self.config.auto_map = name_auto_classes(self)
        if is_main_process and not os.path.isfile(save_directory):
            save_code(self, Path(save_directory))
        if type(self).__module__.startswith("torch."):
            # FSDP 2 makes a class of its own, whose code transformers would save, and name in the config.
            type(self)._auto_class = None
        return super().save_pretrained(save_directory, is_main_process, *args, **kwargs)

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        # In code that is not its own, transformers passes over modules that have no parameters of their own, lest it
        # overwrites loaded weights. A mixer is one, and leaves those as they are.
        super()._initialize_weights(module, is_custom_code and not isinstance(module, FFTPMambaMixer))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, (FFTPMambaMixer, FFTPStateSpace, FFTPConvNextLayer)):
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
        # `from_pretrained` sets its keywords on a finished config.
        config.validate()
        refuse_unknown_labels(config)
        layer, norm = LAYERS[config.backbone]
        self.embeddings = FFTPEmbeddings(config)
        self.layers = nn.ModuleList([layer(config, index) for index in range(config.num_hidden_layers)])
        self.layernorm = norm(config.hidden_size, eps=config.layer_norm_eps)
        self._no_split_modules = [*self._no_split_modules, layer.__name__]
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pooled_only: bool = False,
        bool_masked_pos: torch.Tensor | None = None,
        time_stride: int | None = None,
        cache_params: FFTPCache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Encode a batch of spectrograms.

        Args:
            input_values: Normalised log-mel spectrograms, (batch, frames, mel bins); or, where `feature_extractor` is
                set, sound at the extractor's rate, (batch, samples), float32 in [-1, 1] or integer PCM. No gradient
                reaches sound.
            attention_mask: (batch, frames) or (batch, samples), 1 at real frames or samples, padding on the right.
                Padding never changes the result.
            pooled_only: Whether nothing but `pooler_output` is wanted. `last_hidden_state` may then hold the class
                tokens alone, which saves most of the last layer.
            bool_masked_pos: (batch, patches), true at patches that are left out, as in pretraining; the states of the
                others follow in their order, but for ConvNeXt, where all keep their place. Not with merging of tokens.
            time_stride: Frames between patches in this call; None is the model's.
            cache_params: What a causal model keeps of the sound before this, which it goes on from and changes. The
                frames begin where the next patch does, so pieces overlap by what patches do; `pooler_output` is the
                mean over all tokens so far.
            **kwargs: `output_hidden_states`, `output_attentions` and options of the attention implementation.

        Returns:
            `last_hidden_state` (batch, class tokens + patches, hidden), `pooler_output` (batch, hidden), and on
            request `hidden_states` (one more than layers) and `attentions` (batch, heads, tokens, tokens) of every
            layer. Patches that were merged share their token's last hidden state; `hidden_states` and `attentions` of
            the layers after a merge have fewer tokens.
        """
        if cache_params is not None:
            cache_params.check(self.config, input_values, attention_mask, time_stride)
            if self.training and self.is_gradient_checkpointing:
                raise ValueError("cache_params would move on twice: gradient checkpointing computes every layer again")
        if bool_masked_pos is not None and (cache_params is not None or self.config.token_merge_layers):
            raise ValueError("bool_masked_pos goes neither with cache_params nor with config.token_merge_layers")
        input_values, attention_mask = self._as_features(input_values, attention_mask)
        hidden_states, token_mask, class_places = self.embeddings(
            input_values, attention_mask, bool_masked_pos, time_stride
        )
        if cache_params is not None:
            cache_params.time_stride = self.config.resolve_time_stride(time_stride)
        skips_patches = pooled_only and self._can_skip_patches(kwargs)
        hidden_states = self._run_layers(hidden_states, token_mask, skips_patches, cache_params, **kwargs)
        hidden_states = self.layernorm(hidden_states)
        if cache_params is None:
            pooled = self._pool(hidden_states, token_mask, class_places)
        else:
            pooled = cache_params.pool(hidden_states)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)

    def _run_layers(
        self,
        hidden_states: torch.Tensor,
        token_mask: torch.Tensor | None,
        skips_patches: bool,
        cache_params: FFTPCache | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """(batch, tokens, hidden) to the same shape, or with `skips_patches` to the class tokens alone.

        Tokens that are merged between blocks have the state of what they became.
        """
        num_tokens, num_class_tokens = hidden_states.shape[1], self.embeddings.num_class_tokens
        num_rows, merge_layers = self.config.frequency_patches, self.config.token_merge_layers or ()
        layer_mask = self._layer_mask(hidden_states, token_mask)
        for index, layer in enumerate(self.layers, start=1):
            if skips_patches and index == len(self.layers):
                kwargs["num_queries"] = num_class_tokens
            if cache_params is not None:
                kwargs["state"] = cache_params.layers[index - 1]
            hidden_states = layer(hidden_states, layer_mask, **kwargs)
            if index in merge_layers:
                hidden_states, token_mask = merge_neighbours(hidden_states, token_mask, num_class_tokens, num_rows)
                layer_mask = self._layer_mask(hidden_states, token_mask)
        if skips_patches or not merge_layers:
            return hidden_states
        return restore_tokens(hidden_states, len(merge_layers), num_tokens, num_class_tokens, num_rows)

    def _layer_mask(self, hidden_states: torch.Tensor, token_mask: torch.Tensor | None) -> torch.Tensor | None:
        """The mask over tokens in the form that the layers of the backbone take."""
        if self.config.backbone != "ast":
            # As for attention: a mask without padding is none, where its values may decide.
            has_none = token_mask is None or (has_values(token_mask) and bool(token_mask.all()))
            return None if has_none else token_mask
        if token_mask is not None and not torch.compiler.is_compiling() and takes_other_derivatives():
            # What transformers makes, but without a look at the values.
            least = torch.finfo(hidden_states.dtype).min
            bias = torch.zeros_like(token_mask, dtype=hidden_states.dtype).masked_fill(~token_mask, least)
            return bias[:, None, None]
        return create_bidirectional_mask(config=self.config, inputs_embeds=hidden_states, attention_mask=token_mask)

    def _can_skip_patches(self, kwargs: TransformersKwargs) -> bool:
        """Whether the last layer may leave out the patch tokens: class tokens stand first and nobody looks at others.

        Flash and flex attention have masks that cannot be cut to fewer queries.
        """
        is_recorded = any(
            kwargs.get(name, getattr(self.config, name, False))
            for name in ("output_hidden_states", "output_attentions")
        )
        return (
            self.config.backbone == "ast"
            and self.config.pooling == "cls"
            and self.config._attn_implementation in ("eager", "sdpa")
            and not is_recorded
        )

    def _pool(
        self, hidden_states: torch.Tensor, token_mask: torch.Tensor | None, class_places: torch.Tensor
    ) -> torch.Tensor:
        """(batch, tokens, hidden) to (batch, hidden): the mean of the class tokens, or of the real patch tokens."""
        if self.embeddings.num_class_tokens:
            class_places = class_places.to(hidden_states.device).expand(hidden_states.shape[0], -1)
        if self.config.pooling == "cls":
            index = class_places[..., None].expand(-1, -1, hidden_states.shape[-1])
            return hidden_states.gather(1, index).mean(dim=1)
        if token_mask is None and not self.embeddings.num_class_tokens:
            return hidden_states.mean(dim=1)
        # Sums of ten minutes are beyond float16.
        weights = hidden_states.new_ones(hidden_states.shape[:2], dtype=torch.float32)
        if token_mask is not None:
            weights = weights * token_mask.to(hidden_states.device)
        if self.embeddings.num_class_tokens:
            weights = weights.scatter(1, class_places, 0.0)
        weights = weights[..., None]
        return ((hidden_states * weights).sum(dim=1) / weights.sum(dim=1)).to(hidden_states.dtype)


class FFTPClassificationHead(nn.Module):
    """One linear layer, behind a LayerNorm on the AST backbone, as in AST and AuM."""

    def __init__(self, config: FFTPConfig):
        super().__init__()
        # Adapters of norms take every module of the name for one.
        is_ast = config.backbone == "ast"
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if is_ast else None
        self.dense = nn.Linear(config.hidden_size, config.num_labels)

    def normalize(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """What the linear layer gets, (..., hidden)."""
        return hidden_states if self.layernorm is None else self.layernorm(hidden_states)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(..., hidden) to (..., labels)."""
        return self.dense(self.normalize(hidden_states))


def forget_another_head(config: FFTPConfig, task: str) -> FFTPConfig:
    """A config without what was chosen for the scores of another head: of clips, steps, or one that was not saved."""
    if find_saved_task(config) in (task, None) and not is_headless(config):
        return config
    return drop_fields_of_labels(config, "were chosen for the scores of another head")


class FFTPForAudioClassification(FFTPPreTrainedModel):
    """An FFTP model with a linear head on the pooled state: one set of labels per clip."""

    def __init__(self, config: FFTPConfig):
        config = forget_another_head(config, CLIPS)
        super().__init__(config)
        if find_saved_task(config) == FRAMES:
            logger.warning(
                "These weights tell steps in time apart; what they say of whole clips means nothing before a training"
            )
        self.num_labels = config.num_labels
        self.fftp = FFTPModel(config)
        self.classifier = FFTPClassificationHead(config)
        self.loss_function = classification_loss
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        time_stride: int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """Classify a batch of clips.

        Args:
            input_values: Normalised log-mel spectrograms, (batch, frames, mel bins); or, where `feature_extractor` is
                set, sound at the extractor's rate, (batch, samples), float32 in [-1, 1] or integer PCM. No gradient
                reaches sound.
            attention_mask: (batch, frames) or (batch, samples), 1 at real frames or samples, padding on the right.
                Padding never changes the result.
            labels: Targets in the form that `classification_loss` takes for `config.problem_type`.
            time_stride: Frames between patches in this call; None is the model's.
            **kwargs: Passed to the base model, which computes the pooled state alone: hooks on its last layer see the
                class tokens, unless `output_hidden_states=True` or `pooled_only=False` asks for every token.

        Returns:
            `logits` (batch, labels), `loss` where labels are given, and on request `hidden_states` and `attentions`.
        """
        kwargs = {"pooled_only": True, **kwargs, "return_dict": True}
        outputs = self.fftp(input_values, attention_mask=attention_mask, time_stride=time_stride, **kwargs)
        logits = self.classifier(outputs.pooler_output)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def explain(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        label: int | None = None,
        method: str = "gradient",
        num_frames: int | None = None,
    ) -> torch.Tensor:
        """Relevance of the cells of spectrograms for a label, positive where they spoke for it.

        Args:
            input_values: (batch, frames, mel bins).
            attention_mask: (batch, frames).
            label: Index; None is the best of each clip.
            method: "gradient", integrated gradients from the clip's steady background, for any backbone; or "rollout",
                the attention of an AST, which knows no labels.
            num_frames: Real frames of clips that are padded and have no mask, which the steady background is of;
                default: all.

        Returns:
            (batch, frames, mel bins).

        Raises:
            ValueError: An unknown method, or one that does not fit the model.
        """
        return explain(self, input_values, attention_mask, label, method, num_frames)

    def stream(self, feature_extractor: SequenceFeatureExtractor, **options) -> FFTPStream:
        """Classify sound that does not end, from now on; see `FFTPStream`, which takes the options."""
        return FFTPStream(self, feature_extractor, **options)


class FFTPForAudioFrameClassification(FFTPPreTrainedModel):
    """An FFTP model with a linear head on every step in time: labels that change within a clip.

    Steps are the patches along time; with several rows of patches, the mean over the rows stands for a step.
    """

    def __init__(self, config: FFTPConfig):
        config = forget_another_head(config, FRAMES)
        super().__init__(config)
        if find_saved_task(config) == CLIPS and config.pooling == "cls":
            logger.warning(
                "These weights tell whole clips apart by a class token; what they say of steps in time means nothing "
                "before a training"
            )
        self.num_labels = config.num_labels
        self.fftp = FFTPModel(config)
        self.classifier = FFTPClassificationHead(config)
        self.loss_function = classification_loss
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | Sequence[Sequence[Event]] | None = None,
        time_stride: int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TokenClassifierOutput:
        """Classify every step of a batch of clips.

        Args:
            input_values: Normalised log-mel spectrograms, (batch, frames, mel bins); or, where `feature_extractor` is
                set, sound at the extractor's rate, (batch, samples), float32 in [-1, 1] or integer PCM. No gradient
                reaches sound.
            attention_mask: (batch, frames) or (batch, samples), 1 at real frames or samples, padding on the right.
                Padding never changes the result.
            labels: Indices (batch, steps), -100 where there is none, or targets (batch, steps, labels), in the form
                that `classification_loss` takes; or for "multi_label_classification" the events of each clip, (onset,
                offset, label) in seconds, with None for times that nobody knows, or targets as `events_to_labels`
                makes them. Labels of padded steps count for nothing, and may be missing.
            time_stride: Frames between patches in this call; None is the model's.
            **kwargs: Passed to the base model.

        Returns:
            `logits` (batch, steps, labels), without meaning where a step is padding; `loss`, the mean over real steps,
            where labels are given; and on request `hidden_states` and `attentions`. `token_spans` says when each step
            is.
        """
        if unfit := sorted({"pooled_only", "bool_masked_pos"} & kwargs.keys()):
            raise TypeError(f"a frame classifier has no argument {unfit[0]!r}: it looks at every step")
        input_values, attention_mask = self._as_features(input_values, attention_mask)
        kwargs = {**kwargs, "return_dict": True}
        outputs = self.fftp(input_values, attention_mask=attention_mask, time_stride=time_stride, **kwargs)
        states, num_steps = self.fftp.embeddings.gather_steps(outputs.last_hidden_state, attention_mask, time_stride)
        logits = self.classifier(states)
        loss = None if labels is None else self._loss(logits, labels, num_steps, time_stride)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def token_spans(self, num_steps: int, time_stride: int | None = None) -> torch.Tensor:
        """Start and end in seconds of each step of a clip, (steps, 2), float64."""
        return token_spans(self.config, num_steps, time_stride)

    def _loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor | Sequence[Sequence[Event]],
        num_steps: torch.Tensor,
        time_stride: int | None,
    ) -> torch.Tensor:
        """Mean loss over the real steps of all clips."""
        if isinstance(labels, np.ndarray):
            # Rows of three numbers could be events as well as targets.
            raise ValueError("labels are a NumPy array; expected a tensor, or a list of events for each clip")
        if not isinstance(labels, torch.Tensor):
            if not is_multi_label(self.config):
                raise ValueError(
                    f"labels are events; problem_type={self.config.problem_type!r} expects a tensor, events need "
                    "'multi_label_classification'"
                )
            labels = events_to_labels(self.config, labels, num_steps[:, 0].tolist(), time_stride)
        if labels.ndim > 1 and labels.shape[1] < logits.shape[1] and num_steps.max() <= labels.shape[1]:
            # The batch is padded further than its longest clip.
            logits = logits[:, : labels.shape[1]]
        if labels.shape[:2] != logits.shape[:2]:
            raise ValueError(
                f"labels has shape {tuple(labels.shape)}; expected {tuple(logits.shape[:2])}, (batch, steps), first"
            )
        is_real = torch.arange(logits.shape[1], device=logits.device) < num_steps.to(logits.device)
        labels = labels.to(logits.device)
        if labels.ndim == 3 and is_multi_label(self.config):
            labels, logits = pool_somewhere(labels, logits, is_real)
        if labels.ndim == 2 and self.config.problem_type == SINGLE_LABEL:
            is_real = is_real & (labels.long() != IGNORED)
        logits, labels = logits[is_real], labels[is_real]
        if not len(labels):
            # The mean over no step at all would be NaN, and end the training.
            return 0.0 * logits.sum()
        return self.loss_function(labels, logits, self.config)


# By what they tell apart.
CLASSIFIERS = {CLIPS: FFTPForAudioClassification, FRAMES: FFTPForAudioFrameClassification}

__all__ = ["FFTPForAudioClassification", "FFTPForAudioFrameClassification", "FFTPModel", "FFTPPreTrainedModel"]
