"""Scores of answers against values reckoned by hand, English by rouge-score itself, Chinese as LLaMA-Factory does."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_score.rouge_scorer import RougeScorer

from pharos.model.scores import bleu_tokenizer, score_answers, words_of

CHINESE = [
    ("今天天气很好我们去公园散步", "今天天气很好我们去公园玩"),
    ("请列出所有正在运行的容器", "请列出所有已经停止的容器名称"),
]
ENGLISH = [
    ("docker run -it --rm ubuntu:22.04 bash", "docker run --rm -it ubuntu bash"),
    ("the quick brown fox jumps over the lazy dog", "a quick brown fox jumped over the lazy dogs"),
    ("docker ps", "docker ps"),
]


def test_rouge_and_exact_match_as_reckoned_by_hand() -> None:
    # Of "the cat sat" and "the cat lay down": 2 common words of 3 and 4, 1 common pair of 2 and 3, a run of 2.
    [row] = score_answers(["the cat sat"], ["The cat, lay down"]).rows
    assert row.rouge_1 == pytest.approx(2 * 2 / (3 + 4))
    assert row.rouge_2 == pytest.approx(2 * 1 / (2 + 3))
    assert row.rouge_l == pytest.approx(2 * 2 / (3 + 4))
    assert row.exact_match == 0
    total = score_answers([" same \n", "other"], ["same", "one"]).total
    assert total.exact_match == 0.5


def test_bleu_as_reckoned_by_hand() -> None:
    # Five of six words, four of five pairs, three of four triples, two of three quadruples; lengths are equal.
    scored = score_answers(["the cat sat on the rug"], ["the cat sat on the mat"])
    expected = math.exp(sum(math.log(share) for share in (5 / 6, 4 / 5, 3 / 4, 2 / 3)) / 4)
    assert scored.total.bleu_4 == pytest.approx(expected)
    assert scored.rows[0].bleu_4 == pytest.approx(expected)
    assert "tok:13a" in scored.bleu_signature


def test_bleu_of_a_corpus_counts_over_all_answers_and_is_no_mean() -> None:
    answers, references = zip(*ENGLISH, strict=True)
    scored = score_answers(answers, references)
    mean = sum(row.bleu_4 for row in scored.rows) / len(scored.rows)
    assert abs(scored.total.bleu_4 - mean) > 0.01


@pytest.mark.parametrize(("answer", "reference"), ENGLISH)
def test_english_has_the_rouge_of_rouge_score_itself(answer: str, reference: str) -> None:
    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(reference, answer)
    [row] = score_answers([answer], [reference]).rows
    ours = (row.rouge_1, row.rouge_2, row.rouge_l)
    assert ours == tuple(theirs[name].fmeasure for name in ("rouge1", "rouge2", "rougeL"))


@pytest.mark.parametrize(("answer", "reference"), CHINESE)
def test_chinese_is_taken_by_characters_as_llama_factory_does(answer: str, reference: str) -> None:
    scored = score_answers([answer], [reference])
    theirs = sentence_bleu([list(reference)], list(answer), smoothing_function=SmoothingFunction().method3)
    assert scored.rows[0].bleu_4 == pytest.approx(theirs)
    assert "tok:zh" in scored.bleu_signature

    ours, wanted = list(answer), list(reference)
    common = sum(min(ours.count(letter), wanted.count(letter)) for letter in set(ours))
    assert scored.rows[0].rouge_1 == pytest.approx(2 * common / (len(ours) + len(wanted)))
    pairs, wanted_pairs = set(pairwise(ours)), set(pairwise(wanted))
    assert scored.rows[0].rouge_2 == pytest.approx(2 * len(pairs & wanted_pairs) / (len(ours) + len(wanted) - 2))
    assert scored.rows[0].rouge_l > 0, "rouge-score's own tokenizer finds no word in Chinese"


def test_words_of_several_scripts() -> None:
    assert words_of("Run GPT-4 on 你好, world_2!") == ["run", "gpt", "4", "on", "你", "好", "world", "2"]
    assert words_of("naïve Straße, привет") == ["naïve", "straße", "привет"]
    assert words_of("ありがとう 안녕 하세요") == [*"ありがとう", "안녕", "하세요"]


@pytest.mark.parametrize(
    ("references", "kind"),
    [(["docker ps"], "13a"), (["docker ps", "列出容器"], "zh"), (["コンテナの一覧"], "char"), (["สวัสดี"], "char")],
)
def test_the_tokenizer_of_bleu_follows_the_references(references: list[str], kind: str) -> None:
    assert bleu_tokenizer(references) == kind


def test_an_empty_answer_scores_nothing_and_stops_nothing() -> None:
    scored = score_answers(["", "。"], ["docker ps", "列出"])
    assert scored.total.to_json() == {"exact_match": 0, "bleu_4": 0, "rouge_1": 0, "rouge_2": 0, "rouge_l": 0}


def test_answers_without_references_are_refused() -> None:
    with pytest.raises(ValueError, match="give one for each"):
        score_answers(["one"], [])
