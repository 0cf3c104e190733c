"""The built-in base and its tokenizer: plain Hugging Face folders, made once, safe to make twice at once."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pharos.folders import ensure_folder
from pharos.model import tiny_pretraining
from pharos.model.tiny import Recipe, ensure_base, tiny_config
from pharos.model.tiny_pretraining import NOT_LEARNED, THREAD_TRIALS, on_faster_threads, training_rows
from pharos.model.tiny_tokenizer import (
    TURN_START_ID,
    docstrings,
    ensure_tiny_tokenizer,
    train_tokenizer,
)

TWO_STEPS = Recipe(num_steps=2, rows=4)
CHAT = [{"role": "user", "content": "Stop web-api"}, {"role": "assistant", "content": "docker stop web-api"}]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tokenizer(cache):
    return AutoTokenizer.from_pretrained(ensure_tiny_tokenizer(cache))


@pytest.fixture(scope="module")
def base(cache):
    return ensure_base(cache, TWO_STEPS)


def test_the_tokenizer_loads_with_its_special_tokens(tokenizer):
    assert len(tokenizer) == tiny_config()["vocab_size"]
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", tiny_config()["eos_token_id"])
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<|endoftext|>", tiny_config()["pad_token_id"])
    assert tokenizer.bos_token_id is None


def test_the_template_is_chatml(tokenizer):
    prompt = tokenizer.apply_chat_template(CHAT[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|im_start|>user\nStop web-api<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == prompt + "docker stop web-api<|im_end|>\n"


def test_any_text_survives_the_tokenizer(tokenizer):
    for text in ("docker run -p 8080:80 nginx", "  two  spaces ", "naïve 🐳 東京\n\ttab"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_special_tokens_are_one_token_each_and_not_text(tokenizer):
    assert tokenizer("<|im_start|><|im_end|><|endoftext|>").input_ids == [0, 1, 2]
    assert tokenizer.decode(tokenizer("<|im_start|>a<|im_end|>").input_ids, skip_special_tokens=True) == "a"


def test_the_base_is_a_plain_folder_with_the_planned_shape(base):
    model = AutoModelForCausalLM.from_pretrained(base)
    assert type(model).__name__ == "LlamaForCausalLM"
    written = json.loads((base / "config.json").read_text())
    assert {key: written.get(key) for key in tiny_config()} == tiny_config()
    assert model.generation_config.eos_token_id == tiny_config()["eos_token_id"]
    assert model.generation_config.pad_token_id == tiny_config()["pad_token_id"]
    assert 1e6 < sum(parameter.numel() for parameter in model.parameters()) < 2e6
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_the_base_brings_its_tokenizer_along(base, tokenizer):
    own = AutoTokenizer.from_pretrained(base)
    assert own.get_vocab() == tokenizer.get_vocab()
    assert own.chat_template == tokenizer.chat_template


def test_the_same_recipe_gives_the_same_weights_in_another_cache(base, tmp_path):
    torch.manual_seed(17)
    random_state = torch.get_rng_state()
    again = ensure_base(tmp_path, TWO_STEPS)
    assert again.name == base.name
    first, second = load_file(base / "model.safetensors"), load_file(again / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_another_recipe_has_another_folder(base, cache):
    assert ensure_base(cache, replace(TWO_STEPS, seed=1)) != base


def test_progress_counts_to_the_last_step_and_a_second_call_trains_nothing(tmp_path):
    seen = []
    folder = ensure_base(tmp_path, TWO_STEPS, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert ensure_base(tmp_path, TWO_STEPS, progress=lambda done, total: seen.append((done, total))) == folder
    assert len(seen) == 2


def test_a_second_call_and_the_planned_shape_need_no_torch(base):
    program = (
        "import sys; from pathlib import Path; from pharos.model.tiny import Recipe, ensure_base, tiny_config;"
        f"folder = ensure_base(Path({str(base.parent)!r}), Recipe(num_steps=2, rows=4)); tiny_config();"
        f"assert folder == Path({str(base)!r}), folder;"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_two_builders_at_once_leave_one_whole_folder(tmp_path):
    both_have_begun = Barrier(2)

    def write(folder):
        (folder / "part-1").write_text("1")
        both_have_begun.wait(timeout=30)
        (folder / "part-2").write_text("2")

    with ThreadPoolExecutor(2) as threads:
        built = [made.result() for made in [threads.submit(ensure_folder, tmp_path / "made", write) for _ in range(2)]]
    assert built == [tmp_path / "made"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["part-1", "part-2"]


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def write(folder):
        (folder / "part-1").write_text("1")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        ensure_folder(tmp_path / "made", write)
    assert list(tmp_path.iterdir()) == []


def test_of_a_chat_row_only_the_answer_is_learned_and_it_can_be_copied_from_the_question():
    rows = training_rows(train_tokenizer(docstrings()), Recipe(chat_share=1.0, repeat_share=0.0))
    num_learned = 0
    for _ in range(20):
        tokens, labels = next(rows)
        assert len(tokens) == len(labels) == Recipe().row_tokens
        assert all(label in (token, NOT_LEARNED) for token, label in zip(tokens, labels, strict=True))
        question_tokens = tokens.index(TURN_START_ID, 1)
        assert set(labels[:question_tokens]) == {NOT_LEARNED}
        turn_starts = [place for place, token in enumerate(tokens) if token == TURN_START_ID]
        answer = [label for label in labels[: [*turn_starts, None, None][2]] if label != NOT_LEARNED]
        assert set(answer) <= set(tokens[:question_tokens])
        num_learned += len(answer)
    assert num_learned > 100


def test_what_is_learned_in_a_repeating_row_has_been_seen_in_it():
    rows = training_rows(train_tokenizer(docstrings()), Recipe(chat_share=0.0, repeat_share=1.0))
    for _ in range(20):
        tokens, labels = next(rows)
        period = labels.count(NOT_LEARNED)
        assert 4 <= period <= len(tokens) // 2
        assert labels[period:] == tokens[period:]
        assert tokens[period:] == tokens[:-period]


@pytest.mark.parametrize(("seconds_a_step", "chosen"), [({1: 1.0, 4: 3.0}, 1), ({1: 3.0, 4: 1.0}, 4)])
def test_a_loop_keeps_the_number_of_threads_that_steps_faster(monkeypatch, seconds_a_step, chosen):
    now_s, first_s = 0.0, {1: 0.0, 4: 100.0}  # the first step on threads pays for making them
    monkeypatch.setattr(tiny_pretraining.time, "monotonic", lambda: now_s)
    monkeypatch.setattr(tiny_pretraining.os, "cpu_count", lambda: 4)
    before, used = torch.get_num_threads(), []
    for _ in on_faster_threads(range(2 * THREAD_TRIALS + 3)):
        used.append(torch.get_num_threads())
        now_s += seconds_a_step[used[-1]] + first_s.pop(used[-1], 0.0)
    assert used == [*[1, 4] * THREAD_TRIALS, chosen, chosen, chosen]
    assert torch.get_num_threads() == before


def test_a_loop_shorter_than_the_trial_of_threads_ends_where_it_should():
    assert list(on_faster_threads(range(2))) == [0, 1]
    assert list(on_faster_threads(range(0))) == []
