"""FFTPModel and FFTPForAudioClassification: lengths, masks, gradients, losses, cost."""

import numpy as np
import pytest
import torch
from torch._inductor import config as inductor
from transformers import TrainingArguments
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modeling_fftp import (
    FFTPConfig,
    FFTPForAudioClassification,
    FFTPForAudioFrameClassification,
    FFTPModel,
    layers_ast_fftp,
)
from modeling_fftp.hub.efficiency import count_flops, multiply_adds
from modeling_fftp.layers_ast_fftp import (
    MAX_SHORT_TOKENS,
    eager_attention_forward,
    find_attention,
    short_attention_forward,
)
from modeling_fftp.training.trainer import FFTPTrainer
from tests.support import BACKBONES, GEOMETRIES, POOLED, needs_cpp_compiler


def build(config, attention="sdpa"):
    """A model in eval mode whose weights, positions too, are far from zero."""
    torch.manual_seed(0)
    config._attn_implementation = attention
    model = FFTPForAudioClassification(config).eval()
    with torch.no_grad():
        model.fftp.embeddings.position_embeddings.weight.normal_()
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.mark.parametrize("backbone", BACKBONES)
def test_weights_of_any_type_take_what_an_extractor_gives(make_config, batch, backbone):
    model = build(make_config(**BACKBONES[backbone]))
    expected = model(**batch).logits
    logits = model.bfloat16()(**batch).logits
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), expected, atol=0.2, rtol=0.1)


@pytest.mark.parametrize("backbone", ["fo-fo", "fo-bi", "bi-bi", "convnext"])
def test_derivatives_of_other_kinds(make_config, backbone):
    """In forward mode, of every clip by itself, and the second one."""
    model = build(make_config(**BACKBONES[backbone]))
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

    model = build(make_config(**BACKBONES[backbone], scan_implementation="reference"))
    (gradient,) = torch.autograd.grad(model(features).logits.sum(), features, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), features)
    assert second.abs().max() > 0


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
    model = build(config, settings.get("attention", "sdpa"))
    rng = np.random.default_rng(0)
    # From below one window, over below one patch, to three times the position table.
    clips = [rng.normal(size=samples).astype(np.float32) * 0.1 for samples in (200, 1500, 9000, 16000, 50000)]
    with torch.no_grad():
        together = model(**extractor(clips, sampling_rate=16000, return_tensors="pt")).logits
        for clip, logits in zip(clips, together, strict=True):
            alone = extractor(clip, sampling_rate=16000, return_tensors="pt")
            torch.testing.assert_close(model(**alone).logits[0], logits, atol=1e-5, rtol=0)
            torch.testing.assert_close(model(alone["input_values"]).logits[0], logits, atol=1e-5, rtol=0)


@needs_cpp_compiler
@pytest.mark.parametrize("backbone", ["ast", "merging"])
def test_flex_attention_equals_eager(make_config, backbone):
    config = make_config(**BACKBONES[backbone])
    features, mask = torch.randn(2, 60, 128), torch.ones(2, 60, dtype=torch.long)
    mask[0, 33:] = 0
    with torch.no_grad():
        eager, flex = (build(config, name)(features, mask).logits for name in ("eager", "flex_attention"))
    torch.testing.assert_close(flex, eager, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_what_stands_in_padding_is_ignored(make_config, geometry, backbone):
    model = build(make_config(**GEOMETRIES[geometry], **BACKBONES[backbone]))
    features = torch.randn(2, 60, 128)
    mask = torch.ones(2, 60, dtype=torch.long)
    mask[0, 33:] = 0
    mask[1, 4:] = 0
    garbage = features.masked_fill(mask[..., None] == 0, 1e4)
    with torch.no_grad():
        torch.testing.assert_close(model(garbage, mask).logits, model(features, mask).logits, atol=1e-6, rtol=0)


def test_positions_are_a_function_of_time(make_config):
    model = build(make_config())
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
    positions = build(config).fftp.embeddings.position_embeddings
    rows, columns = config.patch_grid
    grid = positions.weight.unflatten(0, (rows, columns))
    longer = positions(2 * columns, torch.tensor([[2 * columns]]))[0].unflatten(0, (rows, 2 * columns))
    torch.testing.assert_close(longer[:, 0], grid[:, 0])
    torch.testing.assert_close(longer[:, -1], grid[:, -1])


@pytest.mark.parametrize(
    ("implementation", "dtype", "trains", "dropout", "tokens", "expected"),
    [
        ("sdpa", torch.bfloat16, True, 0.0, 256, short_attention_forward),
        ("sdpa", torch.bfloat16, True, 0.0, 257, ALL_ATTENTION_FUNCTIONS["sdpa"]),
        ("sdpa", torch.bfloat16, True, 0.1, 25, ALL_ATTENTION_FUNCTIONS["sdpa"]),
        ("sdpa", torch.bfloat16, False, 0.0, 25, ALL_ATTENTION_FUNCTIONS["sdpa"]),
        ("sdpa", torch.float32, True, 0.0, 25, ALL_ATTENTION_FUNCTIONS["sdpa"]),
        ("eager", torch.bfloat16, True, 0.0, 25, eager_attention_forward),
        ("flex_attention", torch.bfloat16, True, 0.0, 25, ALL_ATTENTION_FUNCTIONS["flex_attention"]),
    ],
)
def test_short_attention_takes_the_place_of_sdpa_alone(implementation, dtype, trains, dropout, tokens, expected):
    query, key = torch.zeros(1, 1, 2, 8, dtype=dtype), torch.zeros(1, 1, tokens, 8, dtype=dtype)
    # As with adapters on the values alone.
    value = torch.zeros_like(key, requires_grad=trains)
    assert find_attention(implementation, query, key, value, dropout) is expected


def attend(attention, module, inputs, gradient, is_seen, **settings):
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    output, weights = attention(module, *inputs, is_seen, **settings)
    return [output.detach(), *torch.autograd.grad(output, inputs, gradient)], weights


@pytest.mark.parametrize("is_masked", [False, True])
def test_short_attention_equals_eager(monkeypatch, is_masked):
    # Several clips at once, and a rest.
    monkeypatch.setattr(layers_ast_fftp, "MAX_WEIGHTS", 2 * 3 * 20 * 20)
    inputs, gradient, module = torch.randn(3, 5, 3, 20, 8), torch.randn(5, 20, 3, 8), torch.nn.Module()
    is_seen = torch.rand(5, 1, 20, 20) < 0.7
    bias = torch.zeros(is_seen.shape).masked_fill(~is_seen, torch.finfo(torch.float32).min)
    masks = (is_seen, bias) if is_masked else (None, None)
    short, weights = attend(short_attention_forward, module, inputs, gradient, masks[0], scaling=0.3)
    eager, _ = attend(eager_attention_forward, module, inputs, gradient, masks[1], scaling=0.3)
    for result, expected in zip(short, eager, strict=True):
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
    # As "sdpa" does.
    assert weights is None


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_short_attention_is_about_as_exact_as_torchs_kernel(scale):
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.is_causal = False
    queries, keys, values = torch.randn(3, 4, 3, 101, 32)
    inputs = [tensor.bfloat16() for tensor in (scale * queries, scale * keys, values)]
    gradient = torch.randn(4, 101, 3, 32).bfloat16()

    def errors(attention):
        results, _ = attend(attention, module, inputs, gradient, None, scaling=32**-0.5)
        exact = [tensor.double() for tensor in inputs]
        expected, _ = attend(eager_attention_forward, module, exact, gradient.double(), None, scaling=32**-0.5)
        pairs = zip(results, expected, strict=True)
        return torch.stack([(result.double() - value).norm() / value.norm() for result, value in pairs])

    assert (errors(short_attention_forward) < 2 * errors(ALL_ATTENTION_FUNCTIONS["sdpa"])).all()


def test_reentrant_checkpointing_recomputes_what_was_computed(make_config):
    """Its forward pass runs without gradients, and must not take another kernel for that."""
    inputs, module = torch.randn(3, 2, 3, 20, 8).bfloat16(), torch.nn.Module()
    with torch.no_grad():
        without, _ = short_attention_forward(module, *inputs, None, scaling=0.3)
    with_gradients, _ = short_attention_forward(module, *inputs.requires_grad_(), None, scaling=0.3)
    assert torch.equal(without, with_gradients)
    gradients = []
    for use_reentrant in (None, True, False):
        model = build(make_config()).train()
        if use_reentrant is not None:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
            model.enable_input_require_grads()
        with torch.autocast("cpu", torch.bfloat16):
            model(torch.ones(2, 100, 128), labels=torch.tensor([0, 3])).loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_short_attention_trains_as_torchs_kernel_does(make_config, monkeypatch, pooling):
    features, mask = torch.randn(3, 100, 128), torch.ones(3, 100, dtype=torch.long)
    mask[0, 47:] = mask[1, 5:] = 0

    def train(limit):
        monkeypatch.setattr(layers_ast_fftp, "MAX_SHORT_TOKENS", limit)
        model = build(make_config(pooling=pooling)).train()
        with torch.autocast("cpu", torch.bfloat16):
            model(features, mask, labels=torch.tensor([0, 3, 1])).loss.backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    short, kernel = train(MAX_SHORT_TOKENS), train(0)
    assert 0 < (short - kernel).norm() < 0.005 * kernel.norm()


def test_short_attention_compiles_to_one_graph(make_config):
    features, mask = torch.randn(2, 100, 128), torch.ones(2, 100, dtype=torch.long)
    mask[0, 47:] = 0
    losses = []
    for is_compiled in (False, True):
        model = build(make_config()).train()
        if is_compiled:
            # The graph is what matters, not its kernels.
            model.compile(fullgraph=True, backend="aot_eager")
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(features, mask, labels=torch.tensor([0, 3])).loss
        loss.backward()
        losses.append((loss.detach(), model.fftp.layers[0].attention.q_proj.weight.grad))
    torch.testing.assert_close(losses[1], losses[0])


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
        model = build(make_config(**BACKBONES[backbone])).train()
        if checkpointing:
            # Older versions of transformers know the second name only, newer ones deprecate it.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable()
        model(features, labels=labels).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_drop_path_drops_whole_branches_in_training_only(make_config):
    model = build(make_config(drop_path_rate=0.5))
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
    model, features = build(make_config(**rates, **BACKBONES[backbone])), torch.randn(3, 50, 128)
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
    model = build(config).fftp
    for layer in model.layers:
        layer.drop_path = Nothing()
    with torch.no_grad():
        embedded, *others = model(torch.randn(2, 50, 128), output_hidden_states=True).hidden_states
    assert len(others) == config.num_hidden_layers
    assert all(torch.equal(states, embedded) for states in others[:-1])


def test_dropout_is_where_the_configuration_says(make_config):
    """On the embeddings and on both branches of every block, as in AST."""
    model = build(make_config(hidden_dropout_prob=0.25)).train()
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
    model = build(make_config(), "eager")
    outputs = model(torch.randn(2, 100, 128), output_hidden_states=True, output_attentions=True)
    tokens = 2 + model.config.num_patches
    assert [state.shape for state in outputs.hidden_states] == [(2, tokens, 48)] * 3
    assert [weights.shape for weights in outputs.attentions] == [(2, 3, tokens, tokens)] * 2
    torch.testing.assert_close(outputs.attentions[0].sum(dim=-1), torch.ones(2, 3, tokens))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_patches_that_the_classifier_skips_change_nothing(make_config, attention, geometry):
    model = build(make_config(**GEOMETRIES[geometry]), attention)
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
        model = build(make_config(**(settings or {})), attention)
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


def test_losses_follow_the_problem_type(make_config):
    features = torch.randn(3, 50, 128)
    model = build(make_config())
    logits = model(features).logits
    indices = torch.tensor([0, 3, 1])
    one_hot = torch.nn.functional.one_hot(indices, 4)
    cross_entropy = torch.nn.functional.cross_entropy(logits, indices)
    # A distribution over the labels is a soft label, whatever its dtype, and indices may have any integer dtype.
    for labels in (indices, indices.int(), one_hot, one_hot.float(), one_hot.double()):
        torch.testing.assert_close(model(features, labels=labels).loss, cross_entropy)
    soft = torch.softmax(torch.randn(3, 4), dim=-1)
    torch.testing.assert_close(model(features, labels=soft).loss, -(soft * logits.log_softmax(-1)).sum(-1).mean())
    model.config.problem_type = "multi_label_classification"
    binary = torch.nn.functional.binary_cross_entropy_with_logits(logits, one_hot.float())
    for labels in (one_hot, one_hot.bool(), one_hot.float()):
        torch.testing.assert_close(model(features, labels=labels).loss, binary)
    model.config.problem_type = "regression"
    torch.testing.assert_close(model(features, labels=soft).loss, (logits - soft).square().mean())


@pytest.mark.parametrize("model_class", [FFTPForAudioClassification, FFTPForAudioFrameClassification])
def test_the_loss_can_be_replaced(make_config, model_class):
    model, features = model_class(make_config()), torch.randn(3, 50, 128)
    shape = model(features).logits.shape[:-1]
    labels = torch.zeros(shape, dtype=torch.long)
    cross_entropy = model(features, labels=labels).loss
    model.loss_function = lambda labels, logits, config: logits.sum() * len(labels) * config.num_labels
    output = model(features, labels=labels)
    torch.testing.assert_close(output.loss, output.logits.sum() * labels.numel() * 4)
    # One of transformers' own.
    model.loss_function = ForSequenceClassificationLoss
    torch.testing.assert_close(model(features, labels=labels).loss, cross_entropy)


@pytest.mark.parametrize(
    ("problem_type", "labels", "message"),
    [
        ("single_label_classification", torch.tensor([[1, 1, 0, 0]] * 3), "labels sum to 2 to 2.*multi_label"),
        ("single_label_classification", torch.tensor([[0.0, 0.0, 0.0, 0.0]] * 3), "labels sum to 0 to 0"),
        ("single_label_classification", torch.tensor([[1.5, -0.5, 0.0, 0.0]] * 3), "labels sum to 1 to 1"),
        ("multi_label_classification", torch.tensor([[0, 2, 0, 1]] * 3), r"labels lie in \[0, 2\]"),
        ("single_label_classification", torch.tensor([0.0, 1.7, 2.0]), "labels are torch.float32; an index .* whole"),
    ],
)
def test_labels_of_another_problem_are_refused(make_config, problem_type, labels, message):
    with pytest.raises(ValueError, match=message):
        build(make_config(problem_type=problem_type))(torch.randn(3, 50, 128), labels=labels)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_half_precision_pools_ten_minutes(make_config, backbone):
    model = build(make_config(pooling="mean", **BACKBONES[backbone]))
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


@pytest.mark.parametrize(
    ("problem_type", "labels", "message"),
    [
        ("single_label_classification", torch.zeros(2, dtype=torch.long), r"\(2,\).*\(3,\)"),
        ("single_label_classification", torch.zeros(3, 5), r"\(3, 5\).*\(3, 4\)"),
        ("multi_label_classification", torch.zeros(3, dtype=torch.long), r"\(3,\).*\(3, 4\)"),
        ("regression", torch.zeros(3), r"\(3,\).*\(3, 4\)"),
    ],
)
def test_labels_of_the_wrong_shape(make_config, problem_type, labels, message):
    model = build(make_config(problem_type=problem_type))
    with pytest.raises(ValueError, match=message):
        model(torch.randn(3, 50, 128), labels=labels)


@pytest.mark.parametrize("labels", [torch.zeros(3, 4), torch.zeros(3, dtype=torch.long)])
def test_unknown_problem_type(make_config, labels):
    model = build(make_config())
    model.config.problem_type = "ranking"
    with pytest.raises(ValueError, match="problem_type='ranking' is unknown; expected one of single_label"):
        model(torch.randn(3, 50, 128), labels=labels)


def test_input_of_the_wrong_shape(make_config):
    model = build(make_config())
    with pytest.raises(ValueError, match=r"\(2, 128, 50\).*128 mel bins"):
        model(torch.randn(2, 128, 50))
    with pytest.raises(ValueError, match=r"\(2, 49\).*\(2, 50\)"):
        model(torch.randn(2, 50, 128), torch.ones(2, 49))
    with pytest.raises(ValueError, match=r"\(0, 50, 128\); expected at least one clip"):
        model(torch.randn(0, 50, 128))


@pytest.mark.parametrize("sound", [False, True], ids=["features", "sound"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_padding_on_the_left_is_refused(make_config, extractor, backbone, sound):
    model = build(make_config(**BACKBONES[backbone]))
    model.feature_extractor = extractor
    values = torch.randn(3, 8000) if sound else torch.randn(3, 50, 128)
    mask = torch.ones(values.shape[:2], dtype=torch.long)
    mask[0, 40:] = 0
    model(values, mask)
    mask[1, :10] = 0
    with pytest.raises(ValueError, match="clip 1 has padding before what is real; expected padding on the right"):
        model(values, mask)


def test_mamba_class_token_stands_in_the_middle_of_the_real_tokens(make_config):
    model = build(make_config(**BACKBONES["fo-bi"]))
    mask = torch.ones(2, 100, dtype=torch.long)
    mask[1, 47:] = 0
    tokens, token_mask, places = model.fftp.embeddings(torch.randn(2, 100, 128), mask)
    # 19 and 8 patches.
    assert places.tolist() == [[9], [4]]
    assert token_mask.sum(dim=1).tolist() == [20, 9]
    for row, place in enumerate((9, 4)):
        torch.testing.assert_close(tokens[row, place], model.fftp.embeddings.cls_token[0, 0])


def test_mamba_hidden_states_and_float32_residual(make_config):
    model = build(make_config(**BACKBONES["fo-bi"])).to(torch.bfloat16)
    outputs = model(torch.randn(2, 100, 128, dtype=torch.bfloat16), output_hidden_states=True)
    assert [state.shape for state in outputs.hidden_states] == [(2, 20, 48)] * 3
    assert outputs.hidden_states[-1].dtype == torch.float32
    assert outputs.logits.dtype == torch.bfloat16
    assert outputs.logits.isfinite().all()


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


@pytest.mark.parametrize("variant", ["fo-fo", "fo-bi", "bi-bi"])
def test_mamba_starts_as_mamba_ssm_does_and_keeps_it_when_loaded(make_config, tmp_path, variant):
    config = make_config(**BACKBONES[variant])
    model = FFTPModel(config)
    model.save_pretrained(tmp_path)
    loaded = FFTPForAudioClassification.from_pretrained(tmp_path).fftp
    for mixer, again in zip(model.layers, loaded.layers, strict=True):
        mixer, again = mixer.mixer, again.mixer
        for space in filter(None, (mixer.state_space, mixer.state_space_reverse)):
            decays = [decay for decay in (space.A_log, space.A_log_reverse) if decay is not None]
            assert len(decays) == (2 if variant == "fo-bi" else 1)
            for decay in decays:
                torch.testing.assert_close(decay.exp(), torch.arange(1.0, 17).expand_as(decay))
            assert (space.D == 1).all()
            steps = torch.nn.functional.softplus(space.dt_proj.bias)
            assert 0.00099 < steps.min() < 0.01
            assert 0.02 < steps.max() < 0.101
            assert space.dt_proj.weight.abs().max() <= config.time_step_rank**-0.5
        for name, parameter in mixer.named_parameters():
            assert (parameter == again.get_parameter(name)).all()


def test_time_steps_add_their_bias_in_float32(make_config):
    """Rounded to bfloat16 with its bias, a time step would be off by a percent."""
    projection = FFTPModel(make_config(backbone="mamba")).layers[0].mixer.state_space.dt_proj
    nothing = torch.zeros(2, 5, projection.in_features)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(projection(nothing), projection.bias.expand(2, 5, -1))
        assert projection(nothing).dtype == torch.float32
        halved = projection.to(torch.bfloat16)
        assert torch.equal(halved(nothing.bfloat16()), halved.bias.float().expand(2, 5, -1))


def test_time_steps_start_between_their_limits_and_not_below_the_floor(make_config):
    config = make_config(backbone="mamba", time_step_min=1e-4, time_step_max=1e-2, time_step_floor=1e-3)
    bias = FFTPModel(config).layers[0].mixer.state_space.dt_proj.bias
    steps = torch.nn.functional.softplus(bias)
    assert steps.min().item() == pytest.approx(1e-3, rel=1e-3)
    # Half of them would lie below, uniform in the logarithm.
    assert (steps < 1.01e-3).float().mean().item() == pytest.approx(0.5, abs=0.2)
    assert 0.007 < steps.max() < 0.0101


def test_weight_decay_leaves_out_what_must_not_shrink(make_config, tmp_path):
    for backbone in ("ast", "bi-bi", "fo-bi"):
        model = FFTPForAudioClassification(make_config(**BACKBONES[backbone]))
        trainer = FFTPTrainer(model, TrainingArguments(tmp_path, report_to="none", use_cpu=True))
        decayed = set(trainer.get_decay_parameter_names(model))
        for name, parameter in model.named_parameters():
            is_weight = parameter.ndim > 1 and not any(
                part in name for part in ("A_log", "position_embeddings", "cls_token", "distillation_token")
            )
            assert (name in decayed) == is_weight, name


@pytest.mark.parametrize("backbone", BACKBONES)
def test_same_seed_same_numbers(make_config, backbone):
    logits = [build(make_config(**BACKBONES[backbone]))(torch.ones(1, 80, 128)).logits for _ in range(2)]
    assert (logits[0] == logits[1]).all()


@needs_cpp_compiler
@pytest.mark.parametrize(
    ("backbone", "frozen_weights"), [("ast", False), ("merging", True), ("fo-bi", False), ("convnext", False)]
)
def test_compiles_to_one_graph(make_config, backbone, frozen_weights):
    model = build(make_config(**{"num_hidden_layers": 1} | BACKBONES[backbone]))
    compiled = torch.compile(model, fullgraph=True)
    # The second length makes the graph one for any length.
    for frames in (60, 45):
        features, mask = torch.randn(2, frames, 128), torch.ones(2, frames, dtype=torch.long)
        mask[1, 33:] = 0
        with torch.no_grad(), inductor.patch(freezing=frozen_weights):
            expected = model(features, mask).logits
            torch.testing.assert_close(compiled(features, mask).logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backbone", ["ast", "merging", "fo-bi", "bi-bi", "convnext"])
def test_exports(make_config, backbone):
    model = build(make_config(**{"num_hidden_layers": 1} | BACKBONES[backbone]))
    features, mask = torch.randn(2, 60, 128), torch.ones(2, 60, dtype=torch.long)
    mask[1, 33:] = 0
    with torch.no_grad():
        exported = torch.export.export(model, (features, mask)).module()
        torch.testing.assert_close(exported(features, mask).logits, model(features, mask).logits)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_save_and_load(make_config, tmp_path, backbone):
    model = build(make_config(patch_size=(128, 8), time_stride=4, **BACKBONES[backbone]))
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


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_mask_without_padding_is_none(make_config, backbone):
    """Layers mask where there is something to mask, and a mask of real frames alone changes nothing."""
    model, seen = build(make_config(**BACKBONES[backbone])), []
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


def test_stretched_patches_compile_whole(make_config):
    model = FFTPForAudioClassification(make_config(stretch_patches=True)).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    features = torch.randn(2, 157, 128)
    with torch.no_grad():
        expected = model(features, time_stride=20).logits
        torch.testing.assert_close(compiled(features, time_stride=20).logits, expected)


STRIDED = {"time_stride": 10}
STRETCHED = {"time_stride": 20, "position_stride": 5, "stretch_patches": True}


@pytest.mark.parametrize(
    "fields",
    [
        *(BACKBONES[name] | fields for name in ("ast", "fo-bi", "convnext") for fields in ({}, STRIDED, STRETCHED)),
        BACKBONES["merging"] | {"pooling": "mean"},
        BACKBONES["convnext"] | {"num_hidden_layers": 2, "token_merge_layers": [1]},
    ],
    ids=str,
)
def test_an_export_takes_every_length(make_config, fields):
    model = FFTPForAudioClassification(make_config(**fields)).eval()
    size = torch.export.Dim.DYNAMIC
    features = torch.randn(2, 300, 128)
    inputs = {"input_values": features, "attention_mask": torch.ones(2, 300, dtype=torch.long)}
    exported = torch.export.export(
        model, (), inputs, dynamic_shapes={name: {0: size, 1: size} for name in inputs}, strict=False
    ).module()
    # Beyond as many tokens as attention on a CPU may take another way for.
    for frames in (90, 97, 115, 1500):
        inputs = {
            "input_values": torch.randn(3, frames, 128),
            "attention_mask": torch.ones(3, frames, dtype=torch.long),
        }
        torch.testing.assert_close(exported(**inputs).logits, model(**inputs).logits, atol=1e-4, rtol=1e-4)
