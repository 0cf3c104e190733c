"""Which characters of a conversation's text are trained on: the assistant's turns to the end of their markers.

Found in the text that a template writes, exactly or not at all. Tokens are made in `tokenise.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from pharos.data.formats import Conversation, Turn
from pharos.data.template import Template
from pharos.errors import DataError

Span = tuple[int, int]
"""Characters from the first, up to and without the second."""

TrainOn = Literal["assistant", "last", "completion", "all"]

OPEN_THOUGHT = re.compile(r"<think>\s*(?:</think>\s*)?\Z")
"""What some prompts end with and earlier answers, whose thoughts are left out, do not begin with."""

PRIVATE_CHARACTERS = range(0xE000, 0xF900)
"""Unicode gives them no meaning, so texts seldom hold them; those that a row does hold are not used for it."""


def trained_spans(template: Template, conversation: Conversation, train_on: TrainOn) -> tuple[str, list[Span]]:
    """The text of a conversation, and the characters of what is trained on, in order.

    An assistant turn is trained from where a model begins to write it to the end of its end-of-turn marker. Where that
    lies, a template says itself by generation blocks; else it shows in what it writes for the turns before and up to
    it; else, where it writes a turn otherwise once more turns follow, in marks that are put into the contents and taken
    out again. Raises DataError where none of these gives an exact answer.
    """
    turns, tools = conversation.turns, conversation.tools
    if train_on == "all":
        text = template.render(turns, tools=tools)
        return text, [(0, len(text))]
    wanted = trained_turns(turns, train_on)
    if wanted and template.marks_generations:
        return _generation_spans(template, turns, tools, wanted)
    text = template.render(turns, tools=tools)
    spans = _prefix_spans(template, turns, tools, wanted, text)
    if spans is None:
        spans = _marked_spans(template, turns, tools, wanted, text)
    return text, spans


def trained_turns(turns: Sequence[Turn], train_on: TrainOn) -> list[int]:
    """Indices of the turns that are trained on: always the last assistant turns, as many as `train_on` says.

    completion: those after the last question; several where tools are called, else the same as last.
    """
    answers = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
    if train_on == "last":
        return answers[-1:]
    if train_on == "completion" and answers:
        asked = max((index for index in range(answers[-1]) if turns[index].role == "user"), default=-1)
        return [index for index in answers if index > asked]
    return answers


def _generation_spans(
    template: Template, turns: Sequence[Turn], tools: Sequence[Any] | None, wanted: Sequence[int]
) -> tuple[str, list[Span]]:
    """The template's own generation blocks. A turn may have several, or none where it holds nothing to be generated."""
    texts = [template.source, *(turn.content for turn in turns)]
    if tools or any(turn.tool_calls for turn in turns):
        texts.append(template.render(turns, tools=tools))  # holds what else is written
    edges = _unused_characters(texts)
    text, spans = _without_edges(template.render(turns, tools=tools, edges=edges), edges)
    num_before = 0
    if any(turn.role == "assistant" for turn in turns[: wanted[0]]):
        before = template.render(turns[: wanted[0]], tools=tools, edges=edges)
        num_before = len(_without_edges(before, edges)[1])
    return text, spans[num_before:]


def _without_edges(text: str, edges: tuple[str, str]) -> tuple[str, list[Span]]:
    begins, ends = edges
    pieces, spans, length, start = [], [], 0, 0
    for piece in re.split(f"([{begins}{ends}])", text):
        if piece == begins:
            start = length
        elif piece == ends:
            spans.append((start, length))
        else:
            pieces.append(piece)
            length += len(piece)
    return "".join(pieces), spans


def _prefix_spans(
    template: Template, turns: Sequence[Turn], tools: Sequence[Any] | None, wanted: Sequence[int], text: str
) -> list[Span] | None:
    """From the end of the generation prompt before a turn to the end of the turns up to it, without whitespace behind.

    None where what is written for these is not the beginning of the whole text.
    """
    spans = []
    for index in wanted:
        before = template.render(turns[:index], tools=tools, add_generation_prompt=True)
        is_last = index + 1 == len(turns)
        up_to = text if is_last else template.render(turns[: index + 1], tools=tools)
        if not (up_to.startswith(before) and text.startswith(up_to)):
            return None
        spans.append((len(before), len(up_to.rstrip())))
    return spans


@dataclass(frozen=True, slots=True, kw_only=True)
class _Marks:
    """A mark with the turn's index at the end of every content, so that it can be found in a text.

    inside_answers, inside_others: whether it stands before the whitespace at the end, for templates that trim contents.
    """

    character: str
    inside_answers: bool
    inside_others: bool

    def put(self, turns: Sequence[Turn]) -> list[Turn]:
        marked = []
        for index, turn in enumerate(turns):
            is_inside = self.inside_answers if turn.role == "assistant" else self.inside_others
            end = len(turn.content.rstrip()) if is_inside else len(turn.content)
            mark = f"{self.character}{index}{self.character}"
            marked.append(replace(turn, content=turn.content[:end] + mark + turn.content[end:]))
        return marked

    def take_out(self, text: str) -> tuple[str, dict[int, int]]:
        """The text without marks, and where they stood, by turn. Those that stood twice are left out."""
        pieces, places, twice, length = [], {}, set(), 0
        for number, piece in enumerate(re.split(f"{self.character}([0-9]+){self.character}", text)):
            if number % 2 == 0:
                pieces.append(piece)
                length += len(piece)
            elif int(piece) in places:
                twice.add(int(piece))
            else:
                places[int(piece)] = length
        return "".join(pieces), {index: place for index, place in places.items() if index not in twice}


def _marked_spans(
    template: Template, turns: Sequence[Turn], tools: Sequence[Any] | None, wanted: Sequence[int], text: str
) -> list[Span]:
    """By marks that leave the text as it is once they are taken out: they show what a template does to a turn."""
    mark, _ = _unused_characters([text, *(turn.content for turn in turns)])
    ways = [
        _Marks(character=mark, inside_answers=inside_answers, inside_others=inside_others)
        for inside_answers, inside_others in product((False, True), repeat=2)
    ]
    spans = []
    for index in wanted:
        found = (_marked_span(template, turns, tools, index, text, marks) for marks in ways)
        span = next((span for span in found if span is not None), None)
        if span is None:
            remedy = "Use data.template=plain" + (", or rows of one question and one answer" if len(turns) > 2 else "")
            raise DataError(
                f"{template.title} is not prefix-stable: what it writes for the turns up to turn {index} is not the "
                "beginning of what it writes for all, and marks in the contents do not show either where that turn "
                f"lies. So what to train on cannot be found. {remedy}, or mark the assistant's words in the template: "
                "{% generation %} ... {% endgeneration %}."
            )
        spans.append(span)
    return spans


def _marked_span(
    template: Template, turns: Sequence[Turn], tools: Sequence[Any] | None, index: int, text: str, marks: _Marks
) -> Span | None:
    """The characters of one turn, none where these marks do not show them."""
    whole, ends = marks.take_out(template.render(marks.put(turns), tools=tools))
    if whole != text or index not in ends:
        return None
    before_it = max((place for turn, place in ends.items() if turn != index and place <= ends[index]), default=0)

    # What stands between the last content before the turn and its first character is what a prompt ends with.
    prompt = template.render(marks.put(turns[:index]), tools=tools, add_generation_prompt=True)
    prompt, prompt_ends = marks.take_out(prompt)
    head = prompt[max(prompt_ends.values(), default=0) :]
    if not text.startswith(head, before_it):
        head = OPEN_THOUGHT.sub("", head)

    # What follows the content is what follows it where the conversation ends with it, but for an eos that ends all.
    up_to, up_to_ends = marks.take_out(template.render(marks.put(turns[: index + 1]), tools=tools))
    if index not in up_to_ends:
        return None
    tail = up_to[up_to_ends[index] :].rstrip()
    if not text.startswith(tail, ends[index]):
        tail = tail.removesuffix(template.special_tokens.get("eos_token", "")).rstrip() or tail

    start, end = before_it + len(head), ends[index] + len(tail)
    holds_others = any(start < place <= end for turn, place in ends.items() if turn != index)
    is_found = text.startswith(head, before_it) and text.startswith(tail, ends[index]) and start <= ends[index]
    return (start, end) if is_found and not holds_others else None


def _unused_characters(texts: Sequence[str]) -> tuple[str, str]:
    candidates = map(chr, PRIVATE_CHARACTERS)
    unused = (candidate for candidate in candidates if not any(candidate in text for text in texts))
    return next(unused), next(unused)
