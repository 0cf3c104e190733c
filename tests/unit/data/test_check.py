"""Every finding of `pharos data check`, from small files that hold it, and none where there is nothing to find."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pharos.data.check import PACKED_AT_MOST, packing_of
from pharos.data.check_files import Wanted, check_files
from pharos.data.check_report import LISTED, CheckReport, SplitReport, buckets, obstacles, report_json, warnings
from pharos.data.findings import repeats, row_error, shared_rows
from pharos.data.packing import pack
from pharos.data.prepare import prepare
from pharos.data.show import ShownRow
from pharos.errors import DataError
from pharos.spec.model import SweepSpec

Checked = Callable[..., CheckReport]


def question(number: int, answer: str = "It stands there.") -> dict[str, str]:
    return {"question": f"Where is lighthouse {number}?", "answer": answer}


def talk(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.fixture
def tokenizer_dir(write_tokenizer: Callable[..., Path]) -> Path:
    return write_tokenizer()


@pytest.fixture
def checked(tmp_path: Path, tokenizer_dir: Path) -> Checked:
    """The report of train.jsonl, as a file alone unless `divided`; further words are fields of `data`."""

    def check(*, divided: bool = False, **data: Any) -> CheckReport:
        return run(tmp_path, tokenizer_dir, Wanted(), divided=divided, **data)[0]

    return check


def run(
    root: Path, tokenizer_dir: Path, wanted: Wanted, *, divided: bool = False, **data: Any
) -> tuple[CheckReport, tuple[ShownRow, ...]]:
    fields = {"name": "check", "base": "base", "data": {"train": "train.jsonl"} | data}
    return check_files(
        SweepSpec.model_validate(fields),
        root=root,
        tokenizer_dir=tokenizer_dir,
        tokenizer_name="base",
        is_divided=divided,
        wanted=wanted,
    )


def part(report: CheckReport, split: str = "train") -> SplitReport:
    [found] = [part for part in report.splits if part.split == split]
    return found


def texts(report: CheckReport) -> list[str]:
    return [warning.text for warning in warnings(report)]


def test_rows_without_a_fault_are_clean(checked: Checked, write_rows: Callable[..., Path]) -> None:
    write_rows("train.jsonl", [question(number) | {"id": number} for number in range(50)])
    report = checked()
    assert (report.verdict, obstacles(report), texts(report)) == ("clean", [], [])
    assert (report.format, report.template, report.tokenizer) == ("question/answer", "tokenizer", "base")
    assert (report.errors.num_rows, report.errors.listed, report.overlaps, report.characters) == (0, (), (), ())


def test_the_numbers_are_those_of_the_rows_that_a_sweep_prepares(
    checked: Checked, tmp_path: Path, tokenizer_dir: Path, write_rows: Callable[..., Path]
) -> None:
    write_rows("train.jsonl", [question(number, "On a cliff. " * (1 + number % 9)) for number in range(200)])
    fields = {"eval_fraction": 0.2, "test_fraction": 0.1, "max_length": 70, "long_rows": "skip", "packing": True}
    report = checked(divided=True, **fields)
    spec = SweepSpec.model_validate({"name": "x", "base": "base", "data": {"train": "train.jsonl"} | fields})
    prepared = prepare(
        spec.data, root=tmp_path, tokenizer_dir=tokenizer_dir, tokenizer_digest="0", cache_dir=tmp_path / "cache"
    )
    facts = prepared.facts
    train = part(report)
    assert train.num_left_out > 0
    assert [part(report, split).num_kept for split in ("train", "eval", "test")] == [
        facts.num_train_rows,
        facts.num_eval_rows,
        facts.num_test_rows,
    ]
    assert train.num_kept_tokens == pytest.approx(facts.mean_tokens * facts.num_train_rows)
    assert train.num_trained_tokens == pytest.approx(facts.mean_trained_tokens * facts.num_train_rows)
    assert sum(one.num_left_out for one in report.splits) == facts.num_long_rows
    assert report.packing is not None
    assert (report.packing.num_packs, report.packing.is_on) == (facts.num_packs, True)
    assert [warning for warning in texts(report) if "skipped" in warning] == [
        warning.removesuffix("; skipped.jsonl beside the prepared data names them") for warning in prepared.warnings
    ]


def test_turns_tokens_and_the_trained_share_are_counted(checked: Checked, write_rows: Callable[..., Path]) -> None:
    short = talk(("user", "a"), ("assistant", "b"))
    long = talk(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d" * 40))
    write_rows("train.jsonl", [short, long, talk(("user", "e"), ("assistant", "f"))])
    train = part(checked())
    assert (train.num_rows, train.num_turns) == (3, 8)
    assert train.p50_tokens < train.p95_tokens == train.max_tokens
    assert train.num_tokens == 2 * train.p50_tokens + train.max_tokens
    assert train.num_trained_tokens == 2 + 2 + 41 + 2  # each answer's letters and its end of turn
    assert 0 < train.trained_share < 1
    assert sum(train.histogram) == 3


def test_longer_rows_are_truncated_left_out_or_errors_as_the_sweep_would_have_it(
    checked: Checked, write_rows: Callable[..., Path]
) -> None:
    rows = [question(number) for number in range(10)]
    rows[3] = question(3, "far " * 100)
    rows[7] = {"question": "far " * 100, "answer": "Yes."}
    write_rows("train.jsonl", rows)

    cut = checked(max_length=64, long_rows="truncate")
    assert (part(cut).num_cut_at_turn, part(cut).num_cut_inside, part(cut).num_masked_out) == (0, 1, 1)
    assert part(cut).num_kept == 9
    assert cut.verdict == "usable"
    assert any(
        text.startswith("data.train: 1 rows were cut inside a turn, the first, train.jsonl:4:") for text in texts(cut)
    )

    left = checked(max_length=64, long_rows="skip")
    assert (part(left).num_cut_inside, part(left).num_left_out, part(left).num_masked_out) == (0, 2, 0)
    assert texts(left) == ["data.train: 2 rows were skipped"]

    refused = checked(max_length=64, long_rows="error")
    assert refused.verdict == "not usable"
    assert [error.place for error in refused.errors.listed] == ["train.jsonl:4", "train.jsonl:8"]
    assert refused.errors.kinds == {"too long": 2}
    longest = part(refused).max_tokens
    assert obstacles(refused) == [
        f"2 rows are longer than data.max_length=64: set it to {longest}, or data.long_rows=truncate or skip"
    ]
    assert checked(max_length=longest, long_rows="error").verdict == "clean"


def test_rows_without_a_trained_token_are_masked_out(
    tmp_path: Path, write_tokenizer: Callable[..., Path], write_rows: Callable[..., Path]
) -> None:
    hides_answers = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{% endif %}"
    )
    write_rows("train.jsonl", [question(number) for number in range(4)])
    report, _ = run(tmp_path, write_tokenizer(hides_answers, name="hiding"), Wanted())
    assert (part(report).num_masked_out, part(report).num_kept) == (4, 0)
    assert obstacles(report) == ["no row of train has a token to train on within data.max_length=1024"]
    assert report.packing is None


def test_every_kind_of_bad_row_is_named_with_its_place_reason_and_remedy(
    checked: Checked, tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    file = write_rows(
        "train.jsonl",
        [
            talk(("user", "a"), ("assistant", "b")),
            talk(("user", "a"), ("user", "b"), ("assistant", "c")),
            talk(("user", "a"), ("system", "b"), ("assistant", "c")),
            talk(("user", "a")),
            talk(("user", "a"), ("assistant", " ")),
            talk(("user", "a"), ("narrator", "b")),
            {"messages": [{"role": "user", "contnet": "a"}, {"role": "assistant", "content": "b"}]},
            {"messages": "hello"},
            talk(("user", "a"), ("assistant", "\ud83d")),
            ["a", "b"],
            {"question": "a"},
        ],
    )
    file.write_bytes(file.read_bytes() + b'{"messages": [\n' + b"\xff\n")
    report = checked()
    errors = report.errors
    assert [(error.place.removeprefix("train.jsonl:"), error.kind) for error in errors.listed] == [
        ("2", "role order"),
        ("3", "role order"),
        ("4", "role order"),
        ("5", "empty"),
        ("6", "unknown role"),
        ("7", "missing key"),
        ("8", "wrong type"),
        ("9", "half a surrogate pair"),
        ("10", "wrong type"),
        ("11", "missing key"),
        ("12", "not JSON"),
        ("13", "not UTF-8"),
    ]
    assert errors.num_rows == errors.num_mistakes == 12
    assert errors.kinds["role order"] == 3
    for error in errors.listed:
        assert error.reason
        assert error.remedy, error
    assert part(report).num_rows == 1
    assert obstacles(report) == ["12 rows are in error, and data.max_bad_rows=0"]


def test_a_row_with_two_mistakes_is_one_row(checked: Checked, write_rows: Callable[..., Path]) -> None:
    write_rows("train.jsonl", [question(0), {"question": "", "answer": ""}])
    errors = checked().errors
    assert (errors.num_rows, errors.num_mistakes, errors.kinds) == (1, 2, {"empty": 2})


def test_the_first_rows_in_error_are_listed_and_all_are_counted(
    checked: Checked, write_rows: Callable[..., Path]
) -> None:
    write_rows("train.jsonl", [question(0)] + [{"question": "a", "answer": ""}] * 50)
    errors = checked().errors
    assert (len(errors.listed), errors.num_rows) == (LISTED, 50)
    assert errors.listed[-1].place == f"train.jsonl:{LISTED + 1}"


def test_a_file_without_rows_and_one_of_no_known_form_are_errors_of_the_file(checked: Checked, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("\n\n")
    [error] = checked().errors.listed
    assert (error.place, error.reason) == ("train.jsonl", "the file holds no row.")
    (tmp_path / "train.jsonl").write_text('{"questoin": "a", "answr": "b"}\n')
    [error] = checked().errors.listed
    assert (error.place, error.kind) == ("train.jsonl:1", "no known form")
    assert error.remedy.startswith("Use one of: ")


def test_repeats_are_counted_with_the_first_row_and_the_repeat(
    checked: Checked, write_rows: Callable[..., Path]
) -> None:
    rows = [question(number) for number in range(20)]
    write_rows("train.jsonl", [*rows, rows[3], rows[7], rows[3]])
    report = checked()
    assert part(report).num_repeats == 3
    assert [(row.first, row.repeat) for row in part(report).repeats] == [
        ("train.jsonl:4", "train.jsonl:21"),
        ("train.jsonl:8", "train.jsonl:22"),
        ("train.jsonl:4", "train.jsonl:23"),
    ]
    [warning] = warnings(report)
    assert warning.text.startswith("data.train: 3 rows repeat an earlier row word for word")
    assert warning.examples[0] == "train.jsonl:21 says what train.jsonl:4 says"


def test_a_repeat_is_found_in_another_file_and_another_form(
    checked: Checked, tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    write_rows("a/1.jsonl", [question(0), question(1)])
    same = talk(("user", question(1)["question"]), ("assistant", question(1)["answer"]))
    (tmp_path / "a" / "2.json").write_text(json.dumps([talk(("user", "x"), ("assistant", "y")), same]))
    [repeat] = part(checked(train="a")).repeats
    assert (repeat.first, repeat.repeat) == ("a/1.jsonl:2", "a/2.json[1]")


def test_rows_in_more_than_one_split_are_named_in_both(checked: Checked, write_rows: Callable[..., Path]) -> None:
    rows = [question(number) for number in range(40)]
    write_rows("train.jsonl", rows[:30])
    write_rows("eval.jsonl", [rows[35], rows[2], rows[5]])
    write_rows("test.jsonl", [rows[36], rows[2], rows[35]])
    report = checked(divided=True, eval="eval.jsonl", test="test.jsonl")
    found = {(overlap.split, overlap.other): overlap for overlap in report.overlaps}
    assert {pair: (overlap.num_shared, overlap.num_rows) for pair, overlap in found.items()} == {
        ("train", "eval"): (2, 3),
        ("train", "test"): (1, 3),
        ("eval", "test"): (2, 3),
    }
    assert [(row.first, row.repeat) for row in found["eval", "test"].listed] == [
        ("eval.jsonl:2", "test.jsonl:2"),
        ("eval.jsonl:1", "test.jsonl:3"),
    ]
    assert texts(report)[0].startswith("data.eval: 2 of 3 rows also stand in data.train, so its results flatter.")


def test_rows_split_off_by_content_are_in_one_split_with_all_their_copies(
    checked: Checked, write_rows: Callable[..., Path]
) -> None:
    write_rows("train.jsonl", [question(number % 60) for number in range(120)])
    report = checked(divided=True, eval_fraction=0.2, test_fraction=0.2)
    assert report.overlaps == ()
    assert sum(one.num_rows for one in report.splits) == 120
    assert sum(one.num_repeats for one in report.splits) == 60


def test_a_split_that_no_row_falls_into_stops_the_sweep(checked: Checked, write_rows: Callable[..., Path]) -> None:
    write_rows("train.jsonl", [question(0)])
    assert obstacles(checked(divided=True)) == [
        "no row falls into eval. Raise data.eval_fraction, or give data.eval",
        "no row falls into test. Raise data.test_fraction, or give data.test",
    ]
    assert checked().verdict == "clean"


def test_rows_beyond_a_limit_are_told_apart(checked: Checked, write_rows: Callable[..., Path]) -> None:
    write_rows("train.jsonl", [question(number) for number in range(3000)])
    train = part(checked(max_train_rows=1500))
    assert (train.num_rows, train.num_beyond_limit, train.num_turns, sum(train.histogram)) == (1500, 1500, 3000, 1500)


def test_columns_that_are_not_read_are_named(checked: Checked, write_rows: Callable[..., Path]) -> None:
    write_rows("train.jsonl", [question(number) | ({"source": "x"} if number < 3 else {}) for number in range(9)])
    assert texts(checked()) == ["train.jsonl: 'source' of 3 rows is not used"]


def test_control_characters_are_named_with_the_first_place(checked: Checked, write_rows: Callable[..., Path]) -> None:
    rows = [question(number, "Line\n\tnext.") for number in range(5)]
    rows[2] = question(2, "ding\x07 dong\x07 \x1b[31m\x00")
    rows[4] = question(4, "ding\x07 \x85 \ufeff\ufffd\x7f")
    write_rows("train.jsonl", rows)
    report = checked()
    assert {one.name: (one.num_rows, one.first) for one in report.characters} == {
        "U+0000 NUL": (1, "train.jsonl:3, turn 1"),
        "U+0007 bell": (2, "train.jsonl:3, turn 1"),
        "U+001B escape": (1, "train.jsonl:3, turn 1"),
        "U+007F delete": (1, "train.jsonl:5, turn 1"),
        "U+0085 control character": (1, "train.jsonl:5, turn 1"),
        "U+FEFF byte order mark": (1, "train.jsonl:5, turn 1"),
        "U+FFFD replacement of a byte that could not be read": (1, "train.jsonl:5, turn 1"),
    }
    assert texts(report)[1].startswith("U+0007 bell in the text of 2 rows (first train.jsonl:3, turn 1).")


def test_special_tokens_in_what_people_say_are_named(checked: Checked, write_rows: Callable[..., Path]) -> None:
    write_rows("train.jsonl", [question(0), question(1, "Type <|im_end|> and <|im_end|>."), question(2)])
    report = checked()
    [found] = report.special_tokens
    assert (found.name, found.num_rows, found.first) == ("'<|im_end|>'", 1, "train.jsonl:2, turn 1")


def test_a_template_that_refuses_a_row_makes_it_a_row_in_error(
    tmp_path: Path, write_tokenizer: Callable[..., Path], write_rows: Callable[..., Path]
) -> None:
    strict = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('No system turns') }}{% endif %}"
        "{% for m in messages %}{{ m.role + ': ' + m.content + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    rows = [talk(("user", "a"), ("assistant", "b")), talk(("system", "s"), ("user", "a"), ("assistant", "b"))]
    write_rows("train.jsonl", rows)
    report, _ = run(tmp_path, write_tokenizer(strict, name="strict"), Wanted())
    [error] = report.errors.listed
    assert (error.place, error.kind) == ("train.jsonl:2", "template refuses")
    assert "No system turns" in error.reason
    _, [shown] = run(tmp_path, tmp_path / "strict", Wanted(places=("train.jsonl:2",)))
    assert shown.parts == ()
    assert "No system turns" in shown.note


def test_a_template_that_writes_the_date_is_a_warning(
    tmp_path: Path, write_tokenizer: Callable[..., Path], write_rows: Callable[..., Path]
) -> None:
    dated = (
        "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '' }}{% endif %}"
    )
    write_rows("train.jsonl", [question(0)])
    report, _ = run(tmp_path, write_tokenizer(dated, name="dated"), Wanted())
    assert texts(report) == ["the chat template writes today's date: these rows keep the date of their preparation"]


def test_padding_is_that_of_batches_and_packing_that_of_packs() -> None:
    lengths = np.array([10, 20, 30, 40] * 25)
    padding = packing_of(lengths, max_length=100, micro_batch_size=1, data_seed=0, is_on=False)
    assert padding is not None
    assert padding.pad_share == 0
    assert (padding.num_packs, padding.fill) == (len(pack(lengths, 100)), 2500 / (100 * len(pack(lengths, 100))))
    whole = packing_of(lengths, max_length=100, micro_batch_size=100, data_seed=0, is_on=False)
    assert whole is not None
    assert whole.pad_share == pytest.approx(1 - 25 / 40)
    assert whole.saved_share == pytest.approx(1 - padding.num_packs * 100 / 4000)
    assert packing_of(np.array([]), max_length=8, micro_batch_size=1, data_seed=0, is_on=True) is None


def test_the_pads_are_those_of_the_batches_that_training_makes() -> None:
    from pharos.data.order import row_order

    lengths = np.random.default_rng(1).integers(5, 60, size=47)
    batches = np.split(row_order(47, 3, 0, 47), range(4, 47, 4))
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    padding = packing_of(lengths, max_length=64, micro_batch_size=4, data_seed=3, is_on=False)
    assert padding is not None
    assert padding.pad_share == pytest.approx(1 - lengths.sum() / padded)


def test_packing_of_very_many_rows_is_reckoned_from_some() -> None:
    lengths = np.random.default_rng(0).integers(10, 200, size=PACKED_AT_MOST + 1000)
    few = packing_of(lengths[: PACKED_AT_MOST // 10], max_length=512, micro_batch_size=8, data_seed=0, is_on=False)
    many = packing_of(lengths, max_length=512, micro_batch_size=8, data_seed=0, is_on=False)
    assert few is not None
    assert many is not None
    assert (few.is_sample, many.is_sample, many.num_rows) == (False, True, PACKED_AT_MOST)
    assert many.fill == pytest.approx(few.fill, abs=0.01)
    assert many.pad_share == pytest.approx(few.pad_share, abs=0.01)


@pytest.mark.parametrize("seed", range(30))
def test_buckets_hold_all_lengths_in_eight_to_twelve(seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths = generator.lognormal(generator.uniform(1, 7), generator.uniform(0.1, 1.5), size=500).astype(int) + 1
    starts, is_open = buckets(lengths)
    assert starts[0] <= lengths.min()
    assert len({b - a for a, b in pairwise(starts)}) <= 1
    assert len(starts) <= 12
    spread = (np.percentile(lengths, 99) if is_open else lengths.max()) - lengths.min()
    assert len(starts) >= 8 or spread < 16
    if not is_open and len(starts) > 1:
        assert lengths.max() < starts[-1] + (starts[1] - starts[0])


def test_a_few_very_long_rows_do_not_squeeze_the_others_into_one_bucket() -> None:
    starts, is_open = buckets(np.array([*range(20, 120), 50_000]))
    assert is_open
    assert starts[-1] < 200
    assert buckets(np.array([7, 7])) == ((7,), False)
    assert buckets(np.array([])) == ((), False)


def test_repeats_and_shared_rows_are_those_that_a_dictionary_finds() -> None:
    digests = np.random.default_rng(0).integers(0, 300, size=500).astype(np.uint64)
    first_of: dict[int, int] = {}
    expected = []
    for index, digest in enumerate(digests.tolist()):
        if digest in first_of:
            expected.append((index, first_of[digest]))
        first_of.setdefault(digest, index)
    repeat, first = repeats(digests)
    assert list(zip(repeat.tolist(), first.tolist(), strict=True)) == expected
    assert [part.tolist() for part in repeats([])] == [[], []]
    assert {pair: found.tolist() for pair, found in shared_rows({"a": [1, 2], "b": [3], "c": [2, 9, 2]}).items()} == {
        ("a", "c"): [0, 2]
    }


@pytest.mark.parametrize(
    ("mistake", "place", "reason", "remedy"),
    [
        ("a.jsonl:3: prompt is empty.", "a.jsonl:3", "prompt is empty.", "Fill it in, or remove the row."),
        ("b[0]: x is missing. Did you mean y?", "b[0]", "x is missing.", "Did you mean y?"),
        ("c:2:7: not JSON: oh. Write so.", "c:2", "at column 7: not JSON: oh.", "Write so."),
        ("d: e: not known", "d", "e: not known", ""),
        ("not a place at all", "", "not a place at all", ""),
    ],
)
def test_a_mistake_is_taken_apart(mistake: str, place: str, reason: str, remedy: str) -> None:
    error = row_error(mistake)
    assert (error.place, error.reason, error.remedy) == (place, reason, remedy)


def test_a_shown_row_is_the_text_of_its_tokens_with_the_trained_ones_apart(
    tmp_path: Path, tokenizer_dir: Path, write_rows: Callable[..., Path]
) -> None:
    write_rows("train.jsonl", [question(0), {"question": "Ünïcode 🗼 here", "answer": "Ja, 灯台."}])
    report, [row] = run(tmp_path, tokenizer_dir, Wanted(places=("train.jsonl:2",)))
    assert (row.place, row.split, row.note) == ("train.jsonl:2", "train", "")
    [shown] = row.parts
    assert (shown.title, shown.num_tokens) == ("", part(report).max_tokens)
    assert 1 < shown.num_trained < shown.num_tokens
    assert [(piece.text, piece.trained, piece.special) for piece in shown.pieces] == [
        ("<|im_start|>", False, True),
        ("user\nÜnïcode 🗼 here", False, False),
        ("<|im_end|>", False, True),
        ("\n", False, False),
        ("<|im_start|>", False, True),
        ("assistant\n", False, False),
        ("Ja, 灯台.", True, False),
        ("<|im_end|>", True, True),
        ("\n", False, False),
    ]


def test_rows_are_drawn_by_a_seed_and_named_ones_come_first(
    tmp_path: Path, tokenizer_dir: Path, write_rows: Callable[..., Path]
) -> None:
    write_rows("train.jsonl", [question(number) for number in range(2500)])

    def places(**wanted: Any) -> list[str]:
        return [row.place for row in run(tmp_path, tokenizer_dir, Wanted(**wanted))[1]]

    drawn = places(count=5)
    assert drawn == places(count=5)
    assert len(set(drawn)) == 5
    assert drawn == sorted(drawn, key=lambda place: int(place.split(":")[1]))
    assert drawn != places(count=5, seed=1)
    assert any(int(place.split(":")[1]) > 1250 for place in drawn)
    assert places(count=1, places=("train.jsonl:9", "train.jsonl:4"))[:2] == ["train.jsonl:9", "train.jsonl:4"]
    assert len(places(count=9000)) == 2500


def test_a_shown_row_that_is_cut_or_left_out_says_so(
    tmp_path: Path, tokenizer_dir: Path, write_rows: Callable[..., Path]
) -> None:
    write_rows("train.jsonl", [question(0, "far " * 100), question(1)])

    def note(**data: Any) -> tuple[str, int]:
        _, [row] = run(tmp_path, tokenizer_dir, Wanted(places=("train.jsonl:1",)), max_length=64, **data)
        return row.note, row.parts[0].num_tokens

    whole = part(run(tmp_path, tokenizer_dir, Wanted())[0]).max_tokens
    assert note(long_rows="truncate") == (f"cut from {whole} tokens", 64)
    assert note(long_rows="skip") == ("left out: longer than data.max_length", whole)
    assert note(long_rows="error") == ("longer than data.max_length=64: an error", 64)


def test_a_row_that_is_not_there_is_said_to_be_so(
    tmp_path: Path, tokenizer_dir: Path, write_rows: Callable[..., Path]
) -> None:
    write_rows("train.jsonl", [question(0)])
    with pytest.raises(DataError, match="--row train.jsonl:7: no row that is in use .*FILE:LINE"):
        run(tmp_path, tokenizer_dir, Wanted(places=("train.jsonl:7",)))


def test_the_json_holds_the_whole_report(tmp_path: Path, tokenizer_dir: Path, write_rows: Callable[..., Path]) -> None:
    rows = [question(number % 5) for number in range(20)]
    write_rows("train.jsonl", [*rows, {"question": "a", "answer": ""}])
    report, shown = run(tmp_path, tokenizer_dir, Wanted(count=2))
    told = json.loads(json.dumps(report_json(report, shown)))
    assert told["verdict"] == "not usable"
    assert told["splits"][0]["num_repeats"] == 15
    assert told["errors"]["listed"][0]["place"] == "train.jsonl:21"
    assert told["packing"]["num_packs"] == 1
    assert len(told["shown"]) == 2
    assert "shown" not in report_json(report)
