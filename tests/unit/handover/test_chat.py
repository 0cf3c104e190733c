"""A conversation's memory, settings and end, with a real tiny model."""

from __future__ import annotations

import itertools
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from pharos.errors import ModelError
from pharos.handover.chat import ChatSettings, Talker, talker
from pharos.handover.open_model import OpenModel, open_model
from pharos.handover.references import FoundModel


@pytest.fixture(scope="module")
def opened(model_dir: Path) -> OpenModel:
    return open_model(FoundModel(shown="model", model_dir=model_dir))


def start(opened: OpenModel, system: str = "", **settings: object) -> Talker:
    return talker(opened, ChatSettings(**{"max_new_tokens": 6} | settings), system=system)  # type: ignore[arg-type]


def talk_without_end(chat: Talker) -> None:
    for _ in itertools.count():
        list(chat.say("please turn the lamp in the hall on"))


def test_an_answer_is_what_the_model_generates_from_its_template(opened: OpenModel) -> None:
    chat = start(opened)
    said = "".join(chat.say("turn the lamp on"))
    prompt = "<|im_start|>user\nturn the lamp on<|im_end|>\n<|im_start|>assistant\n"
    tokens = opened.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
    expected = opened.model.generate(**tokens, max_new_tokens=6, do_sample=False)[0, tokens["input_ids"].shape[1] :]
    assert said == opened.tokenizer.decode(expected, skip_special_tokens=True)
    assert said


def test_what_was_said_is_remembered_until_it_is_reset(opened: OpenModel) -> None:
    chat = start(opened, system="be brief")
    first = "".join(chat.say("on"))
    assert [turn.role for turn in chat.turns] == ["user", "assistant"]
    list(chat.say("off"))
    asked = opened.tokenizer.decode(chat._prompt())
    assert asked.startswith("<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\non<|im_end|>\n<|im_start|>assi")
    assert first.strip() in asked
    chat.reset()
    assert chat.turns == []
    assert "".join(chat.say("on")) == first


def test_a_caller_who_stops_asking_stops_the_model_and_what_was_said_stays(
    opened: OpenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = opened.tokenizer("on off on off on off on off", add_special_tokens=False)["input_ids"]
    given: list[int] = []

    def generate(*, input_ids: torch.Tensor, streamer: Any, stopping_criteria: list[Any], **_: Any) -> None:
        [stop] = stopping_criteria
        streamer.put(input_ids[0])
        for token in words:
            streamer.put(torch.tensor([token]))
            given.append(token)
            if len(given) == len(words) // 2:
                assert stop._stopped.wait(timeout=30), "the caller is still asking"
            if stop(input_ids, None).all():
                break
        streamer.end()

    monkeypatch.setattr(opened.model, "generate", generate)
    chat, said = start(opened), ""
    with closing(chat.say("turn the lamp on")) as answer:
        while not said.strip():
            said += next(answer)
    assert len(given) == len(words) // 2, "it went on after it was stopped"
    assert chat.turns[-1].content == said.strip() == "on"


def test_settings_of_the_person_come_before_those_of_the_model(opened: OpenModel) -> None:
    greedy = start(opened)
    assert not greedy.config.do_sample
    drawn = start(opened, temperature=1.5, top_p=0.9, seed=1)
    assert (drawn.config.do_sample, drawn.config.temperature, drawn.config.top_p) == (True, 1.5, 0.9)
    opened.model.generation_config.do_sample = True
    opened.model.generation_config.temperature = 0.4
    try:
        assert start(opened).config.temperature == 0.4
        assert not start(opened, temperature=0.0).config.do_sample
    finally:
        opened.model.generation_config.do_sample = False
        opened.model.generation_config.temperature = None


def test_the_same_seed_draws_the_same_answers(opened: OpenModel) -> None:
    def answers(seed: int) -> list[str]:
        chat = start(opened, temperature=1.0, seed=seed)
        return ["".join(chat.say(text)) for text in ("on", "off")]

    torch.manual_seed(5)
    first = answers(7)
    assert answers(7) == first
    assert answers(8) != first


def test_a_conversation_that_fills_the_model_says_so_and_can_go_on_after_a_reset(opened: OpenModel) -> None:
    chat = start(opened)
    with pytest.raises(ModelError, match="model can read no more: .* Type /reset."):
        talk_without_end(chat)
    assert chat.turns[-1].role == "assistant", "the question that was not answered is forgotten"
    chat.reset()
    assert list(chat.say("on"))


def test_an_error_in_the_model_reaches_the_one_who_asked(opened: OpenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(opened.model, "generate", fail)
    chat = start(opened)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(chat.say("on"))
    assert chat.turns == []


def test_a_template_ends_an_answer_where_it_ends_a_turn(opened: OpenModel, tmp_path: Path) -> None:
    template = tmp_path / "chat_template.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}<|pad|>{% endfor %}")
    found = FoundModel(shown="trial", model_dir=opened.found.model_dir, chat_template=template)
    other = OpenModel(
        found=found, model=opened.model, tokenizer=opened.tokenizer, stop_ids=opened.stop_ids, pad_id=opened.pad_id
    )
    pad = opened.tokenizer.convert_tokens_to_ids("<|pad|>")
    assert pad in start(other).config.eos_token_id
    assert pad not in start(opened).config.eos_token_id
