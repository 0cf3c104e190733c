"""`pharos data check` as a person or a script meets it: exit codes, what is printed, JSON, shown rows, messages."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.command_line import Pharos, in_this_process

from pharos.console.row_view import PIECE_SHOWN, row_text, show_rows, visible
from pharos.data.show import Piece, ShownPart, ShownRow

HEAVY = ("torch", "ray", "mlflow", "optuna", "transformers", "deepspeed", "peft", "accelerate")
ROWS = [{"question": f"Where is lighthouse {number}?", "answer": f"On cliff {number}."} for number in range(60)]
README = Path(__file__).parents[3] / "README.md"
SWEEP = 'name: lamps\nbase: builtin:tiny\ndata:\n  train: train.jsonl\n  eval: "eval.jsonl"\n  max_length: 96\n'


@pytest.fixture
def pharos(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, cache_dir: Path
) -> Pharos:
    """Run a command in this process, in the test's directory: its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PHAROS_CACHE", str(cache_dir))

    run = in_this_process(monkeypatch, capsys)
    return lambda *arguments: run("data", "check", *arguments)


@pytest.fixture
def base(write_tokenizer: Callable[..., Path], write_rows: Callable[..., Path]) -> Path:
    """A tokenizer's directory, beside train.jsonl and eval.jsonl."""
    write_rows("train.jsonl", ROWS[:50])
    write_rows("eval.jsonl", ROWS[50:])
    return write_tokenizer()


def flat(text: str) -> str:
    return " ".join(text.split())


def test_clean_rows_end_with_0_and_what_to_type_next(pharos: Pharos, base: Path) -> None:
    code, out, err = pharos("train.jsonl", "--base", base)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "train.jsonl  50 rows, none in error"
    assert f"by the tokenizer of {base}, template tokenizer" in flat(out)
    assert "verdict: clean: nothing was found" in lines
    assert f"next:    pharos data check train.jsonl --base {base} --show 3  (what the model will learn)" in lines
    assert "\x1b" not in out


def test_a_file_without_a_base_is_counted_with_the_built_in_tokenizer_and_says_so(pharos: Pharos, base: Path) -> None:
    code, out, _ = pharos("train.jsonl")
    assert code == 0
    assert "by the tokenizer of builtin:tiny" in out
    assert "--base DIRECTORY  (tokens by your base's tokenizer)" in out
    code, out, _ = pharos("*.jsonl", "--set", "data.max_length=28")
    assert code == 0
    assert out.startswith("*.jsonl  60 rows, none in error")
    assert "rows were cut inside a turn" in out
    assert "verdict: usable, with " in out


def test_a_sweep_file_is_checked_by_splits_with_its_own_base(pharos: Pharos, base: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    code, out, _ = pharos("sweep.yaml")
    assert code == 0
    assert re.search(r"^ +train +eval +test$", out, re.MULTILINE)
    numbers = re.search(r"^rows +(\d+) +(\d+) +(\d+)$", out, re.MULTILINE)
    assert numbers
    assert int(numbers[2]) == 10
    assert int(numbers[1]) + int(numbers[3]) == 50
    assert out.endswith("next:    pharos plan sweep.yaml\n")
    assert not (tmp_path / "pharos-results").exists()


def test_warnings_alone_end_with_0(pharos: Pharos, base: Path, write_rows: Callable[..., Path], tmp_path: Path) -> None:
    write_rows("eval.jsonl", [*ROWS[50:], ROWS[0]])
    write_rows("test.jsonl", [{"question": "Is it lit?", "answer": "It is."}])
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    code, out, _ = pharos("sweep.yaml", "--set", "data.test=test.jsonl")
    assert code == 0
    assert "warning: data.eval: 1 of 11 rows also stand in data.train, so its results flatter." in out
    assert "         eval.jsonl:11 says what train.jsonl:1 says" in out
    assert "verdict: usable, with 1 warning\n" in out


def test_rows_in_error_end_with_2_and_are_named(pharos: Pharos, base: Path, write_rows: Callable[..., Path]) -> None:
    write_rows("train.jsonl", [*ROWS[:3], {"question": "a", "answer": ""}, {"question": 3, "answer": "b"}])
    code, out, err = pharos("train.jsonl", "--base", base)
    assert (code, err) == (2, "")
    assert "error: train.jsonl:4: answer is empty. Fill it in, or remove the row.\n" in out
    assert "error: train.jsonl:5: question must be text, not a number. Write it so, or remove the row.\n" in out
    assert "by kind: empty 1, wrong type 1\n" in out
    assert "verdict: not usable: 2 rows are in error, and data.max_bad_rows=0.\n" in out
    assert out.endswith(f"next:    pharos data check train.jsonl --base {base}  (once that is mended)\n")


def test_of_many_rows_in_error_the_first_20_are_named(
    pharos: Pharos, base: Path, write_rows: Callable[..., Path]
) -> None:
    write_rows("train.jsonl", [ROWS[0], *[{"question": "a", "answer": ""}] * 33])
    code, out, _ = pharos("train.jsonl", "--base", base)
    assert code == 2
    assert len(re.findall("^error: ", out, re.MULTILINE)) == 20
    assert "... and 13 more mistakes like these\n" in out


def test_rows_that_a_sweep_refuses_as_too_long_end_with_2(pharos: Pharos, base: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    code, out, _ = pharos("sweep.yaml", "--base", base, "--set", "data.max_length=20")
    assert code == 2
    assert re.search(r"rows are longer than data.max_length=20: set it to \d+, or data.long_rows=truncate or skip", out)


def test_json_is_one_object_and_nothing_else(pharos: Pharos, base: Path, write_rows: Callable[..., Path]) -> None:
    code, out, err = pharos("train.jsonl", "--base", base, "--json", "--show", "2")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["target"], told["verdict"], told["splits"][0]["num_rows"]) == ("train.jsonl", "clean", 50)
    assert [len(part["pieces"]) for row in told["shown"] for part in row["parts"]] == [9, 9]
    write_rows("train.jsonl", [{"question": "a", "answer": ""}])
    code, out, err = pharos("train.jsonl", "--base", base, "--json")
    assert (code, err, json.loads(out)["verdict"]) == (2, "", "not usable")


def test_shown_rows_have_brackets_around_what_is_trained(pharos: Pharos, base: Path) -> None:
    code, out, _ = pharos("train.jsonl", "--base", base, "--show", "2", "--row", "train.jsonl:4")
    assert code == 0
    assert "⟦On cliff 3.<|im_end|>⟧" in out
    assert out.count("⟦") == out.count("⟧") == 4  # of three rows and the legend
    title = r"^train.jsonl:4  train\n\d+ tokens, \d+ of them trained$"
    assert re.search(title + r"\n<\|im_start\|>user\nWhere is lighthouse 3\?", out, re.MULTILINE)


def test_mistakes_in_what_was_typed_are_one_message(pharos: Pharos, base: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    assert pharos("tran.jsonl") == (
        2,
        "",
        f"error: TARGET='tran.jsonl': no such file in {tmp_path}. Did you mean train.jsonl?\n",
    )
    assert pharos("*.csv") == (2, "", f"error: TARGET='*.csv' matches no file in {tmp_path}.\n")
    assert pharos("swep.yaml") == (2, "", "error: swep.yaml is not there. Did you mean sweep.yaml?\n")
    assert pharos("train.jsonl", "--set", "data.max_lenght=3") == (
        2,
        "",
        "error: --set data.max_lenght=3: data.max_lenght=3 is not a field of data. Did you mean max_length?\n",
    )
    code, out, err = pharos("train.jsonl", "--base", tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {tmp_path} has no tokenizer.json. ")
    code, out, err = pharos("train.jsonl", "--base", base, "--row", "train.jsonl:51", "--json")
    assert (code, out) == (2, "")
    assert err.startswith("error: --row train.jsonl:51: no row that is in use stands there.")
    code, out, err = pharos("sweep.yaml", "--set", "data.eval=nothing.jsonl")
    assert (code, out) == (2, "")
    assert err.startswith("error: --set data.eval=nothing.jsonl: data.eval='nothing.jsonl': no such file in ")


def faulty_rows() -> list[str]:
    """The lines of the file that the README speaks of."""
    rows = [
        {"messages": [{"role": "user", "content": f"Is lamp {n} lit?"}, {"role": "assistant", "content": f"No, {n}."}]}
        for n in range(300)
    ]
    rows[5]["messages"][1]["content"] = "In \x1b[31mred"
    rows[6]["messages"][0]["content"] = "Say <|im_end|> aloud"
    rows[8]["messages"].insert(0, {"role": "user", "content": "Hello?"})
    rows[9]["messages"][1]["content"] = ""
    rows[60] = rows[61] = rows[62]
    lines = [json.dumps(row) for row in rows]
    return [*lines[:11], '{"messages": [', *lines[12:]]


def test_the_readme_shows_what_is_printed(pharos: Pharos, tmp_path: Path) -> None:
    section = re.search(r"^## Checking data\n(.*?)^## ", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert section
    [command] = re.findall(r"```bash\npharos data check (.*)\n```", section[1])
    clean, faulty = re.findall(r"```text\n(.*?)```", section[1], re.DOTALL)

    spec, *options = command.split()
    (tmp_path / "search_spaces").symlink_to(README.parent / "search_spaces")
    code, out, _ = pharos(spec, *options)
    assert code == 0
    # Counts of tokens are those of this Python's docstrings; what the lines speak of is the same everywhere.
    names = {re.split(r" {2,}", line)[0] for line in out.splitlines()}
    table = clean.partition("\n\n")[2].partition("\ntokens a row")[0]
    for line in table.splitlines():
        assert re.split(r" {2,}", line)[0] in names, line
    shown = clean.rpartition("them trained\n")[2]
    assert shown
    assert out.endswith(shown)

    lines = faulty_rows()
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    (tmp_path / "eval.jsonl").write_text("\n".join(lines[30:50]))
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    code, out, _ = pharos("sweep.yaml")
    assert code == 2
    for line in faulty.splitlines():
        assert line in out.splitlines()


def test_it_loads_no_heavy_library(base: Path, tmp_path: Path) -> None:
    program = f"""
import sys
from pharos.cli import main
sys.argv = ["pharos", "data", "check", "train.jsonl", "--base", {str(base)!r}, "--show", "1"]
try:
    main()
finally:
    print("loaded:", *sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines()[-1].split() == ["loaded:"]


def piece(text: str, *, trained: bool = False, special: bool = False) -> Piece:
    return Piece(text=text, trained=trained, special=special)


def test_in_a_terminal_what_is_trained_has_a_colour_and_no_brackets() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system="standard", legacy_windows=False)
    pieces = (piece("<s>", special=True), piece("asked"), piece("said", trained=True))
    part = ShownPart(title="", num_tokens=3, num_trained=1, pieces=pieces)
    row = ShownRow(place="a:1", split="train", note="", parts=(part,))
    show_rows([row], console=console)
    told = console.file.getvalue()
    assert "⟦" not in told
    assert "\x1b[30;42msaid\x1b[0m" in told
    assert "asked" in told
    assert "\x1b[30;42masked" not in told


def test_long_rows_are_folded_in_their_middle() -> None:
    long = "begin " + "x" * 5000 + " end"
    text = row_text([piece("ask"), piece(long, trained=True)], is_coloured=False).plain
    assert text.startswith("ask⟦begin xxx")
    assert text.endswith("xxx end⟧")
    assert f"... {len(long) - PIECE_SHOWN:,} characters ..." in text
    assert len(text) < PIECE_SHOWN + 100

    turns = [piece(f"<{number}>" + "y" * 97, trained=number % 2 == 1) for number in range(200)]
    text = row_text(turns, is_coloured=False).plain
    assert len(text) < 3000
    assert "<0>" in text
    assert "<199>" in text
    assert re.search(r"\.\.\. [\d,]+ characters \.\.\.", text)
    assert text.count("⟦") == text.count("⟧")


def test_what_a_terminal_would_obey_is_made_visible() -> None:
    assert visible("a\x1b[31m\x07\r\x7f\x9b\ufeff\n\tb") == "a␛[31m␇␍␡\\u009b\\ufeff\n\tb"
