"""What trains is found in the text: every answer to the end of its marker, or a reason why it cannot be found."""

from __future__ import annotations

from pathlib import Path

import pytest

from pharos.data.formats import Conversation, Origin, Turn
from pharos.data.spans import trained_spans
from pharos.data.template import Template, choose_template
from pharos.errors import DataError

TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>"}
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Thoughts are kept in the last answer only, as in Qwen3.
THINKING = """
{%- for m in messages %}
    {%- set content = m.content %}
    {%- if m.role == 'assistant' and '</think>' in content and not loop.last %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
# The prompt goes on into the answer, whose thought is left out always, as in DeepSeek-R1.
ALWAYS_THINKING = """
{%- for m in messages %}
    {%- if m.role == 'user' %}{{- '<User>' + m.content }}{% endif %}
    {%- if m.role == 'assistant' %}{{- '<Assistant>' + m.content.split('</think>')[-1] + '<end>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<Assistant><think>\\n' }}{% endif %}"""
# The system text stands before the last question, as in Mistral 7B v0.3; contents are trimmed.
MOVING_SYSTEM = """
{%- set system = messages[0].content if messages[0].role == 'system' else '' %}
{%- set ns = namespace(last=0) %}
{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{{- bos_token }}
{%- for m in messages %}
    {%- if m.role == 'user' %}
        {{- '[INST] ' + (system + '\\n\\n' if loop.index0 == ns.last and system else '') }}
        {{- m.content | trim + '[/INST]' }}
    {%- elif m.role == 'assistant' %}
        {{- ' ' + m.content | trim + eos_token }}
    {%- endif %}
{%- endfor %}"""


def talk(*contents: str, system: str | None = None) -> Conversation:
    """User and assistant by turns, after a system turn if there is one."""
    turns = [Turn(role="assistant" if index % 2 else "user", content=text) for index, text in enumerate(contents)]
    first = [] if system is None else [Turn(role="system", content=system)]
    return Conversation(turns=(*first, *turns), origin=Origin(file="train.jsonl", row=1))


def of(source: str) -> Template:
    return Template(name="tokenizer", source=source, special_tokens=TOKENS)


def trained(template: Template, conversation: Conversation, train_on: str = "assistant") -> list[str]:
    text, spans = trained_spans(template, conversation, train_on)
    assert text == template.render(conversation.turns)
    return [text[start:end] for start, end in spans]


def plain(directory: Path, *, adds_bos: bool = False) -> Template:
    return choose_template("plain", root=directory, directory=directory, special_tokens=TOKENS, adds_bos=adds_bos)


def test_every_answer_and_its_end_marker_train_and_nothing_else() -> None:
    conversation = talk("Where?", " There.\n", "When?", "Now.", system="Be brief.")
    assert trained(of(CHATML), conversation) == [" There.\n<|im_end|>", "Now.<|im_end|>"]


def test_a_question_after_the_last_answer_does_not_train() -> None:
    assert trained(of(CHATML), talk("Where?", "There.", "When?")) == ["There.<|im_end|>"]


def test_the_plain_template_puts_contents_on_lines_and_ends_each_answer(tmp_path: Path) -> None:
    conversation = talk("Where?", "There.", "When?", "Now.", system="Be brief.")
    assert plain(tmp_path).render(conversation.turns) == "Be brief.\nWhere?\nThere.<eos>\nWhen?\nNow.<eos>"
    assert trained(plain(tmp_path), conversation) == ["There.<eos>", "Now.<eos>"]


def test_the_plain_template_begins_with_bos_where_the_tokenizer_does(tmp_path: Path) -> None:
    assert plain(tmp_path, adds_bos=True).render(talk("Where?", "There.").turns) == "<bos>Where?\nThere.<eos>"


def test_only_the_last_answer_trains_where_that_is_asked_for() -> None:
    conversation = talk("Where?", "There.", "When?", "Now.", "Why?")
    assert trained(of(CHATML), conversation, "last") == ["Now.<|im_end|>"]
    assert trained(of(CHATML), conversation, "completion") == ["Now.<|im_end|>"]


def test_a_completion_is_all_that_the_assistant_says_after_the_last_question() -> None:
    turns = [
        Turn(role=role, content=text)
        for role, text in (
            ("user", "Hello"), ("assistant", "Hi"), ("user", "Where?"), ("assistant", "look()"), ("tool", "here"),
            ("assistant", "Here."), ("user", "Thanks"),
        )
    ]  # fmt: skip
    conversation = Conversation(turns=tuple(turns), origin=Origin(file="train.jsonl", row=1))
    assert trained(of(CHATML), conversation, "completion") == ["look()<|im_end|>", "Here.<|im_end|>"]
    assert trained(of(CHATML), conversation, "last") == ["Here.<|im_end|>"]


@pytest.mark.parametrize("source", [CHATML, "{{ messages | length }} turns"])
def test_all_is_the_whole_text_whatever_the_template_writes(source: str) -> None:
    conversation = talk("Where?", "There.", "When?", "Now.")
    assert trained(of(source), conversation, "all") == [of(source).render(conversation.turns)]


def test_generation_blocks_say_what_trains_to_the_last_character() -> None:
    source = "{% for m in messages %}{% generation %}{{ m.content }};\n{% endgeneration %}.{% endfor %}"
    assert trained(of(source), talk("Where?", "There.")) == ["Where?;\n", "There.;\n"]


def test_generation_blocks_count_where_they_are_even_in_macros_and_captured_text() -> None:
    macro = (
        "{% macro say(m) %}{{ m.role }}:{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}|{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
        "{% endmacro %}{% for m in messages %}{% set said %}  {{ say(m) }}\n"
        "{% endset %}{{ said | trim }}/{% endfor %}"
    )
    assert trained(of(macro), talk("Where?", "There.", "When?", "Now.")) == ["There.|", "Now.|"]


def test_the_last_answer_may_have_several_generation_blocks() -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}{% generation %}{{ m.content }}"
        "{% endgeneration %} {% generation %};{% endgeneration %}{% endif %}{% endfor %}"
    )
    conversation = talk("Where?", "There.", "When?", "Now.")
    assert trained(of(source), conversation) == ["There.", ";", "Now.", ";"]
    assert trained(of(source), conversation, "last") == ["Now.", ";"]


def test_a_row_may_hold_the_characters_that_mark_generations() -> None:
    source = "{% for m in messages %}{% generation %}{{ m.content }};{% endgeneration %}{% endfor %}"
    assert trained(of(source), talk("\ue000Where\ue001?", "There\ue002.")) == ["\ue000Where\ue001?;", "There\ue002.;"]


def test_thoughts_that_earlier_turns_lose_do_not_hide_where_they_lie() -> None:
    thought = "<think>\nHm.\n</think>\n\n"
    conversation = talk("Where?", thought + "There.", "When?", thought + "Now.\n", "Why?", thought + "So.", system="s")
    assert trained(of(THINKING), conversation) == ["There.<|im_end|>", "Now.\n<|im_end|>", thought + "So.<|im_end|>"]
    assert trained(of(THINKING), conversation, "last") == [thought + "So.<|im_end|>"]


def test_a_text_that_repeats_what_the_template_writes_misleads_nobody() -> None:
    header, end = "<|im_start|>assistant\n", "<|im_end|>\n"
    question, answer = f"a{end}{header}b", f"{header}c{end}"
    thought = "<think>d</think>"
    conversation = talk(question, thought + answer, question + header, thought + answer)
    assert trained(of(THINKING), conversation) == [f"{answer}<|im_end|>", f"{thought}{answer}<|im_end|>"]


def test_a_template_that_writes_the_last_turn_otherwise_trains_what_it_writes() -> None:
    source = CHATML.replace(
        "m.content", "('<think></think>' if loop.last and m.role == 'assistant' else '') + m.content"
    )
    assert trained(of(source), talk("Where?", "There.")) == ["<think></think>There.<|im_end|>"]
    conversation = talk("Where?", "There.", "When?", "Now.")
    assert trained(of(source), conversation) == ["There.<|im_end|>", "<think></think>Now.<|im_end|>"]


def test_a_prompt_that_goes_on_into_the_answer_leaves_the_answer_where_it_is() -> None:
    thought = "<think>\nHm.</think>"
    conversation = talk("Where?", thought + "There.", "When?", "<think Now.", "Why?", thought + "<So.", system="s")
    assert trained(of(ALWAYS_THINKING), conversation) == ["There.<end>", "<think Now.<end>", "<So.<end>"]


def test_a_system_text_that_moves_to_the_last_question_does_not_hide_the_answers() -> None:
    conversation = talk(" Where? ", " There.\n", "When?", " Now.", system="Be [/INST] brief.")
    assert trained(of(MOVING_SYSTEM), conversation) == [" There.<eos>", " Now.<eos>"]


@pytest.mark.parametrize(
    ("source", "turn"),
    [
        ("{% for m in messages | reverse %}{{ m.role + ':' + m.content + ';' }}{% endfor %}", 1),  # backwards
        ("{% for m in messages %}{{ m.content | length }}{% if loop.last %}!{% endif %}{% endfor %}", 1),  # no contents
        (THINKING.replace("m.content %}", "m.content + m.content if not loop.last else m.content %}"), 1),  # twice
    ],
)
def test_a_template_in_which_answers_cannot_be_found_is_refused(source: str, turn: int) -> None:
    remedy = "Use data.template=plain, or rows of one question and one answer, or mark the assistant's words"
    with pytest.raises(DataError, match=f"not prefix-stable: what it writes for the turns up to turn {turn}.*{remedy}"):
        trained_spans(of(source), talk("Where?", "There.", "When?", "Now."), "assistant")


def test_marks_that_change_what_a_template_writes_are_not_believed() -> None:
    """A dot before answers of an odd length goes with a mark of an odd length, and all behind it moves by one."""
    source = (
        "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' %}{{ '!' if loop.last else '' }}"
        "{{ '.' * (m.content | length % 2) }}{% endif %}{{ m.content }};{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    assert trained(of(source), talk("Where?", "There;;")) == ["!.There;;;"]
    with pytest.raises(DataError, match="not prefix-stable: what it writes for the turns up to turn 1"):
        trained_spans(of(source), talk("Where?", "There;;", "When?", "Now."), "assistant")
