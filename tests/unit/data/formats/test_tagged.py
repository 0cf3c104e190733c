"""Tagged tokens: schemes are known by their letters, orders of tags are checked, and CoNLL lines become rows."""

from __future__ import annotations

from typing import Any

import pytest

from pharos.data.formats import Origin, Row, Tagged, conll_rows, detect_format, read_row

HERE = Origin(file="train.conll", row=17)


def read(tags: Any, *, tokens: Any = None, name: str = "auto") -> tuple[Row | None, list[str]]:
    row = {"tokens": ["word"] * len(tags) if tokens is None else tokens, "tags": tags}
    form = detect_format(row, name=name)
    assert form is not None
    return read_row(row, form, HERE)


def tagged(*tags: Any, name: str = "auto") -> Tagged:
    row, mistakes = read(list(tags), name=name)
    assert mistakes == []
    assert isinstance(row, Tagged)
    return row


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        (["O", "O"], "BIO"),
        (["B-PER", "I-PER", "O", "B-PER", "B-LOC"], "BIO"),
        (["B_PER", "I_PER"], "BIO"),
        (["B", "I", "O"], "BIO"),
        (["B-creative-work", "I-creative-work"], "BIO"),
        (["B-PER", "M-PER", "M-PER", "E-PER", "O", "S-LOC"], "BMES"),
        (["B", "E", "S", "B", "M", "E"], "BMES"),
        (["S", "S"], "BMES"),
        (["B-PER", "I-PER", "E-PER", "S-LOC"], "BIOES"),
        (["B-PER", "I-PER", "L-PER", "U-LOC"], "BILOU"),
        (["NN", "VB", "DT"], None),
        (["PER", "O", "LOC"], None),
    ],
)
def test_a_scheme_is_known_by_its_letters(tags: list[str], scheme: str | None) -> None:
    assert (tagged(*tags).scheme, tagged(*tags).notes) == (scheme, ())


def test_a_span_that_begins_with_i_is_a_note_in_bio() -> None:
    assert tagged("O", "I-PER", "I-PER", "I-LOC").notes == (
        "tags[1]='I-PER' begins a span without B-PER",
        "tags[3]='I-LOC' begins a span without B-LOC",
    )


def test_numbers_of_classes_are_kept_and_noted() -> None:
    row = tagged(0, 3, 4)
    assert (row.tags, row.scheme) == (("0", "3", "4"), None)
    assert row.notes == ("tags are numbers without their names, so their order was not checked",)


def test_lists_written_as_json_text_are_read() -> None:
    row, mistakes = read('["B-PER", "O"]', tokens='["Grace", "is"]')
    assert mistakes == []
    assert isinstance(row, Tagged)
    assert (row.tokens, row.tags) == (("Grace", "is"), ("B-PER", "O"))


@pytest.mark.parametrize(
    ("tags", "name", "mistake"),
    [
        (["O", "M-PER", "E-PER"], "auto", "tags[1]='M-PER' follows 'O'; B-PER must come first."),
        (["E-PER", "M-PER"], "auto", "tags[0]='E-PER' follows nothing; B-PER must come first."),
        (["B-PER", "M-LOC", "E-LOC"], "auto", "tags[1]='M-LOC' follows 'B-PER'; B-LOC must come first."),
        (
            ["B-PER", "O", "S-LOC"],
            "auto",
            "tags[0]='B-PER' begins a span, and tags[1]='O' comes before its end: E must end it.",
        ),
        (
            ["B-PER", "M-PER"],
            "auto",
            "tags[0]='B-PER' begins a span, and the sentence ends before its end: E must end it.",
        ),
        (
            ["U-LOC", "B-PER", "U-LOC"],
            "auto",
            "tags[1]='B-PER' begins a span, and tags[2]='U-LOC' comes before its end: L must end it.",
        ),
        (["B-PER", "I-PER"], "bmes", "tags[1]='I-PER' is no tag of BMES; that has B, M, E, S and O."),
        (["B-PER", "I-PER"], "bioes", "tags[0]='B-PER' begins a span, and the sentence ends before its end: E"),
        (["O", "I-PER", "E-PER"], "bioes", "tags[1]='I-PER' follows 'O'; B-PER must come first."),
        (["B-PER", "IPER"], "auto", "tags[1]='IPER' is no tag of BIO; that has B, I and O."),
        (["B-PER", "M-PER", "I-PER"], "auto", "tags[2]='I-PER' is no tag of BMES; that has B, M, E, S and O."),
        ([0, 1], "bio", "tags[0]='0' is no tag of BIO; that has B, I and O."),
        (["O", None], "auto", "tags[1] of 'word' is missing: each token needs a tag."),
        (["O", " "], "auto", "tags[1] must be a tag, not empty."),
        (["O", True], "auto", "tags[1] must be a tag, not true or false."),
        ("O O", "auto", "tags must be a list of tags, not text."),
    ],
)
def test_a_wrong_order_of_tags_is_named(tags: Any, name: str, mistake: str) -> None:
    row, mistakes = read(tags, name=name, tokens=["word"] * len(tags) if isinstance(tags, list) else ["word"])
    assert row is None
    assert len(mistakes) == 1
    assert mistake in mistakes[0]


@pytest.mark.parametrize(
    ("tokens", "mistake"),
    [
        (["a"], "tokens has 1 entries and tags has 2: each token needs one tag."),
        (["a", ""], "tokens[1] is empty."),
        (["a", 1], "tokens[1] must be text, not a number."),
        (["a", "\ud83d"], "tokens[1] holds half of a surrogate pair"),
        ("a b", "tokens must be a list of text, not text."),
        (None, "tokens must be a list of text, not null."),
    ],
)
def test_tokens_that_do_not_fit_their_tags_are_named(tokens: Any, mistake: str) -> None:
    row = {"tokens": tokens, "tags": ["O", "O"]}
    form = detect_format(row)
    assert form is not None
    told = read_row(row, form, HERE)[1]
    assert len(told) == 1
    assert mistake in told[0]


def test_a_sentence_without_tokens_is_a_mistake() -> None:
    assert read([])[1] == ["tokens is empty."]


def rows(text: str) -> list[tuple[list, list, int]]:
    return [(row["tokens"], row["tags"], line) for row, line in conll_rows(text.splitlines(keepends=True))]


def test_conll_lines_become_rows_with_the_line_of_their_first_token() -> None:
    text = "\ufeff-DOCSTART- -X- O\n\n\n# newdoc id = 1\nGrace NNP B-PER\nlived  VBD\tO\r\n\t\n\n"
    assert rows(text + "there RB O") == [
        (["Grace", "lived  VBD"], ["B-PER", "O"], 5),  # where there is a tab, it alone divides columns
        (["there"], ["O"], 9),
    ]
    assert rows("") == rows("\n# text = x\n") == []


def test_a_tweet_may_begin_with_a_hash_and_a_comment_may_not_be_taken_for_a_token() -> None:
    assert rows("#NFL\tO\n#\tO\n# sent_id\tO\n") == [(["#NFL", "#"], ["O", "O"], 1)]
    assert rows("# O\n# text = vitamin B-12\n#NFL B-group\n#\n") == [(["#", "#NFL"], ["O", "B-group"], 1)]


def test_a_token_without_a_tag_is_told_when_the_row_is_read() -> None:
    [(tokens, tags, _)] = rows("Grace B-PER\nlived\n")
    assert read(tags, tokens=tokens)[1] == ["tags[1] of 'lived' is missing: each token needs a tag."]
    [(tokens, tags, _)] = rows("Grace\tB-PER\nlived\t\n")
    assert read(tags, tokens=tokens)[1] == ["tags[1] of 'lived' is missing: each token needs a tag."]


def test_conll_lines_are_read_as_they_come() -> None:
    def endless() -> Any:
        while True:
            yield from ("Grace\tB-PER\n", "\n")

    sentences = conll_rows(endless())
    assert [next(sentences)[1] for _ in range(3)] == [1, 3, 5]
