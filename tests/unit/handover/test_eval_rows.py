"""Rows of a file, of a sweep file and of a sweep that has run: the same tokens as a sweep makes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.support import small_sweep
from tests.unit.track import sweeps

from pharos.data.prepare import PreparedData, open_prompts, open_split, prepare
from pharos.errors import DataError, ModelError
from pharos.handover.eval_rows import EvalRows, Wishes, eval_rows
from pharos.handover.references import FoundModel
from pharos.model.facts import tokenizer_digest
from pharos.spec.model import DataSpec
from pharos.track.event_log import EventLog

DATA = {"train": "rows.jsonl", "max_length": 48, "eval_fraction": 0.15, "test_fraction": 0.15}


@pytest.fixture
def found(model_dir: Path) -> FoundModel:
    return FoundModel(shown="model", model_dir=model_dir)


@pytest.fixture
def prepared(model_dir: Path, rows_file: Path) -> PreparedData:
    """As a sweep prepares the rows, in the cache of a storage."""
    return prepare(
        DataSpec.model_validate(DATA),
        root=rows_file.parent,
        tokenizer_dir=model_dir,
        tokenizer_digest=tokenizer_digest(model_dir),
        cache_dir=rows_file.parent / "results" / "cache",
    )


def write_sweep(storage: Path, model_dir: Path, digest: str) -> None:
    """A sweep of these rows that has begun, whose one adapter lies over the model."""
    spec = small_sweep.spec_fields()
    started = {"sweep": "small", "spec": spec, "digests": {"spec": "5bec", "data": digest}, "versions": {}}
    event = type(sweeps.started())(**started, num_trials=1, metric="eval_loss")
    EventLog(storage / "small" / "events").append([event])
    adapter = storage / "small" / "trials" / "0000" / "step-000004"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model_dir)}))


def read(data: str, found: FoundModel, storage: Path, **wishes: object) -> EvalRows:
    return eval_rows(data, found, storage=storage, wishes=Wishes(**wishes))  # type: ignore[arg-type]


def assert_same(rows: EvalRows, prepared: PreparedData) -> None:
    theirs = open_split(prepared.directory, "test")
    prompts, references = open_prompts(prepared.directory)
    held_out = rows.held_out
    assert len(held_out.rows) == len(theirs) > 5
    for index in range(len(theirs)):
        for ours, wanted in zip(held_out.rows.row(index), theirs.row(index), strict=True):
            np.testing.assert_array_equal(ours, wanted)
    assert [prompt.tolist() for prompt in held_out.prompts] == [prompt.tolist() for prompt in prompts]
    assert held_out.references == references
    assert set(held_out.stop_ids) == set(prepared.stop_ids)


def test_a_split_of_a_sweep_file_has_the_rows_that_the_sweep_prepares(
    found: FoundModel, prepared: PreparedData, rows_file: Path
) -> None:
    spec = rows_file.parent / "sweep.yaml"
    spec.write_text(yaml.safe_dump(small_sweep.spec_fields(data=DATA)))
    rows = read(f"{spec}:test", found, rows_file.parent)
    assert_same(rows, prepared)
    assert (rows.max_new_tokens, rows.asked) == (4, True)
    assert all(place.startswith("rows.jsonl:") for place in rows.held_out.places)
    held_out = read(f"{spec}:eval", found, rows_file.parent).held_out
    assert not set(held_out.places) & set(rows.held_out.places)


def test_a_sweep_that_has_run_gives_its_prepared_rows(
    found: FoundModel, prepared: PreparedData, rows_file: Path
) -> None:
    storage = rows_file.parent / "results"
    write_sweep(storage, found.model_dir, prepared.digest)
    rows = read("small:test", found, storage)
    assert_same(rows, prepared)
    assert (rows.max_new_tokens, rows.held_out.digest, rows.held_out.notes) == (4, prepared.digest, ())
    assert_same(read(f"{storage}/small:test", found, rows_file.parent), prepared)
    assert len(read("small:test", found, storage, max_rows=3).held_out.rows) == 3
    steering = read("small:eval", found, storage)
    assert steering.asked
    assert len(steering.held_out.prompts) == len(steering.held_out.rows) == len(open_split(prepared.directory, "eval"))
    (prepared.directory / "eval_prompts.arrow").unlink()  # as an earlier version prepared them
    assert not read("small:eval", found, storage).asked


def test_another_tokenizer_is_refused_and_another_template_is_told_of(
    found: FoundModel, prepared: PreparedData, rows_file: Path, tmp_path: Path
) -> None:
    storage = rows_file.parent / "results"
    write_sweep(storage, found.model_dir, prepared.digest)
    other = Path(shutil.copytree(found.model_dir, tmp_path / "other"))
    (other / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    theirs = FoundModel(shown="other", model_dir=other)
    assert "the template of the sweep small" in read("small:test", theirs, storage).held_out.notes[0]
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + " ")
    with pytest.raises(ModelError, match="other has another tokenizer .* Name the sweep's file instead, as in sweep"):
        read("small:test", theirs, storage)


def test_a_file_alone_is_read_as_a_whole_in_the_template_of_the_model(found: FoundModel, rows_file: Path) -> None:
    rows = read(str(rows_file), found, rows_file.parent)
    assert len(rows.held_out.rows) == 84
    assert rows.held_out.places[:2] == [f"{rows_file}:1", f"{rows_file}:2"]
    assert rows.held_out.notes == ()
    plain = read(str(rows_file), found, rows_file.parent, template="plain", max_rows=5)
    assert len(plain.held_out.rows) == 5
    assert len(plain.held_out.prompts[0]) != len(rows.held_out.prompts[0])
    assert plain.held_out.digest != rows.held_out.digest


def test_a_trial_is_evaluated_in_the_template_that_it_was_trained_with(
    found: FoundModel, rows_file: Path, tmp_path: Path
) -> None:
    template = tmp_path / "chat_template.jinja"
    template.write_text("{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}")
    trial = FoundModel(shown="trial", model_dir=found.model_dir, chat_template=template)
    ours = read(str(rows_file), trial, tmp_path).held_out.rows.lengths
    assert (ours < read(str(rows_file), found, tmp_path).held_out.rows.lengths).all()


def test_rows_that_are_too_long_are_left_out_and_named(found: FoundModel, rows_file: Path) -> None:
    lengths = read(str(rows_file), found, rows_file.parent).held_out.rows.lengths
    limit = int(np.median(lengths))
    rows = read(str(rows_file), found, rows_file.parent, max_length=limit).held_out
    assert len(rows.rows) == (lengths <= limit).sum()
    assert len(rows.skipped) == (lengths > limit).sum() > 0
    assert not {str(row.origin) for row in rows.skipped} & set(rows.places)
    with pytest.raises(DataError, match="no row is left to evaluate: .*rows.jsonl:1 for: longer than"):
        read(str(rows_file), found, rows_file.parent, max_length=1)


def test_texts_are_not_answered(found: FoundModel, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "turn the lamp on"}\n')
    rows = read(str(file), found, tmp_path)
    assert not rows.asked
    assert rows.held_out.rows.trained.all()


@pytest.mark.parametrize(
    ("data", "wishes", "message"),
    [
        ("rows.jsnl", {}, "DATA='rows.jsnl': no such file in"),
        ("sweep.yaml", {}, "Say which rows of it: sweep.yaml:test or sweep.yaml:eval."),
        ("smal:test", {}, "there is no sweep smal in .* Did you mean small:test[?]"),
        ("small:test", {"template": "plain"}, "--template plain: small:test are rows that are prepared already."),
        ("small:test", {"max_length": 9}, "--max-length 9: small:test are rows that are prepared already."),
        ("bad.jsonl", {}, "bad.jsonl:1: "),
    ],
)
def test_what_cannot_be_read_is_told_in_the_words_of_the_command(
    found: FoundModel, tmp_path: Path, data: str, wishes: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"prompt": 1, "completion": "on"}\n')
    write_sweep(tmp_path, found.model_dir, "gone")
    with pytest.raises(DataError, match=message):
        read(data, found, tmp_path, **wishes)


def test_rows_of_a_sweep_that_have_gone_are_missed(found: FoundModel, tmp_path: Path) -> None:
    write_sweep(tmp_path, found.model_dir, "gone")
    with pytest.raises(DataError, match="its rows should be in .*/gone, which is not there."):
        read("small:test", found, tmp_path)
