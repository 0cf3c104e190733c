"""Merged directories, against stock PEFT's merge_and_unload and the files they were made from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.unit.model.conftest import MakeAdapter, MakeBase, stock_peft
from transformers import AutoModelForCausalLM, AutoTokenizer

import pharos
from pharos.errors import HandOverError
from pharos.model.merge import add_card, merge_adapter, verify_manifest

TOKENS = torch.tensor([[5, 17, 3, 90, 44]])
BASES = {
    "one file": {},
    "sharded": {"max_shard_size": "20KB"},
    "tied": {"tie_word_embeddings": True},
    "with biases": {"attention_bias": True, "mlp_bias": True},
    "bfloat16": {"dtype": torch.bfloat16},
    "sharded float16": {"dtype": torch.float16, "max_shard_size": "20KB"},
    "another family": {"model_type": "qwen2"},
}


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor for file in sorted(directory.glob("*.safetensors")) for name, tensor in load_file(file).items()
    }


def largest_difference(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left.detach().double() - right.detach().double()).abs().max())


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("lora", [{}, {"use_rslora": True, "r": 3, "lora_alpha": 5}])
def test_a_merge_is_stock_pefts_merge_cast_once(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path, kind: str, lora: dict[str, object]
) -> None:
    base = make_base(**BASES[kind])
    adapter = make_adapter(base, **lora)
    merge_adapter(base, adapter, tmp_path / "merged")

    expected = stock_peft(base, adapter).merge_and_unload().state_dict()
    original, merged = weights(base), weights(tmp_path / "merged")
    assert merged.keys() == original.keys()
    assert ("lm_head.weight" in merged) == (kind != "tied")
    for name, tensor in merged.items():
        assert tensor.dtype == original[name].dtype
        if "_proj.weight" in name:
            assert not torch.equal(tensor, original[name])
            spacing = torch.finfo(tensor.dtype).eps * expected[name].abs().max()  # where two fp32 sums round apart
            allowed = 1e-6 if tensor.dtype == torch.float32 else float(spacing)
            assert largest_difference(tensor, expected[name].to(tensor.dtype)) <= allowed
            apart = (tensor != expected[name].to(tensor.dtype)).float().mean()
            assert tensor.dtype == torch.float32 or apart < 0.01
        else:
            assert torch.equal(tensor, original[name])


@pytest.mark.parametrize("kind", ["one file", "sharded", "tied", "with biases"])
def test_a_merge_loads_plainly_and_gives_the_logits_of_base_and_adapter(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path, kind: str
) -> None:
    base = make_base(**BASES[kind])
    adapter = make_adapter(base)
    merge_adapter(base, adapter, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert largest_difference(merged(TOKENS).logits, stock_peft(base, adapter)(TOKENS).logits) < 1e-5


def test_files_of_the_base_come_along_and_weights_keep_their_shards(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path, tokenizer_dir: Path
) -> None:
    base = make_base(max_shard_size="100KB", vocab_size=2048, tokenizer=tokenizer_dir)
    (base / "generation_config.json").write_text('{"temperature": 0.5, "do_sample": true}')
    (base / "pytorch_model.bin").write_bytes(b"a pickle that must stay behind")
    merge_adapter(base, make_adapter(base), tmp_path / "merged")

    copied = {file.name for file in base.iterdir()} - {"pytorch_model.bin"}
    assert {file.name for file in (tmp_path / "merged").iterdir()} == copied | {"pharos_manifest.json"}
    for name in copied:
        if not name.endswith(".safetensors"):
            assert (tmp_path / "merged" / name).read_bytes() == (base / name).read_bytes()
    for file in base.glob("*.safetensors"):
        with safe_open(file, "pt") as source, safe_open(tmp_path / "merged" / file.name, "pt") as merged:
            assert sorted(merged.keys()) == sorted(source.keys())
            assert merged.metadata() == {"format": "pt"}
    messages = [{"role": "user", "content": "list containers"}]
    tokenizers = [AutoTokenizer.from_pretrained(directory) for directory in (base, tmp_path / "merged")]
    assert len({one.apply_chat_template(messages, tokenize=False) for one in tokenizers}) == 1


def test_a_template_of_its_own_takes_the_place_of_the_bases(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    base = make_base()
    (base / "chat_template.jinja").write_text("the base's")
    adapter = make_adapter(base)
    merge_adapter(base, adapter, tmp_path / "plain")
    assert (tmp_path / "plain" / "chat_template.jinja").read_text() == "the base's"
    merge_adapter(base, adapter, tmp_path / "own", chat_template="its own")
    assert (tmp_path / "own" / "chat_template.jinja").read_text() == "its own"
    verify_manifest(tmp_path / "own")


def test_a_checkpoint_of_the_bare_decoder_is_merged_too(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    base = make_base(tie_word_embeddings=True)
    adapter = make_adapter(base)
    expected = stock_peft(base, adapter)(TOKENS).logits
    bare = {name.removeprefix("model."): tensor for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(bare, base / "model.safetensors")  # without metadata, as other tools write it
    merge_adapter(base, adapter, tmp_path / "merged")
    assert largest_difference(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(TOKENS).logits, expected) < 1e-5


def test_progress_counts_every_byte(make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    base = make_base(max_shard_size="20KB")
    seen: list[tuple[int, int]] = []
    merge_adapter(
        base, make_adapter(base), tmp_path / "merged", progress=lambda done, total: seen.append((done, total))
    )
    total = sum(tensor.nbytes for tensor in weights(base).values())
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)


def test_every_file_and_their_names_are_on_disk_before_the_merge_has_its_name(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path, tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base(max_shard_size="20KB", vocab_size=2048, tokenizer=tokenizer_dir)
    adapter = make_adapter(base)
    synced: list[Path] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        assert path.parent != tmp_path / "merged", "too late"
        synced.append(path)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    merge_adapter(base, adapter, tmp_path / "merged")
    assert {path.name for path in (tmp_path / "merged").iterdir()} <= {path.name for path in synced}
    assert [path for path in synced if path.name.startswith(".merged.")], "the names in the directory"
    assert synced[-1] == tmp_path, "its own name"


def test_a_card_that_comes_later_is_in_the_manifest(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    base = make_base()
    merged = tmp_path / "merged"
    merge_adapter(base, make_adapter(base), merged)
    for text in ("# First", "# Second, and longer"):
        add_card(merged, text)
        verify_manifest(merged)
        assert (merged / "README.md").read_text() == text
    (merged / "README.md").write_text("# Third, longer still")
    with pytest.raises(HandOverError, match=r"README.md has 21 bytes"):
        verify_manifest(merged)


def test_an_adapter_of_another_base_is_refused_and_leaves_nothing(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    base = make_base()
    deeper = make_adapter(make_base("deeper", num_hidden_layers=3), "deeper-adapter")
    wider = make_adapter(make_base("wider", intermediate_size=64), "wider-adapter")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(HandOverError, match=r"module model.layers.2.\S+ matches no weight of the base"):
        merge_adapter(base, deeper, tmp_path / "merged")
    with pytest.raises(HandOverError, match=r"_proj is for a weight of shape .*64.*, the base's has .*48"):
        merge_adapter(base, wider, tmp_path / "merged")
    assert sorted(tmp_path.iterdir()) == before


def test_an_ambiguous_weight_is_refused(make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    base = make_base()
    adapter = make_adapter(base)
    tensors = load_file(base / "model.safetensors")
    tensors["layers.0.mlp.up_proj.weight"] = tensors["model.layers.0.mlp.up_proj.weight"].clone()
    save_file(tensors, base / "model.safetensors")
    with pytest.raises(HandOverError, match=r"up_proj matches 2 weights: model.layers.0.mlp.up_proj.weight, layers.0"):
        merge_adapter(base, adapter, tmp_path / "merged")


def test_a_weight_that_is_not_floating_point_is_refused(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    base = make_base()
    adapter = make_adapter(base)
    tensors = load_file(base / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(tensors | {name: tensors[name].to(torch.float8_e4m3fn)}, base / "model.safetensors")
    with pytest.raises(HandOverError, match=rf"{name} is stored as F8_E4M3, into which an adapter cannot be merged"):
        merge_adapter(base, adapter, tmp_path / "merged")


@pytest.mark.parametrize(("dtype", "value"), [(torch.float32, float("nan")), (torch.float16, 1e6)])
def test_a_merge_that_is_not_finite_is_refused_and_leaves_nothing(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path, dtype: torch.dtype, value: float
) -> None:
    base = make_base(dtype=dtype)
    adapter = make_adapter(base)
    tensors = load_file(adapter / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = value
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(HandOverError, match=r"hold values that are not finite in F"):
        merge_adapter(base, adapter, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_an_earlier_merge_is_replaced_and_anything_else_is_not(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    base = make_base()
    adapter = make_adapter(base)
    merge_adapter(base, adapter, tmp_path / "merged")
    first = weights(tmp_path / "merged")
    merge_adapter(base, make_adapter(base, r=2), tmp_path / "merged")
    assert any(not torch.equal(tensor, first[name]) for name, tensor in weights(tmp_path / "merged").items())

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(HandOverError, match=r"mine is already there and no merged model"):
        merge_adapter(base, adapter, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_the_manifest_sees_every_damage(make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    base = make_base(max_shard_size="20KB")
    merged = tmp_path / "merged"
    merge_adapter(base, make_adapter(base), merged)
    verify_manifest(merged)
    listed = json.loads((merged / "pharos_manifest.json").read_text())
    assert listed["base_digest"]
    assert listed["adapter_digest"]
    shard = sorted(merged.glob("*.safetensors"))[0]
    whole = shard.read_bytes()

    shard.write_bytes(whole[:-1])
    with pytest.raises(HandOverError, match=rf"{shard.name} has {len(whole) - 1} bytes"):
        verify_manifest(merged)
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(HandOverError, match=rf"{shard.name} is not what was written"):
        verify_manifest(merged)
    shard.unlink()
    with pytest.raises(HandOverError, match=rf"{shard.name} is missing"):
        verify_manifest(merged)
    (merged / "pharos_manifest.json").unlink()
    with pytest.raises(HandOverError, match=r"no readable pharos_manifest.json"):
        verify_manifest(merged)


def test_the_adapter_digest_follows_the_adapter_and_the_base_digest_the_base(
    make_base: MakeBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    def digests(name: str, base: Path, adapter: Path) -> tuple[str, str]:
        merge_adapter(base, adapter, tmp_path / name)
        manifest = json.loads((tmp_path / name / "pharos_manifest.json").read_text())
        return manifest["base_digest"], manifest["adapter_digest"]

    base = make_base()
    adapter = make_adapter(base)
    first = digests("first", base, adapter)
    assert digests("again", base, adapter) == first
    other_adapter = digests("other-adapter-merged", base, make_adapter(base, "other-adapter", r=2))
    assert other_adapter[0] == first[0]
    assert other_adapter[1] != first[1]
    other_base = digests("other-base-merged", make_base("other-base", vocab_size=80), adapter)
    assert other_base[0] != first[0]
    assert other_base[1] == first[1]


def test_memory_holds_some_blocks_whatever_the_size_of_a_tensor(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    modules = [f"model.layers.{layer}.mlp.up_proj" for layer in range(2)]
    tensor_bytes = 2048 * 65536 * 2
    save_file(
        {f"{module}.weight": torch.zeros(65536, 2048, dtype=torch.bfloat16) for module in modules},
        base / "model.safetensors",
    )
    program = f"""
from pathlib import Path
import torch
from pharos.model.adapter_files import write_adapter
from pharos.model.merge import merge_adapter
modules = {modules!r}

def peak_bytes():  # not getrusage: its peak is inherited from the process that started this one
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

pair = (torch.ones(2, 2048), torch.ones(65536, 2))
write_adapter(Path({str(tmp_path / "adapter")!r}), tensors={{module: pair for module in modules}}, r=2, lora_alpha=2,
              lora_dropout=0.0, use_rslora=False, target_modules=modules, base_name="base")
torch.addmm(torch.zeros(64, 64), torch.ones(64, 64), torch.ones(64, 64))  # what torch sets up once
before = peak_bytes()
merge_adapter(Path({str(base)!r}), Path({str(tmp_path / "adapter")!r}), Path({str(tmp_path / "merged")!r}))
print(peak_bytes() - before)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(pharos.__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    # Blocks of 4 MB that wait for the disk; a tensor has 268 MB, and in fp32 twice that.
    assert int(result.stdout) < 0.6 * tensor_bytes
    shutil.rmtree(tmp_path / "merged")
