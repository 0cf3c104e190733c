"""The facts that headers tell, against the loaded model; and what is reckoned from a config, against the headers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tests.unit.model.conftest import MakeBase
from torch import nn
from transformers import AutoModelForCausalLM

from pharos.errors import BaseModelError
from pharos.model.facts import base_facts, directory_digest, tokenizer_digest
from pharos.model.tiny import tiny_config

FAMILIES = {
    "llama": {},
    "llama with biases": {"attention_bias": True, "mlp_bias": True},
    "tied llama": {"tie_word_embeddings": True},
    "llama with wide heads": {"head_dim": 16},
    "mistral": {"model_type": "mistral", "head_dim": 8},
    "qwen2": {"model_type": "qwen2"},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_facts_of_the_headers_are_those_of_the_loaded_model(make_base: MakeBase, family: str) -> None:
    base = make_base(max_shard_size="20KB", **FAMILIES[family])
    model = AutoModelForCausalLM.from_pretrained(base)
    facts = base_facts("base", base)

    assert facts.num_parameters == model.num_parameters()
    assert facts.num_layer_parameters == sum(p.numel() for p in model.model.layers[0].parameters())
    assert {(target.name, target.d_in, target.d_out) for target in facts.targets} == {
        (f"model.layers.{name}", module.in_features, module.out_features)
        for name, module in model.model.layers.named_modules()
        if isinstance(module, nn.Linear)
    }
    assert (facts.hidden_size, facts.intermediate_size, facts.num_hidden_layers) == (32, 48, 2)
    assert (facts.vocab_size, facts.max_position_embeddings) == (96, 64)
    assert facts.architecture == type(model).__name__
    assert not facts.estimated


@pytest.mark.parametrize("family", FAMILIES)
def test_facts_reckoned_from_the_config_are_those_of_the_headers(make_base: MakeBase, family: str) -> None:
    base = make_base(**FAMILIES[family])
    read = base_facts("base", base)
    (base / "model.safetensors").unlink()
    estimated = base_facts("base", base)

    assert estimated.estimated
    assert set(estimated.targets) == set(read.targets)
    unlike = {"estimated": False, "targets": read.targets, "digest": read.digest}
    assert dataclasses.replace(estimated, **unlike) == read


def test_a_shared_matrix_that_is_stored_twice_counts_once(make_base: MakeBase) -> None:
    file = make_base(tie_word_embeddings=True) / "model.safetensors"
    expected = base_facts("base", file.parent).num_parameters
    tensors = load_file(file)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, file)
    assert base_facts("base", file.parent).num_parameters == expected


def test_an_architecture_whose_shapes_are_unknown_is_not_guessed(make_base: MakeBase) -> None:
    base = make_base()
    (base / "model.safetensors").unlink()
    (base / "config.json").write_text(
        json.dumps(json.loads((base / "config.json").read_text()) | {"model_type": "opt"})
    )
    with pytest.raises(BaseModelError, match=r"base=org/opt: .*model_type=opt.*Download the model first"):
        base_facts("org/opt", base)


def test_the_tiny_base_has_facts_before_it_is_built(tokenizer_dir: Path) -> None:
    facts = base_facts("builtin:tiny", None, tokenizer_directory=tokenizer_dir)
    assert facts.estimated
    assert facts.directory is None
    assert facts.hidden_size == tiny_config()["hidden_size"]
    assert len(facts.targets) == 7 * tiny_config()["num_hidden_layers"]
    assert facts.tokenizer_digest == tokenizer_digest(tokenizer_dir)


def test_a_list_chooses_targets_by_the_last_parts_of_their_names(make_base: MakeBase) -> None:
    facts = base_facts("base", make_base(), target_modules=["q_proj", "layers.1.mlp.up_proj"])
    assert [target.name for target in facts.targets] == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
        "model.layers.1.self_attn.q_proj",
    ]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (["q_proj", "v_porj"], r"target_modules=v_porj names no Linear module .* Did you mean v_proj"),
        (["W_pack"], r"target_modules=W_pack .* There are: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_"),
        (["lm_head"], r"target_modules=lm_head names no Linear module"),
        (["embed_tokens"], r"target_modules=embed_tokens names no Linear module"),
        (["proj"], r"target_modules=proj names no Linear module"),
        ([], r"target_modules=\[\] chooses nothing"),
    ],
)
def test_a_target_that_is_not_there_is_refused(make_base: MakeBase, choice: list[str], message: str) -> None:
    with pytest.raises(BaseModelError, match=message):
        base_facts("base", make_base(), target_modules=choice)


def test_the_digest_follows_the_model_and_nothing_else(make_base: MakeBase) -> None:
    base = make_base("one")
    digest = directory_digest(base)
    assert directory_digest(make_base("two")) == digest
    assert directory_digest(make_base("three", mlp_bias=True)) != digest
    (base / "README.md").write_text("other words")
    assert directory_digest(base) == digest
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(dict(reversed(config.items()))))
    assert directory_digest(base) == digest
    (base / "config.json").write_text(json.dumps(config | {"rope_theta": 1.0}))
    assert directory_digest(base) != digest


def test_the_tokenizer_digest_follows_the_chat_template(make_base: MakeBase, tokenizer_dir: Path) -> None:
    base = make_base(tokenizer=tokenizer_dir)
    assert tokenizer_digest(base) == tokenizer_digest(tokenizer_dir)
    (base / "chat_template.jinja").write_text("{{ messages }}")
    assert tokenizer_digest(base) != tokenizer_digest(tokenizer_dir)
