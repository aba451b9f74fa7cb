"""Shares of an archive."""

import pytest

from modeling_fftp.serving.parts import Part


def test_parts_share_everything_once():
    files = [str(index) for index in range(23)]
    parts = [Part.parse(f"{index}/3").split(Part(process, 2)) for index in (1, 2, 3) for process in (0, 1)]
    assert sorted(int(file) for part in parts for file in part.of(files)) == [*range(23)]
    for text in ("0/3", "4/3", "3", "a/b", "-1/3"):
        with pytest.raises(ValueError, match="expected a number and how many there are"):
            Part.parse(text)


@pytest.mark.parametrize("variables", [{"RANK": "1"}, {"WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}])
def test_half_of_a_process_is_refused(monkeypatch, variables):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="name no process of several"):
        Part().of_process()
