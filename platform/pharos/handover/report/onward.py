"""Where everything of a sweep lies, what to type next, and from what the sweep was made."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from pharos.handover.report.facts import SweepFacts


def places(facts: SweepFacts, sweep_dir: Path) -> list[tuple[str, str]]:
    """Where everything lies: what, and the path or name to copy."""
    registered = facts.ledger.registered
    found = [("results", str(sweep_dir / "result.json"))] if facts.ledger.ended else []
    found.append(("events", str(sweep_dir / "events")))
    if facts.best is not None and facts.best.best_checkpoint is not None:
        found.append(("winner's adapter", facts.best.best_checkpoint))
    if registered is not None:
        found += [("model", f"{registered.model} version {registered.version}, alias {registered.alias}")]
        found += [("model's files", registered.source)]
    return found


def commands(facts: SweepFacts, sweep_dir: Path) -> list[tuple[str, str]]:
    """What to type next, and what it does."""
    name, storage = shlex.quote(sweep_dir.name), shlex.quote(str(sweep_dir.parent))
    found = [(f"pharos compare {name} --storage {storage}", "the leaderboard in a terminal, to sort, filter and save")]
    if facts.ledger.registered is not None:
        model = shlex.quote(f"{facts.ledger.registered.model}@{facts.ledger.registered.alias}")
        uri = (facts.started.spec.get("tracking") or {}).get("uri")
        where = f"--storage {storage}" + (f" --tracking-uri {shlex.quote(uri)}" if uri else "")
        found += [
            (f"pharos chat {model} {where}", "talk to the winner"),
            (f"pharos promote {model} {where}", "make it the model in use, if it is better than that one"),
        ]
    if facts.state != "COMPLETED":
        found.append((f"pharos report {name} --storage {storage}", "write this page again, with what happened since"))
    return found


def spec_text(facts: SweepFacts) -> str:
    """The whole spec, defaults filled in, as YAML."""
    return yaml.safe_dump(facts.started.spec, sort_keys=False, allow_unicode=True, width=100)
