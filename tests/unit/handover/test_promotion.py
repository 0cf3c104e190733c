"""Who becomes the champion and who is refused, with the reason: real merges, real losses, a real registry."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.registered_models import (
    MODEL,
    Registry,
    new_store,
    prepared,
    registry,
    rewrite_manifest,
    trained_adapter,
)

from pharos.cli import main
from pharos.errors import HandOverError, ModelError, TrackingError
from pharos.handover.promotion import promote, rollback
from pharos.plan.promotion import Outcome
from pharos.track.champion import Lost, move_champion


@dataclass(slots=True, kw_only=True)
class Models(Registry):
    """A registry, with an adapter that has learned the rows and one that leaves the base as it is."""

    learned: Path
    base_like: Path


@dataclass(frozen=True, slots=True)
class Made:
    """What all tests here share, made once."""

    base: Path
    data: Path
    store: Path
    learned: Path
    base_like: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("made")
    base, data = prepared(root)
    learned = trained_adapter(base, data, root / "learned", num_steps=60)
    base_like = trained_adapter(base, data, root / "base-like", num_steps=0)
    return Made(base, data, new_store(root / "mlflow.db"), learned, base_like)


@pytest.fixture
def models(tmp_path: Path, made: Made) -> Models:
    found = registry(tmp_path / "results", base=made.base, data=made.data, empty_store=made.store)
    shared = {field.name: getattr(found, field.name) for field in fields(found)}
    return Models(**shared, learned=made.learned, base_like=made.base_like)


def run(models: Models, reference: str = MODEL, **keywords: Any) -> Outcome:
    keywords.setdefault("progress", lambda text: None)
    return promote(reference, storage=models.storage, tracking_uri=models.uri, **keywords)


def back(models: Models, reason: str | None = None) -> Outcome:
    return rollback(MODEL, storage=models.storage, tracking_uri=models.uri, reason=reason, progress=lambda text: None)


def write_over(file: Path, place: int, content: bytes) -> None:
    """Change some bytes of a file where it lies; 0 is the first byte after a safetensors header, -1 the last ones."""
    raw = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little") + place if place >= 0 else len(raw) - len(content)
    raw[start : start + len(content)] = content
    file.write_bytes(raw)


def test_the_first_candidate_needs_no_one_to_beat_and_the_next_must_be_better(models: Models) -> None:
    models.add(models.base_like)
    first = run(models)
    assert (first.is_champion, first.before, first.comparison) == (True, None, None)
    models.add(models.learned)
    second = run(models)
    assert (second.is_champion, second.before, second.version) == (True, "1", "2")
    assert second.comparison is not None
    assert second.comparison.high < 0
    assert second.reason.startswith("better: test loss ")
    assert models.champions() == {"champion": "2", "previous": "1"}
    tags = models.tags("2")
    assert tags["pharos.promoted.why"] == second.reason
    assert tags["pharos.promoted.from"] == "1"
    assert "@" in tags["pharos.promoted.by"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", tags["pharos.promoted.at"])


def test_the_losses_are_those_of_the_models_themselves(models: Models) -> None:
    from pharos.data.store import open_split
    from pharos.model.loading import load_model
    from pharos.train.row_losses import row_losses

    models.add(models.learned)
    run(models)
    models.add(models.base_like)
    refused = run(models)
    assert refused.comparison is not None
    expected = row_losses(load_model(models.base, dtype=_float32()), open_split(models.data, "test"))
    assert refused.comparison.candidate == pytest.approx(expected.loss, abs=1e-5)
    assert refused.comparison.num_rows == len(expected.num_tokens)


def test_a_worse_model_is_refused_with_the_figures_and_nothing_changes(models: Models) -> None:
    models.add(models.learned)
    run(models)
    models.add(models.base_like)
    before = models.aliases(), models.tags("2")
    refused = run(models)
    assert not refused.is_champion
    assert refused.champion == "1"
    assert re.match(r"worse: test loss [\d.]+ against [\d.]+ of the champion: \+[\d.]+, 95% interval", refused.reason)
    assert (models.aliases(), models.tags("2")) == before


def test_a_margin_lets_a_model_through_that_is_as_good(models: Models) -> None:
    models.add(models.learned)
    run(models)
    models.add(models.learned)
    assert not run(models).is_champion
    assert run(models, margin=0.01).reason.startswith("not worse by 0.01")
    assert models.champions() == {"champion": "2", "previous": "1"}


def test_force_is_recorded_with_its_reason_and_the_figures(models: Models) -> None:
    models.add(models.learned)
    run(models)
    models.add(models.base_like)
    forced = run(models, force_reason="the customer asked for it")
    assert (forced.is_champion, forced.forced) == (True, True)
    tags = models.tags("2")
    assert tags["pharos.promoted.how"] == "forced"
    assert tags["pharos.promoted.why"].startswith("the customer asked for it (worse: test loss ")


def test_the_champion_is_not_promoted_twice(models: Models) -> None:
    models.add(models.learned)
    run(models)
    again = run(models, f"{MODEL}/1")
    assert (again.is_champion, again.reason) == (True, "it is the champion already")
    assert models.champions() == {"champion": "1"}


def plant_wrong_merge(merged: Path) -> None:
    write_over(merged / "model.safetensors", 4000, b"\x00\x00\x80\x3f" * 64)
    rewrite_manifest(merged)


def plant_truncated_shard(merged: Path) -> None:
    shard = merged / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])


def plant_truncated_shard_and_manifest(merged: Path) -> None:
    plant_truncated_shard(merged)
    rewrite_manifest(merged)


def plant_flipped_bit(merged: Path) -> None:
    write_over(merged / "model.safetensors", -1, b"\x11\x11")


def plant_tokenizer(merged: Path) -> None:
    file = merged / "tokenizer.json"
    vocabulary = json.loads(file.read_text())
    words = vocabulary["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    file.write_text(json.dumps(vocabulary))
    rewrite_manifest(merged)


def plant_template(merged: Path) -> None:
    (merged / "chat_template.jinja").write_text("{{ messages }}")
    rewrite_manifest(merged)


def plant_pickle(merged: Path) -> None:
    (merged / "pytorch_model.bin").write_bytes(b"pickle")


def plant_other_adapter(merged: Path) -> None:
    write_over(merged.parent / "adapter" / "adapter_model.safetensors", 0, b"\x00\x00\x80\x3f")


PLANTED: dict[Callable[[Path], None], str] = {
    plant_wrong_merge: r"differs from base \+ adapter by \d.* must not be used",
    plant_truncated_shard: r"model.safetensors has \d+ bytes, pharos_manifest.json says \d+",
    plant_truncated_shard_and_manifest: r"model.safetensors",
    plant_flipped_bit: r"is not what was written: its sha256 differs",
    plant_tokenizer: r"The tokenizer of .* has changed: its tokenizer.json is not the one",
    plant_template: r"The chat template of .* has changed",
    plant_pickle: r"holds what nobody merged: pytorch_model.bin",
    plant_other_adapter: r"is not the one that was merged",
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__.removeprefix("plant_"))
def test_what_is_not_in_order_is_refused_with_its_reason_even_by_force(
    models: Models, plant: Callable[[Path], None]
) -> None:
    version = models.add(models.learned)
    before = models.aliases()
    plant(models.folders[version])
    for force in (None, "because"):
        with pytest.raises(HandOverError, match=PLANTED[plant]):
            run(models, force_reason=force)
    assert models.aliases() == before


def test_a_champion_that_is_not_in_order_is_said_and_can_be_replaced_by_force(models: Models) -> None:
    models.add(models.base_like)
    run(models)
    plant_truncated_shard(models.folders["1"])
    models.add(models.learned)
    with pytest.raises(HandOverError, match=r"The champion switch/1 is not in order.*--force --reason"):
        run(models)
    assert run(models, force_reason="its disk broke").is_champion
    assert "not in order" in models.tags("2")["pharos.promoted.why"]


def test_models_that_read_other_tokens_or_turns_are_not_compared(models: Models) -> None:
    models.add(models.base_like)
    run(models)
    models.add(models.learned)
    (models.folders["1"] / "tokenizer.json").write_text((models.base / "tokenizer.json").read_text() + "\n")
    rewrite_manifest(models.folders["1"])
    with pytest.raises(HandOverError, match="have different tokenizers"):
        run(models)
    shutil.copy(models.base / "tokenizer.json", models.folders["1"])
    (models.folders["1"] / "chat_template.jinja").write_text("{{ messages }}")
    rewrite_manifest(models.folders["1"])
    with pytest.raises(HandOverError, match="different chat templates"):
        run(models)
    assert models.champions() == {"champion": "1"}


def test_a_base_that_moved_is_asked_for_and_another_one_refused(models: Models, tmp_path: Path) -> None:
    base = Path(shutil.copytree(models.base, tmp_path / "own-base"))
    models.base = base
    adapter = Path(shutil.copytree(models.learned, tmp_path / "adapter"))
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    models.add(adapter)
    base.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match=r"its base should be in .*own-base, which holds no model. Give .* --base"):
        run(models)
    config = json.loads((tmp_path / "moved" / "config.json").read_text())
    other = Path(shutil.copytree(tmp_path / "moved", tmp_path / "other"))
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    with pytest.raises(ModelError, match=r"merged into a base with digest \w+, and .*other holds another one"):
        run(models, base=other)
    assert models.champions() == {}
    assert run(models, base=tmp_path / "moved").is_champion


def test_rows_that_are_gone_are_asked_for(models: Models) -> None:
    models.add(models.learned)
    shutil.rmtree(models.storage / "cache" / models.data.name)
    with pytest.raises(ModelError, match=r"should be in .*cache/\w+ and are not. Name the storage of that sweep"):
        run(models)


def test_a_champion_that_moves_while_the_candidate_is_scored_stays(models: Models) -> None:
    models.add(models.base_like)
    run(models)
    models.add(models.learned)
    models.add(models.learned)

    def meanwhile(text: str) -> None:
        if text.startswith("scoring the candidate"):
            move_champion(models.runs.client, MODEL, kind="promote", to="2", expected="1", why="first")

    with pytest.raises(Lost, match=r"switch version 3 is not the champion: another command came first.*version 2, by"):
        run(models, progress=meanwhile)
    assert models.champions() == {"champion": "2", "previous": "1"}


def test_rolling_back_changes_places_and_back_again(models: Models) -> None:
    models.add(models.base_like)
    run(models)
    models.add(models.learned)
    run(models)
    outcome = back(models, "answers were too short")
    assert (outcome.champion, outcome.before) == ("1", "2")
    assert models.champions() == {"champion": "1", "previous": "2"}
    assert models.tags("1")["pharos.promoted.why"] == "answers were too short"
    assert models.tags("1")["pharos.promoted.how"] == "rollback"
    back(models)
    assert models.champions() == {"champion": "2", "previous": "1"}


def test_a_rollback_without_a_previous_champion_or_to_a_broken_one_changes_nothing(models: Models) -> None:
    models.add(models.base_like)
    with pytest.raises(ModelError, match="no previous champion to go back to: it never had a champion"):
        back(models)
    run(models)
    with pytest.raises(ModelError, match="version 1 is the first champion"):
        back(models)
    models.add(models.learned)
    run(models)
    plant_truncated_shard(models.folders["1"])
    with pytest.raises(HandOverError, match="bytes, pharos_manifest.json says"):
        back(models)
    assert models.champions() == {"champion": "2", "previous": "1"}


def test_what_does_not_exist_is_named(models: Models, tmp_path: Path) -> None:
    models.add(models.learned)
    with pytest.raises(ModelError, match="Did you mean switch"):
        run(models, "swich")
    with pytest.raises(ModelError, match="no version 9. There is switch/1"):
        run(models, "switch/9")
    with pytest.raises(ModelError, match="no alias champion"):
        run(models, "switch@champion")
    with pytest.raises(TrackingError, match="no MLflow store"):
        run(replace(models, uri=f"sqlite:///{tmp_path}/none.db"))


@pytest.fixture
def pharos(models: Models, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command in this process: its exit code, stdout and stderr."""

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pharos", *arguments, "--storage", str(models.storage)])
        monkeypatch.setenv("COLUMNS", "140")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return command


def test_the_verbs_say_what_came_of_it_and_what_to_type_next(models: Models, pharos: Any) -> None:
    assert pharos("models")[:2] == (
        0,
        "There is no registered model yet: `pharos sweep` registers its winner.\n",
    )
    models.add(models.learned)
    code, shown, _ = pharos("promote", MODEL)
    assert code == 0
    assert "switch version 1 is the champion.\n  there was no champion\n" in shown
    assert f"pharos chat switch@champion --storage {models.storage}" in shown
    models.add(models.base_like)
    code, shown, _ = pharos("promote", MODEL)
    assert code == 1
    assert "switch version 2 is not promoted.\n  worse: test loss" in shown
    assert "version 1 stays the champion" in shown
    code, shown, _ = pharos("promote", "switch/2", "--force", "--reason", "a try")
    assert code == 0
    assert "version 2 is the champion by force, version 1 is previous" in shown
    code, shown, _ = pharos("rollback", MODEL, "--reason", "enough")
    assert code == 0
    assert "version 1 is the champion again, version 2 is previous" in shown
    code, shown, _ = pharos("models", MODEL)
    assert code == 0
    assert shown.index("rollback") < shown.index("a try") < shown.index("there was no champion")
    assert re.search(r"^ +2 +candidate previous +2.5000 +2.7500 +quickstart-0001 ", shown, re.MULTILINE)


def test_the_lineage_of_a_version_is_shown_and_given_as_json(models: Models, pharos: Any) -> None:
    models.add(models.learned)
    pharos("promote", MODEL)
    code, shown, _ = pharos("models", "switch@champion")
    assert code == 0
    for expected in ("switch/1", "quickstart-0000", str(models.base), models.data.name, "git 50da", "pharos rerun"):
        assert expected in shown
    code, shown, _ = pharos("models", "switch/1", "--json")
    found = json.loads(shown)
    assert (code, found["model"], found["version"], found["sweep"], found["trial"]) == (0, MODEL, "1", "quickstart", 0)
    assert found["metrics"] == {"eval_loss": 2.5, "test_loss": 2.75}
    assert found["promoted"]["why"] == "there was no champion"
    assert found["digests"]["data"] == models.data.name
    assert len(found["digests"]["environment"]) == 16
    code, shown, _ = pharos("models", "--json")
    [listed] = json.loads(shown)
    assert listed["versions"] == [found]
    assert [move["to"] for move in listed["moves"]] == ["1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["promote", MODEL, "--force"], "--force needs --reason"),
        (["promote", MODEL, "--reason", "so"], "--reason is for --force alone"),
        (["promote", MODEL, "--margin", "-1"], "--margin -1: it must be more than 0"),
        (["promote", MODEL, "--margin", "nan"], "--margin nan: it must be more than 0"),
        (["promote", "none"], "none: no such registered model"),
        (["rollback", "switch/1"], "Give the model's name alone"),
        (["models", "none"], "none: no such registered model"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(pharos: Any, arguments: list[str], message: str) -> None:
    code, shown, error = pharos(*arguments)
    assert (code, shown) == (2, "")
    assert message in error
    assert "Traceback" not in error


def _float32() -> Any:
    import torch

    return torch.float32
