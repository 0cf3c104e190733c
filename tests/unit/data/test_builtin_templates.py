"""Built-in templates and their masks, token by token against transformers, TRL and Baichuan2's published algorithm.

And, over random conversations: what trains is what the assistant said, and nothing of what anybody else said.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.unit.data.tokenizers_of_kinds import RESERVED_106, RESERVED_107, byte_fallback, byte_level

from pharos.data.formats import Conversation, Origin, ToolCall, Turn
from pharos.data.spans import trained_spans
from pharos.data.template import FOLDER, Template, choose_template
from pharos.data.template_warnings import NEEDED_TOKENS, template_warnings
from pharos.data.tokenise import TextTokenizer, TokenRow, load_tokenizer, tokenise
from pharos.errors import DataError
from pharos.spec.rules import BUILTIN_TEMPLATES

KINDS = ("byte-level", "byte-level without markers", "byte-fallback")
# What a template writes around an answer and trains with it.
AROUND = {
    "alpaca": ("", "</s>"), "chatml": ("", "<|im_end|>"), "qwen": ("", "<|im_end|>"), "llama3": ("", "<|eot_id|>"),
    "llama2": (" ", " </s>"), "mistral": (" ", "</s>"), "plain": ("", "</s>"),
}  # fmt: skip
DEEPSEEK_END = "<\uff5cend\u2581of\u2581sentence\uff5c>"
TRIMMING = ("llama2", "llama3", "mistral")


def talk(*contents: str, system: str | None = None) -> Conversation:
    turns = [Turn(role="assistant" if index % 2 else "user", content=text) for index, text in enumerate(contents)]
    first = [] if system is None else [Turn(role="system", content=system)]
    return Conversation(turns=(*first, *turns), origin=Origin(file="train.jsonl", row=1))


CONVERSATIONS = [
    talk("Where is the lighthouse?", "On the cliff."),
    talk("Where?", "There.", "When was it lit?", "In 1791, by oil.", "Why?", "For the ships.", system="Be brief."),
    talk("灯塔在哪里?", "在海港以北的悬崖上。", "谢谢!", "不客气。", system="你是一个有用的助手。"),
    talk("🗼 or 🌊?", "🗼🗼 🌊 é à!", "👍🏽", "👨‍👩‍👧‍👦"),
    talk("Hello", "Hi there", system=""),
    talk(
        "Write it in Python:\n```python\ndef light(): ...\n```",
        'def light(ship):\n\tif ship.sees(lamp):\n\t\treturn {"on": True}  # 100 %\n    ',
        "Shorter.",
        "light = lambda ship: {'on': ship.sees(lamp)}",
    ),
    talk("  spaces  at ends  ", "So  it is .  ", "\nnew lines\n\n", "at the end\n\n"),
    talk("Say <|im_end|>\n<|im_start|>assistant\nor </s>.", "<|im_start|>user\nNo.", "[INST] a [/INST]", "<|eot_id|>"),
    talk("### Response:\nx", "### Instruction:\ny", "<reserved_107>", "z <s>"),
]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tokenizers")
    return {
        "byte-level": byte_level(folder / "byte_level", knows_markers=True),
        "byte-level without markers": byte_level(folder / "without_markers", knows_markers=False),
        "byte-fallback": byte_fallback(folder / "byte_fallback"),
    }


def built_in(name: str, tokenizer: TextTokenizer) -> Template:
    special, adds_bos = tokenizer.special_tokens, tokenizer.adds_bos
    return choose_template(name, root=Path(), directory=Path(), special_tokens=special, adds_bos=adds_bos)


def rows_of(template: Template, tokenizer: TextTokenizer, conversations: list[Conversation]) -> list[TokenRow]:
    mistakes: list[str] = []
    rows = list(tokenise(conversations, template, tokenizer, mistakes, train_on="assistant"))
    assert mistakes == []
    return rows


def messages_of(conversation: Conversation) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in conversation.turns]


def test_every_built_in_template_has_its_file_and_says_itself_what_trains() -> None:
    assert sorted(BUILTIN_TEMPLATES) == sorted(file.stem for file in FOLDER.glob("*.jinja"))
    for name in BUILTIN_TEMPLATES:
        template = choose_template(name, root=Path(), directory=Path(), special_tokens={})
        assert template.marks_generations, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BUILTIN_TEMPLATES)
def test_texts_tokens_and_masks_are_those_of_transformers(tokenizers: dict[str, Path], name: str, kind: str) -> None:
    from transformers import AutoTokenizer

    tokenizer, reference = load_tokenizer(tokenizers[kind]), AutoTokenizer.from_pretrained(tokenizers[kind])
    template = built_in(name, tokenizer)
    for conversation, row in zip(CONVERSATIONS, rows_of(template, tokenizer, CONVERSATIONS), strict=True):
        apply = {"conversation": messages_of(conversation), "chat_template": template.source}
        assert template.render(conversation.turns) == reference.apply_chat_template(**apply, tokenize=False)
        prompt = template.render(conversation.turns[:-1], add_generation_prompt=True)
        apply_to_prompt = apply | {"conversation": apply["conversation"][:-1], "add_generation_prompt": True}
        assert prompt == reference.apply_chat_template(**apply_to_prompt, tokenize=False)
        expected = reference.apply_chat_template(**apply, return_dict=True, return_assistant_tokens_mask=True)
        assert row.tokens.tolist() == expected["input_ids"]
        trained = row.trained if row.targets is None else row.trained & (row.targets == row.tokens)
        assert trained.tolist() == to_the_last_byte(expected["assistant_masks"], expected.encodings[0].offsets)


def to_the_last_byte(mask: list[int], offsets: list[tuple[int, int]]) -> list[bool]:
    """Transformers' mask with all tokens of an answer's last character: of 塔 in three bytes it takes the first."""
    whole = [bool(trained) for trained in mask]
    for index in range(1, len(whole)):
        whole[index] |= whole[index - 1] and offsets[index][0] < offsets[index - 1][1]
    return whole


@pytest.mark.parametrize("name", BUILTIN_TEMPLATES)
def test_spans_are_those_that_show_in_the_texts_of_shorter_conversations(name: str) -> None:
    """The same template without its generation blocks: found by prefixes and marks instead."""
    template = choose_template(
        name, root=Path(), directory=Path(), special_tokens={"bos_token": "<s>", "eos_token": "</s>"}
    )
    unmarked = Template(
        name="tokenizer",
        source=template.source.replace("{%- generation %}", "").replace("{%- endgeneration %}", ""),
        special_tokens=template.special_tokens,
    )
    assert not unmarked.marks_generations
    for conversation in CONVERSATIONS:
        if name == "baichuan2" and len(conversation.turns) > 3:
            continue  # its earlier answers have no end that a shorter conversation would show
        text, spans = trained_spans(template, conversation, "assistant")
        assert trained_spans(unmarked, conversation, "assistant") == (text, spans)


def published_baichuan2(
    encode: Callable[[str], list[int]], eos_id: int, conversation: Conversation
) -> tuple[list[int], list[int]]:
    """Inputs and labels as Baichuan2's fine-tune.py makes them, written anew from its description.

    A user's marker has the label eos and the user's words none; an assistant's marker has none and its words their own;
    eos closes the row with itself as label. -100 stands for no label.
    """
    inputs: list[int] = []
    labels: list[int] = []
    for turn in conversation.turns:
        words = encode(turn.content)
        if turn.role == "user":
            inputs += [RESERVED_106, *words]
            labels += [eos_id, *[-100] * len(words)]
        else:
            inputs += [RESERVED_107, *words]
            labels += [-100, *words]
    return [*inputs, eos_id], [*labels, eos_id]


def test_baichuan2_trains_token_by_token_as_its_published_script_does(tokenizers: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(tokenizers["byte-level"])
    assert [tokenizer.tokenizer.token_to_id(f"<reserved_{n}>") for n in (106, 107)] == [RESERVED_106, RESERVED_107]

    def encode(text: str) -> list[int]:
        return tokenizer.tokenizer.encode(text, add_special_tokens=False).ids

    conversations = [row for row in CONVERSATIONS if row.turns[0].role != "system"]  # the script knows no system turns
    rows = rows_of(built_in("baichuan2", tokenizer), tokenizer, conversations)
    for conversation, row in zip(conversations, rows, strict=True):
        inputs, labels = published_baichuan2(encode, tokenizer.eos_id, conversation)
        assert row.tokens.tolist() == inputs
        targets = row.tokens if row.targets is None else row.targets
        ours = np.where(row.trained, targets, -100).tolist()
        assert ours[1:] == labels[1:]  # nothing predicts a row's first token
        assert (row.targets is None) == (len(conversation.turns) == 2)


@pytest.mark.parametrize(("name", "theirs"), [("qwen", "qwen2_5_training"), ("llama3", "llama3_training")])
def test_texts_and_masks_are_those_of_trl(tokenizers: dict[str, Path], name: str, theirs: str) -> None:
    """TRL marks the newline behind Qwen's end marker, and before its answer, as the assistant's; Pharos does not."""
    from transformers import AutoTokenizer

    tokenizer, reference = (
        load_tokenizer(tokenizers["byte-level"]),
        AutoTokenizer.from_pretrained(tokenizers["byte-level"]),
    )
    template = built_in(name, tokenizer)
    newline = tokenizer.tokenizer.encode("\n").ids[0]
    for conversation, row in zip(CONVERSATIONS, rows_of(template, tokenizer, CONVERSATIONS), strict=True):
        expected = reference.apply_chat_template(
            messages_of(conversation), chat_template=trl_template(theirs), return_dict=True,
            return_assistant_tokens_mask=True,
        )  # fmt: skip
        assert row.tokens.tolist() == expected["input_ids"]
        differing = row.trained != np.array(expected["assistant_masks"], dtype=bool)
        assert set(row.tokens[differing].tolist()) <= ({newline} if name == "qwen" else set())


def trl_template(name: str) -> str:
    import trl

    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "family",
    ["cohere", "gemma", "gemma3", "lfm2", "llama3", "phi3", "qwen2_5_vl", "qwen3_instruct_2507"],
)
def test_spans_found_in_published_templates_are_those_that_trl_marked_in_them(family: str) -> None:
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    original, marked = (
        Template(name="tokenizer", source=trl_template(name), special_tokens=special)
        for name in (family, f"{family}_training")
    )
    assert marked.marks_generations
    assert not original.marks_generations
    for conversation in CONVERSATIONS:
        if family == "gemma" and conversation.turns[0].role == "system":
            continue  # it has no form for system turns
        text, spans = trained_spans(original, conversation, "assistant")
        expected_text, expected = trained_spans(marked, conversation, "assistant")
        assert text == expected_text
        ours, theirs = ("|".join(text[slice(*span)].rstrip() for span in found) for found in (spans, expected))
        assert ours.replace("\n</s>", "|</s>") == theirs  # Phi 3 writes eos on a line of its own


@pytest.mark.parametrize(
    ("family", "answers"),
    [
        ("qwen3", ["There.<|im_end|>", "<think>\nHm.\n</think>\n\nNow.<|im_end|>"]),
        ("qwen3_5_think", ["There.<|im_end|>", "Hm.\n</think>\n\nNow.<|im_end|>"]),
        ("deepseek_r1_distill", [f"\n\nThere.{DEEPSEEK_END}", f"\n\nNow.{DEEPSEEK_END}"]),
        ("phi3_5", ["<think>\nHm.\n</think>\n\nThere.<|end|>", "<think>\nHm.\n</think>\n\nNow.<|end|>\n</s>"]),
    ],
)
def test_published_templates_that_rewrite_earlier_turns_train_what_they_write(family: str, answers: list[str]) -> None:
    template = Template(name="tokenizer", source=trl_template(family), special_tokens={"eos_token": "</s>"})
    thought = "<think>\nHm.\n</think>\n\n"
    text, spans = trained_spans(template, talk("Where?", f"{thought}There.", "When?", f"{thought}Now."), "assistant")
    assert [text[start:end] for start, end in spans] == answers


PIECES = [
    "Where", "is", " ", "  ", "\n", "\n\n", "\t", ".", "?", "!", "é", "灯塔", "🗼",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "x = {'a': 1}", "```", "<", ">", "|", "<|im_end|>",
    "<|im_start|>", "<|im_start|>user\n", "<|im_start|>assistant\n", "<|eot_id|>", "[INST]", "[/INST]", "</s>",
    "<s>", "<reserved_106>", "<reserved_107>", "### Response:\n", "\n\n### Instruction:\n", "<<SYS>>",
    "<|start_header_id|>assistant<|end_header_id|>\n\n", "{% generation %}", "{{ eos_token }}", "</think>",
    "\ue000",
]  # fmt: skip


def random_text(generator: random.Random) -> str:
    while True:
        text = "".join(generator.choice(PIECES) for _ in range(generator.randint(1, 8)))
        if text.strip():
            return text


def random_conversation(generator: random.Random) -> Conversation:
    texts = [random_text(generator) for _ in range(2 * generator.randint(1, 4))]
    return talk(*texts, system=random_text(generator) if generator.random() < 0.5 else None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BUILTIN_TEMPLATES)
def test_what_trains_is_what_the_assistant_said_and_nothing_else(
    tokenizers: dict[str, Path], name: str, kind: str
) -> None:
    """Every token that begins in an answer, or in what ends it, is trained, and no other."""
    generator = random.Random(f"{name} {kind}")
    tokenizer = load_tokenizer(tokenizers[kind])
    template = built_in(name, tokenizer)
    conversations = [random_conversation(generator) for _ in range(60)]
    num_decoded = 0
    for conversation, row in zip(conversations, rows_of(template, tokenizer, conversations), strict=True):
        before, after = AROUND.get(name, ("", ""))
        answers = [turn.content for turn in conversation.turns if turn.role == "assistant"]
        wanted = [f"{before}{answer.strip() if name in TRIMMING else answer}{after}" for answer in answers]
        if name == "baichuan2":
            wanted[-1] += "</s>"
        # Where each answer stands follows from the contents before it alone: they are found from left to right.
        encoding = tokenizer.tokenizer.encode(template.render(conversation.turns), add_special_tokens=False)
        places = places_of(wanted, conversation, template)
        begins = np.array([start for start, _ in encoding.offsets])
        inside = np.zeros(len(begins), dtype=bool)
        for start, end in places:
            inside |= (begins >= start) & (begins < end)
        trained = row.trained if row.targets is None else row.trained & (row.targets == row.tokens)
        assert trained.tolist() == inside.tolist()
        # A token that reaches over the edge of an answer cannot be trained in part.
        edges = {edge for place in places for edge in place}
        if not any(first < edge < last for first, last in encoding.offsets for edge in edges):
            trained_tokens = row.tokens[trained].tolist()
            assert tokenizer.tokenizer.decode(trained_tokens, skip_special_tokens=False) == "".join(wanted)
            num_decoded += 1
    assert num_decoded > 30


def places_of(wanted: list[str], conversation: Conversation, template: Template) -> list[tuple[int, int]]:
    """Where the answers stand in the text: behind what is written for a conversation whose later turns are cut off."""
    text = template.render(conversation.turns)
    places = []
    answers = [index for index, turn in enumerate(conversation.turns) if turn.role == "assistant"]
    for index, expected in zip(answers, wanted, strict=True):
        start = len(template.render(conversation.turns[:index], add_generation_prompt=True))
        assert text[start : start + len(expected)] == expected
        places.append((start, start + len(expected)))
    return places


def test_a_token_that_reaches_into_an_answer_does_not_train_with_it(tokenizers: dict[str, Path]) -> None:
    """Unlike transformers' mask, which begins with it: it holds something of what somebody else said."""
    tokenizer = load_tokenizer(tokenizers["byte-level"])
    [row] = rows_of(built_in("plain", tokenizer), tokenizer, [talk("Where?", "\n\nThere.")])
    decode = tokenizer.tokenizer.decode
    assert "\n\n" in [decode([token]) for token in row.tokens]
    assert decode(row.tokens[row.trained].tolist(), skip_special_tokens=False) == "\nThere.</s>"


TOOLS = ({"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}},)
CALL = ToolCall(name="find", arguments={"what": "灯塔"}, id="call12345")
WITH_TOOLS = Conversation(
    turns=(
        Turn(role="system", content="Be brief."),
        Turn(role="user", content="Where?"),
        Turn(role="assistant", content="", tool_calls=(CALL,)),
        Turn(role="tool", content="cliff", tool_call_id="call12345"),
        Turn(role="assistant", content="There."),
    ),
    tools=TOOLS,
    origin=Origin(file="tools.jsonl", row=1),
)
CALLS = {
    "qwen": '<tool_call>\n{"name": "find", "arguments": {"what": "灯塔"}}\n</tool_call><|im_end|>',
    "llama3": '{"name": "find", "parameters": {"what": "灯塔"}}<|eot_id|>',
    "mistral": '[TOOL_CALLS] [{"name": "find", "arguments": {"what": "灯塔"}, "id": "call12345"}]</s>',
}
RESULTS = {
    "qwen": "<|im_start|>user\n<tool_response>\ncliff\n</tool_response><|im_end|>\n",
    "llama3": '<|start_header_id|>ipython<|end_header_id|>\n\n"cliff"<|eot_id|>',
    "mistral": '[TOOL_RESULTS] {"content": "cliff", "call_id": "call12345"}[/TOOL_RESULTS]',
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_of_tools_train_and_their_results_do_not(tokenizers: dict[str, Path], name: str) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(tokenizers["byte-level"])
    template = built_in(name, load_tokenizer(tokenizers["byte-level"]))
    text, spans = trained_spans(template, WITH_TOOLS, "completion")
    assert [text[start:end].strip() for start, end in spans] == [CALLS[name], "There." + AROUND[name][1]]
    assert RESULTS[name] in text
    assert text.count("find") == 2  # what there is, and the call
    messages = [turn.message() for turn in WITH_TOOLS.turns]
    apply = {"tools": list(TOOLS), "chat_template": template.source, "tokenize": False}
    assert text == reference.apply_chat_template(messages, **apply)
    if name == "qwen":
        assert text == reference.apply_chat_template(messages, **apply | {"chat_template": trl_template("qwen2_5")})


@pytest.mark.parametrize("name", sorted(set(BUILTIN_TEMPLATES) - set(CALLS)))
def test_templates_without_a_form_for_tools_say_so(tokenizers: dict[str, Path], name: str) -> None:
    template = built_in(name, load_tokenizer(tokenizers["byte-level"]))
    with pytest.raises(DataError, match=f"the template {name} refuses this row: .* no form for tools"):
        trained_spans(template, WITH_TOOLS, "assistant")
    without_tools = Conversation(turns=WITH_TOOLS.turns, origin=WITH_TOOLS.origin)
    with pytest.raises(DataError, match=f"the template {name} refuses this row: .* no form for tool"):
        trained_spans(template, without_tools, "assistant")


@pytest.mark.parametrize("name", BUILTIN_TEMPLATES)
def test_a_template_whose_markers_the_tokenizer_lacks_warns_of_what_follows(
    tokenizers: dict[str, Path], name: str
) -> None:
    knowing, lacking = (load_tokenizer(tokenizers[kind]).known_tokens for kind in KINDS[:2])
    template = built_in(name, load_tokenizer(tokenizers["byte-level"]))
    assert template_warnings(template, knowing) == []
    warnings = template_warnings(template, lacking)
    assert len(warnings) == (name in NEEDED_TOKENS)
    if name == "llama3":
        assert warnings == [
            "data.template=llama3 writes <|start_header_id|>, <|end_header_id|> and <|eot_id|>, which are no tokens of "
            "this tokenizer: tokenised as text, in pieces whose meaning the base must learn from these rows. No single "
            "token ends an answer, so generating goes on to its limit. data.template=plain needs no markers."
        ]


def test_other_templates_that_may_disappoint_are_warned_of() -> None:
    def warnings(source: str, name: str = "./my.jinja") -> list[str]:
        template = Template(name=name, source=source, special_tokens={"eos_token": "</s>"})
        return template_warnings(template, frozenset(["<|a|>"]))

    turns = "{% for m in messages %}{{ m.role + m.content + eos_token }}{% endfor %}"
    assert warnings(turns + "{% if add_generation_prompt %}assistant{% endif %}") == []
    [thinking] = warnings(turns + "{% if add_generation_prompt %}assistant<think>\n{% endif %}")
    assert "./my.jinja ends its generation prompt with '<think>\\n', which it does not write before" in thinking
    [endless] = warnings("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}.{% endfor %}")
    assert "without '.' behind them: the model is not trained to end its answers" in endless
    [unknown] = warnings("{# <|a|> <|b|> #}" + turns.replace("m.role", "'<|b|>'"))
    assert "data.template=./my.jinja writes <|b|>, which is no token of this tokenizer" in unknown
    assert warnings("{{ raise_exception('never') }}", name="tokenizer") == []
