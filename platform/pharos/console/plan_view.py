"""The plan as `pharos plan` prints it."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pharos.plan import words
from pharos.plan.facts import DataFacts
from pharos.plan.memory import gigabytes
from pharos.plan.metrics import is_higher_better
from pharos.plan.sweep_plan import SweepPlan
from pharos.spec.model import Choice, Domain, LogUniform, OneMinusLogUniform, Ordered, SearchSpec, SweepSpec, Uniform


def show_plan(plan: SweepPlan, spec: SweepSpec, *, console: Console | None = None) -> None:
    """Print what will happen, then infos and warnings."""
    console = console or Console(highlight=False)
    what = f"{words.plural(plan.num_trials, 'trial')} over" if plan.num_trials > 1 else "one fine-tune of"
    title = Text(plan.sweep, style="bold").append(f"  {what} {plan.base.name}", style="not bold")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    for name, told in (
        ("base", _base(plan)),
        ("data", _data(plan)),
        ("trial 0", _baseline(plan)),
        ("search", _search(plan, spec)),
        ("halving", _halving(plan)),
        ("confirm", _confirm(plan, spec)),
        ("pool", _pool(plan)),
        ("memory", _memory(plan)),
    ):
        if told is not None:
            facts.add_row(name, told)
    console.print(title)
    console.print(facts)
    for info in plan.infos:
        console.print(Text("info: ", style="cyan") + Text(info))
    for warning in plan.warnings:
        console.print(Text("warning: ", style="yellow") + Text(warning))


def _base(plan: SweepPlan) -> Text:
    base = plan.base
    how = "sharded with ZeRO-3" if plan.sharding == "zero3" else "replicated"
    return Text(
        f"{base.name}, {base.architecture}, {words.count(base.num_parameters)} parameters{_about(base.estimated)}, "
        f"{plan.dtype}, {how}: {plan.sharding_reason}"
    )


def _data(plan: SweepPlan) -> Text:
    data = plan.data
    return Text(
        f"{data.num_train_rows:,} train, {data.num_eval_rows:,} eval, {data.num_test_rows:,} test rows; "
        f"format {data.format}, template {data.template}; "
        f"{data.mean_tokens:.0f} tokens a row on average, {data.p95_tokens} in 95 of 100, "
        f"{data.max_tokens} at most, {data.mean_trained_tokens:.0f} of them trained on{_about(data.estimated)}"
        f"{_packs(data)}"
    )


def _packs(data: DataFacts) -> str:
    if data.num_packs is None:
        return ""
    rows_a_pack = data.num_train_rows / data.num_packs
    return f"; packed: {data.num_packs:,} packs of {rows_a_pack:.1f} rows, which is what batch_size counts"


def _baseline(plan: SweepPlan) -> Text:
    trial, own = plan.baseline, plan.baseline.hyperparameters
    values = ", ".join(
        f"{name} {words.value(number)}"
        for name, number in (
            ("r", own.r),
            ("alpha", own.lora_alpha),
            ("dropout", own.lora_dropout),
            ("lr", own.learning_rate),
            ("beta1", own.adam_beta1),
            ("beta2", own.adam_beta2),
            ("decay", own.weight_decay),
            ("warmup", own.warmup_ratio),
        )
    )
    items = "rows" if plan.data.num_packs is None else "packs"
    return Text(
        f"the file's own values, the baseline: {values}, {own.lr_scheduler_type}; "
        f"{words.plural(trial.num_steps, 'step')} of {own.batch_size} {items}, "
        f"{words.plural(trial.num_clocks, 'clock')}, a report every {plan.report_every}"
    )


def _search(plan: SweepPlan, spec: SweepSpec) -> RenderableType | None:
    if spec.search is None or plan.num_trials == 1:
        return None
    fields = Table.grid(padding=(0, 2))
    for name, domain in spec.search.space.items():
        fields.add_row(Text(name), Text(_domain(domain), style="dim"))
    return Group(Text(_metric(plan, spec.search)), fields)


def _metric(plan: SweepPlan, search: SearchSpec) -> str:
    if not is_higher_better(search.metric):
        return f"{search.metric}, {search.metric_scope} of a trial, lower is better"
    asked, at = min(search.generation.max_rows, plan.data.num_eval_rows), words.plural(len(plan.rungs), "rung")
    return (
        f"{search.metric}, {search.metric_scope} of a trial, higher is better; answers to {asked} eval rows of up to "
        f"{search.generation.max_new_tokens} tokens at {at} and at the end, each time about as much arithmetic as "
        f"{words.plural(plan.generation_clocks, 'clock')} of the trial"
    )


def _domain(domain: Domain) -> str:
    match domain:
        case Ordered(ordered=values) | Choice(choice=values):
            return ", ".join(words.value(value) for value in values)
        case Uniform(uniform=ends):
            return f"{words.value(ends[0])} to {words.value(ends[1])}"
        case LogUniform(log_uniform=ends):
            return f"{words.value(ends[0])} to {words.value(ends[1])}, logarithmic"
        case OneMinusLogUniform(one_minus_log_uniform=ends):
            return f"{words.value(ends[0])} to {words.value(ends[1])}, logarithmic in the distance from 1"


def _halving(plan: SweepPlan) -> Text | None:
    if plan.num_trials == 1:
        return None
    full = plan.num_trials * plan.baseline.num_clocks
    if not plan.rungs:
        return Text(f"none: every trial runs to its full length, {full:,} trial clocks")
    rungs = ", ".join(str(rung) for rung in plan.rungs)
    saved = 1 - plan.expected_trial_clocks / full
    return Text(
        f"1 in {plan.reduction_factor} goes on at {rungs} of {plan.baseline.num_clocks} clocks; "
        f"about {plan.expected_trial_clocks:,} trial clocks instead of {full:,} ({saved:.0%} saved)"
    )


def _confirm(plan: SweepPlan, spec: SweepSpec) -> Text | None:
    if spec.search is None or spec.search.confirm is None or not plan.num_repeats:
        return None
    num_seeds = spec.search.confirm.seeds
    best = plan.num_repeats // num_seeds - 1
    return Text(
        f"the best {best if best > 1 else 'trial'} and the baseline again under {num_seeds} further seeds, at full "
        f"length: {words.plural(plan.num_repeats, 'repeat')}, {plan.num_repeats * plan.baseline.num_clocks:,} trial "
        "clocks more; the best on their average wins"
    )


def _pool(plan: SweepPlan) -> Text:
    workers = words.plural(plan.num_workers, "worker")
    if plan.max_pools > 1:
        some = f"{plan.min_pools} to {plan.max_pools}" if plan.min_pools < plan.max_pools else f"{plan.max_pools}"
        workers = f"{some} pools, each of {workers}"
    if plan.placement == "data_parallel":
        return Text(f"{workers}, {words.plural(plan.num_seats, 'seat')}; a trial's batch is split over all workers")
    seats = words.plural(plan.seats_per_worker, "seat")
    return Text(f"{workers} x {seats}; a trial lives on one worker; base key {plan.base_key}")


def _memory(plan: SweepPlan) -> Table:
    memory = plan.memory
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    for name, num_bytes in (
        ("base" if plan.sharding == "replicate" else "base: its share, and what is gathered", memory.base_bytes),
        (f"seats: adapters, gradients and moments up to r {plan.r_max}", memory.seats_bytes),
        ("activations, estimated", memory.activations_bytes),
        ("process", memory.host_bytes),
    ):
        table.add_row(Text(name), Text(gigabytes(num_bytes)))
    table.add_row(
        Text(f"a worker, of {gigabytes(memory.budget_bytes)} that it may use"),
        Text(gigabytes(memory.total_bytes), style="bold green" if memory.fits else "bold red"),
    )
    table.add_row(Text("head node, beside its workers", style="dim"), Text(gigabytes(memory.head_bytes), style="dim"))
    return table


def _about(estimated: bool) -> str:
    return " (estimated)" if estimated else ""
