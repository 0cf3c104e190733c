"""The sweep file as the user writes it: strict, frozen, every default in one place.

Hyperparameters keep the names of PEFT and transformers. What a field means to a person stands in its description.
Nothing is computed here; cross-field rules live in `rules.py`, reading and error texts in `load.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Scalar = int | float | bool | str

SchedulerType = Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"]


class Section(BaseModel):
    """A part of the file: unknown keys are errors, values are never coerced across kinds, nothing changes later."""

    # validate_default: a default of 8 for a float field is 8.0, as it is where a file gives it.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)


class WeightedSource(Section):
    """One of several sources that are mixed: its share of an epoch is its weight over the sum of all weights."""

    path: str | list[str]
    weight: Positive = 1.0


class DataSpec(Section):
    train: str | list[str] | list[WeightedSource] = Field(
        description="file(s) of rows, a list of {path, weight} to mix, hub:owner/name, or builtin:docker-commands"
    )
    eval: str | list[str] | None = Field(None, description="rows that steer the search; none: split off by content")
    test: str | list[str] | None = Field(
        None, description="rows read only after the choice; none: split off by content"
    )
    eval_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = Field(
        0.05, description="share split off when no eval is given"
    )
    test_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = Field(
        0.05, description="share split off when no test is given"
    )
    max_length: Count = Field(1024, description="tokens a row may have")
    long_rows: Literal["error", "truncate", "skip"] = Field(
        "error", description="what to do with longer rows; truncate: at the end of a turn, where a whole exchange fits"
    )
    train_on: Literal["assistant", "last", "completion", "all"] = Field(
        "assistant",
        description="what is trained on: every assistant turn; the last one only (mask_history of LLaMA-Factory); all "
        "after the last question, calls of tools too; or everything, the prompt too (its train_on_prompt)",
    )
    template: str = Field(
        "auto",
        description="auto: the tokenizer's chat template, or plain where it has none; tokenizer; alpaca, baichuan2, "
        "chatml, llama2, llama3, mistral, plain or qwen; or the path of a Jinja file",
    )
    format: str = Field(
        "auto", description="form of the rows: messages, sharegpt, alpaca, ...; auto: by the first row of each file"
    )
    columns: dict[str, str] | None = Field(
        None, description="the file's own names of a form's keys, as in {prompt: my_question, completion: my_answer}"
    )
    packing: bool = Field(
        False,
        description="training rows end to end in sequences of up to max_length tokens, so that no pads are computed; "
        "rows do not see each other, and batch_size counts such sequences",
    )
    max_train_rows: Count | None = Field(None, description="use only the first so many training rows")
    max_eval_rows: Count | None = Field(None, description="score on the first so many eval rows only")
    max_test_rows: Count | None = Field(None, description="score on the first so many test rows only")
    max_bad_rows: Annotated[int, Field(ge=0)] = Field(
        0, description="rows in error that may be left out; more of them stop the work"
    )


class LoraSpec(Section):
    r: Count = 8
    lora_alpha: Positive = 8
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    use_rslora: bool = False
    target_modules: Literal["all-linear"] | list[str] = "all-linear"


class OptimSpec(Section):
    learning_rate: Positive = 2e-4
    adam_beta1: Beta = 0.9
    adam_beta2: Beta = 0.999
    adam_epsilon: Positive = 1e-8
    weight_decay: NotNegative = 0.0
    max_grad_norm: NotNegative = Field(1.0, description="0 turns clipping off")
    lr_scheduler_type: SchedulerType = "linear"
    warmup_ratio: Fraction = 0.0


class TrainSpec(Section):
    num_train_epochs: Positive = 3
    max_steps: Count | None = Field(None, description="optimizer steps; overrides num_train_epochs")
    batch_size: Count = Field(
        8, description="rows (or packs) of one optimizer step of one trial, wherever it is placed"
    )
    micro_batch_size: Count = Field(8, description="rows of one clock on one rank")
    seed: Annotated[int, Field(ge=0)] = 0
    data_seed: Annotated[int, Field(ge=0)] = 0
    dtype: Literal["float32", "bfloat16", "auto"] = Field(
        "auto", description="of the frozen base; auto: bfloat16 on a GPU, float32 on a CPU"
    )
    activation_checkpointing: bool = False
    report_every: Count | None = Field(None, description="clocks between evaluations; none: an eighth of a full trial")


class Ordered(Section):
    ordered: Annotated[list[Scalar], Field(min_length=2)]


class Choice(Section):
    choice: Annotated[list[Scalar], Field(min_length=2)]


class Uniform(Section):
    uniform: Annotated[list[float | int], Field(min_length=2, max_length=2)]


class LogUniform(Section):
    log_uniform: Annotated[list[float | int], Field(min_length=2, max_length=2)]


class OneMinusLogUniform(Section):
    one_minus_log_uniform: Annotated[list[float | int], Field(min_length=2, max_length=2)]


Domain = Ordered | Choice | Uniform | LogUniform | OneMinusLogUniform


class HalvingSpec(Section):
    enabled: bool = True
    reduction_factor: Annotated[int, Field(ge=2)] = Field(2, description="one in so many goes on at each rung")
    first_rung: Fraction | None = Field(
        None, description="share of a full trial; none: the first report beyond the largest warmup"
    )


class ConfirmSpec(Section):
    """Whether the winner is luck: repeats at full length, under the same further seeds."""

    top: Count = Field(3, description="best trials to repeat, beside the baseline")
    seeds: Annotated[int, Field(ge=2, le=99)] = Field(3, description="how often each is repeated")


class GenerationSpec(Section):
    """Answers that are generated in the pool, at rungs and at a trial's end, where they make the metric."""

    max_rows: Count = Field(64, description="answer the first so many eval rows, all of a pool's seats at once")
    max_new_tokens: Count = 64


class SearchSpec(Section):
    num_trials: Count = Field(16, description="the baseline, trial 0, is one of them")
    metric: Literal["eval_loss", "exact_match", "bleu_4", "rouge_1", "rouge_2", "rouge_l"] = Field(
        "eval_loss", description="what ranks the trials; all but eval_loss are of generated answers to eval rows"
    )
    generation: GenerationSpec = GenerationSpec()
    metric_scope: Literal["best", "last"] = "best"
    seed: Annotated[int, Field(ge=0)] = 0
    num_startup_trials: Count = Field(8, description="random trials before the sampler models the space")
    halving: HalvingSpec = HalvingSpec()
    confirm: ConfirmSpec | None = Field(
        None, description="repeat the best trials and the baseline under further seeds before a winner is named"
    )
    space: dict[str, Domain] = Field(description="dotted field -> domain", min_length=1)


class PoolRange(Section):
    """How many pools: never fewer than min, never more than max."""

    min: Count = 1
    max: Count = 1


def _as_range(count: Any) -> Any:
    """A number of pools is that many at least and at most."""
    return {"min": count, "max": count} if isinstance(count, int) and not isinstance(count, bool) else count


class PoolSpec(Section):
    count: Annotated[PoolRange, BeforeValidator(_as_range)] = Field(
        PoolRange(), description="pools of one sweep: a number, or {min, max}, opened while trials wait, closed after"
    )
    workers: Count = 1
    seats_per_worker: Count = 4
    placement: Literal["local", "data_parallel"] = "local"
    sharding: Literal["auto", "zero3", "replicate"] = "auto"
    cpus_per_worker: Positive = 1
    gpus_per_worker: NotNegative = 0
    worker_memory_gb: Positive | None = Field(
        None, description="memory of one worker's device, GB; none: this machine's, shared by its workers"
    )
    max_restarts: Annotated[int, Field(ge=0)] = Field(
        3, description="how often in a row a pool that died is started again"
    )
    price_per_node_hour: Positive | None = Field(
        None, description="what an hour of one node costs, in whatever currency; none: no cost is shown"
    )
    peak_tflops_per_worker: Positive | None = Field(
        None, description="what one worker could compute at best, 10^12 operations a second; none: no share is shown"
    )


class FinalTestSpec(Section):
    generate: bool = Field(False, description="also generate answers to test rows and report exact match")
    max_new_tokens: Count = 64


class KeepSpec(Section):
    """What a storage keeps of trials that are at their end. Live trials, the baseline and the winner keep all."""

    adapters: Count | None = Field(None, description="keep the adapters of the best so many trials; none: of all")


class RegisterSpec(Section):
    model: str | None = Field(None, description="registered model; none: the sweep's name")
    enabled: bool = True


class TrackingSpec(Section):
    uri: str | None = Field(None, description="MLflow tracking URI; none: SQLite beside the storage")
    experiment: str = "pharos"


class SweepSpec(Section):
    """One file, one sweep. Without `search` it is one fine-tune: `pharos train`."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    base: str = Field(description="a local directory, a hub id, or builtin:tiny")
    revision: str | None = None
    trust_remote_code: bool = False
    storage: str = Field(
        "pharos-results",
        description="directory that holds the sweep's state, or s3://bucket/prefix, or gs://bucket/prefix",
    )
    data: DataSpec
    lora: LoraSpec = LoraSpec()
    optim: OptimSpec = OptimSpec()
    train: TrainSpec = TrainSpec()
    search: SearchSpec | None = None
    pool: PoolSpec = PoolSpec()
    test: FinalTestSpec = FinalTestSpec()
    register_: RegisterSpec = Field(RegisterSpec(), alias="register")
    tracking: TrackingSpec = TrackingSpec()
    keep: KeepSpec = KeepSpec()


# The values that change the frozen computation: trials that differ in one of them cannot share a pool.
BASE_KEY_FIELDS = (
    "base",
    "revision",
    "trust_remote_code",
    "data.*",
    "lora.target_modules",
    "train.micro_batch_size",
    "train.dtype",
    "train.activation_checkpointing",
)
# Fields of the search space: whole sections, minus what the base key holds, plus derived names.
SEARCHABLE_SECTIONS = ("lora", "optim", "train")
NOT_SEARCHABLE = ("train.report_every",)
DERIVED_FIELDS = ("lora.alpha_over_r",)
