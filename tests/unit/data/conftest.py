"""A tokenizer made in the test with a chat template of choice, and files of rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
LLAMA_3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = '' %}
{%- endif %}
{{- '<|start|>system<|end|>\\n\\nKnowledge: ' + {'until': 'May <2024>'} | tojson + '\\n' + system_message + '<|eot|>' }}
{%- for message in messages %}
    {%- if message['role'] not in ('user', 'assistant') %}{% continue %}{% endif %}
    {{- '<|start|>' + message['role'] + '<|end|>\\n\\n' + message['content'] | trim + '<|eot|>' }}
{%- endfor %}
{%- if tools is not none %}{{- raise_exception('no tools here') }}{%- endif %}
    {% if add_generation_prompt %}
{{- '<|start|>assistant<|end|>\\n\\n' -}}
    {% endif %}
"""
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|begin|>", "<|start|>", "<|end|>", "<|eot|>", "<|text_end|>")
TEXT = ["user assistant system Where is the lighthouse? It stands   on the cliff, north of the harbour.\n"] * 20


@pytest.fixture
def write_tokenizer(tmp_path: Path) -> Callable[..., Path]:
    """Writes a byte-level BPE with a chat template into a directory of its own, and returns that directory."""

    def write(
        template: str | list | None = CHATML, *, adds_bos: bool = False, config: dict | None = None, name: str = "base"
    ) -> Path:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=340,
            special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(TEXT, trainer)
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
        if adds_bos:
            begin = tokenizer.token_to_id("<|begin|>")
            tokenizer.post_processor = processors.TemplateProcessing(
                single="<|begin|> $A", special_tokens=[("<|begin|>", begin)]
            )
        directory = tmp_path / name
        directory.mkdir()
        tokenizer.save(str(directory / "tokenizer.json"))
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|begin|>",
            "eos_token": "<|text_end|>",
            "clean_up_tokenization_spaces": False,
        }
        if template is not None:
            settings["chat_template"] = template
        (directory / "tokenizer_config.json").write_text(json.dumps(settings | (config or {})))
        return directory

    return write


@pytest.fixture
def arguments(tmp_path: Path, write_tokenizer: Callable[..., Path]) -> dict:
    """What `prepare` and `data_facts` take besides the spec."""
    return {
        "root": tmp_path,
        "tokenizer_dir": write_tokenizer(),
        "tokenizer_digest": "0123",
        "cache_dir": tmp_path / "cache",
    }


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as JSONL into the test's directory."""

    def write(name: str, rows: list) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write
