"""Reading a sweep file: YAML 1.2, places, the file itself, and overrides."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pharos.errors import SpecError
from pharos.spec.load import MAX_FILE_BYTES, load_spec
from pharos.spec.positions import Place, read_yaml

HEAVY = ("torch", "ray", "mlflow", "optuna", "transformers", "deepspeed", "peft", "accelerate", "numpy")

FULL = """
name: docker-assistant
base: builtin:tiny
data: {train: train.jsonl, eval: eval.jsonl, test: test.jsonl, max_length: 256}
lora: {r: 8, lora_alpha: 16, lora_dropout: 0.0, target_modules: all-linear}
optim: {learning_rate: 2e-4, adam_beta1: 0.9, adam_beta2: 0.999, weight_decay: 0.0, max_grad_norm: 1.0,
        lr_scheduler_type: linear, warmup_ratio: 0.03}
train: {num_train_epochs: 2, batch_size: 8, micro_batch_size: 8, seed: 0, data_seed: 0}
search:
  num_trials: 24
  metric: eval_loss
  space:
    lora.r: {ordered: [2, 4, 8, 16, 32]}
    lora.alpha_over_r: {ordered: [1, 2, 4]}
    optim.learning_rate: {log_uniform: [1e-5, 1e-2]}
    optim.adam_beta2: {one_minus_log_uniform: [0.9, 0.9999]}
    optim.warmup_ratio: {uniform: [0.0, 0.2]}
pool: {workers: 2, seats_per_worker: 4, sharding: auto}
register: {model: docker-assistant}
"""


def problems(load, lines="", *overrides, **more):
    with pytest.raises(SpecError, match="sweep.yaml|--set") as caught:
        load(lines, *overrides, **more)
    return caught.value.message.splitlines()


def test_a_full_sweep_is_read_as_written(load):
    spec = load(FULL, head="")
    assert spec.optim.learning_rate == 2e-4
    assert spec.search.space["optim.learning_rate"].log_uniform == [1e-5, 1e-2]
    assert spec.search.space["lora.r"].ordered == [2, 4, 8, 16, 32]
    assert spec.register_.model == "docker-assistant"
    assert spec.pool.workers == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-5", 1e-5), ("2e-4", 2e-4), ("1E5", 1e5), ("1.e-3", 1e-3), (".5", 0.5), ("+3", 3.0), ("1", 1.0), ("010", 10)],
)
def test_numbers_are_those_of_yaml_1_2(load, text, value):
    learning_rate = load(f"optim: {{learning_rate: {text}}}").optim.learning_rate
    assert learning_rate == value
    assert isinstance(learning_rate, float)


@pytest.mark.parametrize("text", ["on", "off", "yes", "no", "1:30", "2024-01-01", "1_000", "0b11", "=", "nul"])
def test_what_yaml_1_1_took_for_something_else_stays_text(load, text):
    assert load(f"tracking: {{experiment: {text}}}").tracking.experiment == text


@pytest.mark.parametrize("word", ["no", "off", "yes", "on", "n", "y", "0", "1", '"true"', "2"])
def test_only_true_and_false_are_truth_values(load, word):
    [message] = problems(load, f"lora:\n  use_rslora: {word}")
    assert message.startswith(f"sweep.yaml:5: lora.use_rslora={word} must be true or false.")


def test_whole_numbers_come_in_octal_and_hexadecimal(load):
    assert (
        load("train: {seed: 0x1F, data_seed: 0o17}").train.model_dump().items() >= {"seed": 31, "data_seed": 15}.items()
    )


def test_anchors_and_merge_keys_work_and_keep_their_lines(load):
    spec = load("optim: &mine {weight_decay: 0.1}\nlora: {r: &r 4, lora_alpha: *r}\n")
    assert (spec.optim.weight_decay, spec.lora.r, spec.lora.lora_alpha) == (0.1, 4, 4.0)
    space = "search:\n  space:\n    lora.r: &few\n      ordered: [1, 2]\n    lora.lora_alpha: {<<: *few}\n"
    assert load(space + "  num_trials: 2").search.space["lora.lora_alpha"].ordered == [1, 2]


def test_own_keys_go_before_merged_ones_and_the_first_source_before_the_second():
    text = "one: &one {a: 1, b: 1}\ntwo: &two {b: 2, c: 2}\nall:\n  c: 3\n  <<: [*one, *two]\n  d: 4"
    document = read_yaml(text, lambda line: Place(location=f"line {line}"))
    assert document.mistakes == []
    assert document.value["all"] == {"a": 1, "b": 1, "c": 3, "d": 4}
    lines = {key: document.place(("all", key)).location for key in "abcd"}
    assert lines == {"a": "line 1", "b": "line 1", "c": "line 4", "d": "line 6"}


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + FULL.replace("\n", "\r\n").encode())
    assert load_spec(file).name == "docker-assistant"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: None, "quickstrat.yaml is not there. Did you mean"),
        (lambda file: file.mkdir(), "quickstrat.yaml is a directory. Name a sweep file."),
        (lambda file: file.write_bytes(b"x" * (MAX_FILE_BYTES + 1)), "has 1000001 bytes"),
        (lambda file: file.write_bytes(b"PK\x03\x04"), "the character U+0003 cannot stand in YAML"),
        (lambda file: file.write_bytes("name: a".encode("utf-16")), "the byte 0xFF is not UTF-8"),
        (lambda file: file.write_text(""), "the file is empty"),
    ],
    ids=["missing", "directory", "huge", "binary", "utf-16", "empty"],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path, make, message):
    (tmp_path / "quickstart.yaml").write_text(FULL)
    make(tmp_path / "quickstrat.yaml")
    with pytest.raises(SpecError) as caught:
        load_spec(tmp_path / "quickstrat.yaml")
    assert message in caught.value.message


def test_overrides_lie_over_the_file_and_the_last_one_wins(load):
    spec = load(
        "optim: {learning_rate: 1e-3}\nsearch: {space: {lora.r: {ordered: [1, 2]}}}",
        "optim.learning_rate=1e-5",
        "optim.learning_rate=1e-4",
        "lora.target_modules=[q_proj,v_proj]",
        "search.space.optim.learning_rate={uniform: [1e-5, 1e-3]}",
        "tracking.uri=http://localhost:5000",
        "data.eval_fraction=0.1",
    )
    assert spec.optim.learning_rate == 1e-4
    assert spec.lora.target_modules == ["q_proj", "v_proj"]
    assert spec.search.space["optim.learning_rate"].uniform == [1e-5, 1e-3]
    assert spec.search.space["lora.r"].ordered == [1, 2]
    assert spec.tracking.uri == "http://localhost:5000"


def test_an_override_of_null_takes_the_search_away_and_a_later_one_brings_another(load):
    lines = "search: {num_trials: 9, space: {lora.r: {ordered: [1, 2]}}}"
    assert load(lines, "search=null").search is None
    spec = load(lines, "search=null", "search.num_trials=2", "search.space.lora.r={ordered: [4, 8]}")
    assert (spec.search.num_trials, spec.search.space["lora.r"].ordered) == (2, [4, 8])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.learning_rat=1e-4", "optim.learning_rat=1e-4 is not a field of optim. Did you mean learning_rate?"),
        ("learning_rate=1e-4", "learning_rate=1e-4 is not a field of a sweep. It belongs in optim."),
        ("optim.learning_rate=fast", "optim.learning_rate=fast must be a number above 0."),
        ("optimm.learning_rate=1", "optimm={learning_rate: 1} is not a field of a sweep. Did you mean optim?"),
        ("name.first=1", "name=small is not a section and has no fields."),
        ("lora.r", "write key=value, as in --set optim.learning_rate=1e-4"),
        ("=3", "write key=value, as in --set optim.learning_rate=1e-4"),
        ("lora..r=3", "write key=value, as in --set optim.learning_rate=1e-4"),
        ("lora.r=[1", "this is not valid YAML: expected ',' or ']', but got '<stream end>'. A bracket"),
        ("search.space.lora.r=8", "search.space.lora.r=8 is not a domain"),
        ("search.num_trials=4", "search.space is missing"),
        ("train.batch_size=12", "train.batch_size=12 cannot be made of micro-batches of 8"),
    ],
)
def test_a_wrong_override_is_named_as_it_was_given(load, override, message):
    [line] = problems(load, "", override)
    assert line.startswith(f"--set {override}: {message}")


def test_mistakes_of_file_and_overrides_come_together_the_file_first(load):
    lines = problems(load, "lora: {r: 0}\noptim: {lr: 1}", "pool.wrkers=2", "lora.lora_alpha=-1", "base=builtin:tny")
    assert [line.partition(": ")[0] for line in lines] == [
        "sweep.yaml:4",
        "sweep.yaml:5",
        "--set pool.wrkers=2",
        "--set lora.lora_alpha=-1",
        "--set base=builtin:tny",
    ]


def test_an_override_repairs_what_the_file_has_wrong(load):
    assert load("lora: {r: 0}", "lora.r=4").lora.r == 4


def test_rules_are_checked_beside_mistakes_of_other_fields_but_not_over_mistaken_ones(load):
    [first, second] = problems(load, "train: {batch_size: 60, seed: -1}")
    assert "train.batch_size=60 cannot be made of micro-batches of 8" in first
    assert "train.seed=-1 must be a whole number of at least 0" in second
    [only] = problems(load, "train: {batch_size: 60, micro_batch_size: eight}")
    assert "train.micro_batch_size=eight" in only


def test_values_are_repeated_as_they_were_written_and_cut_when_long(load):
    [message] = problems(load, f"optim: {{learning_rate: -2E-04}}\nlora: {{target_modules: {{a: {'b' * 90}}}}}")[:1]
    assert "learning_rate=-2E-04 must" in message
    assert all(len(line) < 160 for line in problems(load, f"lora: {{target_modules: {{a: {'b' * 90}}}}}"))


def test_reading_a_sweep_loads_no_heavy_library():
    program = f"import sys, pharos.spec.load; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    environment = {"PYTHONPATH": str(Path(__file__).parents[3] / "platform")}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []
