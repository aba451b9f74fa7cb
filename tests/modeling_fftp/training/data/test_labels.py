"""Labels as people write them: names, indices, lists, vectors; what could mean two things is refused."""

import math

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List

from modeling_fftp.training.data.labels import read_class_names, read_labels


def column(values, feature=None):
    return Dataset.from_dict({"label": values}, features=Features({"label": feature}) if feature else None)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["dog", "cat", "dog"], ["cat", "dog"]),
        (["10", "9", "01", "x"], ["01", "9", "10", "x"]),
        ([3, 20, 3], ["3", "20"]),
        ([1.0, 0.0, None], ["0", "1"]),
        ([1.0, 0.0, float("nan")], ["0", "1"]),
        ([True, False], ["False", "True"]),
        (["dog", "", None], ["dog"]),
    ],
    ids=str,
)
def test_one_class_per_clip(values, classes):
    kind = read_labels(column(values), "label")
    assert kind.classes == classes
    assert not kind.is_multi_label
    for value in values:
        if value in (None, "") or value != value:
            with pytest.raises(ValueError, match="no label"):
                kind.read(value)
        else:
            assert kind.read(value) == [str(int(value)) if isinstance(value, float) else str(value)]


def test_indices_with_names():
    kind = read_labels(column([1, 0, -1], ClassLabel(names=["dog", "cat"])), "label")
    assert kind.classes == ["dog", "cat"]
    assert kind.read(1) == ["cat"]
    with pytest.raises(ValueError, match="no label"):
        kind.read(-1)
    kind = read_labels(column([[1, 0], []], List(ClassLabel(names=["dog", "cat"]))), "label")
    assert [kind.read(label) for label in ([1, 0], [])] == [["cat", "dog"], []]


def test_lists_and_separated_names():
    for values, separator in (([["a", "b"], [], ["b"]], None), (["a, b", " ", "b"], ",")):
        kind = read_labels(column(values), "label", separator)
        assert (kind.classes, kind.is_multi_label) == (["a", "b"], True)
        assert [kind.read(value) for value in values] == [["a", "b"], [], ["b"]]


def test_lists_written_as_text():
    written = ["['wren', 'robin']", '["wren"]', "[]", "['']", None, '["reed warbler\'s call"]']
    kind = read_labels(column(written), "label")
    assert (kind.classes, kind.is_multi_label) == (["reed warbler's call", "robin", "wren"], True)
    read = [kind.read(value) for value in written if value is not None]
    assert read == [["wren", "robin"], ["wren"], [], [], ["reed warbler's call"]]
    with pytest.raises(ValueError, match="no list of names"):
        kind.read("wren")
    assert [*map(read_labels(column(["[1, 0, 1]", "[0, 0, 0]"]), "label").read, ["[0, 1, 1]"])] == [
        ["label_1", "label_2"]
    ]


@pytest.mark.parametrize("odd", ["wren", "['wren' 'robin']", "[wren]", "[['wren']]", "['wren', None]", "["])
def test_other_texts_are_names(odd):
    kind = read_labels(column(["['wren']", odd]), "label")
    assert (kind.classes, kind.is_multi_label) == (sorted(["['wren']", odd]), False)


VECTORS = [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("kind", [int, float, bool])
def test_vectors_of_0_and_1(kind):
    vectors = [[kind(value) for value in vector] for vector in VECTORS]
    labels = read_labels(column(vectors), "label")
    assert (labels.classes, labels.is_multi_label) == (["label_0", "label_1", "label_2"], True)
    named = read_labels(column(vectors), "label", names=["a", "b", "c"])
    assert [named.read(vector) for vector in vectors] == [["a", "c"], [], ["b"]]
    with pytest.raises(ValueError, match="vectors of 3; there are 2 names of classes"):
        read_labels(column(vectors), "label", names=["a", "b"])


def test_lists_of_indices_are_no_vectors():
    for values in ([[0, 1], [1]], [[0], [1]], [[0, 2], [1, 2]]):
        assert not read_labels(column(values), "label").is_vector
    with pytest.raises(ValueError, match=r"like \[0, 1\]: vectors of 0 and 1, or lists of two indices"):
        read_labels(column([[0, 1], [1, 0]]), "label")
    assert read_labels(column([[0, 1], [1, 1]]), "label").is_vector


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([{"name": "dog"}], r"labels in 'label' are {'name': .*; expected names, indices"),
        ([[["dog"]]], "expected names, indices, or lists of either"),
        ([0.5, 1.0], r"numbers like 0\.5; expected names or indices"),
        ([[0.2, 0.8], [1.0, 0.0]], r"numbers like 0\.0; expected names or indices"),
        (["dog", " dog"], "the classes 'dog', ' dog' look alike|the classes ' dog', 'dog' look alike"),
        (["caf\u00e9", "cafe\u0301"], r"the classes 'cafe\\u0301', 'caf\\xe9' look alike"),
        (["dog", "do\u200bg"], r"the classes 'dog', 'do\\u200bg' look alike"),
        (["barn owl", "barn\u00a0owl"], r"the classes 'barn owl', 'barn\\xa0owl' look alike"),
    ],
)
def test_other_labels_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        read_labels(column(values), "label")


@pytest.mark.parametrize(
    ("values", "separator", "message"),
    [([1, 2], ",", "--label_separator splits text; the labels in 'label' are .*int64"), (["a"], "", "is empty")],
)
def test_a_separator_needs_text_to_split(values, separator, message):
    with pytest.raises(ValueError, match=message):
        read_labels(column(values), "label", separator)


def test_capital_letters_are_named(caplog):
    assert read_labels(column(["Dog", "dog", "cat"]), "label").classes == ["Dog", "cat", "dog"]
    assert "differ in capital letters alone: Dog, dog" in caplog.text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0,/m/1,Speech\n1,/m/2,Speech\n", "display name 'Speech' stands for 2 classes"),
        ("0,/m/1,Speech\n1,/m/1,Music\n", "id '/m/1' stands for 2 classes"),
        ("", r"expected a header and the columns index"),
        ("1,/m/1,Speech\n", r"expected a header and the columns index \(0, 1"),
    ],
)
def test_files_of_class_names_are_checked(tmp_path, rows, message):
    (tmp_path / "names.csv").write_text("index,mid,display_name\n" + rows)
    with pytest.raises(ValueError, match=message):
        read_class_names(tmp_path / "names.csv")


def test_vectors_are_read_from_numpy_columns():
    assert read_labels(column(np.array(VECTORS)), "label").is_vector


@pytest.mark.parametrize("odd", [None, math.nan, -1, 2])
def test_one_odd_value_does_not_make_indices_of_vectors(odd):
    with pytest.raises(
        ValueError, match=r"lists of one length, some with a value twice, such as \[1.*, 0.*, 1.*\] and"
    ):
        read_labels(column([*VECTORS, [0, odd, 1]]), "label")


def test_what_is_no_vector_among_vectors_is_refused():
    with pytest.raises(ValueError, match=r"vectors like \[0, 1, 0\], of 2 lengths; expected one length"):
        read_labels(column([[0, 1, 0], [1, 0]]), "label")
    kind = read_labels(column(VECTORS), "label")
    for label in ([2, 0, 0], [0, -1, 1], [0, 1]):
        with pytest.raises(ValueError, match=r"is not a vector of 0 and 1 for the 3 classes"):
            kind.read(label)


def test_lists_that_are_missing_or_hold_nothing():
    kind = read_labels(column([["a"], None, ["b", None]]), "label")
    assert kind.classes == ["a", "b"]
    for label in (None, ["b", None]):
        with pytest.raises(ValueError, match="no label"):
            kind.read(label)


@pytest.mark.parametrize(
    "values", [["dog,cat", "cat", "dog"], ["cat;dog", "dog"], ["cat|dog", "dog"], ["['cat' 'dog']", "['dog']"]]
)
def test_several_in_one_string_are_named(values, caplog):
    assert read_labels(column(values), "label").classes == sorted(values)
    assert "are taken as they are" in caplog.text


def test_few_that_join_other_classes_are_named(caplog):
    singles = [f"s{number}" for number in range(10)]
    read_labels(column([*singles, "s9, s10"]), "label")
    assert not caplog.text
    read_labels(column([*singles, "s1, s2"]), "label")
    assert "such as 's1, s2' hold ','" in caplog.text
