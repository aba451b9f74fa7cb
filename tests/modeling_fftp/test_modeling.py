"""FFTPModel and FFTPForAudioClassification: lengths, masks, gradients, losses, cost."""

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from modeling_fftp import (
    FFTPConfig,
    FFTPForAudioClassification,
    FFTPForAudioFrameClassification,
    FFTPForPreTraining,
    FFTPModel,
)
from modeling_fftp.hub.efficiency import count_flops, multiply_adds
from modeling_fftp.layers_ast_fftp import mixed_attention_forward
from modeling_fftp.modeling_fftp import LAYERS
from modeling_fftp.training.trainer import FFTPTrainer
from tests.support import BACKBONES, GEOMETRIES, POOLED, build_classifier, needs_cpp_compiler


@pytest.mark.parametrize("backbone", BACKBONES)
def test_weights_of_any_type_take_what_an_extractor_gives(make_config, batch, backbone):
    model = build_classifier(make_config(**BACKBONES[backbone]))
    expected = model(**batch).logits
    logits = model.bfloat16()(**batch).logits
    assert logits.dtype == torch.bfloat16
    assert (logits - expected).square().mean().sqrt() < 0.03 * expected.std()


@pytest.mark.parametrize("backbone", ["fo-fo", "fo-bi", "bi-bi", "convnext"])
def test_derivatives_of_other_kinds(make_config, backbone):
    """In forward mode, of every clip by itself, and the second one."""
    model = build_classifier(make_config(**BACKBONES[backbone]))
    features, weights = torch.randn(2, 60, 128).requires_grad_(), dict(model.named_parameters())
    direction = torch.randn_like(features)
    (gradient,) = torch.autograd.grad(model(features).logits.sum(), features)

    def total(features):
        return model(features).logits.sum()

    slope = torch.func.jvp(total, (features.detach(),), (direction,))[1]
    torch.testing.assert_close(slope, (gradient * direction).sum(), atol=1e-3, rtol=1e-3)

    def loss(weights, clip, label):
        return torch.func.functional_call(model, weights, (clip[None],), {"labels": label[None]}).loss

    labels = torch.tensor([0, 3])
    given = {name: weight.detach() for name, weight in weights.items()}
    per_clip = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(given, features.detach(), labels)
    model(features.detach(), labels=labels).loss.backward()
    for name, weight in weights.items():
        if weight.grad is not None:
            torch.testing.assert_close(per_clip[name].mean(dim=0), weight.grad, atol=1e-4, rtol=1e-3)

    model = build_classifier(make_config(**BACKBONES[backbone], scan_implementation="reference"))
    (gradient,) = torch.autograd.grad(model(features).logits.sum(), features, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), features)
    assert second.abs().max() > 0


@needs_cpp_compiler
@pytest.mark.parametrize("backbone", ["fo-fo", "fo-bi", "bi-bi"])
def test_second_derivatives_are_refused_by_kernels(make_config, backbone):
    model = build_classifier(make_config(**BACKBONES[backbone]))
    features = torch.randn(2, 60, 128).requires_grad_()
    (gradient,) = torch.autograd.grad(model(features).logits.sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="scan_implementation='reference' of the config"):
        gradient.square().sum().backward()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_float64_is_computed_in_float64(make_config, backbone):
    config = make_config(**BACKBONES[backbone], scan_implementation="reference", attn_implementation="eager")
    model = build_classifier(config).double()
    features = torch.randn(2, 30, 128, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: model(x).logits, features, fast_mode=True)


@pytest.mark.parametrize(
    "kind", [FFTPModel, FFTPForAudioClassification, FFTPForAudioFrameClassification, FFTPForPreTraining]
)
def test_features_that_are_no_tensor_are_refused(make_config, batch, kind):
    with pytest.raises(ValueError, match="input_values is of type ndarray; expected a tensor"):
        kind(make_config())(batch["input_values"].numpy())
    with pytest.raises(ValueError, match="input_values is of type list; expected a tensor"):
        kind(make_config())(batch["input_values"].tolist())


@pytest.mark.parametrize(
    ("pooled", "settings"),
    [
        (name, settings)
        for name, fields in POOLED.items()
        for settings in {
            "ast": [{"attention": "eager"}, {"attention": "sdpa"}],
            "mamba": [{"scan": "auto"}, {"scan": "torch"}],
            "convnext": [{}],
        }[fields.get("backbone", "ast")]
    ],
)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_batch_gives_each_clip_the_logits_it_gets_alone(make_config, extractor, pooled, settings, geometry):
    config = make_config(**GEOMETRIES[geometry], **POOLED[pooled])
    config.scan_implementation = settings.get("scan", "auto")
    model = build_classifier(config, settings.get("attention", "sdpa"))
    rng = np.random.default_rng(0)
    # From below one window, over below one patch, to three times the position table.
    clips = [rng.normal(size=samples).astype(np.float32) * 0.1 for samples in (200, 1500, 9000, 16000, 50000)]
    with torch.no_grad():
        together = model(**extractor(clips, sampling_rate=16000, return_tensors="pt")).logits
        for clip, logits in zip(clips, together, strict=True):
            alone = extractor(clip, sampling_rate=16000, return_tensors="pt")
            torch.testing.assert_close(model(**alone).logits[0], logits, atol=1e-5, rtol=0)
            torch.testing.assert_close(model(alone["input_values"]).logits[0], logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_what_stands_in_padding_is_ignored(make_config, geometry, backbone):
    model = build_classifier(make_config(**GEOMETRIES[geometry], **BACKBONES[backbone]))
    features = torch.randn(2, 60, 128)
    mask = torch.ones(2, 60, dtype=torch.long)
    mask[0, 33:] = 0
    mask[1, 4:] = 0
    garbage = features.masked_fill(mask[..., None] == 0, 1e4)
    with torch.no_grad():
        torch.testing.assert_close(model(garbage, mask).logits, model(features, mask).logits, atol=1e-6, rtol=0)


def test_positions_are_a_function_of_time(make_config):
    model = build_classifier(make_config())
    positions = model.fftp.embeddings.position_embeddings
    table = positions.weight
    head = positions(7, torch.tensor([[7]]))
    torch.testing.assert_close(head[0], table[:7], atol=0, rtol=0)
    longer = positions(2 * len(table), torch.tensor([[2 * len(table)], [5]]))
    torch.testing.assert_close(longer[0, 0], table[0])
    torch.testing.assert_close(longer[0, -1], table[-1])
    torch.testing.assert_close(longer[0, 1], 0.75 * table[0] + 0.25 * table[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(longer[1, :5], table[:5], atol=0, rtol=0)


def test_square_positions_interpolate_along_time_only(make_config):
    config = make_config(**GEOMETRIES["square"])
    positions = build_classifier(config).fftp.embeddings.position_embeddings
    rows, columns = config.patch_grid
    grid = positions.weight.unflatten(0, (rows, columns))
    longer = positions(2 * columns, torch.tensor([[2 * columns]]))[0].unflatten(0, (rows, 2 * columns))
    torch.testing.assert_close(longer[:, 0], grid[:, 0])
    torch.testing.assert_close(longer[:, -1], grid[:, -1])


def test_reentrant_checkpointing_recomputes_what_was_computed(make_config):
    """Its forward pass runs without gradients, and must not take another kernel for that."""
    inputs, module = torch.randn(3, 2, 3, 20, 8).bfloat16(), torch.nn.Module()
    with torch.no_grad():
        without, _ = mixed_attention_forward(module, *inputs, None, scaling=0.3)
    with_gradients, _ = mixed_attention_forward(module, *inputs.requires_grad_(), None, scaling=0.3)
    assert torch.equal(without, with_gradients)
    gradients = []
    for use_reentrant in (None, True, False):
        model = build_classifier(make_config()).train()
        if use_reentrant is not None:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
            model.enable_input_require_grads()
        with torch.autocast("cpu", torch.bfloat16):
            model(torch.ones(2, 100, 128), labels=torch.tensor([0, 3])).loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


@pytest.mark.parametrize("pooled", POOLED)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_parameter_gets_a_gradient(make_config, geometry, pooled):
    config = make_config(max_length=100, **GEOMETRIES[geometry], **POOLED[pooled])
    model = FFTPForAudioClassification(config)
    labels = torch.tensor([0, 3])
    model(torch.randn(2, 100, 128), labels=labels).loss.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # Attention ignores a constant added to every key.
    assert [name for name in silent if not name.endswith("k_proj.bias")] == []


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradient_checkpointing_changes_nothing(make_config, backbone):
    features, labels = torch.randn(2, 100, 128), torch.tensor([0, 3])
    gradients = []
    for checkpointing in (False, True):
        model = build_classifier(make_config(**BACKBONES[backbone])).train()
        if checkpointing:
            # Older versions of transformers know the second name only, newer ones deprecate it.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable()
        model(features, labels=labels).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_drop_path_drops_whole_branches_in_training_only(make_config):
    model = build_classifier(make_config(drop_path_rate=0.5))
    rates = [layer.drop_path.rate for layer in model.fftp.layers]
    assert rates == [0.0, 0.5]
    drop_path = model.fftp.layers[1].drop_path
    branch = torch.ones(2000, 3, 4)
    assert (drop_path(branch) == branch).all()
    dropped = drop_path.train()(branch).flatten(1)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert (dropped == dropped[:, :1]).all()
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("backbone", ["ast", "fo-bi", "convnext"])
@pytest.mark.parametrize(
    "setting", ["hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", None], ids=str
)
def test_training_draws_by_every_setting_and_evaluation_by_none(make_config, backbone, setting):
    rates = {} if setting is None else {setting: 0.5}
    model, features = build_classifier(make_config(**rates, **BACKBONES[backbone])), torch.randn(3, 50, 128)
    only_of_the_ast = backbone != "ast" and setting == "attention_probs_dropout_prob"
    with torch.no_grad():
        for is_training in (True, False):
            first, second = (model.train(is_training)(features, pooled_only=False).logits for _ in range(2))
            draws = is_training and setting is not None and not only_of_the_ast
            assert torch.equal(first, second) != draws


class Nothing(torch.nn.Module):
    """Drops everything."""

    def forward(self, hidden_states):
        return torch.zeros_like(hidden_states)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_branch_passes_through_drop_path(make_config, backbone):
    config = make_config(**(BACKBONES[backbone] | {"token_merge_layers": None}))
    model = build_classifier(config).fftp
    for layer in model.layers:
        layer.drop_path = Nothing()
    with torch.no_grad():
        embedded, *others = model(torch.randn(2, 50, 128), output_hidden_states=True).hidden_states
    assert len(others) == config.num_hidden_layers
    assert all(torch.equal(states, embedded) for states in others[:-1])


def test_dropout_is_where_the_configuration_says(make_config):
    """On the embeddings and on both branches of every block, as in AST."""
    model = build_classifier(make_config(hidden_dropout_prob=0.25)).train()
    seen = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(lambda module, args, output, name=name: seen.append((name, args[0], output)))
    model(torch.randn(3, 50, 128), pooled_only=False)
    layers = [f"fftp.layers.{index}.dropout" for index in range(2)]
    assert [name for name, *_ in seen] == ["fftp.embeddings.dropout", *(name for name in layers for _ in range(2))]
    for _, before, after in seen:
        assert (after == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
        kept = after != 0
        torch.testing.assert_close(after[kept], before[kept] / 0.75)


def test_hidden_states_and_attentions(make_config):
    model = build_classifier(make_config(), "eager")
    outputs = model(torch.randn(2, 100, 128), output_hidden_states=True, output_attentions=True)
    tokens = 2 + model.config.num_patches
    assert [state.shape for state in outputs.hidden_states] == [(2, tokens, 48)] * 3
    assert [weights.shape for weights in outputs.attentions] == [(2, 3, tokens, tokens)] * 2
    torch.testing.assert_close(outputs.attentions[0].sum(dim=-1), torch.ones(2, 3, tokens))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_patches_that_the_classifier_skips_change_nothing(make_config, attention, geometry):
    model = build_classifier(make_config(**GEOMETRIES[geometry]), attention)
    clips, mask = torch.randn(2, 100, 128), torch.ones(2, 100, dtype=torch.long)
    mask[1, 40:] = 0
    widths, logits, gradients = [], [], []
    model.fftp.layers[-1].register_forward_hook(lambda layer, inputs, output: widths.append(output.shape[1]))
    for pooled_only in (True, False):
        model.zero_grad()
        logits.append(model(clips, mask, pooled_only=pooled_only).logits)
        logits[-1].square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert widths == [2, 2 + model.config.num_patches]
    torch.testing.assert_close(*logits)
    torch.testing.assert_close(*gradients)


@needs_cpp_compiler
def test_no_patch_is_skipped_where_somebody_looks(make_config):
    clips, widths = torch.randn(1, 100, 128), []

    def run(attention="sdpa", settings=None, **arguments):
        model = build_classifier(make_config(**(settings or {})), attention)
        model.fftp.layers[-1].register_forward_hook(lambda layer, inputs, output: widths.append(output.shape[1]))
        with torch.no_grad():
            model(clips, **arguments)
        return 2 * (model.config.pooling == "cls") + model.config.num_patches

    expected = [
        run(output_hidden_states=True), run("eager", output_attentions=True), run(settings={"pooling": "mean"}),
        run(settings={"output_hidden_states": True}), run("flex_attention"),
    ]  # fmt: skip
    assert widths == expected


@pytest.mark.parametrize("model_class", [FFTPForAudioClassification, FFTPForAudioFrameClassification])
def test_tuples_where_the_config_asks_for_them(make_config, model_class):
    model = model_class(make_config(return_dict=False)).eval()
    (logits,) = model(torch.randn(1, 100, 128))
    assert logits.shape[-1] == model.config.num_labels


@pytest.mark.parametrize("backbone", BACKBONES)
def test_half_precision_pools_ten_minutes(make_config, backbone):
    model = build_classifier(make_config(pooling="mean", **BACKBONES[backbone]))
    mask = torch.ones(1, 60000, dtype=torch.long)
    mask[:, 55000:] = 0
    # As large as states of trained models are.
    torch.nn.init.constant_(model.fftp.layernorm.weight, 30.0)
    with torch.no_grad():
        states = model.fftp(torch.randn(1, 60000, 128), mask)
        halved = model.fftp._pool(
            states.last_hidden_state.half(), mask[:, :: model.config.time_stride][:, : states[0].shape[1]] > 0, None
        )
    assert halved.dtype == torch.float16
    assert halved.isfinite().all()


def test_input_of_the_wrong_shape(make_config):
    model = build_classifier(make_config())
    with pytest.raises(ValueError, match=r"\(2, 128, 50\).*128 mel bins"):
        model(torch.randn(2, 128, 50))
    with pytest.raises(ValueError, match=r"\(2, 49\).*\(2, 50\)"):
        model(torch.randn(2, 50, 128), torch.ones(2, 49))
    for empty in ((0, 50, 128), (2, 0, 128)):
        with pytest.raises(ValueError, match=r"128\); expected at least one clip and frame"):
            model(torch.randn(empty))


@pytest.mark.parametrize("sound", [False, True], ids=["features", "sound"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_padding_on_the_left_is_refused(make_config, extractor, backbone, sound):
    model = build_classifier(make_config(**BACKBONES[backbone]))
    model.feature_extractor = extractor
    values = torch.randn(3, 8000) if sound else torch.randn(3, 50, 128)
    mask = torch.ones(values.shape[:2], dtype=torch.long)
    mask[0, 40:] = 0
    model(values, mask)
    mask[1, :10] = 0
    with pytest.raises(ValueError, match="clip 1 has padding before what is real; expected padding on the right"):
        model(values, mask)
    mask[1] = 0
    with pytest.raises(ValueError, match="clip 1 has padding alone"):
        model(values, mask)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_of_single_clips_with_a_mask_and_other_labels(make_config, backbone):
    model = build_classifier(make_config(**BACKBONES[backbone], problem_type="multi_label_classification"))
    features, labels = torch.randn(2, 60, 128), torch.tensor([[1.0, 0, 1, 0], [0, 0.5, 0, 0]])
    mask = torch.ones(2, 60, dtype=torch.long)
    mask[1, 40:] = 0
    given = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss(weights, clip, mask, label):
        inputs = {"attention_mask": mask[None], "labels": label[None]}
        return torch.func.functional_call(model, weights, (clip[None],), inputs).loss

    per_clip = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0))(given, features, mask, labels)
    model(features, mask, labels=labels).loss.backward()
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(per_clip[name].mean(dim=0), weight.grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("has_positions", [True, False])
def test_states_keep_their_precision_under_autocast(make_config, has_positions):
    model = FFTPModel(make_config(pooling="mean", use_absolute_position_embeddings=has_positions))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        states = model(torch.randn(1, 50, 128), output_hidden_states=True).hidden_states
    assert {state.dtype for state in states} == {torch.float32}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_bfloat16_training_stays_finite(make_config, backbone):
    model = FFTPForAudioClassification(make_config(**BACKBONES[backbone])).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    features, labels = 3 * torch.randn(4, 100, 128), torch.arange(4)
    losses = []
    for _ in range(20):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(features, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert losses[-1] < 0.5 * losses[0]


def test_weight_decay_leaves_out_what_must_not_shrink(make_config, tmp_path):
    models = [FFTPForAudioClassification(make_config(**fields)) for fields in BACKBONES.values()]
    for model in (*models, FFTPForPreTraining(make_config())):
        trainer = FFTPTrainer(model, TrainingArguments(tmp_path, report_to="none", use_cpu=True))
        decayed = set(trainer.get_decay_parameter_names(model))
        # What timm's optimisers make of the model, who decay all that has two dimensions or more but for these.
        assert model.no_weight_decay() | decayed >= {name for name, item in model.named_parameters() if item.ndim > 1}
        assert not model.no_weight_decay() & decayed
        for name, parameter in model.named_parameters():
            is_weight = parameter.ndim > 1 and not any(
                part in name
                for part in ("A_log", "position_embeddings", "cls_token", "distillation_token", "mask_token")
            )
            assert (name in decayed) == is_weight, name


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_block_of_its_own_learns(make_config, backbone):
    """Where it is a part of another network, nothing but its constructor gives it initial values."""
    config = make_config(**BACKBONES[backbone])
    layer = LAYERS[config.backbone][0](config, 0)
    states = torch.randn(2, 12, config.hidden_size)
    output = layer(states)
    assert (output - states).abs().max() > 0
    output.square().sum().backward()
    assert all(parameter.grad.any() for parameter in layer.parameters())
    if config.backbone == "mamba":
        decays = {name: value for name, value in layer.named_parameters() if "A_log" in name}
        for decay in decays.values():
            torch.testing.assert_close(decay.exp()[3], torch.arange(1.0, config.state_size + 1))


def test_positions_and_class_tokens_start_as_noise(make_config):
    config = make_config()
    embeddings = FFTPForAudioClassification(config).fftp.embeddings
    for name in ("cls_token", "distillation_token", "position_embeddings.weight"):
        spread = embeddings.get_parameter(name).std().item()
        assert spread == pytest.approx(config.initializer_range, rel=0.4), name


@pytest.mark.parametrize("backbone", BACKBONES)
def test_same_seed_same_numbers(make_config, backbone):
    logits = [build_classifier(make_config(**BACKBONES[backbone]))(torch.ones(1, 80, 128)).logits for _ in range(2)]
    assert (logits[0] == logits[1]).all()


class Mine(FFTPForAudioClassification):
    """As a user makes one in a notebook or a file of theirs."""


def test_a_subclass_of_a_notebook_is_saved_with_our_code(
    make_config, extractor, tmp_path, monkeypatch, run_without_package
):
    monkeypatch.setattr(Mine, "__module__", "__main__")
    Mine(make_config()).save_pretrained(tmp_path / "mine")
    extractor.save_pretrained(tmp_path / "mine")
    code = """
import os, numpy as np
from transformers import pipeline
tag = pipeline("audio-tagging", os.environ["FOLDER"], trust_remote_code=True)
print(len(tag(np.random.default_rng(0).normal(size=16000).astype(np.float32))["labels"]))
"""
    assert run_without_package(code, FOLDER=str(tmp_path / "mine")).split() == ["4"]


def test_a_subclass_of_another_file_is_saved_with_ours(make_config, tmp_path):
    Mine(make_config()).save_pretrained(tmp_path)
    assert {"test_modeling.py", "modeling_fftp.py", "audio_tagging_fftp.py"} <= {
        path.name for path in tmp_path.iterdir()
    }


def test_a_head_with_other_outputs_than_labels_is_not_saved(make_config, tmp_path):
    model = FFTPForAudioClassification(make_config())
    model.classifier.dense = torch.nn.Linear(model.config.hidden_size, 7)
    with pytest.raises(ValueError, match="the head has 7 outputs, and the config 4 labels"):
        model.save_pretrained(tmp_path)
    assert not [*tmp_path.iterdir()]
    model.config.num_labels = 7
    model.save_pretrained(tmp_path)
    assert FFTPForAudioClassification.from_pretrained(tmp_path).config.num_labels == 7


@pytest.mark.parametrize("backbone", BACKBONES)
def test_save_and_load(make_config, tmp_path, backbone):
    model = build_classifier(make_config(patch_size=(128, 8), time_stride=4, **BACKBONES[backbone]))
    model.save_pretrained(tmp_path)
    loaded = FFTPForAudioClassification.from_pretrained(tmp_path)
    features = torch.randn(2, 50, 128)
    assert (loaded(features).logits == model(features).logits).all()
    base = FFTPModel.from_pretrained(tmp_path)
    torch.testing.assert_close(base(features).pooler_output, model.fftp(features).pooler_output)


def test_new_weights_are_initialised_when_loading(make_config, tmp_path):
    config = make_config()
    FFTPModel(config).save_pretrained(tmp_path)
    model = FFTPForAudioClassification.from_pretrained(tmp_path)
    weight = model.classifier.dense.weight
    assert weight.std().item() == pytest.approx(config.initializer_range, rel=0.3)
    assert (model.classifier.layernorm.weight == 1).all()


@pytest.mark.parametrize(
    ("frames", "fields", "giga"),
    [
        (1024, {"patch_size": 16, "frequency_stride": 10, "time_stride": 10}, 103.35),
        (1000, {"patch_size": (128, 10), "time_stride": 1}, 85.31),
        (1000, {"patch_size": (128, 10), "time_stride": 5}, 17.27),
        (1000, {"patch_size": (128, 50), "time_stride": 10}, 8.8),
    ],
)
def test_multiply_adds_of_the_paper(frames, fields, giga):
    config = FFTPConfig(max_length=frames, num_labels=527, **fields)
    assert multiply_adds(config, frames) / 1e9 == pytest.approx(giga, abs=0.01 if giga > 10 else 0.05)


def test_flops_leave_out_what_the_last_layer_skips():
    config = FFTPConfig(num_hidden_layers=1)
    whole, skipped = (sum(count_flops(config, 998, whole).values()) for whole in (True, False))
    tokens, width = 200, 768
    # Query, output and feed-forward layer, and the two products of attention, at 2 FLOPs each.
    per_token = 2 * (2 * width**2 + 2 * width * config.intermediate_size + 2 * tokens * width)
    assert whole - skipped == (tokens - 2) * per_token


def test_flops_leave_out_the_scan(make_config):
    """Its steps are no matrix products, whatever the plain implementation multiplies."""
    assert "aten.bmm" not in count_flops(make_config(backbone="mamba"), 998)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_mask_without_padding_is_none(make_config, backbone):
    """Layers mask where there is something to mask, and a mask of real frames alone changes nothing."""
    model, seen = build_classifier(make_config(**BACKBONES[backbone])), []
    model.fftp.layers[0].register_forward_pre_hook(lambda module, arguments: seen.append(arguments[1]))
    features, mask = torch.randn(2, 100, 128), torch.ones(2, 100, dtype=torch.long)
    with torch.no_grad():
        assert torch.equal(model(features, mask).logits, model(features).logits)
        mask[1, 47:] = 0
        model(features, mask)
    assert [given is None for given in seen] == [True, True, False]


def test_positions_do_not_depend_on_the_default_type(make_config):
    positions = FFTPForAudioClassification(make_config(max_length=1000)).fftp.embeddings.position_embeddings
    torch.nn.init.normal_(positions.weight)
    count = torch.tensor([[198]])
    expected = positions(198, count)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.equal(positions(198, count), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("patch_size", (128, 20), r"with patches of \(128, 10\), and its config has changed to \(128, 20\)"),
        ("max_length", 400, r"a grid of positions, \(1, 19\), and its config has changed to \(1, 79\)"),
        ("pooling", "mean", "made with class tokens: 2, and its config has changed to 0"),
    ],
)
def test_a_config_that_was_changed_to_another_model_is_refused(make_config, tmp_path, field, value, message):
    model = build_classifier(make_config())
    setattr(model.config, field, value)
    with pytest.raises(ValueError, match=message):
        model.save_pretrained(tmp_path)
    assert not [*tmp_path.iterdir()]
    if field == "patch_size":
        with pytest.raises(ValueError, match=message):
            model(torch.randn(1, 50, 128))


def test_an_unknown_activation_is_named_with_those_that_are_known(make_config):
    with pytest.raises(KeyError, match=r"gelux not found in .*'gelu'"):
        FFTPForAudioClassification(make_config(hidden_act="gelux"))
