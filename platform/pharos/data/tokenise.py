"""The base's tokenizer without transformers, rows as tokens with what trains marked, and what becomes of long rows.

Conversations come in; arrays go out. Files are written in `prepare.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import AddedToken, Tokenizer

from pharos.data.formats import Origin, Text, Trainable
from pharos.data.spans import Span, TrainOn, trained_spans
from pharos.data.template import Template, prompt_and_reference
from pharos.errors import BaseModelError, DataError

ROWS_AT_ONCE = 1024  # handed to the tokenizer together; its encodings take some hundred bytes a token
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTokenizer:
    """A tokenizer and the special tokens of its base. stop_ids: tokens at which the base's own config ends a text."""

    tokenizer: Tokenizer
    special_tokens: Mapping[str, str]
    eos_id: int
    pad_id: int
    stop_ids: tuple[int, ...]
    adds_bos: bool

    @property
    def known_tokens(self) -> frozenset[str]:
        """Special and other added tokens: what stands for one token wherever it stands in a text."""
        return frozenset(token.content for token in self.tokenizer.get_added_tokens_decoder().values())


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """One row: tokens (T,) int32, trained (T,) bool.

    targets: (T,) int32, what is to be predicted in the place of each token, where that is not the token itself.
    """

    tokens: np.ndarray
    trained: np.ndarray
    conversation: Trainable
    targets: np.ndarray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A row that is left out. num_tokens is its whole length."""

    origin: Origin
    num_tokens: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Rows of at most max_length tokens; `long` are those that were longer, with their lengths, kept or not.

    cut_at_turn, cut_inside: those of them that lost whole turns at their end, and those cut inside their first answer.
    """

    rows: list[TokenRow]
    long: list[tuple[Origin, int]]
    skipped: list[Skipped]
    cut_at_turn: list[Origin]
    cut_inside: list[Origin]


def load_tokenizer(directory: Path) -> TextTokenizer:
    """The tokenizer of a base's directory: tokenizer.json, and what the config files say of special tokens.

    Raises BaseModelError if there is no tokenizer.json, or no end-of-text token can be found.
    """
    file = directory / "tokenizer.json"
    if not file.is_file():
        raise BaseModelError(
            f"{directory} has no tokenizer.json. Convert its tokenizer once with transformers: "
            f'AutoTokenizer.from_pretrained("{directory}").save_pretrained("{directory}").'
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing more exact
        raise BaseModelError(f"{file} cannot be read as a tokenizer: {error}. Save it again.") from error
    config = _read_json(directory / "tokenizer_config.json")
    base_config = _read_json(directory / "config.json")
    special = _special_tokens(tokenizer, {**_read_json(directory / "special_tokens_map.json"), **config}, base_config)
    eos_id = tokenizer.token_to_id(special.get("eos_token", ""))
    if eos_id is None:
        raise BaseModelError(
            f"{directory} names no end-of-text token: neither eos_token in tokenizer_config.json nor eos_token_id in "
            "config.json is one of its tokens. Add eos_token to tokenizer_config.json."
        )
    pad_id = tokenizer.token_to_id(special.get("pad_token", ""))
    pad_id = base_config.get("pad_token_id") if pad_id is None else pad_id
    bos_id = tokenizer.token_to_id(special.get("bos_token", ""))
    adds_bos = bos_id is not None and tokenizer.encode("a").ids[:1] == [bos_id]

    tokenizer.no_truncation()
    tokenizer.no_padding()
    # Templates write special tokens themselves. All else that a post-processor does is to cut spaces off the offsets,
    # which would move a token's beginning.
    tokenizer.post_processor = None
    return TextTokenizer(
        tokenizer=tokenizer,
        special_tokens=special,
        eos_id=eos_id,
        pad_id=eos_id if pad_id is None else pad_id,
        stop_ids=tuple(sorted({eos_id, *_ids(base_config.get("eos_token_id"))})),
        adds_bos=adds_bos,
    )


def tokenise(
    conversations: Sequence[Trainable],
    template: Template,
    tokenizer: TextTokenizer,
    mistakes: list[str],
    *,
    train_on: TrainOn,
) -> Iterator[TokenRow]:
    """The rows of conversations, in order. Those that the template refuses are appended to `mistakes`."""
    for start in range(0, len(conversations), ROWS_AT_ONCE):
        rendered: list[tuple[Trainable, str, list[Span]]] = []
        for conversation in conversations[start : start + ROWS_AT_ONCE]:
            try:
                if isinstance(conversation, Text):
                    rendered.append((conversation, *_text_spans(conversation, tokenizer)))
                else:
                    rendered.append((conversation, *trained_spans(template, conversation, train_on)))
            except DataError as error:
                mistakes.append(f"{conversation.origin}: {error.message}")
        texts = [text for _, text, _ in rendered]
        encodings = tokenizer.tokenizer.encode_batch(texts, add_special_tokens=False)
        for (conversation, _, spans), encoding in zip(rendered, encodings, strict=True):
            tokens = np.array(encoding.ids, dtype=np.int32)
            row = TokenRow(tokens=tokens, trained=_mask(encoding.offsets, spans), conversation=conversation)
            ends = template.ends_in_place and train_on != "all"
            yield _with_ends_in_place(row, tokenizer.eos_id) if ends else row


def _text_spans(row: Text, tokenizer: TextTokenizer) -> tuple[str, list[Span]]:
    """A text as pre-training writes it: from its beginning token, if it has one, to its end token, and all trained."""
    begin = tokenizer.special_tokens["bos_token"] if tokenizer.adds_bos else ""
    text = begin + row.text + (tokenizer.tokenizer.id_to_token(tokenizer.eos_id) or "")
    return text, [(0, len(text))]


def render_prompt(conversation: Trainable, template: Template, tokenizer: TextTokenizer) -> tuple[np.ndarray, str]:
    """What to generate from, as token ids (P,) int32, and the reference answer: the last assistant turn's content.

    A text has no question; its first token stands for one, and the plan refuses to score answers to it.
    """
    if isinstance(conversation, Text):
        first = tokenizer.tokenizer.encode(_text_spans(conversation, tokenizer)[0], add_special_tokens=False).ids[:1]
        return np.array(first, dtype=np.int32), conversation.text
    prompt, reference = prompt_and_reference(template, conversation)
    return np.array(tokenizer.tokenizer.encode(prompt, add_special_tokens=False).ids, dtype=np.int32), reference


def fit_rows(
    rows: Iterable[TokenRow],
    *,
    max_length: int,
    long_rows: Literal["error", "truncate", "skip"],
    tokens_of: Callable[[Sequence[Trainable]], Iterable[TokenRow]],
) -> Fitted:
    """Rows of at most `max_length` tokens: longer ones are cut, or left out if `long_rows` is skip.

    A long row is cut at a turn where it can be: it becomes the row, by `tokens_of`, of its first turns, as many as fit,
    the last of them the assistant's. Only a first exchange that is too long by itself is cut inside, on the right. With
    error rows are cut there too: the caller refuses them all together, see `refuse_long_rows`. A row without a trained
    token, for one because its answer was cut off, is left out always.
    """
    fitted = Fitted(rows=[], long=[], skipped=[], cut_at_turn=[], cut_inside=[])
    for row in rows:
        origin, num_tokens = row.conversation.origin, len(row.tokens)
        is_long = num_tokens > max_length
        if is_long:
            fitted.long.append((origin, num_tokens))
        if is_long and long_rows == "skip":
            fitted.skipped.append(Skipped(origin=origin, num_tokens=num_tokens, reason="longer than data.max_length"))
            continue
        kept, at_turn = row, False
        if is_long:
            kept, at_turn = _cut(row, max_length, tokens_of if long_rows == "truncate" else None)
        if not kept.trained.any():
            reason = "no trained token within data.max_length" if is_long else "no trained token"
            fitted.skipped.append(Skipped(origin=origin, num_tokens=num_tokens, reason=reason))
            continue
        fitted.rows.append(kept)
        if is_long:
            (fitted.cut_at_turn if at_turn else fitted.cut_inside).append(origin)
    return fitted


def refuse_long_rows(long: Sequence[tuple[Origin, int]], max_length: int) -> None:
    """Raises DataError naming the rows that are too long, if any, and the max_length that would hold them all."""
    if not long:
        return
    shown = [f"{origin}: {num_tokens:,} tokens" for origin, num_tokens in long[:20]]
    rest = [f"... and {len(long) - 20:,} more"] if len(long) > 20 else []
    needed = max(num_tokens for _, num_tokens in long)
    raise DataError(
        f"data.max_length={max_length}, but {len(long):,} rows are longer. Set data.max_length={needed}, or "
        "data.long_rows=truncate to cut them or skip to leave them out.\n" + "\n".join(shown + rest)
    )


def end_of_turn_id(row: TokenRow, tokenizer: TextTokenizer) -> int | None:
    """The special token that ends the row's last assistant turn, none where its template writes no such token.

    Some templates mark the whitespace behind it as the assistant's too.
    """
    special = tokenizer.tokenizer.get_added_tokens_decoder()
    predicted = row.tokens if row.targets is None else row.targets
    for token in predicted[row.trained][::-1].tolist():
        if token in special:
            return token
        if tokenizer.tokenizer.decode([token]).strip():
            break
    return None


def _cut(
    row: TokenRow, max_length: int, tokens_of: Callable[[Sequence[Trainable]], Iterable[TokenRow]] | None
) -> tuple[TokenRow, bool]:
    """The row within `max_length` tokens, and whether it was cut between two turns."""
    conversation = row.conversation
    if isinstance(conversation, Text):
        return _cut_inside(row, max_length), False
    ends = [index + 1 for index, turn in enumerate(conversation.turns) if turn.role == "assistant"]
    if tokens_of is not None and ends:

        def first_turns(num_turns: int) -> TokenRow | None:
            shorter = replace(conversation, turns=conversation.turns[:num_turns])
            return next(iter(tokens_of([shorter])), None)

        # A row of more turns is longer, so the most that fit are found by halving.
        fits = None
        low, high = 0, len(ends) - (ends[-1] == len(conversation.turns))
        while low < high:
            middle = (low + high) // 2
            tried = first_turns(ends[middle])
            if tried is not None and len(tried.tokens) <= max_length:
                fits, low = tried, middle + 1
            else:
                high = middle
        if fits is not None:
            return fits, True
        row = (first_turns(ends[0]) if ends[0] < len(conversation.turns) else None) or row
    return _cut_inside(row, max_length), False


def _cut_inside(row: TokenRow, max_length: int) -> TokenRow:
    targets = None if row.targets is None else row.targets[:max_length]
    return replace(row, tokens=row.tokens[:max_length], trained=row.trained[:max_length], targets=targets)


def _with_ends_in_place(row: TokenRow, eos_id: int) -> TokenRow:
    """The row with eos as what is to be predicted where another speaker's marker follows an answer.

    A model that is not to write the marker must end there. The published preprocessing of Baichuan2 trains so:
    https://github.com/baichuan-inc/Baichuan2, fine-tune/fine-tune.py.
    """
    ends = np.flatnonzero(row.trained[:-1] & ~row.trained[1:]) + 1
    if not ends.size:
        return row
    trained, targets = row.trained.copy(), row.tokens.copy()
    trained[ends], targets[ends] = True, eos_id
    return replace(row, trained=trained, targets=targets)


def _mask(offsets: Sequence[Span], spans: Sequence[Span]) -> np.ndarray:
    """Which tokens begin inside one of the spans, (T,) bool."""
    starts = np.fromiter((start for start, _ in offsets), dtype=np.int64, count=len(offsets))
    trained = np.zeros(len(offsets), dtype=bool)
    for start, end in spans:
        trained |= (starts >= start) & (starts < end)
    return trained


def _special_tokens(tokenizer: Tokenizer, config: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, str]:
    """The named special tokens of the tokenizer's config.

    Only eos_token, without which no answer ends, may come from the base's config: a chat template must see the tokens
    that transformers would show it. Like transformers, makes sure that each of them in a text becomes one token.
    """
    named = {}
    for name in NAMED_TOKENS:
        token = config.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if token is None and name == "eos_token" and (ids := _ids(base.get("eos_token_id"))):
            token = tokenizer.id_to_token(ids[0])
        if isinstance(token, str) and token:
            named[name] = token
    known = [token for token in named.values() if tokenizer.token_to_id(token) is not None]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in dict.fromkeys(known)])
    return named


def _ids(value: int | list[int] | None) -> list[int]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BaseModelError(f"{file} is not JSON: {error}. Fetch or save the base's files again.") from error
