"""What a worker holds, and what is proposed where it does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pharos.errors import PlanError
from pharos.plan.facts import MachineFacts
from pharos.plan.memory import (
    SEAT_BYTES_PER_PARAMETER,
    activations_bytes,
    adapter_parameters,
    base_bytes,
    base_dtype,
    choose_sharding,
    gigabytes,
    memory_plan,
)

GPU_POOL = {"workers": 16, "seats_per_worker": 4, "gpus_per_worker": 1, "worker_memory_gb": 80}


@pytest.fixture
def long_rows(rows):
    return replace(rows, mean_tokens=500.0, p95_tokens=900, max_tokens=1024, mean_trained_tokens=250.0)


def test_an_adapter_of_llama_8b_has_42_million_parameters(llama_8b) -> None:
    assert adapter_parameters(llama_8b, r=16) == 41_943_040
    assert gigabytes(SEAT_BYTES_PER_PARAMETER * adapter_parameters(llama_8b, r=16)) == "0.7 GB"


def test_llama_8b_worked_through(make_spec, llama_8b, long_rows, machine) -> None:
    spec = make_spec(lora={"r": 16}, train={"micro_batch_size": 1}, pool=GPU_POOL, data={"max_length": 1024})
    memory = memory_plan(spec, llama_8b, long_rows, machine, sharding="zero3")
    # bf16: 1/16 of 8.03 G parameters, and two gathered embeddings of 128256 x 4096.
    assert memory.base_bytes == 2 * (501_891_328 + 2 * 128_256 * 4096)
    assert memory.seats_bytes == 4 * 16 * 41_943_040
    # 4 rows x 1024 tokens x 33 layers x (2 x (7 x 4096 + 4 x 14336 + 7 x 16) + 8 x 4096) bytes, then the logits.
    layers = 4096 * 33 * (2 * (28672 + 57344 + 112) + 32768)
    logits = 2 * 2048 * 128_256 * 2 + 2 * 1024 * 128_256 * 4
    assert memory.activations_bytes == layers + logits
    assert (gigabytes(memory.total_bytes), memory.fits) == ("36.6 GB", True)


def test_sharding_divides_the_base_and_keeps_the_gathered_units(llama_8b) -> None:
    whole = base_bytes(llama_8b, dtype="bfloat16", workers=1)
    shares = [base_bytes(llama_8b, dtype="bfloat16", workers=workers) for workers in (2, 4, 8, 64)]
    assert whole == 2 * llama_8b.num_parameters
    assert shares == sorted(shares, reverse=True)
    assert shares[0] < whole
    assert shares[-1] > 2 * 2 * 128_256 * 4096
    assert base_bytes(llama_8b, dtype="float32", workers=8) == 2 * base_bytes(llama_8b, dtype="bfloat16", workers=8)


@pytest.mark.parametrize(
    "more",
    [
        {"pool": GPU_POOL | {"seats_per_worker": 5}},
        {"train": {"micro_batch_size": 4}},
        {"lora": {"r": 17}},
        {"lora": {"lora_dropout": 0.1}},
        {"train": {"micro_batch_size": 2, "dtype": "float32"}},
        {"data": {"max_length": 1000}},
    ],
)
def test_more_of_anything_takes_more_memory(make_spec, llama_8b, long_rows, machine, more) -> None:
    less = {"pool": GPU_POOL, "lora": {"r": 16}, "train": {"micro_batch_size": 2}, "data": {"max_length": 500}}
    totals = [
        memory_plan(make_spec(**changes), llama_8b, long_rows, machine, sharding="zero3").total_bytes
        for changes in (less, less | more)
    ]
    assert totals[0] < totals[1]


def test_checkpointing_keeps_only_the_inputs_of_layers(make_spec, llama_8b, long_rows) -> None:
    plain = activations_bytes(make_spec(pool=GPU_POOL), llama_8b, long_rows)
    checkpointed = activations_bytes(
        make_spec(pool=GPU_POOL, train={"activation_checkpointing": True}), llama_8b, long_rows
    )
    assert checkpointed < plain / 4


def test_rows_longer_than_max_length_take_no_memory(make_spec, llama_8b, long_rows) -> None:
    spec = make_spec(data={"max_length": 256})
    at_limit = activations_bytes(spec, llama_8b, replace(long_rows, max_tokens=256))
    assert activations_bytes(spec, llama_8b, long_rows) == at_limit


def test_auto_replicates_a_base_that_fits_and_shards_one_that_does_not(make_spec, tiny_base, llama_8b, rows) -> None:
    machine = MachineFacts(num_cpus=16, memory_bytes=64 * 10**9, num_gpus=2, gpu_memory_bytes=16 * 10**9)
    small = choose_sharding(make_spec(), tiny_base, rows, machine)
    assert small.sharding == "replicate"
    assert small.reason == "a whole base and its seats take 0.9 GB of a worker's 24.4 GB"
    spec = make_spec(pool={"gpus_per_worker": 1, "workers": 4, "seats_per_worker": 1}, train={"micro_batch_size": 1})
    large = choose_sharding(spec, llama_8b, rows, machine)
    assert large.sharding == "zero3"
    assert "would take 18." in large.reason
    assert "of a worker's 16.0 GB; sharded over 4 it takes" in large.reason


def test_the_spec_may_choose_the_sharding(make_spec, tiny_base, rows, machine) -> None:
    choice = choose_sharding(make_spec(pool={"sharding": "zero3"}), tiny_base, rows, machine)
    assert (choice.sharding, choice.reason) == ("zero3", "pool.sharding=zero3")


def test_dtype_follows_the_device_unless_it_is_given(make_spec) -> None:
    assert base_dtype(make_spec()) == "float32"
    assert base_dtype(make_spec(pool={"gpus_per_worker": 1})) == "bfloat16"
    assert base_dtype(make_spec(pool={"gpus_per_worker": 1}, train={"dtype": "float32"})) == "float32"


def test_every_proposed_change_makes_it_fit_and_the_next_smaller_one_does_not(
    make_spec, llama_8b, long_rows, machine
) -> None:
    pool = {"workers": 2, "seats_per_worker": 16, "worker_memory_gb": 80, "gpus_per_worker": 1}
    data = {"max_length": 1024}

    def fits(**changes) -> bool:
        changes = {"train": {"micro_batch_size": 4}, "pool": pool, "data": data} | changes
        return memory_plan(make_spec(**changes), llama_8b, long_rows, machine, sharding="zero3").fits

    spec = make_spec(train={"micro_batch_size": 4}, pool=pool, data=data)
    with pytest.raises(PlanError) as raised:
        choose_sharding(spec, llama_8b, long_rows, machine)
    message = str(raised.value)
    assert "a worker needs 477.5 GB (base 10.1 GB, 16 seats 5.4 GB," in message
    assert "may use 80.0 GB" in message
    assert "It would fit with pool.seats_per_worker=2, or with train.activation_checkpointing=true." in message
    assert fits(pool=pool | {"seats_per_worker": 2})
    assert not fits(pool=pool | {"seats_per_worker": 3})
    assert fits(train={"micro_batch_size": 4, "activation_checkpointing": True})
    assert not fits(train={"micro_batch_size": 1})
    assert not fits(pool=pool | {"workers": 16})


def test_more_workers_are_proposed_where_the_base_is_what_does_not_fit(make_spec, llama_8b, rows, machine) -> None:
    pool = {"workers": 2, "seats_per_worker": 1, "worker_memory_gb": 9, "gpus_per_worker": 1}
    with pytest.raises(PlanError, match=r"pool.workers=\d+"):
        choose_sharding(make_spec(train={"micro_batch_size": 1}, pool=pool), llama_8b, rows, machine)


def test_a_replica_that_does_not_fit_is_told_to_shard(make_spec, llama_8b, rows, machine) -> None:
    pool = {"workers": 8, "seats_per_worker": 1, "worker_memory_gb": 16, "gpus_per_worker": 1, "sharding": "replicate"}
    with pytest.raises(PlanError, match="with pool.sharding=zero3"):
        choose_sharding(make_spec(train={"micro_batch_size": 1}, pool=pool), llama_8b, rows, machine)


def test_a_hopeless_worker_is_told_so(make_spec, llama_8b, rows, machine) -> None:
    pool = {"workers": 1, "seats_per_worker": 4, "worker_memory_gb": 4, "gpus_per_worker": 1, "sharding": "replicate"}
    with pytest.raises(PlanError, match="Even one seat .* needs 1.* GB: it takes workers with more memory"):
        choose_sharding(make_spec(pool=pool), llama_8b, rows, machine)


def test_gpu_workers_without_a_gpu_at_hand_need_their_memory_in_the_spec(make_spec, llama_8b, rows, machine) -> None:
    with pytest.raises(PlanError, match="Set pool.worker_memory_gb"):
        choose_sharding(make_spec(pool={"gpus_per_worker": 1}), llama_8b, rows, machine)


def test_workers_on_a_cpu_share_the_machine_with_the_head(make_spec, tiny_base, rows, machine) -> None:
    memory = memory_plan(make_spec(), tiny_base, rows, machine, sharding="zero3")
    assert memory.head_bytes == 10**9 + 8 * 180 * 10**6
    assert memory.budget_bytes == (int(0.8 * 24 * 10**9) - memory.head_bytes) // 2


def test_bytes_are_written_as_people_say_them() -> None:
    assert [gigabytes(n) for n in (16_060_522_496, 100_000_000, 99_000_000, 0)] == [
        "16.1 GB",
        "0.1 GB",
        "99 MB",
        "0 MB",
    ]


def test_answers_that_rank_trials_need_their_keys_and_values(make_spec, llama_8b, rows, machine) -> None:
    def activations(**search) -> int:
        spec = make_spec(
            train={"batch_size": 1, "micro_batch_size": 1, "activation_checkpointing": True},
            search=search,
            pool={"workers": 1, "seats_per_worker": 4, "gpus_per_worker": 1, "worker_memory_gb": 400},
        )
        return memory_plan(spec, llama_8b, rows, machine, sharding="replicate").activations_bytes

    by_loss = activations()
    some = activations(metric="exact_match", generation={"max_rows": 1, "max_new_tokens": 20})
    many = activations(metric="exact_match", generation={"max_rows": 1000, "max_new_tokens": 20})
    assert some == by_loss, "one short answer of each seat takes less than a clock"
    tokens = 4 * 100 * (80 + 20)  # four seats answer the hundred eval rows that there are
    assert many == 2 * (2 * 32 * 4096 * tokens + 400 * 128256)
