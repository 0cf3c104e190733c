"""Rows come from wherever people keep them, and the same rows are the same rows in every kind of file."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pytest
from pyarrow import parquet
from tests.support.data_rows import RowsRead, read_rows
from tests.support.object_store import Bucket

from pharos.data.hub import parse_id
from pharos.data.sources import content_digest, find_sources
from pharos.errors import DataError
from pharos.spec.model import DataSpec, WeightedSource

ROWS = [{"question": f"Wo ist {number}? 灯台", "answer": f'Line one,\n"two"; {number}'} for number in range(30)]
BOM = b"\xef\xbb\xbf"


def lines(rows: list[dict[str, Any]] = ROWS) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=["question", "answer"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def parquet_bytes() -> bytes:
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), sink, row_group_size=7)
    return sink.getvalue().to_pybytes()


def zstd(content: bytes) -> bytes:
    return pyarrow.compress(content, "zstd", asbytes=True)


def read(root: Path, train: Any, split: str = "train", **fields: Any) -> RowsRead:
    """The rows that a spec names, none of them in error."""
    found = read_rows(find_sources(DataSpec(train=train, **fields), root=root)[split])
    assert found.mistakes == []
    return found


def mistakes_of(root: Path, name: str) -> list[str]:
    return read_rows(find_sources(DataSpec(train=name), root=root)["train"]).mistakes


def pairs(found: RowsRead) -> list[dict[str, str]]:
    return [{"question": row.turns[0].content, "answer": row.turns[1].content} for row in found.rows]


KINDS: dict[str, bytes] = {
    "rows.jsonl": lines(),
    "rows.json": json.dumps(ROWS, indent=1).encode(),
    "rows.txt": lines(),
    "rows.csv": table(","),
    "semicolons.csv": table(";"),
    "rows.tsv": table("\t"),
    "rows.parquet": parquet_bytes(),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("compressed", ["", ".gz", ".zst"])
def test_every_kind_of_file_holds_the_same_rows(tmp_path: Path, name: str, compressed: str) -> None:
    compress = {"": bytes, ".gz": gzip.compress, ".zst": zstd}[compressed]
    (tmp_path / f"{name}{compressed}").write_bytes(compress(KINDS[name]))
    found = read(tmp_path, f"{name}{compressed}")
    assert pairs(found) == ROWS
    assert found.formats == ("question/answer",)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "rows.parquet"])
def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BOM + KINDS[name])
    assert pairs(read(tmp_path, name)) == ROWS


def test_compression_is_seen_in_the_content_and_not_in_the_name(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(zstd(lines()[:500]) + zstd(lines()[500:]))
    assert pairs(read(tmp_path, "rows.jsonl")) == ROWS
    (tmp_path / "plain.jsonl.gz").write_bytes(lines())
    [mistake] = mistakes_of(tmp_path, "plain.jsonl.gz")
    assert mistake.startswith("plain.jsonl.gz: cannot be read: its name ends with .gz, but it is not compressed so.")


@pytest.mark.parametrize(
    ("name", "content", "mistake"),
    [
        ("cut.jsonl.gz", gzip.compress(lines() * 50)[:500], "cut.jsonl.gz: cannot be read: Compressed file ended"),
        ("cut.jsonl.zst", zstd(lines())[:-40], "cut.jsonl.zst: cannot be read: Truncated compressed stream"),
        ("cut.parquet", parquet_bytes()[:-50], "cut.parquet: cannot be read: Parquet magic bytes not found"),
        ("one.csv", b"question,answer\na,b\nc,d,e\n", "one.csv:3: 3 cells, and the header names 2 columns."),
        ("open.csv", b'question,answer\na,b\nc,"d\n', "open.csv:3: not CSV: unexpected end of data."),
        ("latin.csv", b"question,answer\na,b\n\xfc,d\n", "latin.csv:3: not UTF-8: byte 0xfc at offset 20 of the file."),
        ("empty.csv", b"", "empty.csv: the file holds no row."),
        ("header.csv", b"question,answer\n", "header.csv: the file holds no row."),
        ("odd.csv", b"a,b\n1,2\n", "odd.csv:2: the keys 'a', 'b' are no known form."),
        ("rest.json", json.dumps(ROWS).encode() + b"\n x", "rest.json:2:2: not JSON: Extra data."),
        ("open.json", json.dumps(ROWS).encode()[:-1], "open.json:1:"),
        ("latin.json", b'[{"question": "\xff"}]', "latin.json: not UTF-8: byte 0xff at offset 15 of the file."),
    ],
)
def test_a_damaged_file_is_named_with_the_place(tmp_path: Path, name: str, content: bytes, mistake: str) -> None:
    (tmp_path / name).write_bytes(content)
    [told] = mistakes_of(tmp_path, name)
    assert told.startswith(mistake)


def test_a_row_of_csv_stands_on_the_line_that_it_begins_on(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('question,answer\n"a\nb",c\n\n"d","e\nf"\ng,\n')
    found = read_rows(find_sources(DataSpec(train="rows.csv"), root=tmp_path)["train"])
    assert [str(row.origin) for row in found.rows] == ["rows.csv:2", "rows.csv:5"]
    assert found.mistakes == ["rows.csv:7: answer is empty."]


def test_values_that_json_does_not_know_become_text(tmp_path: Path) -> None:
    import datetime

    day = datetime.date(2024, 5, 1)
    parquet.write_table(pyarrow.Table.from_pylist([{"question": "When?", "answer": day}]), tmp_path / "days.parquet")
    assert pairs(read(tmp_path, "days.parquet")) == [{"question": "When?", "answer": "2024-05-01"}]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "jsonl.gz"])
@pytest.mark.parametrize("layout", ["{split}.{suffix}", "{split}/part.{suffix}"])
def test_a_directory_as_paddlenlp_expects_it_brings_its_eval_rows(tmp_path: Path, layout: str, suffix: str) -> None:
    for split, rows in (("train", ROWS[:20]), ("dev", ROWS[20:25]), ("test", ROWS[25:])):
        file = tmp_path / "data" / layout.format(split=split, suffix=suffix)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(lines(rows)) if suffix.endswith("gz") else lines(rows))
    (tmp_path / "data" / "more.jsonl").write_bytes(lines())
    assert pairs(read(tmp_path, "data")) == ROWS[:20]
    evaluated = read(tmp_path, "data", "eval")
    assert pairs(evaluated) == ROWS[20:25]
    where = f"data/{layout.format(split='dev', suffix=suffix)}"
    assert evaluated.warnings == (f"data.eval is {where}, which lies beside the training rows",)
    assert pairs(read(tmp_path, "data", "test")) == ROWS[25:]
    assert read(tmp_path, "data").warnings == (
        "data/more.jsonl is not read: beside train and dev files only those and test files are",
    )


def test_eval_files_that_are_given_win_over_those_of_the_directory(tmp_path: Path) -> None:
    for name, rows in (("data/train.json", ROWS[:20]), ("data/dev.json", ROWS[20:]), ("own.jsonl", ROWS[:3])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(lines(rows))
    found = read(tmp_path, "data", "eval", eval="own.jsonl")
    assert pairs(found) == ROWS[:3]
    assert found.warnings == ("data/dev.json is not read, since data.eval is given",)


def test_a_directory_without_dev_files_is_all_training_rows(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(lines(ROWS[:10]))
    (tmp_path / "zz.jsonl").write_bytes(lines(ROWS[10:]))
    assert pairs(read(tmp_path, ".")) == ROWS
    assert set(find_sources(DataSpec(train="."), root=tmp_path)) == {"train"}


def test_uris_lead_to_files_directories_and_globs(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(lines())
    assert pairs(read(Path("/nowhere"), f"file://{tmp_path}/rows.jsonl")) == ROWS
    memory = fsspec.filesystem("memory")
    memory.pipe("/lighthouse/b.jsonl", lines(ROWS[10:]))
    memory.pipe("/lighthouse/a.jsonl.gz", gzip.compress(lines(ROWS[:10])))
    memory.pipe("/lighthouse/c.parquet", parquet_bytes())
    memory.pipe("/lighthouse/notes.md", b"no rows")
    try:
        assert pairs(read(tmp_path, "memory://lighthouse/b.jsonl")) == ROWS[10:]
        assert pairs(read(tmp_path, "memory://lighthouse/*.jsonl*")) == ROWS
        assert pairs(read(tmp_path, "memory://lighthouse")) == ROWS + ROWS
    finally:
        memory.rm("/lighthouse", recursive=True)


@pytest.mark.parametrize(
    ("uri", "mistake"),
    [
        ("memory://nowhere/x.jsonl", "leads to no file"),
        ("nosuch://bucket/x.jsonl", "cannot be reached: Protocol not known: nosuch"),
        ("s3://rows/x.jsonl?endpoint_override=127.0.0.1:9&scheme=http&connect_timeout=1", "cannot be reached: "),
    ],
)
def test_a_uri_that_leads_nowhere_says_why(tmp_path: Path, uri: str, mistake: str) -> None:
    with pytest.raises(DataError, match="data.train='") as error:
        find_sources(DataSpec(train=uri), root=tmp_path)
    assert mistake in error.value.message
    assert "Traceback" not in error.value.message


def test_a_directory_that_datasets_saved_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    assert pairs(read(tmp_path, "saved")) == ROWS


def test_the_parts_of_a_hub_id() -> None:
    whole = parse_id("hub:owner/na.me@main[en]:dev")
    assert (whole.name, whole.revision, whole.subset, whole.split) == ("owner/na.me", "main", "en", "dev")
    short = parse_id("hub:squad")
    assert (short.name, short.revision, short.subset, short.split) == ("squad", None, None, "train")
    with pytest.raises(DataError, match=r"hub:a/b/c.* not an id of a dataset of the hub. Write hub:owner/name"):
        find_sources(DataSpec(train="hub:a/b/c"), root=Path())


def test_a_hub_that_is_out_of_reach_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    source = find_sources(DataSpec(train="hub:pharos/no-such-rows"), root=tmp_path)["train"]
    with pytest.raises(DataError, match="^data.train: hub:pharos/no-such-rows cannot be read: the hub is out of reach"):
        content_digest(source)


def test_mixed_sources_keep_their_weights_and_places(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    write_rows("a.jsonl", ROWS[:3])
    write_rows("b/1.jsonl", ROWS[3:5])
    write_rows("b/2.jsonl", ROWS[5:])
    mixed = [WeightedSource(path="a.jsonl", weight=2), WeightedSource(path="b")]
    source = find_sources(DataSpec(train=mixed), root=tmp_path)["train"]
    assert source.weights == (2.0, 1.0)
    assert [(file.name, file.part) for file in source.files] == [("a.jsonl", 0), ("b/1.jsonl", 1), ("b/2.jsonl", 1)]
    other = find_sources(DataSpec(train=[mixed[0], WeightedSource(path="b", weight=3)]), root=tmp_path)["train"]
    assert content_digest(other) != content_digest(source)
    with pytest.raises(DataError, match=r"data.train\[1\].path='c.jsonl': no such file"):
        find_sources(DataSpec(train=[mixed[0], WeightedSource(path="c.jsonl")]), root=tmp_path)


def test_rows_lie_at_an_object_store_that_answers(bucket: Bucket, tmp_path: Path) -> None:
    store = bucket.store()
    store.write("rows/b.jsonl", lines(ROWS[10:]))
    store.write("rows/a.jsonl.gz", gzip.compress(lines(ROWS[:10])))
    store.write("rows/notes.txt", b"no rows")
    store.write("rows/c.parquet", parquet_bytes())
    for uri, expected in (
        (bucket.uri("rows"), [*ROWS, *ROWS]),
        (bucket.uri("rows", "b.jsonl"), ROWS[10:]),
        (bucket.uri("rows", "*.gz"), ROWS[:10]),
        (bucket.uri("rows", "c.parquet"), ROWS),
    ):
        found = [[turn.content for turn in row.turns] for row in read(tmp_path, uri).rows]
        assert found == [[row["question"], row["answer"]] for row in expected]
    for uri in (bucket.uri("rows", "none.jsonl"), bucket.uri("rows").replace("s3://sweeps/", "s3://swoops/")):
        with pytest.raises(DataError, match=r"data\.train='s3://"):
            read(tmp_path, uri)
