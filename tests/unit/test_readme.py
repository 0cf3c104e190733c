"""What the READMEs say holds: commands plan, make's targets are there, Python runs, links and paths lead somewhere.

A command that no entry below names fails its test, so that none is written without one that runs it.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
import yaml
from peft import LoraConfig, get_peft_model
from tests.support.hub import LLAMA_8B, put_in_hub_cache
from tests.support.small_sweep import write_base
from tests.unit.track import sweeps
from transformers import AutoModelForCausalLM

from pharos.cli import app
from pharos.model.merge import merge_adapter
from pharos.plan.paths import SweepPaths
from pharos.spec.load import load_spec
from pharos.sweep.staging import outlook
from pharos.track.mlflow_runs import MlflowRuns
from pharos.track.registry import Lineage, register_version

ROOT = Path(__file__).parents[2]
READMES = [ROOT / name for name in ("README.md", "cluster/README.md", "dashboards/README.md")]
VERBS = ("plan", "sweep", "train")

# Beginning of a command -> the tests that run it, beside those here, which parse and plan every `pharos` command.
RUN_BY = {
    "make sweep": "tests/integration/test_sweep.py::test_every_trial_ends_once_under_its_number",
    "make test": "tests/unit/test_readme.py::test_make_has_the_targets",
    "make bench": "tests/unit/test_readme.py::test_make_has_the_targets",
    "pharos --help": "tests/unit/test_rooms.py::test_help_loads_no_heavy_library",
    "pharos compare": "tests/unit/cli/test_compare.py::test_the_readmes_commands_run",
    "pharos data check": "tests/unit/data/test_check_verb.py::test_the_readme_shows_what_is_printed",
    "pharos plan": "tests/unit/test_readme.py::test_every_pharos_command_parses_and_plans",
    "pharos report": (
        "tests/unit/handover/report/test_report_verb.py::"
        "test_it_writes_the_page_of_a_finished_sweep_and_says_where_it_is"
    ),
    "pharos sweep": "tests/integration/test_sweep.py::test_every_trial_ends_once_under_its_number",
    "pharos sweep search_spaces/quickstart.yaml --set search.num_trials": (
        "tests/integration/test_sweep.py::test_more_trials_extend_a_finished_sweep_and_only_they_run"
    ),
    "pharos sweep search_spaces/llama-8b-five-dimensions.yaml --address": (
        "tests/integration/test_two_sweeps.py::test_two_sweeps_on_one_cluster_do_not_notice_each_other"
    ),
    "pharos ui": (
        "tests/integration/test_compare.py::test_ui_serves_the_store_until_it_is_stopped_and_leaves_no_process"
    ),
    "pharos top": "tests/unit/console/test_top.py::test_the_verb_watches_the_only_sweep_that_runs",
    "pharos top quickstart --address": (
        "tests/integration/test_dashboards.py::test_top_asks_the_desk_of_a_sweep_on_the_cluster"
    ),
    "prometheus --config.file": (
        "tests/integration/test_dashboards.py::test_every_query_of_every_panel_has_data_but_those_that_need_a_gpu"
    ),
    "promtool test rules": (
        "tests/integration/test_dashboards.py::test_every_alert_fires_in_one_case_and_is_silent_in_another"
    ),
    "python dashboards/look.py": "tests/unit/test_dashboards.py::test_the_script_writes_a_page",
    "python dashboards/build.py": "tests/unit/test_dashboards.py::test_the_json_is_what_the_script_writes",
    "pharos train": "tests/integration/test_train.py::test_it_trains_the_files_own_values_in_one_seat_over_all_workers",
    "pharos eval": "tests/unit/cli/test_use.py::test_eval_prints_a_table_and_leaves_its_files",
    "printf": "tests/unit/cli/test_use.py::test_chat_answers_the_lines_of_a_pipe",
    "pharos promote": (
        "tests/unit/handover/test_promotion.py::test_the_verbs_say_what_came_of_it_and_what_to_type_next"
    ),
    "pharos rollback": (
        "tests/unit/handover/test_promotion.py::test_the_verbs_say_what_came_of_it_and_what_to_type_next"
    ),
    "pharos models": "tests/unit/handover/test_promotion.py::test_the_lineage_of_a_version_is_shown_and_given_as_json",
    "pharos merge": "tests/unit/handover/test_export.py::test_the_verbs_say_what_where_and_what_next",
    "pharos export": "tests/unit/handover/test_export.py::test_the_verbs_say_what_where_and_what_next",
    "pharos rerun": "tests/unit/sweep/test_rerun.py::test_the_verb_shows_both_curves_and_its_exit_code_is_the_verdict",
    "ssh -N -L": "tests/unit/test_readme.py::test_the_tunnel_is_to_the_dashboards_port",
    "export RAY_API_SERVER_ADDRESS=": "tests/unit/test_readme.py::test_the_tunnel_is_to_the_dashboards_port",
    "pharos doctor": "tests/unit/sweep/test_doctor.py::test_the_verb_looks_at_this_machine_and_starts_no_ray",
    "pharos doctor search_spaces/quickstart.yaml --address": (
        "tests/integration/test_doctor.py::test_every_node_is_looked_at_and_what_lies_between_them"
    ),
    "pharos watch-notices": (
        "tests/integration/test_notices.py::test_a_preempted_node_is_draining_in_ray_until_the_clouds_deadline"
    ),
    "pharos submit": "tests/integration/test_jobs.py::test_a_sweep_is_submitted_stopped_and_resumed_by_its_name",
    "pharos status": "tests/integration/test_jobs.py::test_a_sweep_is_submitted_stopped_and_resumed_by_its_name",
    "pharos logs": "tests/integration/test_jobs.py::test_a_sweep_is_submitted_stopped_and_resumed_by_its_name",
    "pharos stop": "tests/integration/test_jobs.py::test_a_sweep_is_submitted_stopped_and_resumed_by_its_name",
    "pharos resume": "tests/integration/test_jobs.py::test_a_sweep_is_submitted_stopped_and_resumed_by_its_name",
    "ray job submit": "tests/integration/test_jobs.py::test_rays_own_command_runs_a_sweep_from_a_checkout",
    "mlflow ui": "tests/unit/test_readme.py::test_mlflow_has_the_command",
    "ray start": "tests/integration/test_two_sweeps.py::test_two_sweeps_on_one_cluster_do_not_notice_each_other",
    "export RAY_AUTH_TOKEN=$(": "tests/unit/test_readme.py::test_a_token_is_made",
    ". .venv/bin/activate": "tests/unit/test_readme.py::test_make_has_the_targets",
    "export RAY_AUTH_MODE=token": "tests/cluster/test_cluster_page.py::test_every_ray_start_of_the_page_keeps",
    "export STORAGE=": "tests/cluster/test_cluster_page.py::test_pharos_takes_the_command",
    "export TRACKING=": "tests/cluster/test_cluster_page.py::test_pharos_takes_the_command",
    "ray get-auth-token --generate": "tests/cluster/test_cluster_page.py::test_ray_takes_the_command",
    "pharos chat": "tests/unit/cli/test_use.py::test_chat_with_two_models_names_who_speaks",
    "chmod 600 ~/.ray/auth_token": "tests/cluster/test_cluster_page.py::test_every_ray_start_of_the_page_keeps",
    "ray stop": "tests/cluster/test_cluster_page.py::test_ray_takes_the_command",
    "ray up cluster/aws.yaml": "tests/cluster/test_aws.py::test_head_and_workers_are_made_as_the_file_says",
    "ray exec cluster/aws.yaml": "tests/cluster/test_cluster_page.py::test_ray_takes_the_command",
    "ray dashboard cluster/aws.yaml": "tests/cluster/test_cluster_page.py::test_ray_takes_the_command",
    "ray down cluster/aws.yaml": "tests/cluster/test_aws.py::test_head_and_workers_are_made_as_the_file_says",
}


def blocks(language: str, file: Path) -> list[str]:
    """The fenced blocks of a language, without the indentation of the list that they stand in."""
    fence = re.compile(rf"^( *)```{language}\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in fence.findall(file.read_text())]


def commands() -> list[str]:
    return [
        line.strip()
        for file in READMES
        for language in ("bash", "console")
        for block in blocks(language, file)
        for line in re.sub(r"\\\n\s*", "", block).splitlines()
        if line.strip() and not line.startswith("#")
    ]


def planned_commands() -> list[str]:
    return [command for command in commands() if command.startswith(tuple(f"pharos {verb} " for verb in VERBS))]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_run_by_a_test(command: str) -> None:
    entries = [entry for entry in RUN_BY if command == entry or command.startswith(entry)]
    assert entries, f"no test runs: {command}"
    file, _, name = RUN_BY[max(entries, key=len)].partition("::")
    assert f"def {name}" in (ROOT / file).read_text(), f"{command}: there is no test {file}::{name}"


def test_no_entry_is_left_over() -> None:
    assert [entry for entry in RUN_BY if not any(command.startswith(entry) for command in commands())] == []


@pytest.mark.parametrize("command", planned_commands())
def test_every_pharos_command_parses_and_plans(
    command: str, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHAROS_CACHE", str(cache_dir))
    verb, *arguments = shlex.split(command)[1:]
    with typer.main.get_command(app).commands[verb].make_context(verb, arguments) as context:
        given = context.params
    rows = "".join(json.dumps({"question": f"{i} + {i}?", "answer": str(2 * i)}) + "\n" for i in range(400))
    (tmp_path / "train.jsonl").write_text(rows)
    overrides = [text.replace("/shared", str(tmp_path)) for text in given["overrides"] or ()]
    spec = load_spec(ROOT / given["spec"], overrides)
    if not spec.base.startswith("builtin:"):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        put_in_hub_cache(tmp_path / "hub", spec.base, str(spec.revision), LLAMA_8B)
    plan = outlook(spec, root=ROOT / "search_spaces")
    assert plan.num_trials > 1
    assert plan.memory.fits


def test_make_has_the_targets() -> None:
    targets = [command.split()[1] for command in commands() if command.startswith("make ")]
    assert targets
    run = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for expected in (
        "pharos sweep search_spaces/quickstart.yaml",
        'pytest -q -m "not slow"',
        "python tests/benchmarks",
    ):
        assert expected in run.stdout


def test_mlflow_has_the_command() -> None:
    [command] = {command for command in commands() if command.startswith("mlflow ")}
    arguments = shlex.split(command)[1:]
    run = subprocess.run(
        [sys.executable, "-m", "mlflow", *arguments, "--help"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert command.endswith("sqlite:///pharos-results/mlflow.db")  # where test_the_python runs against one


def test_the_tunnel_is_to_the_dashboards_port() -> None:
    from pharos.sweep.jobs_api import DASHBOARD_PORT

    [tunnel] = {command for command in commands() if command.startswith("ssh ")}
    [address] = {command for command in commands() if command.startswith("export RAY_API_SERVER_ADDRESS=")}
    assert f" {DASHBOARD_PORT}:localhost:{DASHBOARD_PORT} " in tunnel
    assert address.endswith(f"=http://127.0.0.1:{DASHBOARD_PORT}")


def test_a_token_is_made() -> None:
    [command] = {command for command in commands() if command.startswith("export RAY_AUTH_TOKEN=")}
    program = command.partition("$(python ")[2].removesuffix(")")
    run = subprocess.run([sys.executable, *shlex.split(program)], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"[0-9a-f]{64}\n", run.stdout)


def test_the_sweep_file_loads(tmp_path: Path) -> None:
    [text] = blocks("yaml", ROOT / "README.md")
    (tmp_path / "sweep.yaml").write_text(text)
    spec = load_spec(tmp_path / "sweep.yaml")
    assert spec.search is not None
    assert set(spec.search.space) == set(yaml.safe_load(text)["search"]["space"])


@pytest.fixture
def finished_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a finished quickstart leaves below pharos-results: merged model, result, adapters, registered version."""
    base = write_base(tmp_path / "base")
    paths = SweepPaths(tmp_path / "pharos-results", "quickstart")
    adapter = paths.trials / "0001" / "step-000200"
    torch.manual_seed(0)
    settings = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings).save_pretrained(adapter)
    merge_adapter(base, adapter, paths.merged)
    trials = [{"number": number, "checkpoint": str(paths.trials / f"{number:04d}/step-000200")} for number in (0, 1)]
    paths.result.write_text(json.dumps({"best": 1, "trials": trials}))
    runs = MlflowRuns(paths.tracking_uri, "pharos", artifact_root=paths.artifacts)
    runs.attach(sweeps.SWEEP, sweeps.START_S)
    runs.write([sweeps.started(), sweeps.created(0), sweeps.created(1)])
    lineage = Lineage(sweep=sweeps.SWEEP, trial=1, digests={"spec": "5bec"})
    register_version(runs, model="docker-assistant", merged=paths.merged, adapter=adapter, lineage=lineage)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_runs(finished_quickstart: Path, capsys: pytest.CaptureFixture[str]) -> None:
    merged, adapter, registered = ({} for _ in range(3))
    texts = blocks("python", ROOT / "README.md")
    assert len(texts) == 3
    for text, names in zip(texts, (merged, adapter, registered), strict=True):
        exec(compile(text, "README.md", "exec"), names)
    assert capsys.readouterr().out.strip()
    tokens = merged["prompt"]["input_ids"]
    logits = [names["model"].double()(tokens).logits for names in (merged, adapter)]  # no rounding but the merge's own
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=0)
    assert (Path(registered["folder"]) / "model.safetensors").is_file()


@pytest.mark.parametrize("file", READMES, ids=lambda file: file.parent.name)
def test_every_link_and_path_leads_somewhere(file: Path) -> None:
    text = file.read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith(("http:", "https:"))]
    paths = re.findall(r"(?<![\w/.<`])((?:search_spaces|tests|platform|cluster|dashboards)/[\w./-]*)", text)
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)
    }
    for link in links:
        assert link[1:] in anchors if link.startswith("#") else (file.parent / link).exists(), link
    for path in paths:
        assert any((folder / path).exists() for folder in (ROOT, file.parent)), path


def test_every_sweep_is_listed() -> None:
    text = (ROOT / "README.md").read_text()
    for file in (ROOT / "search_spaces").iterdir():
        assert f"(search_spaces/{file.name})" in text


def test_the_exit_codes_are_those_of_the_code() -> None:
    from pharos.cli.sweeps import INTERRUPTED
    from pharos.errors import PharosError, UserError

    codes = re.findall(r"^\| (\d+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert codes == ["0", str(PharosError.exit_code), str(UserError.exit_code), str(INTERRUPTED)]


def test_what_may_change_in_a_resume_is_what_the_code_allows() -> None:
    from pharos.sweep.driver import RESUMABLE

    text = " ".join((ROOT / "README.md").read_text().split())
    sentence = re.search(r"Only (`search.num_trials`.*?) may change, and the storage may move\.", text)
    assert sentence
    named = set(re.findall(r"`([\w.]+)`", sentence[1])) - {"placement"}
    assert named | {"limits", "storage"} == set(RESUMABLE)
