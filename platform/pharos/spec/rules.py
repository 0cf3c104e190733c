"""Rules about several fields at once. Each is a pure function that yields all problems it finds in a spec.

What one field or one domain may hold lives in `model.py` and `space.py`; what needs files, in the data and model rooms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pharos.spec.fields import nearest, spec_fields
from pharos.spec.format_names import AUTO, FORMAT_NAMES, all_format_names, canonical_format
from pharos.spec.model import DataSpec, Scalar, SweepSpec, WeightedSource
from pharos.spec.space import domain_values, num_points

BUILTIN_BASES = ("builtin:tiny",)
BUILTIN_DATA = ("builtin:docker-commands",)
BUILTIN_TEMPLATES = ("alpaca", "baichuan2", "chatml", "llama2", "llama3", "mistral", "plain", "qwen")
TEMPLATE_FILES = (".jinja", ".jinja2", ".j2")
"""What else data.template may be: a path, known by one of these endings or by a slash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What cannot work together. keys: the dotted fields that take part, the one to look at first in front."""

    keys: tuple[str, ...]
    message: str


def spec_problems(spec: SweepSpec) -> list[Problem]:
    """Everything in a spec that its types allow and that yet cannot work."""
    rules = (_empty_text, _base, _data, _format, _template, _batch_size, _warmup, _alpha, _budget, _num_trials, _pools)
    return [problem for rule in rules for problem in rule(spec)]


def _empty_text(spec: SweepSpec) -> Iterator[Problem]:
    for key, field in spec_fields().items():
        if field.kind not in ("text", "list"):
            continue
        value: object = spec
        for name in key.split("."):
            value = getattr(value, "register_" if name == "register" else name, None)
        if value in ("", []) or (isinstance(value, list) and "" in value):
            message = f"{key} holds an empty value; expected: {field.description or field.expected}."
            yield Problem(keys=(key,), message=message)


def _base(spec: SweepSpec) -> Iterator[Problem]:
    base, revision = spec.base, spec.revision
    builtin = base.startswith("builtin:")
    # A hub id is name or owner/name; whether a directory of that name lies here is the model room's to find out.
    has_revisions = not builtin and not base.startswith(("/", ".", "~")) and base.count("/") <= 1
    if builtin and base not in BUILTIN_BASES:
        yield Problem(keys=("base",), message=_unknown_builtin("base", base, BUILTIN_BASES))
    if revision and not has_revisions:
        message = f"revision={revision} has no meaning for base={base}: only models of the hub have one. Remove it."
        yield Problem(keys=("revision", "base"), message=message)
    if spec.trust_remote_code and not has_revisions:
        message = f"trust_remote_code=true is refused for base={base}: it is for models of the hub alone. Remove it."
        yield Problem(keys=("trust_remote_code", "base"), message=message)
    elif spec.trust_remote_code and not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        reason = f"revision={revision} is a name that can move" if revision else "no revision is pinned"
        remedy = "Give the commit whose code you read, as revision: <its 40 hexadecimal digits>"
        message = f"trust_remote_code=true runs code from the hub, but {reason}. {remedy}"
        yield Problem(keys=("trust_remote_code", "revision"), message=message)


def _data(spec: SweepSpec) -> Iterator[Problem]:
    sources = {name: _listed(getattr(spec.data, name)) for name in ("train", "eval", "test")}
    for name, paths in sources.items():
        for path in paths:
            if path.startswith("builtin:") and path not in BUILTIN_DATA:
                message = _unknown_builtin(f"data.{name}", path, BUILTIN_DATA)
                yield Problem(keys=(f"data.{name}",), message=message)
    builtin = next((path for path in sources["train"] if path in BUILTIN_DATA), None)
    if builtin and len(sources["train"]) > 1:
        message = f"data.train holds {builtin} and other files, but built-in rows stand alone. Keep one of the two."
        yield Problem(keys=("data.train",), message=message)
    for name in ("eval", "test"):
        if sources[name]:
            yield from _held_out(spec.data, name, sources[name], builtin)
    for first, second in (("train", "eval"), ("train", "test"), ("eval", "test")):
        for path in sources[second]:
            if path in sources[first] and path not in BUILTIN_DATA:
                reason = "a score on rows that are used elsewhere means nothing"
                message = f"data.{second} holds {path}, and so does data.{first}: {reason}. Remove it from one."
                yield Problem(keys=(f"data.{second}", f"data.{first}"), message=message)


def _format(spec: SweepSpec) -> Iterator[Problem]:
    name, columns = spec.data.format, spec.data.columns or {}
    if name and name != AUTO and canonical_format(name) is None:
        guess = nearest(name.lower(), all_format_names())
        message = f"data.format={name} is no form of rows. Use one of {', '.join((AUTO, *FORMAT_NAMES))}."
        yield Problem(keys=("data.format",), message=f"{message} Did you mean {guess}?" if guess else message)
    given = [field for field, value in (("format", name), ("columns", columns)) if value not in (AUTO, "", {})]
    for field in given if spec.data.train in BUILTIN_DATA else []:
        message = f"data.{field} has no meaning with data.train={spec.data.train}, whose form is known. Remove it."
        yield Problem(keys=(f"data.{field}", "data.train"), message=message)
    doubled = sorted({column for column in columns.values() if list(columns.values()).count(column) > 1})
    for column in doubled:
        keys = " and ".join(key for key, name in columns.items() if name == column)
        message = f"data.columns gives {column} to {keys}; a column can be one of them."
        yield Problem(keys=("data.columns",), message=message)


def _template(spec: SweepSpec) -> Iterator[Problem]:
    name, known = spec.data.template, ("auto", "tokenizer", *BUILTIN_TEMPLATES)
    if not name or name in known or "/" in name or name.endswith(TEMPLATE_FILES):
        return
    guess = nearest(name.lower(), known)
    remedy = f"Did you mean {guess}?" if guess else f"Use one of {', '.join(known)}."
    message = f"data.template={name} is no template. {remedy} A Jinja file is named by its path, such as ./my.jinja."
    yield Problem(keys=("data.template",), message=message)


def _held_out(data: DataSpec, name: str, paths: list[str], builtin: str | None) -> Iterator[Problem]:
    key, fraction = f"data.{name}", f"{name}_fraction"
    if builtin:
        message = f"{key} cannot be given with data.train={builtin}, which brings its own {name} rows. Remove {key}."
        yield Problem(keys=(key, "data.train"), message=message)
    elif any(path in BUILTIN_DATA for path in paths):
        message = f"{key} must name files: built-in rows belong in data.train, and bring their own {name} rows."
        yield Problem(keys=(key,), message=message)
    if fraction in data.model_fields_set:
        message = f"data.{fraction} has no effect, since {key} is given. Remove one of them."
        yield Problem(keys=(f"data.{fraction}", key), message=message)


def _batch_size(spec: SweepSpec) -> Iterator[Problem]:
    micro = spec.train.micro_batch_size
    own = spec.train.batch_size
    keys = ("train.batch_size", "train.micro_batch_size")
    if own % micro:
        yield Problem(keys=keys, message=f"train.batch_size={own} {_cannot_be_made(own, micro)}")
    for batch_size in _searched(spec, "train.batch_size"):
        if isinstance(batch_size, int) and batch_size % micro:
            message = f"search.space.train.batch_size holds {batch_size}, which {_cannot_be_made(batch_size, micro)}"
            yield Problem(keys=("search.space.train.batch_size", *keys[1:]), message=message)


def _cannot_be_made(batch_size: int, micro: int) -> str:
    if batch_size < micro:
        return (
            f"is smaller than a micro-batch of {micro} (train.micro_batch_size). "
            f"Nearest: a batch of {micro}, or micro-batches of {batch_size}."
        )
    below = batch_size // micro * micro
    return (
        f"cannot be made of micro-batches of {micro}: it must be a multiple of {micro}. "
        f"Nearest: {below} or {below + micro}."
    )


def _warmup(spec: SweepSpec) -> Iterator[Problem]:
    remedy = "constant ignores warmup. Use constant_with_warmup, or a schedule that decays."
    if spec.optim.lr_scheduler_type != "constant":
        return
    if spec.optim.warmup_ratio > 0:
        message = f"optim.warmup_ratio={spec.optim.warmup_ratio:g} with optim.lr_scheduler_type=constant: {remedy}"
        yield Problem(keys=("optim.warmup_ratio", "optim.lr_scheduler_type"), message=message)
    searched = spec.search.space if spec.search else {}
    if "optim.warmup_ratio" in searched and "optim.lr_scheduler_type" not in searched:
        message = f"search.space.optim.warmup_ratio is searched with optim.lr_scheduler_type=constant: {remedy}"
        yield Problem(keys=("search.space.optim.warmup_ratio", "optim.lr_scheduler_type"), message=message)


def _alpha(spec: SweepSpec) -> Iterator[Problem]:
    searched = spec.search.space if spec.search else {}
    both = ("lora.alpha_over_r", "lora.lora_alpha")
    if all(key in searched for key in both):
        message = "search.space holds lora.alpha_over_r and lora.lora_alpha, and both set lora_alpha. Keep one."
        yield Problem(keys=tuple(f"search.space.{key}" for key in both), message=message)


def _budget(spec: SweepSpec) -> Iterator[Problem]:
    searched = spec.search.space if spec.search else {}
    if "train.num_train_epochs" not in searched:
        return
    key = "search.space.train.num_train_epochs"
    if "train.max_steps" in searched:
        message = f"{key} has no effect: train.max_steps is searched too, and overrides it. Keep one."
        yield Problem(keys=(key, "search.space.train.max_steps"), message=message)
    elif spec.train.max_steps is not None:
        message = f"{key} has no effect: train.max_steps={spec.train.max_steps} overrides it. Keep one."
        yield Problem(keys=(key, "train.max_steps"), message=message)


def _num_trials(spec: SweepSpec) -> Iterator[Problem]:
    if spec.search is None:
        return
    points = num_points(spec.search.space)
    if points is None:
        return
    sections = {"lora": spec.lora, "optim": spec.optim, "train": spec.train}
    own = {f"{name}.{field}": value for name, section in sections.items() for field, value in section}
    own["lora.alpha_over_r"] = spec.lora.lora_alpha / spec.lora.r
    outside = any(own.get(key) not in _searched(spec, key) for key in spec.search.space)
    most = points + outside
    if spec.search.num_trials > most:
        beside = " and the baseline beside them" if outside else ", the baseline among them"
        message = (
            f"search.num_trials={spec.search.num_trials} is more than there is to try: "
            f"the space holds only {points} combinations{beside}. Set it to {most} or less, or widen the space."
        )
        yield Problem(keys=("search.num_trials", "search.space"), message=message)


def _pools(spec: SweepSpec) -> Iterator[Problem]:
    count = spec.pool.count
    if count.min > count.max:
        message = f"pool.count.min={count.min} is more than pool.count.max={count.max}. Lower it, or raise the other."
        yield Problem(keys=("pool.count.min", "pool.count.max", "pool.count"), message=message)


def _searched(spec: SweepSpec, key: str) -> tuple[Scalar, ...]:
    """The values of a field with a discrete domain; none where it is not searched or continuous."""
    domain = spec.search.space.get(key) if spec.search else None
    return (domain_values(domain) if domain else None) or ()


def _listed(paths: str | Sequence[str | WeightedSource] | None) -> list[str]:
    if paths is None or isinstance(paths, str):
        return [] if paths is None else [paths]
    return [name for path in paths for name in ([path] if isinstance(path, str) else _listed(path.path))]


def _unknown_builtin(key: str, name: str, known: Sequence[str]) -> str:
    # With so few names the nearest is worth naming even where it is far.
    return f"{key}={name} is not built in. Did you mean {nearest(name, list(known)) or known[0]}?"
