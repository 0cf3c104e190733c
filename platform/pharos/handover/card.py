"""The model card: a README.md with the header that the Hugging Face hub reads, and what a person needs to know.

Pure: from facts to text. It says what is known, and of a licence that is not known where to look.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pharos.handover.card_facts import CardFacts

Form = Literal["adapter", "merged"]
LIBRARIES: Mapping[Form, str] = {"adapter": "peft", "merged": "transformers"}
PARITY = "parity"
UNKNOWN_LICENCE = "see the base"
LOADING: Mapping[Form, str] = {
    "adapter": """from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")""",
    "merged": """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")""",
}


def model_card(facts: CardFacts, *, form: Form, folder: str) -> str:
    """The text of README.md. folder: what the directory of the model is called where it lies."""
    over = "" if facts.base_hub is None else " --base DIRECTORY-OF-THE-BASE"
    sections = [
        f"# {facts.shown}",
        _introduction(facts, form),
        "## Load it",
        f"```python\n{LOADING[form].format(base=facts.base_place, folder=folder)}\n```",
        f"```bash\npharos chat {folder}{over if form == 'adapter' else ''}\n```",
    ]
    if facts.metrics:
        sections += ["## Metrics", _metrics(facts.metrics)]
    sections += ["## Where it comes from", _origin(facts)]
    if facts.hyperparameters:
        rows = {name: _shown(value) for name, value in facts.hyperparameters.items()}
        if facts.target_modules:
            rows["target_modules"] = facts.target_modules
        sections += ["## Hyperparameters", _table(("hyperparameter", "value"), rows.items())]
    return "---\n" + _header(facts, form) + "\n---\n\n" + "\n\n".join(sections) + "\n"


def _header(facts: CardFacts, form: Form) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    licence = facts.licence
    known: dict[str, Any] = {
        "license": licence.id if licence else "other",
        "license_name": licence.name if licence else UNKNOWN_LICENCE,
        "license_link": licence.link if licence else None,
        "library_name": LIBRARIES[form],
        "pipeline_tag": "text-generation",
        "tags": ["lora", "pharos", "text-generation"],
        "base_model": facts.base_hub[0] if facts.base_hub else facts.base,
        "base_model_relation": "adapter" if form == "adapter" else "finetune",
        "datasets": list(facts.datasets) or None,
    }
    own = facts.metrics.get("this model", {})
    if own:
        data = ", ".join(facts.data) or "its own rows"
        known["model_name"] = facts.shown
        known["eval_results"] = [
            EvalResult(
                task_type="text-generation",
                dataset_type=facts.datasets[0] if facts.datasets else "other",
                dataset_name=f"{data} ({'test' if name.startswith('test') else 'eval'} rows)",
                metric_type=name,
                metric_value=value,
            )
            for name, value in own.items()
            if name != PARITY
        ]
    return str(ModelCardData(**{key: value for key, value in known.items() if value is not None}).to_yaml()).strip()


def _introduction(facts: CardFacts, form: Form) -> str:
    what = "A LoRA adapter for" if form == "adapter" else "A LoRA fine-tune, merged, of"
    revision = f" at revision {facts.base_hub[1]}" if facts.base_hub and facts.base_hub[1] else ""
    licence = facts.licence
    said = (
        f"`{licence.name or licence.id}`, as the base's" if licence else f"{UNKNOWN_LICENCE}: it says none in its files"
    )
    base = facts.base_hub[0] if facts.base_hub else facts.base
    return f"{what} `{base}`{revision}, made with Pharos.\n\nLicence: {said}."


def _metrics(metrics: Mapping[str, Mapping[str, float]]) -> str:
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    rows = {name: tuple(_measured(values.get(name)) for values in metrics.values()) for name in names}
    note = "Eval rows steered the search; test rows were read once, after the choice."
    if PARITY in rows:
        note += f" {PARITY}: the largest difference of a logit between the merged model and base + adapter."
    return _table(("metric", *metrics), rows.items()) + f"\n\n{note}"


def _origin(facts: CardFacts) -> str:
    rows = {"trial": f"`{facts.trial}`"} if facts.trial else {}
    rows["base"] = f"`{facts.base}`"
    if facts.data:
        rows["data"] = ", ".join(f"`{source}`" for source in facts.data)
    rows |= {f"digest of {name}": f"`{digest}`" for name, digest in sorted(facts.digests.items())}
    if facts.versions:
        rows["versions"] = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    text = _table(("what", "which"), rows.items())
    return text + (f"\n\n`pharos rerun {facts.trial}` trains it again, alone." if facts.trial else "")


def _table(headings: tuple[str, ...], rows: Any) -> str:
    lines = [headings, tuple("---" for _ in headings)]
    lines += [(name, *(cells if isinstance(cells, tuple) else (cells,))) for name, cells in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _measured(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
