"""FFTPConfig: geometry, round trips and errors."""

import json
from functools import partial
from itertools import permutations

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from modeling_fftp import FFTPConfig, FFTPForAudioClassification, FFTPModel
from modeling_fftp.audio_tagging_fftp import FFTPAudioTaggingPipeline
from modeling_fftp.configuration_fftp import SCAN_IMPLEMENTATIONS
from modeling_fftp.scan_fftp import IMPLEMENTATIONS


@pytest.mark.parametrize(("patch_frames", "time_stride", "tokens"), [(10, 1, 991), (10, 5, 199), (50, 10, 96)])
def test_tokens_of_full_frequency_patches(patch_frames, time_stride, tokens):
    config = FFTPConfig(max_length=1000, patch_size=(128, patch_frames), time_stride=time_stride)
    assert config.patch_grid == (1, tokens)
    assert config.num_patches == tokens


@pytest.mark.parametrize(("stride", "grid"), [(10, (12, 101)), (16, (8, 64))])
def test_tokens_of_square_patches(stride, grid):
    config = FFTPConfig(max_length=1024, patch_size=16, frequency_stride=stride, time_stride=stride)
    assert config.patch_grid == grid
    assert config.num_patches == grid[0] * grid[1]


def test_rows_of_patches_follow_each_other_by_default():
    assert FFTPConfig(patch_size=16).frequency_patches == 8
    assert FFTPConfig(patch_size=(64, 10)).frequency_patches == 2
    assert FFTPConfig(num_mel_bins=192, patch_size=(192, 10)).frequency_patches == 1


def test_defaults_are_base_at_199_tokens():
    config = FFTPConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (768, 12, 12)
    assert config.num_patches == 199


def test_time_patches_of_short_input_is_one():
    config = FFTPConfig(patch_size=(128, 10), time_stride=5)
    for kind in (int, np.int64):
        assert [config.time_patches(kind(frames)) for frames in (1, 10, 14, 15, 1000)] == [1, 1, 1, 2, 199]


@pytest.mark.parametrize(
    "overrides",
    [{}, {"patch_size": 16, "frequency_stride": 10}, {"patch_size": [64, 4]}, {"token_merge_layers": [3]}],
)
def test_json_round_trip_is_exact(tmp_path, overrides):
    config = FFTPConfig(id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1}, **overrides)
    config.save_pretrained(tmp_path)
    loaded = FFTPConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.patch_size == config.patch_size
    assert loaded.token_merge_layers == config.token_merge_layers == tuple(overrides.get("token_merge_layers", ()))


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [
        ({"backbone": "cnn"}, ["cnn", "ast", "mamba", "convnext"]),
        ({"pooling": "max"}, ["max", "cls", "mean"]),
        ({"mamba_variant": "bi"}, ["'bi'", "fo-bi"]),
        ({"hidden_size": 100, "num_attention_heads": 12}, ["100", "12"]),
        ({"patch_size": (129, 10)}, ["129", "128"]),
        ({"patch_size": (128, 10), "max_length": 9}, ["10", "9"]),
        ({"patch_size": (128, 10, 1)}, ["(128, 10, 1)"]),
        ({"time_stride": 0}, ["time_stride=0"]),
        ({"frequency_stride": -1}, ["frequency_stride=-1"]),
        ({"patch_size": (96, 10)}, ["(96, 10)", "frequency_stride=96", "num_mel_bins=128", "at most 32"]),
        ({"num_mel_bins": 192}, ["(128, 10)", "num_mel_bins=192", "at most 64"]),
        ({"patch_size": 16, "frequency_stride": 20}, ["(16, 16)", "frequency_stride=20", "at most 16"]),
        ({"drop_path_rate": 1.0}, ["drop_path_rate=1.0"]),
        ({"attention_probs_dropout_prob": 1.5}, ["attention_probs_dropout_prob=1.5", "[0, 1)"]),
        ({"hidden_dropout_prob": -0.1}, ["hidden_dropout_prob=-0.1"]),
        ({"layer_norm_eps": -1e-6}, ["layer_norm_eps=-1e-06"]),
        ({"initializer_range": float("nan")}, ["initializer_range=nan"]),
        ({"time_step_min": 0.2}, ["time_step_min=0.2", "time_step_max=0.1"]),
        ({"token_merge_layers": (12,)}, ["token_merge_layers=(12,)", "num_hidden_layers=12"]),
        ({"token_merge_layers": (0, 3)}, ["token_merge_layers=(0, 3)"]),
        ({"token_merge_layers": (6, 3)}, ["token_merge_layers=(6, 3)", "ascending"]),
        ({"token_merge_layers": (3,), "backbone": "mamba"}, ["token_merge_layers=(3,)", "'mamba'"]),
        ({"problem_type": "multi_label"}, ["'multi_label'", "multi_label_classification"]),
        ({"scan_implementation": "cuda"}, ["'cuda'", "auto, cpu"]),
        ({"time_step_rank": "full"}, ["'full'", "'auto'"]),
        ({"time_step_rank": 0}, ["time_step_rank=0"]),
        ({"median_filter_seconds": {"owl": float("nan")}}, ["median_filter_seconds['owl']=nan"]),
    ],
)
def test_errors_name_the_values(fields, numbers):
    with pytest.raises((ValueError, StrictDataclassError)) as caught:
        FFTPConfig(**fields)
    for number in numbers:
        assert number in str(caught.value)


def test_keywords_of_from_pretrained_are_resolved_as_in_a_new_config(tmp_path):
    FFTPConfig().save_pretrained(tmp_path)
    square = {"patch_size": 16, "frequency_stride": 10, "time_stride": 10, "max_length": 1024}
    nothing = dict.fromkeys(("position_stride", "pooling", "layer_norm_eps", "problem_type", "token_merge_layers"))
    for changes in (square, nothing, {"time_step_rank": "auto"}, {"num_labels": 7, "token_merge_layers": [3]}):
        loaded, expected = FFTPConfig.from_pretrained(tmp_path, **changes), FFTPConfig(**changes)
        # What was saved stays where nothing is said of it.
        if "position_stride" not in changes:
            expected.position_stride = 5
        names = (*FFTPConfig.__annotations__, "num_labels")
        assert [getattr(loaded, name) for name in names] == [getattr(expected, name) for name in names]
    with pytest.raises(StrictDataclassError, match="time_stride=0"):
        FFTPConfig.from_pretrained(tmp_path, time_stride=0)


def test_every_implementation_of_the_scan_can_be_named():
    assert {*SCAN_IMPLEMENTATIONS} == {"auto", *IMPLEMENTATIONS}


def test_types_are_strict():
    with pytest.raises(StrictDataclassError, match="hidden_size"):
        FFTPConfig(hidden_size="768")


def test_labels_as_the_tutorials_of_transformers_write_them(tmp_path):
    id2label, label2id = {"0": "a", "1": "b", "2": "c"}, {"a": "0", "b": "1", "c": "2"}
    FFTPConfig(num_labels=4).save_pretrained(tmp_path)
    for config in (
        FFTPConfig(id2label=id2label, label2id=label2id),
        FFTPConfig.from_pretrained(tmp_path, num_labels=3, id2label=id2label, label2id=label2id),
    ):
        assert config.id2label == {0: "a", 1: "b", 2: "c"}
        assert config.label2id == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize("order", [*permutations(["num_labels", "id2label", "label2id"])])
def test_labels_may_be_named_in_any_order(tmp_path, order):
    FFTPConfig(num_labels=4).save_pretrained(tmp_path)
    labels = {"num_labels": 3, "id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    for count in (2, 3):
        given = {name: labels[name] for name in order[:count]}
        config = FFTPConfig.from_pretrained(tmp_path, **given)
        assert (config.id2label, config.label2id) == (labels["id2label"], labels["label2id"])


def test_one_label_becomes_several_with_their_loss(tmp_path):
    FFTPConfig(id2label={0: "dog"}, problem_type="multi_label_classification").save_pretrained(tmp_path)
    for labels in ({"id2label": {0: "a", 1: "b", 2: "c"}}, {"label2id": {"a": 0, "b": 1, "c": 2}}, {"num_labels": 3}):
        config = FFTPConfig.from_pretrained(tmp_path, **labels, problem_type="single_label_classification")
        assert (config.num_labels, config.problem_type) == (3, "single_label_classification")


def test_a_number_of_labels_that_was_written_by_hand_is_replaced():
    assert FFTPConfig.from_dict({"num_labels": 3}).num_labels == 3
    assert FFTPConfig.from_dict({"num_labels": 3}, num_labels=5).num_labels == 5
    assert FFTPConfig.from_dict({"num_labels": 3}, id2label={0: "a", 1: "b"}).label2id == {"a": 0, "b": 1}


def test_names_that_contradict_their_number_are_refused(tmp_path):
    FFTPConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"num_labels=3 contradicts the 2 names \['a', 'b'\]"):
        FFTPConfig.from_pretrained(tmp_path, num_labels=3, id2label={0: "a", 1: "b"})


@pytest.mark.parametrize("names", [{"id2label": {0: "a", 1: "b"}}, {"label2id": {"a": 0, "b": 1}}])
def test_a_new_config_keeps_its_names_too(names):
    with pytest.raises(ValueError, match=r"num_labels=3 contradicts the 2 names \['a', 'b'\]"):
        FFTPConfig(num_labels=3, **names)
    assert FFTPConfig(num_labels=2, **names).id2label == {0: "a", 1: "b"}


def test_names_that_are_numbers_are_refused():
    """Events would take them for indices."""
    with pytest.raises(ValueError, match="id2label names 1; expected a string, such as '1'"):
        FFTPConfig(id2label={0: 1, 1: 0})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"id2label": {0: "a", 1: None}}, "id2label names None; expected a string"),
        ({"id2label": {"0": "a", 0: "b", 1: "c"}}, "id2label gives 'a' and 'b' the index 0; expected one each"),
        ({"id2label": {0.9: "a", 1.2: "b"}}, r"id2label has the index 0\.9; expected a whole number"),
        ({"id2label": {"first": "a"}}, "id2label has the index 'first'; expected a whole number"),
        ({"label2id": {"a": 0.9, "b": 1}}, r"label2id has the index 0\.9; expected a whole number"),
        ({"label2id": {"a": None, "b": 1}}, "label2id has the index None; expected a whole number"),
    ],
)
def test_names_and_indices_of_other_kinds_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        FFTPConfig(**labels)
    with pytest.raises(ValueError, match=message):
        FFTPConfig.from_dict({"num_labels": 2}, **labels)


def test_what_follows_from_a_field_follows_its_override(tmp_path):
    FFTPConfig(backbone="mamba").save_pretrained(tmp_path / "mamba")
    narrow = FFTPConfig.from_pretrained(tmp_path / "mamba", hidden_size=192)
    assert (narrow.time_step_rank, narrow.layer_norm_eps) == (12, 1e-5)
    FFTPConfig().save_pretrained(tmp_path / "ast")
    changed = FFTPConfig.from_pretrained(tmp_path / "ast", backbone="convnext")
    assert (changed.pooling, changed.layer_norm_eps) == ("mean", 1e-6)
    assert FFTPConfig.from_pretrained(tmp_path / "ast", patch_size=16).frequency_stride == 16
    # What was chosen stays.
    FFTPConfig(pooling="mean", time_step_rank=7, layer_norm_eps=1e-3).save_pretrained(tmp_path / "own")
    kept = FFTPConfig.from_pretrained(tmp_path / "own", hidden_size=192)
    assert (kept.pooling, kept.time_step_rank, kept.layer_norm_eps) == ("mean", 7, 1e-3)


def test_a_square_patch_that_is_set_later():
    config = FFTPConfig(frequency_stride=10)
    config.patch_size = 16
    config.validate_architecture()
    assert config.patch_size == (16, 16)


def test_names_in_a_list_are_refused():
    with pytest.raises(ValueError, match="id2label is a list; expected a dict, such as"):
        FFTPConfig(id2label=["a", "b"])


def test_names_and_indices_of_labels_follow_from_each_other(tmp_path):
    FFTPConfig(id2label={0: "dog", 1: "bell"}).save_pretrained(tmp_path)
    for config in (
        FFTPConfig(id2label={0: "rain", 1: "dog"}),
        FFTPConfig(label2id={"dog": 1, "rain": 0}),
        FFTPConfig.from_pretrained(tmp_path, id2label={0: "rain", 1: "dog"}),
        FFTPConfig.from_pretrained(tmp_path, label2id={"rain": 0, "dog": 1}),
    ):
        assert config.id2label == {0: "rain", 1: "dog"}
        assert config.label2id == {"rain": 0, "dog": 1}
    for wrong in ({1: "a", 2: "b"}, {0: "a", 1: "a"}):
        with pytest.raises(StrictDataclassError, match=r"must name the outputs 0, 1, \.\.\., each differently"):
            FFTPConfig(id2label=wrong)


@pytest.mark.parametrize("load", [FFTPConfig, lambda **names: FFTPConfig.from_dict({}, **names)])
def test_an_index_with_two_names_is_refused(load):
    with pytest.raises((StrictDataclassError, ValueError), match="gives 'dog' and 'cat' the index 0"):
        load(label2id={"dog": 0, "cat": 0, "cow": 1})


def test_names_and_indices_that_contradict_each_other_are_refused(tmp_path):
    labels = {"id2label": {0: "dog", 1: "cat"}, "label2id": {"dog": 1, "cat": "0"}}
    FFTPConfig(num_labels=2).save_pretrained(tmp_path)
    for load in (FFTPConfig, partial(FFTPConfig.from_pretrained, tmp_path)):
        with pytest.raises(ValueError, match="label2id gives 'dog' the index 1, id2label the index 0"):
            load(**labels)
    # A config of elsewhere whose names were set without the other table.
    assert FFTPConfig(**labels | {"label2id": {"LABEL_0": 0, "LABEL_1": 1}}).label2id == {"dog": 0, "cat": 1}


@pytest.mark.parametrize("field", ["thresholds", "median_filter_seconds"])
def test_what_is_for_no_label_is_refused(make_config, field):
    config = make_config(id2label={0: "dog", 1: "cat"}, **{field: {"dgo": 0.3}})
    with pytest.raises(ValueError, match=f"{field} names 'dgo', which is not a label; the labels are"):
        FFTPModel(config)


def test_renamed_labels_leave_what_was_chosen_for_the_old_ones(make_config, extractor, tmp_path):
    model = FFTPForAudioClassification(
        make_config(num_labels=2, id2label={0: "dog", 1: "cat"}, thresholds={"dog": 0.3})
    )
    model.config.id2label, model.config.label2id = {0: "owl", 1: "wren"}, {"owl": 0, "wren": 1}
    tag = FFTPAudioTaggingPipeline(model, feature_extractor=extractor)
    with pytest.raises(
        ValueError, match=r"thresholds names 'dog', which is not a label; the labels are \['owl', 'wren'\]"
    ):
        tag(np.zeros(16000, dtype=np.float32))
    model.save_pretrained(tmp_path)
    assert FFTPForAudioClassification.from_pretrained(tmp_path).config.thresholds is None


def test_a_table_without_its_stride_has_that_of_the_saved_model(tmp_path):
    FFTPConfig().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    for stride in (5, 4):
        path.write_text(json.dumps({**saved, "time_stride": stride, "position_stride": None}))
        config = FFTPConfig.from_pretrained(tmp_path, time_stride=10)
        assert (config.time_stride, config.position_stride) == (10, stride)


def test_what_was_chosen_for_labels_does_not_outlive_them(tmp_path):
    labels = {0: "a", 1: "b"}
    chosen = {"thresholds": {"a": 1.0}, "median_filter_seconds": {"b": 0.2}}
    FFTPConfig(id2label=labels, **chosen).save_pretrained(tmp_path)
    one = {"problem_type": "single_label_classification"}
    # None, as a command line passes on what nobody said.
    for same in (
        {},
        {"problem_type": None},
        {"id2label": labels},
        {"id2label": {"0": "a", "1": "b"}},
        {"num_labels": 2},
        one,
    ):
        config = FFTPConfig.from_pretrained(tmp_path, **same)
        assert (config.thresholds, config.median_filter_seconds) == (chosen["thresholds"], {"b": 0.2})
    for other in (
        {"id2label": {0: "c", 1: "a"}}, {"num_labels": 3}, {"problem_type": "multi_label_classification"},
    ):  # fmt: skip
        config = FFTPConfig.from_pretrained(tmp_path, **other)
        assert (config.thresholds, config.median_filter_seconds) == (None, None)
    named = FFTPConfig.from_pretrained(tmp_path, id2label={0: "c", 1: "a"}, thresholds={"c": 0.3})
    assert (named.thresholds, named.median_filter_seconds) == ({"c": 0.3}, None)


def test_no_loss_that_was_named_is_that_of_the_saved_model(tmp_path):
    FFTPConfig(problem_type="multi_label_classification", thresholds={"LABEL_1": 0.3}).save_pretrained(tmp_path)
    assert FFTPConfig.from_pretrained(tmp_path, problem_type=None).problem_type == "multi_label_classification"


def test_one_label_is_not_told_apart(make_config, tmp_path):
    FFTPForAudioClassification(make_config()).save_pretrained(tmp_path)
    one = {"num_labels": 1, "ignore_mismatched_sizes": True}
    with pytest.raises((ValueError, StrictDataclassError), match=r"num_labels=1: .*problem_type is 'regression' or"):
        FFTPForAudioClassification.from_pretrained(tmp_path, **one)
    model = FFTPForAudioClassification.from_pretrained(tmp_path, problem_type="regression", **one)
    assert model(torch.randn(2, 50, 128), labels=torch.randn(2)).loss.isfinite()


@pytest.mark.parametrize("names", [{0: "bell", 1: "dog"}, {"0": "bell", "1": "dog"}], ids=["numbers", "strings"])
def test_new_names_bring_their_indices(tmp_path, make_config, names):
    """As notebooks set them on a model; tutorials write the numbers as strings."""
    model = FFTPForAudioClassification(make_config(id2label={0: "dog", 1: "bell"}))
    model.config.id2label = names
    assert model.config.label2id == {"bell": 0, "dog": 1}
    model.save_pretrained(tmp_path)
    assert FFTPConfig.from_pretrained(tmp_path).id2label == {0: "bell", 1: "dog"}
    model.config.label2id = {"bell": "0", "dog": "1"}
    assert model.config.label2id == {"bell": 0, "dog": 1}


def test_names_and_indices_that_differ_are_refused():
    config = FFTPConfig(id2label={0: "dog", 1: "bell"})
    config.label2id = {"bell": 0, "dog": 1}
    with pytest.raises((ValueError, StrictDataclassError), match="is not the inverse of id2label"):
        config.validate()


def test_a_rate_without_a_sample_a_frame_is_refused():
    with pytest.raises((ValueError, StrictDataclassError), match="sampling_rate=50 has no sample in 10 ms"):
        FFTPConfig(sampling_rate=50)
