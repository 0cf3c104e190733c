"""The verbs: what a mistake says, that it leaves nothing behind, and what stays unloaded. No test here starts Ray."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.command_line import Pharos
from tests.support.small_sweep import rows, spec_fields, workplace, write_base

from pharos import __version__
from pharos.plan.events import SweepStarted
from pharos.spec.identity import spec_to_json
from pharos.spec.load import load_spec
from pharos.track.event_log import EventLog

HEAVY = ("torch", "ray", "mlflow", "optuna", "transformers", "deepspeed", "peft", "accelerate")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def root(tmp_path: Path, base: Path) -> Path:
    """A directory with `base`, `rows.jsonl` and the sweep file `sweep.yaml`."""
    workplace(tmp_path, base)
    return tmp_path


@pytest.fixture(autouse=True)
def process_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A sweep sets environment variables and a signal handler; a test's own process must keep neither."""
    environment, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("PHAROS_CACHE", str(tmp_path / "user-cache"))
    yield
    signal.signal(signal.SIGTERM, handler)
    os.environ.clear()
    os.environ.update(environment)


def write_spec(root: Path, **sections: Any) -> Path:
    """The sweep file in JSON, which is YAML too, each section on a line of its own."""
    fields = spec_fields(**sections)
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()]
    (root / "sweep.yaml").write_text("{" + ",\n ".join(lines) + "}\n", encoding="utf-8")
    return root / "sweep.yaml"


def line_of(root: Path, section: str) -> str:
    """`sweep.yaml:3` of a section, as messages give it."""
    lines = (root / "sweep.yaml").read_text(encoding="utf-8").splitlines()
    [number] = [number for number, line in enumerate(lines, start=1) if f'"{section}": ' in line[: len(section) + 5]]
    return f"{root / 'sweep.yaml'}:{number}"


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


SPACE = spec_fields()["search"]["space"]
REFUSED = {
    "an unknown key": (
        {"optim": {"lerning_rate": 1e-4}},
        "{optim}: optim.lerning_rate=0.0001 is not a field of optim. Did you mean learning_rate?",
    ),
    "a wrong type": (
        {"optim": {"learning_rate": "fast"}},
        '{optim}: optim.learning_rate="fast" must be a number above 0.',
    ),
    "an impossible range": (
        {"lora": {"lora_dropout": 1.5}},
        "{lora}: lora.lora_dropout=1.5 must be a number of at least 0 and below 1.",
    ),
    "a batch that is no multiple of its micro-batch": (
        {
            "train": {"batch_size": 60, "micro_batch_size": 8},
            "search": {"space": {"lora.r": SPACE["lora.r"]}, "num_trials": 3},
        },
        "{train}: train.batch_size=60 cannot be made of micro-batches of 8: it must be a multiple of 8. "
        "Nearest: 56 or 64.",
    ),
    "a search over a base-key field": (
        {"search": {"space": {"data.max_length": {"choice": [8, 16]}}}},
        "{search}: search.space.data.max_length={{choice: [8, 16]}} cannot be searched: it changes the frozen "
        "computation that all trials of a pool share (the base key). Make one sweep per value of data.max_length.",
    ),
    "a data file that is not there": (
        {"data": {"train": "row.jsonl"}},
        "{data}: data.train='row.jsonl': no such file in {root}. Did you mean rows.jsonl?",
    ),
    "a base that is not there": (
        {"base": "./bse"},
        "{base}: base=./bse is neither a directory ({root}/bse) nor a hub id. Did you mean the directory {root}/base?",
    ),
}


@pytest.mark.parametrize(("sections", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("verb", ["plan", "sweep"])
def test_a_mistake_gives_one_message_and_leaves_nothing(
    root: Path, pharos: Pharos, verb: str, sections: dict[str, Any], message: str
) -> None:
    spec = write_spec(root, **sections)
    before = files(root)
    places = {section: line_of(root, section) for section in spec_fields()}
    told = pharos(verb, spec, "--storage", root / "results")
    assert told == (2, "", "error: " + message.format(root=root, **places) + "\n")
    assert files(root) == before


def test_all_mistakes_of_a_file_come_together(root: Path, pharos: Pharos) -> None:
    spec = write_spec(root, lora={"r": 0, "lora_dropout": 1.5}, optim={"lerning_rate": 1e-4})
    code, out, err = pharos("sweep", spec)
    assert (code, out) == (2, "")
    assert [line.split("=")[0].split(" ")[-1] for line in err.splitlines()] == [
        "lora.lora_dropout",
        "lora.r",
        "optim.lerning_rate",
    ]


def test_a_mistake_in_an_override_is_located_there(root: Path, pharos: Pharos) -> None:
    code, _, err = pharos("sweep", root / "sweep.yaml", "--set", "optim.lerning_rate=1")
    assert code == 2
    assert err == (
        "error: --set optim.lerning_rate=1: optim.lerning_rate=1 is not a field of optim. Did you mean learning_rate?\n"
    )
    code, _, err = pharos("sweep", root / "sweep.yaml", "--set", "data.train=row.jsonl")
    assert code == 2
    assert err.startswith("error: --set data.train=row.jsonl: data.train='row.jsonl': no such file in ")


def test_a_sweep_file_that_is_not_there_is_named(root: Path, pharos: Pharos) -> None:
    told = pharos("sweep", root / "swep.yaml")
    assert told == (2, "", f"error: {root}/swep.yaml is not there. Did you mean {root}/sweep.yaml?\n")


BAD_ROWS = {
    "no row": ("", ["bad.jsonl: the file holds no row. Give it rows, or leave it out."]),
    "malformed rows": (
        '{"prompt": "a", "completion": "b"}\n{"prompt": "a"\n{"prompt": 3, "completion": "b"}\n',
        [
            "bad.jsonl:2:15: not JSON: Expecting ',' delimiter. Write one object a line.",
            "bad.jsonl:3: prompt must be text, not a number.",
        ],
    ),
    "empty turns": (
        '{"prompt": "", "completion": ""}\n',
        ["bad.jsonl:1: prompt is empty.", "bad.jsonl:1: completion is empty."],
    ),
    "unknown keys": (
        '{"questoin": "a", "answr": "b"}\n',
        ["bad.jsonl:1: the keys 'questoin', 'answr' are no known form."],
    ),
}


@pytest.mark.parametrize(("text", "mistakes"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_rows_are_named_by_file_and_row(root: Path, pharos: Pharos, text: str, mistakes: list[str]) -> None:
    (root / "bad.jsonl").write_text(text, encoding="utf-8")
    spec = write_spec(root, data={"train": "bad.jsonl"})
    before = files(root)
    code, out, err = pharos("sweep", spec, "--storage", root / "results")
    assert (code, out) == (2, "")
    lines = err.removeprefix("error: ").splitlines()
    assert len(lines) == len(mistakes)
    for line, mistake in zip(lines, mistakes, strict=True):
        assert line.startswith(mistake)
    assert files(root) == before


def test_rows_longer_than_max_length_are_named_with_a_length_that_holds_them(root: Path, pharos: Pharos) -> None:
    long = rows()[0] | {"completion": "on and " * 8 + "on"}
    (root / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows(), long]), encoding="utf-8")
    spec = write_spec(root, data={"train": "long.jsonl", "max_length": 30})
    code, _, err = pharos("sweep", spec, "--storage", root / "results")
    assert code == 2
    first, second = err.splitlines()
    assert first.startswith(f"error: {line_of(root, 'data')}: data.max_length=30, but 1 rows are longer. Set ")
    assert "data.long_rows=truncate to cut them or skip to leave them out" in first
    place, length = second.split(": ")
    assert place == "long.jsonl:85"
    needed = length.removesuffix(" tokens")
    assert f"data.max_length={needed}, or" in first
    assert pharos("plan", spec, "--storage", root / "results", "--set", f"data.max_length={needed}")[0] == 0


def encoder_decoder(base: Path) -> None:
    change_config(base, architectures=["T5ForConditionalGeneration"], is_encoder_decoder=True)


def masked_model(base: Path) -> None:
    change_config(base, architectures=["BertForMaskedLM"])


def pickled(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


def without_config(base: Path) -> None:
    (base / "config.json").unlink()


def change_config(base: Path, **changes: Any) -> None:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "reason", "remedy"),
    [
        (encoder_decoder, "is an encoder-decoder (T5ForConditionalGeneration)", "architecture ends in ForCausalLM"),
        (masked_model, "is not a causal language model", "architecture ends in ForCausalLM"),
        (pickled, "has pickled weights only (pytorch_model.bin)", "call model.save_pretrained(directory)"),
        (without_config, "is no model directory: it has no config.json", ""),
    ],
)
def test_a_base_that_cannot_be_used_says_why(
    root: Path, base: Path, pharos: Pharos, spoil: Callable[[Path], None], reason: str, remedy: str
) -> None:
    shutil.copytree(base, root / "spoilt")
    spoil(root / "spoilt")
    spec = write_spec(root, base="spoilt")
    before = files(root)
    code, out, err = pharos("sweep", spec, "--storage", root / "results")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {line_of(root, 'base')}: base=spoilt")
    assert reason in err
    assert remedy in err
    assert len(err.splitlines()) == 1
    assert files(root) == before


def test_a_storage_that_cannot_be_written_is_named(root: Path, pharos: Pharos) -> None:
    (root / "taken").write_text("a file, where a directory should be")
    before = files(root)
    told = f"storage={root}/taken cannot be written: File exists. Name a directory of yours with --storage.\n"
    code, _, err = pharos("sweep", root / "sweep.yaml", "--storage", root / "taken")
    assert (code, err) == (2, f"error: {told}")
    spec = write_spec(root, storage=str(root / "taken"))
    code, _, err = pharos("sweep", spec)
    assert (code, err) == (2, f"error: {line_of(root, 'storage')}: {told}")
    assert files(root) - {"sweep.yaml"} == before - {"sweep.yaml"}


def left_by_a_refused_start(root: Path) -> set[str]:
    """What is there after a start that was refused late, beside rows that were prepared whole for the next one."""
    prepared = {name for name in files(root) if name.startswith("results/cache/")}
    assert len({Path(name).parts[2] for name in prepared}) == 1
    assert any(name.endswith("manifest.json") for name in prepared)
    return files(root) - prepared - {"results/small/lock"}


def test_a_tracking_server_that_is_not_there_is_named_before_anything_starts(root: Path, pharos: Pharos) -> None:
    before = files(root)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        uri = f"http://127.0.0.1:{probe.getsockname()[1]}"
    code, out, err = pharos("sweep", root / "sweep.yaml", "--storage", root / "results", "--tracking-uri", uri)
    assert code == 2
    assert err == (
        f"error: tracking: {uri} cannot be used: Connection refused. Start it (mlflow server), correct tracking.uri, "
        "or leave it out to track in SQLite beside the storage.\n"
    )
    assert "starting Ray" not in out
    assert left_by_a_refused_start(root) == before


def test_a_dashboard_port_in_use_is_named(root: Path, pharos: Pharos) -> None:
    before = files(root)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = pharos(
            "sweep", root / "sweep.yaml", "--storage", root / "results", "--dashboard-port", str(port)
        )
    assert code == 2
    assert err == (
        f"error: --dashboard-port={port} is in use (Address already in use). "
        "Leave the option out to have a free one chosen.\n"
    )
    assert left_by_a_refused_start(root) == before


def test_a_cluster_that_does_not_answer_is_named_at_once(root: Path, pharos: Pharos) -> None:
    before = files(root)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    code, _, err = pharos("sweep", root / "sweep.yaml", "--storage", root / "results", "--address", address)
    assert code == 2
    assert err.startswith(f"error: --address={address} does not answer (")
    assert "leave it out to start Ray on this machine" in err
    assert left_by_a_refused_start(root) == before


def test_a_sweep_of_the_same_name_with_another_spec_is_refused_with_the_difference(root: Path, pharos: Pharos) -> None:
    spec = load_spec(root / "sweep.yaml")
    log = EventLog(root / "results" / "small" / "events")
    log.append(
        [
            SweepStarted(
                sweep="small", spec=spec_to_json(spec), digests={}, versions={}, num_trials=6, metric="eval_loss"
            )
        ]
    )
    changes = ("--set", "optim.weight_decay=0.2", "--set", "data.max_length=40", "--set", "search.num_trials=8")
    code, _, err = pharos("sweep", root / "sweep.yaml", "--storage", root / "results", *changes)
    assert code == 2
    first, *difference, last = err.splitlines()
    assert first.endswith(f"sweep.yaml:1: name=small is a sweep in {root}/results already, with another spec:")
    assert difference == ["  data.max_length: 48 -> 40", "  optim.weight_decay: 0.01 -> 0.2"]
    assert last == "Give this one another name, or take the change back to resume."
    assert [event.kind for event in log.read()] == ["sweep_started"]


def test_help_tells_each_verb_and_each_option_with_its_default(pharos: Pharos) -> None:
    code, out, _ = pharos("--help")
    assert code == 0
    for verb in ("plan", "report", "sweep", "train", "version"):
        assert f"│ {verb} " in out
        assert pharos(verb, "--help")[0] == 0
    _, out, _ = pharos("sweep", "-h")
    told = " ".join(out.replace("│", " ").split())
    assert "--set KEY=VALUE Override a field: --set optim.learning_rate=1e-4. Repeatable." in told
    assert "(default: the spec's)" in told
    assert "(default: start Ray on this machine). [env var: RAY_ADDRESS]" in told
    assert pharos("version") == (0, f"pharos {__version__}\n", "")


def test_a_verb_or_option_that_does_not_exist_is_named(pharos: Pharos) -> None:
    code, _, err = pharos("swep")
    assert code == 2
    assert "No such command 'swep'. Did you mean 'sweep'?" in err
    code, _, err = pharos("sweep", "sweep.yaml", "--storge", "x")
    assert code == 2
    assert "No such option: --storge" in err
    code, _, err = pharos("sweep")
    assert code == 2
    assert "Missing argument 'SPEC'" in err


def test_a_plan_is_printed_and_starts_and_writes_nothing(root: Path, pharos: Pharos) -> None:
    before = files(root)
    code, out, err = pharos("plan", root / "sweep.yaml", "--storage", root / "results")
    assert (code, err) == (0, "")
    assert out.startswith("small  6 trials over base\n")
    assert "2 workers x 2 seats" in out
    code, out, err = pharos("plan", root / "sweep.yaml", "--storage", root / "results", "--train")
    assert (code, err) == (0, "")
    assert "a trial's batch is split over all workers" in " ".join(out.split())
    assert files(root) == before


def test_a_plan_loads_no_heavy_library(root: Path) -> None:
    program = f"""
import sys
from pharos.cli import main
sys.argv = ["pharos", "plan", {str(root / "sweep.yaml")!r}]
try:
    code = main()
except SystemExit as exit:
    code = exit.code
assert not code, code
print("loaded:", *sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=root / "cwd", capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "6 trials over base" in result.stdout
    assert result.stderr.split() == ["loaded:"]
