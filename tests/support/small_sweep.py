"""A whole sweep of a tiny model by the real command line, and what the tests of it ask: its log, its processes.

The base has random weights and a tokenizer of its own, made on the spot; rows are a small task that an adapter learns.
Heavy libraries are imported inside functions, so that tests of messages need not load them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import yaml

from pharos.plan.events import Event
from pharos.plan.exchange import Admit, Evict, Orders, RoundReport, StepMetrics
from pharos.plan.ledger import Ledger
from pharos.plan.paths import SweepPaths
from pharos.plan.pool import PoolSettings
from pharos.plan.trial import TrialPlan
from pharos.spec.model import SweepSpec
from pharos.track.event_log import EventLog

NAME = "small"
PATIENCE_S = 500
"""A sweep takes 40 to 70 s on two idle cores, most of it Ray's start; on a machine that is busy, some times that."""
THINGS = ("lamp", "fan", "radio", "oven", "heater", "pump", "screen", "door", "gate", "motor", "kettle", "camera")
PLACES = ("hall", "kitchen", "garden", "cellar", "attic", "shop", "office")
HEARING_INTERRUPTS = ("env", "--default-signal=INT")
"""In front of a command: where tests run in the background of a shell SIGINT is ignored, and would be inherited so."""
NOT_INHERITED = {
    # `pharos` is installed, and the home directory is another.
    *("PYTHONPATH", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
    # What the tests' own process is given; a user's shell has none of it.
    *("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "DS_ACCELERATOR", "RAY_USAGE_STATS_ENABLED"),
    *("MLFLOW_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"),
    # Where libraries see a test or CI they behave.
    *("PYTEST_CURRENT_TEST", "PYTEST_VERSION", "CI"),
}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def rows() -> list[dict[str, str]]:
    """84 commands in words and what to answer: mostly "on", so that a few steps already answer some rows exactly."""
    return [
        {
            "prompt": f"please turn the {thing} in the {place} {'off' if (index + other) % 4 == 0 else 'on'}",
            "completion": "off" if (index + other) % 4 == 0 else "on",
        }
        for index, thing in enumerate(THINGS)
        for other, place in enumerate(PLACES)
    ]


def write_rows(file: Path) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")


def write_base(directory: Path) -> Path:
    """A Llama of random weights: hidden 32, two layers, 42 thousand parameters. With it a BPE and a template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>", "<|pad|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
    )
    texts = [f"system user assistant {row['prompt']} {row['completion']}" for row in rows()]
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>")
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(directory)

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        pad_token_id=tokenizer.token_to_id("<|pad|>"),
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def spec_fields(**sections: Any) -> dict[str, Any]:
    """Six trials of 16 steps through 2 x 2 seats; the baseline learns too slowly to win, and must not be stopped."""
    fields: dict[str, Any] = {
        "name": NAME,
        "base": "base",
        "data": {"train": "rows.jsonl", "max_length": 48, "eval_fraction": 0.15, "test_fraction": 0.15},
        "lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1},
        "optim": {"learning_rate": 1e-5, "weight_decay": 0.01, "warmup_ratio": 0.1},
        "train": {"max_steps": 16, "batch_size": 8, "micro_batch_size": 4, "report_every": 4},
        "search": {
            "num_trials": 6,
            "space": {
                "lora.r": {"ordered": [2, 4, 8]},
                "optim.learning_rate": {"log_uniform": [1e-5, 3e-2]},
                "train.batch_size": {"choice": [4, 8]},
                "train.seed": {"ordered": [0, 1, 2, 3]},
            },
        },
        "pool": {"workers": 2, "seats_per_worker": 2, "sharding": "zero3"},
        "test": {"generate": True, "max_new_tokens": 4},
        "register": {"model": "switch"},
    }
    return fields | sections


def sections_of_alike_trials(num_trials: int, **sections: Any) -> dict[str, Any]:
    """Trials of one length at low rates, without tests or a registration: for what happens around the training."""
    search = {
        "num_trials": num_trials,
        "halving": {"enabled": False},
        "space": {"optim.learning_rate": {"log_uniform": [1e-4, 1e-3]}},
    }
    return {
        "search": search,
        "optim": spec_fields()["optim"] | {"learning_rate": 2e-4},
        "test": {"generate": False},
        "register": {"enabled": False},
    } | sections


@dataclass(slots=True, kw_only=True)
class Workplace:
    """A directory with a base, rows and a sweep file, and a home, a cache and a working directory of its own.

    Every process that is started here, and whatever that starts, carries `mark` in its environment.
    within: what runs a command on another machine, in front of each verb.
    """

    root: Path
    environment: dict[str, str]
    mark: str
    name: str = NAME
    within: Sequence[str] = ()
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def spec(self) -> Path:
        return self.root / "sweep.yaml"

    @property
    def paths(self) -> SweepPaths:
        return SweepPaths(self.root / "results", self.name)

    def write_spec(self, **sections: Any) -> None:
        self.spec.write_text(yaml.safe_dump(spec_fields(**sections), sort_keys=False), encoding="utf-8")

    def start(self, verb: str, *arguments: str) -> subprocess.Popen[str]:
        """`pharos VERB sweep.yaml --storage results ARGUMENTS`, in a session of its own."""
        command = [sys.executable, "-m", "pharos", verb, str(self.spec), "--storage", str(self.root / "results")]
        command = [*self.within, *HEARING_INTERRUPTS, *command]
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=self.root / "cwd",
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, verb: str, *arguments: str, timeout_s: float = PATIENCE_S) -> Finished:
        return finish(self.start(verb, *arguments), timeout_s=timeout_s)

    def ledger(self) -> Ledger:
        return Ledger.of(self.events())

    def events(self) -> list[Event]:
        return list(EventLog(self.paths.events).read())

    def result(self) -> dict[str, Any]:
        return dict(json.loads(self.paths.result.read_text(encoding="utf-8")))

    def processes(self, title: str = "") -> list[int]:
        """Living processes that were started here, by whatever way, whose command line holds `title`."""
        return [pid for pid, text in marked_processes(self.mark).items() if title in text]

    def command_lines(self) -> list[str]:
        return list(marked_processes(self.mark).values())

    def end_everything(self) -> None:
        """Kill what a failed test left behind: by id, and only what carries the mark of this place."""
        for pid in self.processes():
            kill(pid)
        for process in self.started:
            process.communicate(timeout=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    returncode: int
    stdout: str
    stderr: str
    wall_s: float


def workplace(root: Path, base: Path, **sections: Any) -> Workplace:
    """A new place for sweeps below `root`."""
    mark = uuid.uuid4().hex
    for name in ("home", "cwd"):
        (root / name).mkdir()
    (root / "base").symlink_to(base)
    write_rows(root / "rows.jsonl")
    environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED} | {
        "HOME": str(root / "home"),
        "PHAROS_CACHE": str(root / "user-cache"),
        "RAY_AUTH_MODE": "token",
        "PHAROS_TEST_MARK": mark,
        # Ray renames its processes over the environment that /proc shows; the mark must stay readable.
        "SPT_NOENV": "1",
    }
    place = Workplace(root=root, environment=environment, mark=mark)
    place.write_spec(**sections)
    return place


def finish(process: subprocess.Popen[str], *, timeout_s: float = PATIENCE_S) -> Finished:
    started_s = monotonic()
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"it still runs after {timeout_s} s; it said: {error.stdout!r}") from error
    return Finished(returncode=process.returncode, stdout=stdout, stderr=stderr, wall_s=monotonic() - started_s)


def marked_processes(mark: str) -> dict[int, str]:
    """Command lines by process id of all living processes whose environment holds the mark."""
    found = {}
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit() or directory.name == str(os.getpid()):
            continue
        try:
            environment = (directory / "environ").read_bytes()
            command = (directory / "cmdline").read_bytes()
        except OSError:  # it has ended meanwhile, or is another user's
            continue
        if mark.encode() in environment:
            found[int(directory.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def kill(pid: int, with_signal: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to one process; it may have ended by itself."""
    try:
        os.kill(pid, with_signal)
    except ProcessLookupError:
        return


def wait_until(condition: Callable[[], bool], complaint: str, *, timeout_s: float = PATIENCE_S) -> None:
    deadline_s = monotonic() + timeout_s
    while not condition():
        assert monotonic() < deadline_s, complaint
        pause()


def pause() -> None:
    """Between two looks at something that another process does."""
    threading.Event().wait(0.1)


def steps_of(events: Sequence[Event], number: int) -> list[dict[str, Any]]:
    """Every optimizer step that the log holds of one trial, in the order of the log."""
    return [
        step for event in events if event.kind == "trial_reported" and event.number == number for step in event.steps
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """What a trial did that was trained alone. evaluations: eval_loss by optimizer step."""

    steps: list[StepMetrics] = field(default_factory=list)
    evaluations: dict[int, float] = field(default_factory=dict)


def train_alone(spec: SweepSpec, plan: TrialPlan, *, base: Path, data: Path, trials: Path, report_every: int) -> Alone:
    """The same trial in this process: one seat, one rank, a base that is not sharded."""
    import torch

    from pharos.train.group import SingleProcess
    from pharos.train.loop import run_pool
    from pharos.train.open_pool import open_pool

    torch.set_num_threads(1)
    settings = PoolSettings(
        pool="alone",
        base_key="alone",
        base_dir=str(base),
        data_dir=str(data),
        trials_dir=str(trials),
        workers=1,
        seats_per_worker=1,
        placement="local",
        sharding="replicate",
        target_modules="all-linear",
        r_max=plan.hyperparameters.r,
        micro_batch_size=spec.train.micro_batch_size,
        report_every=report_every,
        metric="eval_loss",
        metric_scope="best",
        dtype="float32",
        activation_checkpointing=False,
        trust_remote_code=False,
    )
    alone = Alone()

    def exchange(report: RoundReport) -> Orders:
        for seat in report.seats:
            alone.steps.extend(seat.steps)
            alone.evaluations[seat.step] = seat.eval_metrics["eval_loss"]
            if seat.done:
                return Orders(evict=(Evict(seat=0, number=plan.number),), close=True)
        return Orders(admit=(Admit(seat=0, trial=plan),)) if report.round == 0 else Orders()

    group = SingleProcess(device=torch.device("cpu"))
    run_pool(settings=settings, pool=open_pool(settings, group), group=group, exchange=exchange)
    return alone


def prepared_rows(storage: Path) -> Path:
    """The one directory of prepared rows below a storage."""
    [manifest] = (storage / "cache").glob("*/manifest.json")
    return manifest.parent


def largest_difference(events: Sequence[Event], number: int, alone: Alone) -> float:
    """Between what the log says of a trial and the same trial trained alone, over all its steps and evaluations.

    Of losses and learning rates absolute; of gradient norms, which may be large, relative to those above 1.
    """
    steps = steps_of(events, number)
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1)), "a step is missing, or there twice"
    differences = []
    for one, other in zip(steps, alone.steps, strict=False):
        differences += [abs(one["loss"] - other.loss), abs(one["learning_rate"] - other.learning_rate)]
        differences.append(abs(one["grad_norm"] - other.grad_norm) / max(1.0, other.grad_norm))
    for step, metrics in Ledger.of(events).record(number).evaluations.items():
        differences.append(abs(metrics["eval_loss"] - alone.evaluations[step]))
    return max(differences)
