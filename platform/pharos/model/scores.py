"""How near answers are to their references: exact match, BLEU-4, ROUGE-1, -2 and -L, all from 0 to 1.

BLEU is sacrebleu's, ROUGE is rouge-score's, with a tokenizer that knows more scripts than English: rouge-score's own
would drop Chinese altogether. Scripts without spaces between words are taken character by character, as LLaMA-Factory
takes Chinese for BLEU; no dictionary decides what a word is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

HAN = "\u2e80-\u2fdf\u3005-\u3007\u31c0-\u31ef\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
KANA = "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9d"
OTHERS_WITHOUT_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Thai, Lao, Burmese, Khmer."""
UNSPACED = f"{HAN}{KANA}{OTHERS_WITHOUT_SPACES}"
WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")
ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Of one answer, or of all: bleu_4 is then that of the corpus, the rest are means over the answers."""

    exact_match: float
    bleu_4: float
    rouge_1: float
    rouge_2: float
    rouge_l: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredAnswers:
    """rows: of each answer. bleu_signature: what sacrebleu says of how it counted, its tokenizer among it."""

    total: Scores
    rows: tuple[Scores, ...]
    bleu_signature: str


def score_answers(answers: Sequence[str], references: Sequence[str]) -> ScoredAnswers:
    """Compare answers with their references, spaces around both removed. Raises ValueError without any."""
    if len(answers) != len(references) or not answers:
        raise ValueError(f"{len(answers)} answers to {len(references)} references: give one for each, at least one")
    from sacrebleu import BLEU

    answers, references = [text.strip() for text in answers], [text.strip() for text in references]
    kind = bleu_tokenizer(references)
    sentence = BLEU(tokenize=kind, effective_order=True)  # a short answer has no four-grams
    scorer = _rouge_scorer()
    rows = []
    for answer, reference in zip(answers, references, strict=True):
        rouge = scorer.score(reference, answer)
        rows.append(
            Scores(
                exact_match=float(answer == reference),
                bleu_4=sentence.sentence_score(answer, [reference]).score / 100,
                **{name: rouge[theirs].fmeasure for name, theirs in ROUGE.items()},
            )
        )
    corpus = BLEU(tokenize=kind)
    bleu = corpus.corpus_score(answers, [references]).score / 100
    total = Scores(
        exact_match=fmean(row.exact_match for row in rows),
        bleu_4=bleu,
        **{name: fmean(getattr(row, name) for row in rows) for name in ROUGE},
    )
    return ScoredAnswers(total=total, rows=tuple(rows), bleu_signature=str(corpus.get_signature()))


def words_of(text: str) -> list[str]:
    """Words in lower case without punctuation; of scripts without spaces between words each character is one."""
    return WORD.findall(text.lower())


def bleu_tokenizer(references: Sequence[str]) -> str:
    """The tokenizer of sacrebleu for these texts: 13a for words, zh for Chinese, char for other unspaced scripts.

    One for all rows, since BLEU is of a corpus; zh treats what is not Chinese nearly as 13a does.
    """
    text = "".join(references)
    if re.search(f"[{KANA}{OTHERS_WITHOUT_SPACES}]", text):
        return "char"
    return "zh" if re.search(f"[{HAN}]", text) else "13a"


class _Words:
    """`words_of` as rouge-score asks for it."""

    def tokenize(self, text: str) -> list[str]:
        return words_of(text)


def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE.values()), tokenizer=_Words())
