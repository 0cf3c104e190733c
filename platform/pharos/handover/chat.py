"""A conversation with one model: its own template, its own generation settings, its answers piece by piece.

Who reads and shows what is said is no matter of this module.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, TextIteratorStreamer
from transformers.utils import logging

from pharos.data.formats import Turn
from pharos.data.template import Template, choose_template
from pharos.data.tokenise import TextTokenizer, load_tokenizer
from pharos.errors import ModelError
from pharos.handover.open_model import OpenModel, num_positions

MAX_NEW_TOKENS = 256
"""Of an answer, where neither the person nor the model's settings say it."""
PROBE = "pharos"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
    """What a person sets over the model's own generation settings. temperature: 0 is greedy."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None


@dataclass(slots=True, kw_only=True)
class Talker:
    """One model and what has been said to it and by it. system: what it is told before all, nothing where empty."""

    opened: OpenModel
    template: Template
    tokenizer: TextTokenizer
    config: GenerationConfig
    seed: int | None = None
    system: str = ""
    turns: list[Turn] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.opened.found.shown

    def reset(self) -> None:
        """Forget what was said; the system text stays."""
        self.turns.clear()

    def say(self, text: str) -> Iterator[str]:
        """The answer, as it comes. When the caller stops asking, the model stops, and what it has said is kept.

        Raises ModelError where the conversation fills what the model can read, DataError where its template refuses it.
        """
        self.turns.append(Turn(role="user", content=text))
        said: list[str] = []
        try:
            for piece in self._answer():
                said.append(piece)
                yield piece
        finally:
            answer = "".join(said).strip()
            if answer:
                self.turns.append(Turn(role="assistant", content=answer))
            else:  # as if it had not been asked: a template wants an answer to each question
                self.turns.pop()

    def _answer(self) -> Iterator[str]:
        prompt, config = self._prompt(), copy.deepcopy(self.config)
        room = num_positions(self.opened.found.model_dir) - len(prompt)
        if room < 1:
            raise ModelError(f"{self.name} can read no more: the conversation has {len(prompt):,} tokens. Type /reset.")
        config.max_new_tokens = min(config.max_new_tokens, room)
        streamer = TextIteratorStreamer(self.opened.tokenizer, skip_prompt=True, skip_special_tokens=True)
        stopped, failed = threading.Event(), list[BaseException]()

        def generate() -> None:
            try:
                if self.seed is not None:
                    torch.manual_seed(self.seed + len(self.turns))
                tokens = torch.tensor([prompt], device=self.opened.model.device)
                self.opened.model.generate(
                    input_ids=tokens,
                    attention_mask=torch.ones_like(tokens),
                    generation_config=config,
                    streamer=streamer,
                    stopping_criteria=[_Stop(stopped)],
                )
            except BaseException as error:  # told in the thread that asked
                failed.append(error)
                streamer.end()

        thread = threading.Thread(target=generate, daemon=True)
        thread.start()
        try:
            yield from (piece for piece in streamer if piece)
        finally:
            stopped.set()
            thread.join()
        if failed:
            raise failed[0]

    def _prompt(self) -> list[int]:
        system = [Turn(role="system", content=self.system)] if self.system else []
        text = self.template.render([*system, *self.turns], add_generation_prompt=True)
        ids: list[int] = self.tokenizer.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def talker(opened: OpenModel, settings: ChatSettings, *, system: str = "") -> Talker:
    """A conversation with a model, in the template that it was trained with, or plain where it has none."""
    logging.set_verbosity_error()
    found, tokenizer = opened.found, load_tokenizer(opened.found.model_dir)
    template = choose_template(
        "auto" if found.chat_template is None else str(found.chat_template),
        root=Path.cwd(),
        directory=found.model_dir,
        special_tokens=tokenizer.special_tokens,
        adds_bos=tokenizer.adds_bos,
    )
    stop_ids = {*opened.stop_ids, *tokenizer.stop_ids, *_ends_of_turn(template, tokenizer)}
    return Talker(
        opened=opened,
        template=template,
        tokenizer=tokenizer,
        config=_generation_config(opened, settings, sorted(stop_ids)),
        seed=settings.seed,
        system=system,
    )


def _generation_config(opened: OpenModel, settings: ChatSettings, stop_ids: list[int]) -> GenerationConfig:
    """The model's own settings with what the person sets; greedy where nothing asks for chance."""
    config = copy.deepcopy(opened.model.generation_config)
    config.max_new_tokens = settings.max_new_tokens or config.max_new_tokens or MAX_NEW_TOKENS
    config.max_length = None
    config.eos_token_id, config.pad_token_id = stop_ids, opened.pad_id
    if settings.temperature is not None or settings.top_p is not None:
        config.do_sample = settings.temperature != 0
    if not config.do_sample:
        config.temperature = config.top_p = config.top_k = None
        return config
    if settings.temperature is not None:
        config.temperature = settings.temperature
    if settings.top_p is not None:
        config.top_p = settings.top_p
    return config


def _ends_of_turn(template: Template, tokenizer: TextTokenizer) -> list[int]:
    """The special token that the template writes after an answer, none where it writes none."""
    said = template.render([Turn(role="user", content="?"), Turn(role="assistant", content=PROBE)])
    ids = tokenizer.tokenizer.encode(said.rpartition(PROBE)[2], add_special_tokens=False).ids[:1]
    return [token for token in ids if token in tokenizer.tokenizer.get_added_tokens_decoder()]


class _Stop:
    """Ends `generate` between two tokens; transformers asks it for each row."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self._stopped.is_set(), dtype=torch.bool, device=input_ids.device)
