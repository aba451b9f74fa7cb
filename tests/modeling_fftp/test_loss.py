"""Losses follow the problem type, and labels that do not fit are refused."""

import pytest
import torch
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from modeling_fftp import (
    FFTPForAudioClassification,
    FFTPForAudioFrameClassification,
)
from modeling_fftp.loss_fftp import classification_loss
from tests.support import build_classifier


def test_losses_follow_the_problem_type(make_config):
    features = torch.randn(3, 50, 128)
    model = build_classifier(make_config())
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
        ("single_label_classification", [0, 1, 2], "labels are of type list; expected a tensor"),
    ],
)
def test_labels_of_another_problem_are_refused(make_config, problem_type, labels, message):
    with pytest.raises(ValueError, match=message):
        build_classifier(make_config(problem_type=problem_type))(torch.randn(3, 50, 128), labels=labels)


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
    model = build_classifier(make_config(problem_type=problem_type))
    with pytest.raises(ValueError, match=message):
        model(torch.randn(3, 50, 128), labels=labels)


@pytest.mark.parametrize("labels", [torch.zeros(3, 4), torch.zeros(3, dtype=torch.long)])
def test_unknown_problem_type(make_config, labels):
    model = build_classifier(make_config())
    model.config.problem_type = "ranking"
    with pytest.raises(ValueError, match="problem_type='ranking' is unknown; expected one of single_label"):
        model(torch.randn(3, 50, 128), labels=labels)


def test_every_class_counts_in_unsigned_labels(make_config):
    """-100, which stands for no label, is 156 there."""
    model, features = build_classifier(make_config(num_labels=160)), torch.randn(2, 50, 128)
    labels = torch.tensor([156, 3])
    torch.testing.assert_close(
        model(features, labels=labels.to(torch.uint8)).loss, model(features, labels=labels).loss
    )


def test_clips_without_a_label_count_for_nothing(make_config):
    model, features = build_classifier(make_config()), torch.randn(3, 50, 128)
    labelled = model(features[1:2], labels=torch.tensor([2])).loss
    torch.testing.assert_close(model(features, labels=torch.tensor([-100, 2, -100])).loss, labelled)
    # The mean over no clip at all would be NaN, and end the training.
    assert model(features, labels=torch.tensor([-100] * 3)).loss == 0


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_the_loss_of_a_double_model_is_double(make_config, problem_type):
    config = make_config(problem_type=problem_type)
    logits = torch.randn(3, config.num_labels, dtype=torch.float64, requires_grad=True)
    labels = torch.randn(3, config.num_labels).softmax(dim=-1)
    assert torch.autograd.gradcheck(lambda values: classification_loss(labels, values, config), logits)
    assert classification_loss(labels, logits.bfloat16(), config).dtype == torch.float32
