"""Greedy answers, against one plain forward pass a token."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from tests.unit.model.conftest import MakeAdapter, MakeBase
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from pharos.model.generate import exact_match, generate_answers
from pharos.model.merge import merge_adapter

PROMPTS = [[5, 17, 3], [90], [1, 2, 3, 4, 5, 6, 7], [44, 45], [60, 61, 62, 63]]


@torch.no_grad()
def greedy_by_hand(model: PreTrainedModel, prompt: list[int], eos_ids: set[int], max_new_tokens: int) -> list[int]:
    answer: list[int] = []
    while len(answer) < max_new_tokens:
        token = int(model(torch.tensor([prompt + answer])).logits[0, -1].argmax())
        if token in eos_ids:
            break
        answer.append(token)
    return answer


def load(base: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(base).eval()


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_answers_are_the_greedy_ones_in_the_order_of_the_prompts(make_base: MakeBase, batch_size: int) -> None:
    model = load(make_base())
    first = [greedy_by_hand(model, prompt, set(), 6) for prompt in PROMPTS]
    eos_ids = {first[0][2], first[2][0]}  # so that one answer stops early and one is empty
    answers = generate_answers(model, PROMPTS, eos_id=eos_ids, pad_id=0, max_new_tokens=6, batch_size=batch_size)
    assert answers == [greedy_by_hand(model, prompt, eos_ids, 6) for prompt in PROMPTS]
    assert answers[2] == []
    assert any(len(answer) == 6 for answer in answers)


def test_the_bases_own_sampling_and_penalties_play_no_part_and_stay(
    make_base: MakeBase, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    model = load(make_base())
    asked = {"pad_id": 0, "eos_id": 0, "max_new_tokens": 6, "batch_size": 2}
    plain = generate_answers(model, PROMPTS, **asked)
    own = GenerationConfig(
        do_sample=True, temperature=5.0, top_p=0.5, repetition_penalty=9.0, max_length=20, eos_token_id=plain[0][0]
    )
    model.generation_config = own
    capfd.readouterr()  # what loading printed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert generate_answers(model, PROMPTS, **asked) == plain
    assert model.generation_config is own
    assert caplog.text == ""
    assert capfd.readouterr().err == ""


def test_no_prompts_give_no_answers_and_an_empty_prompt_is_an_error(make_base: MakeBase) -> None:
    model = load(make_base())
    asked = {"pad_id": 0, "eos_id": 0, "max_new_tokens": 2, "batch_size": 2}
    assert generate_answers(model, [], **asked) == []
    with pytest.raises(ValueError, match="at least one token"):
        generate_answers(model, [[1], []], **asked)


def test_exact_match_counts_the_right_answers(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path, tokenizer_dir: Path
) -> None:
    base = make_base(vocab_size=2048, tokenizer=tokenizer_dir)
    tokenizer = AutoTokenizer.from_pretrained(base)
    prompts = [tokenizer.encode(text) for text in ("list all containers", "stop", "remove the image of web")]
    references = [
        tokenizer.decode(greedy_by_hand(load(base), prompt, {tokenizer.eos_token_id}, 4)) for prompt in prompts
    ]
    result = exact_match(base, prompts, [f"  {references[0]}\n", "wrong", references[2]], max_new_tokens=4)
    assert result.score == pytest.approx(2 / 3)
    assert result.num_rows == 3
    assert result.examples[1].prompt == "stop"
    assert result.examples[1].reference == "wrong"
    assert result.examples[1].answer == references[1].strip()


def test_base_and_adapter_answer_as_their_merge_does(
    make_base: MakeBase,
    make_adapter: MakeAdapter,
    tmp_path: Path,
    tokenizer_dir: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    base = make_base(vocab_size=2048, tokenizer=tokenizer_dir)
    adapter = make_adapter(base)
    merge_adapter(base, adapter, tmp_path / "merged")
    prompts = [[100, 200, 300], [400], [500, 600]]
    asked = {"max_new_tokens": 5, "batch_size": 2}
    capfd.readouterr()  # what making the base printed
    merged = exact_match(tmp_path / "merged", prompts, [""] * 3, **asked)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unmerged = exact_match(base, prompts, [""] * 3, adapter_dir=adapter, **asked)
    assert capfd.readouterr().err == ""
    assert merged == unmerged
    assert merged.examples != exact_match(base, prompts, [""] * 3, **asked).examples


def test_a_second_end_token_of_the_generation_config_ends_an_answer(make_base: MakeBase, tokenizer_dir: Path) -> None:
    base = make_base(vocab_size=2048, tokenizer=tokenizer_dir)
    answer = greedy_by_hand(load(base), [700, 800, 900], {1}, 4)
    assert exact_match(base, [[700, 800, 900]], [""], max_new_tokens=4).score == 0.0
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, answer[0]]}))
    assert exact_match(base, [[700, 800, 900]], [""], max_new_tokens=4).score == 1.0


def test_references_must_be_as_many_as_prompts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 prompts and 1 references"):
        exact_match(tmp_path, [[1], [2]], ["a"], max_new_tokens=1)
