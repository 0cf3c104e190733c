"""The tokenizer of the built-in base: a byte-level BPE trained on the docstrings of the standard library.

Every Python installation has that text, so nothing is downloaded. Plain `AutoTokenizer.from_pretrained` loads the
result. Neither torch nor transformers may be imported here: a plan counts tokens without them.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sysconfig
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from pharos.errors import BaseModelError
from pharos.folders import ensure_folder

VOCAB_SIZE = 2048
MODEL_MAX_LENGTH = 512  # tokens
TURN_START, TURN_END, TEXT_END = "<|im_start|>", "<|im_end|>", "<|endoftext|>"  # ids 0, 1, 2
TURN_START_ID, TURN_END_ID, TEXT_END_ID = 0, 1, 2
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
ROLES = ("system", "user", "assistant")
NOT_READ = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}


def ensure_tiny_tokenizer(cache_dir: Path) -> Path:
    """The folder of the tokenizer under `cache_dir`, made on the first call (a few seconds) and found on the next.

    Raises BaseModelError if the standard library has no source to read docstrings from.
    """
    recipe = {"corpus": corpus_digest(), "vocab_size": VOCAB_SIZE, "template": CHAT_TEMPLATE}
    return ensure_folder(cache_dir / f"tiny-tokenizer-{digest(recipe)}", write_tokenizer)


def write_tokenizer(folder: Path) -> None:
    """Train the tokenizer and write its files into `folder`."""
    train_tokenizer(docstrings()).save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MODEL_MAX_LENGTH,
        "clean_up_tokenization_spaces": False,
        "eos_token": TURN_END,
        "pad_token": TEXT_END,
        "additional_special_tokens": [TURN_START, TURN_END],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def train_tokenizer(texts: tuple[str, ...]) -> Tokenizer:
    """A byte-level BPE of `VOCAB_SIZE` tokens, the special ones first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, special=True) for token in (TURN_START, TURN_END, TEXT_END)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *ROLES * 1000], trainer)  # a role, in every turn, deserves a token
    return tokenizer


@cache
def docstrings() -> tuple[str, ...]:
    """The docstrings of the standard library's modules, classes and functions, in the order of their files.

    Raises BaseModelError if there are none, as where Python was installed without sources.
    """
    return tuple(text for file in _sources() for text in _docstrings_of(file))


def _docstrings_of(file: Path) -> list[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, documented)]
    return [text for node in nodes if (text := ast.get_docstring(node))]


def corpus_digest() -> str:
    """Of the files that the docstrings stand in: to parse them as well would take seconds."""
    content = hashlib.sha256()
    for file in _sources():
        content.update(file.read_bytes())
    return content.hexdigest()


def _sources() -> list[Path]:
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(path.relative_to(root) for path in root.rglob("*.py"))
    files = [root / file for file in files if not NOT_READ & set(file.parts)]
    if not files:
        raise BaseModelError(
            f"base=builtin:tiny is trained on the standard library's docstrings, but {root} holds no Python sources. "
            "Use a Python that is installed with them, or name a local model directory."
        )
    return files


def digest(recipe: dict) -> str:
    """Twelve hex digits that change with any value of the recipe."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
