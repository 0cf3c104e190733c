"""What travels with a sweep: all that its file names by relative paths, laid out so that the file finds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pharos.data.sources import find_sources
from pharos.errors import BaseModelError, DataError
from pharos.spec.load import load_spec
from pharos.sweep import luggage
from pharos.sweep.luggage import pack


def write_spec(path: Path, **sections: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {"name": "small", "base": "builtin:tiny", "data": {"train": "rows.jsonl"}} | sections
    path.write_text(yaml.safe_dump(fields))
    return path


def write_rows(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"prompt": path.name, "completion": "on"}) + "\n")
    return path


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_relative_files_travel_and_are_found_where_they_arrive(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for name in (
        "data/train.jsonl",
        "data/more/a.jsonl",
        "data/more/b.csv",
        "sweeps/eval.jsonl",
        "data/not-named.jsonl",
    ):
        write_rows(here / name)
    data = {
        "train": [{"path": "../data/train.jsonl", "weight": 2.0}, {"path": ["../data/more"], "weight": 1.0}],
        "eval": "ev*.jsonl",
        "test": "s3://bucket/test.jsonl",
        "template": "../own.jinja",
    }
    (here / "own.jinja").write_text("{{ messages }}")
    path = write_spec(here / "sweeps" / "small.yaml", data=data)
    packed = pack(load_spec(path), path)
    packed.copy_to(there)
    assert set(contents(there)) == {
        *("sweeps/small.yaml", "sweeps/eval.jsonl", "own.jinja"),
        *("data/train.jsonl", "data/more/a.jsonl", "data/more/b.csv"),
    }
    arrived = there / packed.spec
    assert arrived.read_text() == path.read_text()
    spec = load_spec(arrived)
    local = spec.data.model_copy(update={"test": None})
    files = [file.location for source in find_sources(local, root=arrived.parent).values() for file in source.files]
    assert len(files) == 4
    assert all(Path(file).resolve().is_relative_to(there) for file in files)


def test_what_the_cluster_itself_sees_stays(tmp_path: Path) -> None:
    path = write_spec(
        tmp_path / "small.yaml",
        base="/shared/models/llama",
        data={
            "train": ["/shared/train.jsonl", "hub:owner/name", "gs://bucket/rows.jsonl"],
            "template": "/shared/own.jinja",
        },
    )
    assert pack(load_spec(path), path).files.keys() == {pack(load_spec(path), path).spec}


def test_a_base_beside_the_file_is_refused_with_what_would_work(tmp_path: Path) -> None:
    (tmp_path / "models" / "llama").mkdir(parents=True)
    write_rows(tmp_path / "rows.jsonl")
    for base in ("models/llama", "../models/llama"):
        path = write_spec(tmp_path / "small.yaml", base=base)
        with pytest.raises(BaseModelError, match=f"base={base} is a directory.*absolute; or name a model of the hub"):
            pack(load_spec(path), path)
    path = write_spec(tmp_path / "small.yaml", base="owner/model", revision="main")
    pack(load_spec(path), path)


def test_too_much_is_refused_with_the_largest_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_spec(tmp_path / "small.yaml")
    (tmp_path / "rows.jsonl").write_bytes(b" " * 2_000_000)
    monkeypatch.setattr(luggage, "MAX_BYTES", 1_900_000)
    with pytest.raises(DataError, match=r"have 2 MB, and 2 MB may travel; the largest, .*rows.jsonl, has 2 MB.*URI"):
        pack(load_spec(path), path)
    monkeypatch.setattr(luggage, "MAX_BYTES", 2_100_000)
    assert pack(load_spec(path), path).num_bytes > 2_000_000


def test_a_missing_file_is_named_with_its_field(tmp_path: Path) -> None:
    path = write_spec(tmp_path / "small.yaml", data={"train": "row.jsonl"})
    write_rows(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="data.train='row.jsonl': no such file in .* Did you mean"):
        pack(load_spec(path), path)


def test_what_is_kept_is_replaced_only_where_it_has_changed(tmp_path: Path) -> None:
    path = write_spec(tmp_path / "here" / "small.yaml")
    rows = write_rows(tmp_path / "here" / "rows.jsonl")
    kept = tmp_path / "storage" / "small" / "submitted"
    pack(load_spec(path), path).keep_in(kept)
    before = (kept / "rows.jsonl").stat().st_mtime_ns
    pack(load_spec(path), path).keep_in(kept)
    assert (kept / "rows.jsonl").stat().st_mtime_ns == before
    rows.write_text("{}\n")
    (kept / "left-over").write_text("")
    pack(load_spec(path), path).keep_in(kept)
    assert contents(kept) == contents(tmp_path / "here")
    assert [entry.name for entry in kept.parent.iterdir()] == ["submitted"]
