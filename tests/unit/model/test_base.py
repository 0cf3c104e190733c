"""Where a base is found, and what is said when it cannot be used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.model.conftest import MakeBase

import pharos
from pharos.errors import BaseModelError
from pharos.model.base import resolve_base
from pharos.model.tiny import ensure_tiny_base, tiny_base_folder
from pharos.spec.model import SweepSpec

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def spec_of(base: str, **fields: object) -> SweepSpec:
    return SweepSpec.model_validate({"name": "s", "base": base, "data": {"train": "t.jsonl"}} | fields)


def resolve(base: str, root: Path, *, build: bool = True, **fields: object) -> Path | None:
    return resolve_base(
        spec_of(base, **fields), root=root, cache_dir=root / "cache", build=build, hub_cache=root / "hub"
    )


def change_config(directory: Path, **values: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def put_in_hub_cache(source: Path, root: Path, *, hub_id: str = "org/model", revision: str = "main") -> Path:
    """Lay out `source` as the hub's cache does after a download."""
    folder = root / "hub" / f"models--{hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / revision).write_text(COMMIT)
    return shutil.copytree(source, folder / "snapshots" / COMMIT)


def test_a_local_directory_is_found_by_relative_and_absolute_path(make_base: MakeBase, tmp_path: Path) -> None:
    base = make_base()
    assert resolve("base", tmp_path) == base
    assert resolve("./base", tmp_path) == base
    assert resolve(str(base), tmp_path / "elsewhere") == base


def test_a_sharded_directory_is_found(make_base: MakeBase, tmp_path: Path) -> None:
    base = make_base(max_shard_size="20KB")
    assert len(list(base.glob("*.safetensors"))) > 2
    assert resolve("base", tmp_path) == base


def test_a_hub_model_is_found_in_the_cache_without_the_hub(make_base: MakeBase, tmp_path: Path) -> None:
    snapshot = put_in_hub_cache(make_base(max_shard_size="20KB"), tmp_path)
    assert resolve("org/model", tmp_path) == snapshot
    assert resolve("org/model", tmp_path, revision=COMMIT) == snapshot


def test_a_plan_needs_no_more_of_a_hub_model_than_its_config(make_base: MakeBase, tmp_path: Path) -> None:
    snapshot = put_in_hub_cache(make_base(), tmp_path)
    (snapshot / "model.safetensors").unlink()
    assert resolve("org/model", tmp_path, build=False) == snapshot
    with pytest.raises(BaseModelError, match=r"has no weights: .* If a download stopped halfway"):
        resolve("org/model", tmp_path)


def test_half_a_download_is_not_taken_for_the_model(make_base: MakeBase, tmp_path: Path) -> None:
    snapshot = put_in_hub_cache(make_base(max_shard_size="20KB"), tmp_path)
    sorted(snapshot.glob("*.safetensors"))[0].unlink()
    with pytest.raises(BaseModelError, match=r"names 1 of \d+ weight files that are not there"):
        resolve("org/model", tmp_path)


def test_what_is_neither_a_directory_nor_cached_is_said_with_the_nearest_directory(tmp_path: Path) -> None:
    (tmp_path / "models" / "llama-8b").mkdir(parents=True)
    with pytest.raises(BaseModelError) as caught:
        resolve("models/lama-8b", tmp_path)
    message = caught.value.message
    assert f"base=models/lama-8b is neither a directory ({tmp_path}/models/lama-8b) nor whole in the hub's" in message
    assert f"Did you mean the directory {tmp_path}/models/llama-8b?" in message
    assert "cannot be reached" in message


def test_a_path_that_can_be_no_hub_id_does_not_ask_the_hub(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"base=./models/8b: there is no directory") as caught:
        resolve("./models/8b", tmp_path)
    assert "reached" not in caught.value.message


def test_a_revision_of_a_local_directory_is_refused(make_base: MakeBase, tmp_path: Path) -> None:
    make_base()
    with pytest.raises(BaseModelError, match=r"revision=v1: base=base is a local directory"):
        resolve("base", tmp_path, revision="v1")


def test_code_from_the_hub_needs_a_pinned_commit(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"trust_remote_code=true, revision=main: .* Pin it"):
        resolve("org/model", tmp_path, trust_remote_code=True, revision="main")


def test_a_builtin_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"base=builtin:small: .* builtin:tiny"):
        resolve("builtin:small", tmp_path)


def test_the_tiny_base_is_not_built_for_a_plan(tmp_path: Path) -> None:
    assert resolve("builtin:tiny", tmp_path, build=False) is None
    assert not (tmp_path / "cache").exists()


def test_the_tiny_base_is_looked_for_where_it_is_built(tmp_path: Path) -> None:
    tiny_base_folder(tmp_path / "cache").mkdir(parents=True)
    assert ensure_tiny_base(tmp_path / "cache") == tiny_base_folder(tmp_path / "cache")
    assert resolve("builtin:tiny", tmp_path, build=False) == tiny_base_folder(tmp_path / "cache")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["LlamaModel"]}, r"not a causal language model: .*\['LlamaModel'\].*ForCausalLM"),
        ({"architectures": None}, r"not a causal language model"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, r"an encoder-decoder \(T5For"),
        (
            {"model_type": "homemade", "auto_map": {"AutoConfig": "c.C"}},
            r"brings its own code.*trust_remote_code: true",
        ),
        ({"model_type": "homemade"}, r"model_type=homemade is not known to the installed transformers"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"is quantised \(gptq\)"),
    ],
)
def test_a_config_that_cannot_be_trained_is_refused(
    make_base: MakeBase, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    change_config(make_base(), **change)
    with pytest.raises(BaseModelError, match=message):
        resolve("base", tmp_path)


def test_a_model_type_whose_folder_in_transformers_has_another_name_is_known(
    make_base: MakeBase, tmp_path: Path
) -> None:
    change_config(make_base(), model_type="gpt-sw3")
    assert resolve("base", tmp_path) == tmp_path / "base"


def test_trusted_code_is_accepted(make_base: MakeBase, tmp_path: Path) -> None:
    change_config(make_base(), model_type="homemade", auto_map={"AutoConfig": "c.C"})
    assert resolve("base", tmp_path, trust_remote_code=True) == tmp_path / "base"


def test_pickled_weights_are_refused_unopened(make_base: MakeBase, tmp_path: Path) -> None:
    (make_base() / "model.safetensors").rename(tmp_path / "base" / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match=r"pickled weights only \(pytorch_model.bin\).*only safetensors.*Convert:"):
        resolve("base", tmp_path)


def test_a_directory_without_weights_is_refused(make_base: MakeBase, tmp_path: Path) -> None:
    (make_base() / "model.safetensors").unlink()
    with pytest.raises(BaseModelError, match=r"has no weights"):
        resolve("base", tmp_path)


def test_an_adapter_is_refused_with_the_name_of_its_base(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "adapter_config.json").write_text('{"base_model_name_or_path": "org/llama"}')
    with pytest.raises(BaseModelError, match=r"is an adapter .* Name the base under it: org/llama"):
        resolve("base", tmp_path)


def test_a_directory_without_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(BaseModelError, match=r"no model directory: it has no config.json"):
        resolve("base", tmp_path)


def test_a_file_is_refused_with_its_directory(make_base: MakeBase, tmp_path: Path) -> None:
    make_base()
    with pytest.raises(BaseModelError, match=r"is a file. Name the directory"):
        resolve("base/config.json", tmp_path)


def test_a_config_that_is_not_json_is_refused(make_base: MakeBase, tmp_path: Path) -> None:
    (make_base() / "config.json").write_text("{")
    with pytest.raises(BaseModelError, match=r"config.json is not JSON"):
        resolve("base", tmp_path)


@pytest.mark.parametrize("kept_bytes", [0, 4, 100, -1])
def test_a_truncated_shard_is_refused(make_base: MakeBase, tmp_path: Path, kept_bytes: int) -> None:
    shard = make_base() / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:kept_bytes])
    with pytest.raises(BaseModelError, match=r"model.safetensors is truncated"):
        resolve("base", tmp_path)


def test_a_shard_whose_header_is_noise_is_refused(make_base: MakeBase, tmp_path: Path) -> None:
    shard = make_base() / "model.safetensors"
    shard.write_bytes((16).to_bytes(8, "little") + b"\xff" * 64)
    with pytest.raises(BaseModelError, match=r"is no safetensors file: its header cannot be read"):
        resolve("base", tmp_path)


def test_an_index_that_names_a_missing_shard_is_refused(make_base: MakeBase, tmp_path: Path) -> None:
    shard = sorted(make_base(max_shard_size="20KB").glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(BaseModelError, match=rf"names 1 of \d+ weight files that are not there: {shard.name}"):
        resolve("base", tmp_path)


def test_an_index_that_disagrees_with_the_shards_is_refused(make_base: MakeBase, tmp_path: Path) -> None:
    file = make_base(max_shard_size="20KB") / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["model.layers.7.mlp.up_proj.weight"] = index["weight_map"]["model.norm.weight"]
    file.write_text(json.dumps(index))
    with pytest.raises(BaseModelError, match=r"holds model.layers.7.mlp.up_proj.weight, which it does not"):
        resolve("base", tmp_path)


def test_an_index_may_not_name_files_elsewhere(make_base: MakeBase, tmp_path: Path) -> None:
    file = make_base(max_shard_size="20KB") / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["model.norm.weight"] = "../secret.safetensors"
    file.write_text(json.dumps(index))
    with pytest.raises(BaseModelError, match=r"'../secret.safetensors', which is no safetensors file beside it"):
        resolve("base", tmp_path)


def test_finding_a_base_and_its_facts_loads_neither_torch_nor_transformers(make_base: MakeBase, tmp_path: Path) -> None:
    base = make_base()
    program = f"""
import sys
from pathlib import Path
from pharos.model.base import resolve_base
from pharos.model.facts import base_facts
from pharos.spec.model import SweepSpec
spec = SweepSpec.model_validate({{"name": "s", "base": {str(base)!r}, "data": {{"train": "t.jsonl"}}}})
base_facts(spec.base, resolve_base(spec, root=Path("."), cache_dir=Path("."), build=False))
sys.exit(", ".join(sorted(set(sys.modules) & {{"torch", "transformers", "peft", "safetensors.torch"}})) or 0)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(pharos.__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
