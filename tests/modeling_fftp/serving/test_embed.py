"""`fftp embed`: a table of vectors that equals the pipeline's, in parts and resumed."""

import shutil

import numpy as np
import pytest
from pyarrow import parquet
from transformers import pipeline
from typer.testing import CliRunner

from modeling_fftp.cli import app
from modeling_fftp.serving import embed as embedding
from modeling_fftp.serving.journal import Journal
from modeling_fftp.serving.parts import Part


@pytest.fixture
def archive(clip_folder, tmp_path):
    """Twelve clips, and a file that is no sound."""
    folder = tmp_path / "archive"
    shutil.copytree(clip_folder / "validation", folder)
    (folder / "low" / "broken.wav").write_text("no sound")
    return folder


def embed(*words):
    return CliRunner().invoke(app, ["embed", *map(str, words)])


@pytest.mark.parametrize("per", ["recording", "window", "step"])
def test_the_table_holds_what_the_pipeline_gives(trained, archive, tmp_path, per):
    output = tmp_path / "new" / "vectors.parquet"
    done = embed(archive, "--model", trained, "--output", output, "--per", per)
    assert done.exit_code == 1
    assert "complete; 1 recordings could not be read: vectors.parquet.failed.csv" in done.stderr
    table = parquet.read_table(output).to_pandas()
    pipe = pipeline("audio-embedding", model=str(trained), trust_remote_code=True)
    for file, rows in table.groupby("file"):
        answer = pipe(file, per=per)
        np.testing.assert_allclose(np.stack(rows["embedding"].to_list()), answer["embeddings"], atol=1e-5)
        np.testing.assert_array_equal(rows[["start", "end"]].to_numpy(), answer["spans"])
    assert table["file"].nunique() == 12


def test_parts_are_merged_and_a_stopped_run_goes_on(trained, archive, tmp_path):
    whole, split = tmp_path / "whole.parquet", tmp_path / "split.parquet"
    embed(archive, "--model", trained, "--output", whole)
    embed(archive, "--model", trained, "--output", split, "--shard", "2/2")
    journal = Journal.of(split, Part(1, 2)).path
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:10])
    assert "waits for" in embed(archive, "--model", trained, "--output", split, "--shard", "2/2", "--resume").stderr
    assert "is complete" in embed(archive, "--model", trained, "--output", split, "--shard", "1/2").stderr
    one, other = parquet.read_table(whole).to_pandas(), parquet.read_table(split).to_pandas()
    assert one["file"].tolist() == other["file"].tolist()
    np.testing.assert_allclose(np.stack(one["embedding"]), np.stack(other["embedding"]), atol=1e-5)


def test_what_makes_no_sense_is_refused_before_anything_is_written(trained, archive, tmp_path):
    for words, message in (
        (["--output", tmp_path / "vectors.csv"], "expected a file whose name ends in .parquet"),
        (["--output", tmp_path / "vectors.parquet", "--per", "words"], "per='words' is unknown"),
    ):
        done = embed(archive, "--model", trained, *words)
        assert message in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_vectors_of_several_groups_are_all_written_once(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "ROW_GROUP", 3)
    answer = {"duration": 1.0, "spans": np.array([[0.0, 1.0]]), "embeddings": np.ones((1, 4), np.float32)}
    records = [embedding.as_record(answer) | {"file": f"{index}.wav"} for index in range(8)]
    embedding.write_vectors(iter(records), tmp_path / "vectors.parquet", size=4)
    table = parquet.read_table(tmp_path / "vectors.parquet")
    assert table["file"].to_pylist() == [record["file"] for record in records]
