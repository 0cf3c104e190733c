"""A tokenizer of forty words, so that expected token ids can be written by hand; its chat template knows tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

# A word's id is its place. <stop> ends a text, <end> a turn.
# fmt: off
WORDS = [
    "<unk>", "<end>", "<stop>", "<system>", "<user>", "<assistant>", "<tool>", "<tools>", "<call>", "find",
    "what=lighthouse", "Where", "is", "it", "?", "On", "the", "cliff", ".", "And",
    "now", "There", "Be", "brief", "Translate", "phare", "lighthouse", "The", "on", "####",
    "7", "灯塔", "在", "哪里", "\uff1f", "悬崖", "上", "。", "谢谢", "不客气",
    "类型#裙", "长裙",
]
# fmt: on
SPECIAL = WORDS[1:9]
TEMPLATE = (
    "{% if tools %}<tools>{% for tool in tools %} {{ tool.function.name }}{% endfor %} <end> {% endif %}"
    "{% for message in messages %}<{{ message.role }}> {{ message.content }}"
    "{% for call in message.tool_calls or [] %} <call> {{ call.function.name }}"
    "{% for key, value in call.function.arguments.items() %} {{ key }}={{ value }}{% endfor %}{% endfor %}"
    " <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


@pytest.fixture
def words_dir(tmp_path: Path) -> Path:
    """The directory of the tokenizer and its template."""
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL])
    directory = tmp_path / "words"
    directory.mkdir()
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"eos_token": "<stop>", "chat_template": TEMPLATE}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory
