"""Prepared data are made once, found again, and read back as they were written; facts agree with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from tests.support.data_rows import texts

from pharos.data.facts import data_facts
from pharos.data.order import collate
from pharos.data.prepare import load_prepared, open_prompts, open_split, own_chat_template, prepare
from pharos.data.template import FOLDER
from pharos.data.tokenise import load_tokenizer
from pharos.errors import DataError
from pharos.spec.model import DataSpec

SPLITS = ("train", "eval", "test")
SPEC = DataSpec(train="train.jsonl", eval_fraction=0.2, test_fraction=0.2, max_length=64)


def questions(count: int) -> list[dict]:
    return [
        {"question": f"What is {number}?", "answer": f"It is {number} " + "!" * (number % 7)} for number in range(count)
    ]


@pytest.fixture
def arguments(arguments: dict, write_rows: Callable[..., Path]) -> dict:
    """What `prepare` and `data_facts` take besides the spec; train.jsonl holds 100 rows."""
    write_rows("train.jsonl", questions(100))
    return arguments


def test_rows_come_back_as_they_were_written(arguments: dict) -> None:
    prepared = prepare(SPEC, **arguments)
    found = [row for split in SPLITS for row in texts(prepared, split, arguments["tokenizer_dir"])]
    wanted = [
        (
            f"<|im_start|>user\n{row['question']}<|im_end|>\n<|im_start|>assistant\n{row['answer']}<|im_end|>\n",
            f"{row['answer']}<|im_end|>",
        )
        for row in questions(100)
    ]
    assert sorted(found) == sorted(wanted)


def test_a_split_is_mapped_from_disk_with_its_lengths(arguments: dict) -> None:
    prepared = prepare(SPEC, **arguments)
    rows = open_split(prepared.directory, "train")
    written = pyarrow.ipc.open_file(prepared.directory / "train.arrow").read_all()
    assert rows.tokens.tolist() == [token for row in written["tokens"].to_pylist() for token in row]
    assert rows.trained.tolist() == [bit for row in written["trained"].to_pylist() for bit in row]
    assert (rows.tokens.dtype, rows.trained.dtype, rows.offsets.dtype) == (np.int32, np.uint8, np.int64)
    assert not rows.tokens.flags.writeable
    assert str(prepared.directory / "train.arrow") in Path("/proc/self/maps").read_text()
    for index in range(len(rows)):
        tokens, trained = rows.row(index)
        assert trained.dtype == bool
        assert (len(tokens), trained.sum()) == (rows.lengths[index], rows.trained_counts[index])
    assert rows.lengths.sum() == len(rows.tokens)


def test_prompts_and_references_belong_to_the_test_rows_in_order(arguments: dict) -> None:
    prepared = prepare(SPEC, **arguments)
    prompts, references = open_prompts(prepared.directory)
    rows = open_split(prepared.directory, "test")
    decode = load_tokenizer(arguments["tokenizer_dir"]).tokenizer.decode
    assert len(prompts) == len(references) == len(rows)
    for index, (prompt, reference) in enumerate(zip(prompts, references, strict=True)):
        tokens, trained = rows.row(index)
        assert tokens[: len(prompt)].tolist() == prompt.tolist()
        assert decode(tokens[trained].tolist()) == reference


def test_the_second_call_finds_what_the_first_made(arguments: dict) -> None:
    first = prepare(SPEC, **arguments)
    made = {path: path.stat().st_mtime_ns for path in first.directory.iterdir()}
    assert prepare(SPEC, **arguments) == first
    assert {path: path.stat().st_mtime_ns for path in first.directory.iterdir()} == made
    assert [path.name for path in arguments["cache_dir"].iterdir()] == [first.digest]


def test_two_that_prepare_at_once_get_the_same_data(arguments: dict) -> None:
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(prepare, SPEC, **arguments) for _ in range(4)]
    first, *others = [future.result() for future in futures]
    assert others == [first] * 3
    assert [path.name for path in arguments["cache_dir"].iterdir()] == [first.digest]


def test_whatever_the_rows_are_made_from_changes_the_digest(
    arguments: dict, write_tokenizer: Callable[..., Path]
) -> None:
    def digest(spec: DataSpec = SPEC, **changed: object) -> str:
        return prepare(spec, **(arguments | changed)).digest

    digests = [
        digest(),
        digest(tokenizer_digest="4567"),
        digest(tokenizer_dir=write_tokenizer("{% for m in messages %}{{ m.content }};{% endfor %}", name="other")),
        digest(SPEC.model_copy(update={"max_length": 65})),
        digest(SPEC.model_copy(update={"max_train_rows": 5})),
    ]
    train = arguments["root"] / "train.jsonl"
    train.write_text(train.read_text() + json.dumps(questions(101)[100]))
    digests.append(digest())
    assert len(set(digests)) == len(digests)


def test_facts_and_ids_stand_in_the_manifest(arguments: dict) -> None:
    prepared = prepare(SPEC, **arguments)
    rows = {split: open_split(prepared.directory, split) for split in SPLITS}
    facts = prepared.facts
    assert (facts.num_train_rows, facts.num_eval_rows, facts.num_test_rows) == tuple(len(rows[s]) for s in SPLITS)
    assert facts.mean_tokens == pytest.approx(rows["train"].lengths.mean())
    assert facts.max_tokens == rows["train"].lengths.max()
    assert facts.mean_tokens <= facts.p95_tokens <= facts.max_tokens
    assert facts.mean_trained_tokens == pytest.approx(rows["train"].trained_counts.mean())
    assert (facts.format, facts.template, facts.num_long_rows) == ("question/answer", "tokenizer", 0)
    assert facts.digest == prepared.digest
    assert not facts.estimated
    tokenizer = load_tokenizer(arguments["tokenizer_dir"])
    assert prepared.pad_id == tokenizer.eos_id
    assert set(prepared.stop_ids) == {tokenizer.eos_id, tokenizer.tokenizer.token_to_id("<|im_end|>")}
    assert load_prepared(prepared.directory) == prepared


def test_skipped_rows_are_counted_and_named(arguments: dict, write_rows: Callable[..., Path]) -> None:
    rows = questions(100)
    rows[40]["answer"] = "far " * 100
    write_rows("train.jsonl", rows)
    with pytest.raises(DataError, match="1 rows are longer. Set data.max_length=(.|\n)*train.jsonl:41: "):
        prepare(SPEC, **arguments)
    assert list(arguments["cache_dir"].glob("*")) == []

    skipping = prepare(SPEC.model_copy(update={"long_rows": "skip"}), **arguments)
    [skipped] = [json.loads(line) for line in (skipping.directory / "skipped.jsonl").read_text().splitlines()]
    assert skipped["row"] == "train.jsonl:41"
    assert skipped["num_tokens"] > 64
    assert sum(len(open_split(skipping.directory, split)) for split in SPLITS) == 99
    assert skipping.facts.num_long_rows == 1
    assert "1 rows were skipped; skipped.jsonl" in skipping.warnings[0]

    cut = prepare(SPEC.model_copy(update={"long_rows": "truncate"}), **arguments)
    assert max(open_split(cut.directory, split).lengths.max() for split in SPLITS) == 64
    assert "1 rows were cut inside a turn, the first, train.jsonl:41: " in cut.warnings[0]
    assert cut.facts.num_rows_cut_inside == 1


def long_talks(count: int) -> list[dict]:
    """Conversations of three exchanges, all different."""
    roles = ("user", "assistant") * 3
    return [
        {"messages": [{"role": role, "content": f"{role} {number} turn {turn}"} for turn, role in enumerate(roles)]}
        for number in range(count)
    ]


def test_rows_cut_at_a_turn_and_inside_one_are_told_apart(arguments: dict, write_rows: Callable[..., Path]) -> None:
    rows = long_talks(40)
    rows[7]["messages"][1]["content"] = "far " * 200
    write_rows("train.jsonl", rows)
    spec = SPEC.model_copy(update={"long_rows": "truncate", "max_length": 70})
    prepared = prepare(spec, **arguments)
    found = {split: texts(prepared, split, arguments["tokenizer_dir"]) for split in SPLITS}
    ends = [text.endswith("<|im_end|>\n") for part in found.values() for text, _ in part]
    assert (len(ends), sum(ends)) == (40, 39)
    told = " ".join(prepared.warnings)
    for split in SPLITS:
        inside = sum(not text.endswith("<|im_end|>\n") for text, _ in found[split])
        assert f"data.{split}: {len(found[split]) - inside:,} rows were cut at a turn: all that follows" in told
        assert (f"data.{split}: 1 rows were cut inside a turn, the first, train.jsonl:8: " in told) == bool(inside)
    assert (prepared.facts.num_long_rows, prepared.facts.num_rows_cut_inside) == (40, 1)
    _, references = open_prompts(prepared.directory)
    for (_, trained), reference in zip(found["test"], references, strict=True):
        assert trained.endswith(f"{reference}<|im_end|>") or reference.startswith(trained)  # the last answer kept


def test_a_template_without_its_tokens_warns_and_all_trains_all(arguments: dict) -> None:
    spec = SPEC.model_copy(update={"template": "llama3", "train_on": "all", "max_length": 256})
    prepared = prepare(spec, **arguments)
    assert "data.template=llama3 writes <|start_header_id|>" in prepared.warnings[0]
    assert prepared.facts.template == "llama3"
    assert all(text == trained for text, trained in texts(prepared, "train", arguments["tokenizer_dir"]))


@pytest.mark.parametrize("packing", [False, True])
def test_what_is_to_be_predicted_is_written_where_it_is_not_the_token(
    arguments: dict, write_rows: Callable[..., Path], packing: bool
) -> None:
    assert open_split(prepare(SPEC, **arguments).directory, "train").targets is None
    write_rows("train.jsonl", long_talks(40))
    prepared = prepare(
        SPEC.model_copy(update={"template": "baichuan2", "max_length": 256, "packing": packing}), **arguments
    )
    rows = open_split(prepared.directory, "train")
    differing = np.flatnonzero(rows.targets != rows.tokens)
    assert len(differing) == 2 * prepared.facts.num_train_rows
    assert set(rows.targets[differing].tolist()) == {load_tokenizer(arguments["tokenizer_dir"]).eos_id}
    assert all(rows.trained[differing])
    batch = collate(rows, [1, 0], pad_id=0)
    for place, index in enumerate([1, 0]):
        expected = rows.targets[rows.offsets[index] : rows.offsets[index + 1]].tolist()
        assert batch.targets[place, : rows.lengths[index]].tolist() == expected


def test_a_max_length_that_leaves_no_row_says_what_would(arguments: dict) -> None:
    spec = SPEC.model_copy(update={"long_rows": "truncate", "max_length": 3})
    with pytest.raises(DataError, match="data.train: all .* rows were skipped.*Raise data.max_length"):
        prepare(spec, **arguments)


def test_a_writer_that_fails_leaves_nothing(arguments: dict) -> None:
    prepare(SPEC, **arguments)
    directory = next(arguments["cache_dir"].iterdir())
    (directory / "manifest.json").unlink()  # as if it were half-made by something else
    with pytest.raises(OSError, match="not empty"):
        prepare(SPEC, **arguments)
    assert [path.name for path in arguments["cache_dir"].iterdir()] == [directory.name]


def test_overlapping_files_and_unused_keys_are_warnings_of_the_prepared_data(
    arguments: dict, write_rows: Callable[..., Path]
) -> None:
    write_rows("eval.jsonl", [row | {"note": "x"} for row in questions(3)])
    prepared = prepare(SPEC.model_copy(update={"eval": "eval.jsonl"}), **arguments)
    assert prepared.warnings == (
        "eval.jsonl: 'note' of 3 rows is not used",
        "data.eval: 3 of 3 rows also stand in data.train, so its results flatter. Remove them from one of the two.",
    )
    assert prepared.facts.warnings == prepared.warnings
    assert load_prepared(prepared.directory) == prepared


def test_a_plan_hears_of_them_before_anything_is_prepared(arguments: dict, write_rows: Callable[..., Path]) -> None:
    write_rows("eval.jsonl", questions(3))
    spec = SPEC.model_copy(update={"eval": "eval.jsonl"})
    for sample_rows in (50, 2000):
        [warning] = data_facts(spec, **arguments, sample_rows=sample_rows).warnings
        assert warning.startswith("data.eval: 3 of 3 rows also stand in data.train")


def test_facts_of_few_rows_are_those_that_prepare_finds(arguments: dict) -> None:
    facts = data_facts(SPEC, **arguments)
    assert not arguments["cache_dir"].exists()
    assert facts == prepare(SPEC, **arguments).facts


def test_facts_of_many_rows_count_them_all_and_measure_a_sample(
    arguments: dict, write_rows: Callable[..., Path]
) -> None:
    facts = data_facts(SPEC, **arguments, sample_rows=50)
    assert facts.estimated
    assert facts == data_facts(SPEC, **arguments, sample_rows=50)
    write_rows("train.jsonl", questions(100)[::-1])
    turned = data_facts(SPEC, **arguments, sample_rows=50)
    assert replace(turned, digest=facts.digest) == facts

    exact = prepare(SPEC, **arguments).facts
    assert facts.mean_tokens == pytest.approx(exact.mean_tokens, rel=0.1)
    for count in ("num_train_rows", "num_eval_rows", "num_test_rows"):
        assert getattr(facts, count) == getattr(exact, count)
    assert data_facts(SPEC, **arguments, sample_rows=50) == exact  # from the cache, once it is there


def test_facts_of_a_sample_scale_long_rows_and_refuse_them_like_prepare(arguments: dict) -> None:
    short = SPEC.model_copy(update={"max_length": 10})
    with pytest.raises(DataError, match="rows are longer. Set data.max_length="):
        data_facts(short, **arguments, sample_rows=50)
    half = SPEC.model_copy(update={"max_length": 27, "long_rows": "skip"})
    exact, sampled = data_facts(half, **arguments), data_facts(half, **arguments, sample_rows=50)
    assert 10 < exact.num_train_rows < 60
    assert sampled.num_train_rows == pytest.approx(exact.num_train_rows, abs=6)
    assert sampled.num_train_rows + sampled.num_long_rows == 67  # no row falls out of the count


def test_a_template_that_is_not_the_tokenizers_own_is_kept_with_the_rows(arguments: dict) -> None:
    assert own_chat_template(prepare(SPEC, **arguments).directory) is None
    spec = SPEC.model_copy(update={"template": "llama2"})
    assert own_chat_template(prepare(spec, **arguments).directory) == (FOLDER / "llama2.jinja").read_text()
