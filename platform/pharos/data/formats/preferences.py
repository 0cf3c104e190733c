"""Rows that judge answers: a better and a worse one (chosen, rejected), or one with a label (KTO).

Read, checked and shown; training on them is not there yet. Message lists, texts, PaddleNLP's and LLaMA-Factory's forms.
"""

from __future__ import annotations

from pharos.data.formats.cells import Cells, kind_of
from pharos.data.formats.conversations import (
    alpaca,
    alpaca_prompt,
    interleaved,
    messages,
    pair,
    sharegpt,
    side,
    texts,
)
from pharos.data.formats.form import Format, TurnsReader
from pharos.data.formats.rows import Labelled, Origin, Preference, Turn
from pharos.data.formats.turns import order_mistakes, read_tools, with_system

# The columns that may hold what a judged answer answers, each with its reader; the first that stands in a row is it.
PROMPTS: dict[str, TurnsReader] = {
    "messages": messages,
    "conversations": sharegpt,
    "prompt": lambda cells: with_system(cells, side(cells, "prompt", "user")),
    "instruction": alpaca_prompt,
    "question": lambda cells: with_system(cells, side(cells, "question", "user")),
}
# Whole conversations that may be labelled, by the columns that they need.
JUDGED: dict[tuple[str, ...], TurnsReader] = {
    ("messages",): messages,
    ("conversations",): sharegpt,
    ("prompt", "completion"): lambda cells: pair(cells, "prompt", "completion"),
    ("instruction", "output"): alpaca,
    ("question", "answer"): lambda cells: pair(cells, "question", "answer"),
}
LABELS = {"true": True, "1": True, "false": False, "0": False}


def read_preference(cells: Cells, origin: Origin) -> Preference | None:
    """A row of chosen and rejected: answers to a prompt column, or whole conversations that begin alike."""
    chosen, rejected = side(cells, "chosen", "assistant"), side(cells, "rejected", "assistant")
    if cells.mistakes:
        return None
    if all(turns and turns[0].role != "assistant" for turns in (chosen, rejected)):
        prompt = _shared_beginning(cells, chosen, rejected)
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    else:
        key = next((key for key in PROMPTS if cells.get(key) not in (None, "", [])), None)
        if key is None:
            cells.mistakes.append(
                f"there is no prompt that {cells.column('chosen')} and {cells.column('rejected')} answer. "
                "Add a column prompt, or give both as whole lists of turns."
            )
            return None
        prompt = PROMPTS[key](cells)
    return _preference(cells, origin, prompt, chosen, rejected)


def read_sorted(cells: Cells, origin: Origin) -> Preference | None:
    """PaddleNLP's form: one question more than answers, two responses, and the larger number of sort for the better."""
    asked = texts(cells, "src")
    answered = texts(cells, "tgt") if cells.get("tgt") not in (None, "") else []
    responses, ranks = cells.get("response"), cells.get("sort")
    if not isinstance(responses, list) or len(responses) != 2:
        what = f"{len(responses)} of them" if isinstance(responses, list) else kind_of(responses)
        cells.mistakes.append(f"{cells.column('response')} must be a list of two answers, not {what}.")
    is_order = isinstance(ranks, list) and len(ranks) == 2 and all(type(rank) in (int, float) for rank in ranks)
    if not is_order or ranks[0] == ranks[1]:
        cells.mistakes.append(
            f"{cells.column('sort')} must be two different numbers, the larger one for the better answer, as in [1, 0]."
        )
    if not cells.mistakes and len(asked) != len(answered) + 1:
        cells.mistakes.append(
            f"{cells.column('src')} has {len(asked)} turns and {cells.column('tgt')} has {len(answered)}: src must "
            "have one more, which the responses answer."
        )
    if cells.mistakes:
        return None
    answers = [Turn(role="assistant", content=text) for text in texts(cells, "response")]
    better = int(ranks[1] > ranks[0])
    prompt = interleaved(cells, asked, answered)
    return _preference(cells, origin, prompt, [answers[better]], [answers[1 - better]])


def _preference(
    cells: Cells, origin: Origin, prompt: list[Turn], chosen: list[Turn], rejected: list[Turn]
) -> Preference:
    tools = read_tools(cells)
    if not cells.mistakes and chosen == rejected:
        cells.mistakes.append("chosen and rejected are the same: there is nothing to prefer.")
    if not cells.mistakes:
        sides = {"chosen": chosen, "rejected": rejected}
        wrong = {name: order_mistakes([*prompt, *turns]) for name, turns in sides.items()}
        cells.mistakes += [f"{name} with its prompt: {text}" for name, found in wrong.items() for text in found][:1]
    return Preference(prompt=tuple(prompt), chosen=tuple(chosen), rejected=tuple(rejected), origin=origin, tools=tools)


def _shared_beginning(cells: Cells, chosen: list[Turn], rejected: list[Turn]) -> list[Turn]:
    """The turns that both begin with: the prompt, where it has no column, or has one that says the same."""
    num_shared = next(
        (index for index, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other),
        min(len(chosen), len(rejected)),
    )
    if chosen == rejected:
        cells.mistakes.append("chosen and rejected are the same: there is nothing to prefer.")
        return []
    if any(not turns or turns[0].role != "assistant" for turns in (chosen[num_shared:], rejected[num_shared:])):
        cells.mistakes.append(
            f"chosen and rejected part at turn {num_shared}, and not with an answer of the assistant's on both sides: "
            "they must answer one prompt."
        )
    shared = chosen[:num_shared]
    prompt = cells.get("prompt")
    if isinstance(prompt, str) and prompt.strip() and all(turn.content.strip() != prompt.strip() for turn in shared):
        cells.mistakes.append(
            f"{cells.column('prompt')} is none of the turns that chosen and rejected begin with. "
            "Remove it, or leave only the answers in chosen and rejected."
        )
    return shared


def _is_label(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))


def _labelled_form(label_key: str) -> Format:
    def fits(cells: Cells) -> bool:
        return _is_label(cells.get(label_key)) and _judged(cells) is not None

    def read(cells: Cells, origin: Origin) -> Labelled | None:
        label = LABELS.get(str(cells.get(label_key)).strip().lower())
        if label is None:
            cells.mistakes.append(
                f"{cells.column(label_key)} must be true or false, not {kind_of(cells.get(label_key))}."
            )
        reader = _judged(cells)
        if reader is None:
            needed = ", ".join(" + ".join(keys) for keys in JUDGED)
            cells.mistakes.append(f"there is no answer that the label judges. A row needs one of: {needed}.")
            return None
        turns, tools = reader(cells), read_tools(cells)
        if not cells.mistakes:
            cells.mistakes += order_mistakes(turns, num_inserted=cells.num_inserted)
        if not cells.mistakes and turns[-1].role != "assistant":
            cells.mistakes.append(f"the last turn is the {turns[-1].role}'s; the label judges an assistant's turn.")
        return Labelled(turns=tuple(turns), label=bool(label), origin=origin, tools=tools)

    columns = tuple(dict.fromkeys(key for keys in JUDGED for key in keys))
    return Format(
        name="kto",
        kind=Labelled,
        keys=(label_key,),
        read=read,
        optional_keys=(*columns, "input", "system", "history", "tools"),
        turn_keys=("messages", "conversations", "prompt", "completion"),
        fits=fits,
    )


def _judged(cells: Cells) -> TurnsReader | None:
    return next((read for keys, read in JUDGED.items() if all(cells.column(key) in cells.row for key in keys)), None)


PREFERENCES = (
    Format(
        name="preference",
        kind=Preference,
        keys=("chosen", "rejected"),
        read=read_preference,
        optional_keys=(*PROMPTS, "input", "system", "history", "tools"),
        turn_keys=("chosen", "rejected", "messages", "conversations", "prompt"),
    ),
    Format(
        name="paddlenlp-preference",
        kind=Preference,
        keys=("src", "response", "sort"),
        read=read_sorted,
        optional_keys=("tgt", "context"),
    ),
    _labelled_form("label"),
    _labelled_form("kto_tag"),
)
