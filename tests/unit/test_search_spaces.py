"""Every sweep in search_spaces/ loads and plans, and the commands in its header are ones that work."""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub.constants
import pytest
import typer
from tests.support.hub import BAICHUAN2_7B, LLAMA_8B, QWEN_1_5B, baichuan2_shapes, put_in_hub_cache

from pharos.cli import app
from pharos.errors import PlanError
from pharos.plan.memory import adapter_parameters, gigabytes
from pharos.plan.sweep_plan import SweepPlan
from pharos.spec.load import load_spec
from pharos.spec.model import BASE_KEY_FIELDS, SweepSpec
from pharos.sweep.staging import outlook

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "search_spaces").glob("*.yaml"))
HEADER_PARTS = ("What for:", "Hardware:", "Run:")
CONFIGS = {
    "meta-llama/Llama-3.1-8B-Instruct": LLAMA_8B,
    "Qwen/Qwen2.5-1.5B-Instruct": QWEN_1_5B,
    "YOUR/MIRROR": BAICHUAN2_7B,
}
SENTENCE = "So it goes on, one small step after another. "


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderCommand:
    """A `pharos` command as a header gives it: the file, and what it sets."""

    path: Path
    overrides: tuple[str, ...]
    address: str | None


@pytest.fixture(scope="module")
def rows_and_bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with rows of one's own, and below it a hub cache with every base that a file or its header names."""
    folder = tmp_path_factory.mktemp("workplace")
    rows = [
        {"question": f"What is {i} plus {i}?", "answer": f"{i} + {i} = {2 * i}. {SENTENCE * (i % 18)}"}
        for i in range(1000)
    ]
    for name, part in (("train", rows[:920]), ("test", rows[920:]), ("few", rows[:320])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    talks = [[{"from": "human", "value": row["question"]}, {"from": "gpt", "value": row["answer"]}] for row in rows]
    conversations = [{"id": str(i), "conversations": talk} for i, talk in enumerate(talks)]
    (folder / "conversations.json").write_text(json.dumps(conversations))
    specs = [load_spec(command.path, command.overrides) for file in FILES for command in header_commands(file)]
    for base, revision in sorted({(spec.base, spec.revision) for spec in specs if spec.revision}):
        shapes = baichuan2_shapes() if CONFIGS[base] is BAICHUAN2_7B else None
        put_in_hub_cache(folder / "hub", base, revision, CONFIGS[base], shapes=shapes)
    return folder


@pytest.fixture
def workplace(rows_and_bases: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a person who follows a header."""
    # The hub's library reads its cache's place from the environment when it is imported, which others have done.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(rows_and_bases / "hub"))
    monkeypatch.setenv("PHAROS_CACHE", str(cache_dir))
    monkeypatch.setenv("PWD", str(rows_and_bases))
    monkeypatch.chdir(rows_and_bases)
    return rows_and_bases


def planned(spec: SweepSpec) -> SweepPlan:
    return outlook(spec, root=ROOT / "search_spaces")


def first_command(name: str, *overrides: str) -> SweepSpec:
    """The spec as the first command in a file's header makes it, under more overrides."""
    command = header_commands(ROOT / "search_spaces" / name)[0]
    return load_spec(command.path, (*command.overrides, *overrides))


def header(file: Path) -> str:
    """The comment above the first field, without its marks."""
    lines = file.read_text().splitlines()
    count = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:count])


def header_commands(file: Path) -> list[HeaderCommand]:
    """The commands in a header, read by the command line's own parser."""
    group = typer.main.get_command(app)
    text = re.sub(r"\s*\\\n\s*", " ", header(file))
    commands = []
    for line in re.findall(r"pharos ((?:sweep|train|plan) .*?)(?:\s{2,}|\n|$)", text):
        verb, *arguments = shlex.split(os.path.expandvars(line))
        with group.commands[verb].make_context(verb, arguments) as context:
            values = context.params
        commands.append(
            HeaderCommand(path=ROOT / values["spec"], overrides=tuple(values["overrides"]), address=values["address"])
        )
    return commands


def test_there_are_sweeps_for_each_kind_of_work() -> None:
    names = {file.stem for file in FILES}
    assert names >= {
        *("quickstart", "llama-8b-five-dimensions", "small-data", "refine", "baichuan2", "question-answer")
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_header_says_what_for_on_what_and_how_to_run(file: Path) -> None:
    lines = header(file).splitlines()
    for part in HEADER_PARTS:
        assert any(line.startswith(part) for line in lines), f"{file.name} has no line that begins with '# {part}'"
    assert load_spec(file).name == file.stem
    assert any(command.path == file for command in header_commands(file))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_command_of_a_header_plans_and_fits(file: Path, workplace: Path) -> None:
    for command in header_commands(file):
        spec = load_spec(command.path, command.overrides)
        plan = planned(spec)
        assert plan.memory.fits
        assert plan.rungs, "a search that stops nobody early wastes most of its time"
        assert plan.warnings == ()
        assert plan.num_trials >= 2 * plan.num_seats, "with fewer the sampler has nothing to learn from"
        assert spec.search is not None
        assert not set(spec.search.space) & set(BASE_KEY_FIELDS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_base_from_the_hub_is_pinned_to_a_commit(file: Path) -> None:
    spec = load_spec(file)
    assert spec.base.startswith("builtin:") or re.fullmatch(r"[0-9a-f]{40}", spec.revision or "")


def test_five_dimensions_search_the_five_and_fit_80_gb(workplace: Path) -> None:
    spec = first_command("llama-8b-five-dimensions.yaml")
    plan = planned(spec)
    assert spec.search is not None
    assert set(spec.search.space) == {
        *("lora.r", "lora.alpha_over_r", "optim.learning_rate", "optim.adam_beta2", "optim.warmup_ratio")
    }
    assert plan.base.num_parameters == 8_030_261_248
    assert adapter_parameters(plan.base, r=16) == 41_943_040
    assert (plan.num_workers, plan.num_seats, plan.dtype, plan.sharding) == (16, 64, "bfloat16", "replicate")
    assert plan.memory.base_bytes == 2 * plan.base.num_parameters
    assert plan.memory.total_bytes < 40e9
    assert gigabytes(plan.memory.head_bytes) == "12.5 GB"


def test_five_dimensions_are_sharded_where_a_card_holds_no_whole_base(workplace: Path) -> None:
    plan = planned(
        first_command("llama-8b-five-dimensions.yaml", "pool.worker_memory_gb=24", "pool.seats_per_worker=2")
    )
    assert (plan.sharding, plan.num_seats) == ("zero3", 32)
    assert plan.memory.base_bytes < 2 * plan.base.num_parameters / 4
    with pytest.raises(PlanError, match=r"a worker needs .* and may use 10\.0 GB\. It would fit with"):
        planned(first_command("llama-8b-five-dimensions.yaml", "pool.worker_memory_gb=10"))


def test_baichuan2_begins_with_the_published_values(workplace: Path) -> None:
    plan = planned(first_command("baichuan2.yaml"))
    own = plan.baseline.hyperparameters
    assert plan.baseline.number == 0
    assert (own.learning_rate, own.adam_beta1, own.adam_beta2, own.adam_epsilon) == (2e-5, 0.9, 0.98, 1e-8)
    assert (own.r, own.lora_alpha, own.lora_dropout, own.scaling) == (1, 32, 0.1, 32)
    assert (own.weight_decay, own.max_grad_norm, own.lr_scheduler_type) == (1e-4, 1.0, "constant")
    assert (own.warmup_ratio, own.num_train_epochs, own.batch_size) == (0.0, 4, 16)
    assert {target.name.rsplit(".", 1)[-1] for target in plan.base.targets} == {"W_pack"}
    assert adapter_parameters(plan.base, r=1) == 32 * (4096 + 3 * 4096)
    assert (plan.data.format, plan.data.template) == ("sharegpt", "baichuan2")


def test_small_data_leave_enough_rows_to_score_on(workplace: Path) -> None:
    plan = planned(first_command("small-data.yaml", f"data.train={workplace}/few.jsonl"))
    assert plan.data.num_train_rows + plan.data.num_eval_rows + plan.data.num_test_rows == 320
    assert plan.data.num_eval_rows >= 32
    assert plan.r_max == 8


def test_a_refinement_lies_around_its_known_point(workplace: Path) -> None:
    spec = first_command("refine.yaml")
    assert spec.search is not None
    low, high = spec.search.space["optim.learning_rate"].log_uniform
    assert low < spec.optim.learning_rate < high <= 4 * low
    plan = planned(spec)
    assert plan.rungs[0] >= plan.baseline.num_clocks / 2


def test_questions_and_answers_run_on_a_laptop_and_with_a_real_base(workplace: Path) -> None:
    tiny, real = (
        planned(load_spec(command.path, command.overrides))
        for command in header_commands(ROOT / "search_spaces" / "question-answer.yaml")
    )
    assert (tiny.data.format, tiny.data.num_test_rows) == ("question/answer", 80)
    assert tiny.memory.total_bytes < 4e9
    assert (real.base.architecture, real.dtype) == ("Qwen2ForCausalLM", "bfloat16")
    assert real.sweep != tiny.sweep
