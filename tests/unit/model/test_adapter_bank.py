"""The bank of adapters: draws as PEFT's, exact export, exact emptiness, and a model without seats left alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pharos.model.adapter_bank import AdapterBank, Visitor, fresh_adapter

TARGETS = {"up": (6, 10), "down": (10, 6)}


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.tanh(self.up(x)))


@pytest.fixture
def model() -> TwoLayers:
    torch.manual_seed(0)
    return TwoLayers().double().requires_grad_(False)


@pytest.fixture
def bank(model: TwoLayers) -> AdapterBank:
    bank = AdapterBank(TARGETS, num_seats=4, r_max=5, dtype=torch.float64)
    bank.attach(model)
    return bank


def random_adapter(r: int, seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (
            torch.randn(r, d_in, generator=generator, dtype=torch.float64),
            torch.randn(d_out, r, generator=generator, dtype=torch.float64),
        )
        for name, (d_in, d_out) in TARGETS.items()
    }


def test_a_fresh_adapter_is_drawn_as_peft_draws_it() -> None:
    a, b = fresh_adapter({"wide": (4096, 8)}, r=16, seed=3)["wide"]
    bound = math.sqrt(1 / 4096)  # kaiming-uniform with a = sqrt(5)
    assert (a.shape, b.shape, b.count_nonzero()) == ((16, 4096), (8, 16), 0)
    assert 0.99 * bound < a.abs().max() <= bound
    assert abs(a.std() - bound / math.sqrt(3)) < 0.01 * bound


def test_a_draw_depends_on_seed_and_module_alone() -> None:
    drawn = fresh_adapter(TARGETS, r=3, seed=1)
    assert torch.equal(drawn["down"][0], fresh_adapter({"down": (10, 6)}, r=3, seed=1)["down"][0])
    assert not torch.equal(drawn["down"][0], fresh_adapter(TARGETS, r=3, seed=2)["down"][0])
    assert not torch.equal(drawn["up"][0], fresh_adapter({"other": (6, 10)}, r=3, seed=1)["other"][0])


def test_export_gives_back_what_was_loaded_at_its_true_rank(bank: AdapterBank) -> None:
    adapters = {0: random_adapter(2, 0), 3: random_adapter(5, 1)}
    for seat, adapter in adapters.items():
        bank.load(seat, adapter, r=adapter["up"][0].shape[0], scaling=1.0)
    for seat, adapter in adapters.items():
        for name, (a, b) in bank.export(seat).items():
            assert torch.equal(a, adapter[name][0])
            assert torch.equal(b, adapter[name][1])


def test_each_seat_sees_its_own_rows_and_its_own_scaling(model: TwoLayers, bank: AdapterBank) -> None:
    adapters = {0: (random_adapter(2, 0), 0.5), 2: (random_adapter(5, 1), 2.0), 3: (random_adapter(1, 2), 1.0)}
    for seat, (adapter, scaling) in adapters.items():
        bank.load(seat, adapter, r=adapter["up"][0].shape[0], scaling=scaling)
    x = torch.randn(6, 7, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    with bank.active(list(adapters)):
        out = model(x)
    for index, (adapter, scaling) in enumerate(adapters.values()):
        up = model.up.weight + scaling * adapter["up"][1] @ adapter["up"][0]
        down = model.down.weight + scaling * adapter["down"][1] @ adapter["down"][0]
        mine = x[2 * index : 2 * index + 2]
        expected = torch.tanh(mine @ up.T + model.up.bias) @ down.T
        assert (out[2 * index : 2 * index + 2] - expected).abs().max() < 1e-12


def test_gradients_land_in_the_rows_of_active_seats_alone(model: TwoLayers, bank: AdapterBank) -> None:
    for seat in range(4):
        bank.load(seat, random_adapter(2 + seat % 2, seat), r=2 + seat % 2, scaling=1.0)
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    for _ in range(2):
        with bank.active([1, 3]):
            model(x).square().sum().backward()
    rows = bank.grads_KP.abs().sum(1)
    assert rows[[1, 3]].gt(0).all()
    assert rows[[0, 2]].eq(0).all()


def test_without_seats_the_model_computes_alone(model: TwoLayers, bank: AdapterBank) -> None:
    bank.load(0, random_adapter(5, 0), r=5, scaling=1.0)
    x = torch.randn(3, 6, dtype=torch.float64)
    plain = torch.tanh(x @ model.up.weight.T + model.up.bias) @ model.down.weight.T
    with bank.active([]):
        assert torch.equal(model(x), model.down(torch.tanh(model.up(x))))
    assert (model(x) - plain).abs().max() < 1e-14


def test_visitors_leave_no_trace(model: TwoLayers, bank: AdapterBank) -> None:
    bank.load(0, random_adapter(3, 0), r=3, scaling=1.0)
    bank.load(1, random_adapter(2, 1), r=2, scaling=0.5)
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    with bank.active([0, 1]):
        before = model(x)
        before.sum().backward()
    values, grads = bank.values_KP.clone(), bank.grads_KP.clone()
    guest = Visitor(tensors=random_adapter(5, 9), r=5, scaling=4.0)
    with bank.visitors([guest, None]), torch.no_grad(), bank.active([0, 1]):
        during = model(x)
    with bank.active([0, 1]):
        after = model(x)
    plain = torch.tanh(x @ model.up.weight.T + model.up.bias) @ model.down.weight.T
    assert torch.equal(after, before)
    assert torch.equal(bank.values_KP, values)
    assert torch.equal(bank.grads_KP, grads)
    assert (during[0] - before[0]).abs().max() > 0.1
    assert (during[1] - plain[1]).abs().max() < 1e-12


def test_a_cleared_seat_is_zero_to_the_bit(bank: AdapterBank) -> None:
    bank.load(2, random_adapter(5, 0), r=5, scaling=1.0)
    bank.grads_KP[2] = math.nan
    bank.clear(2)
    assert bank.values_KP.count_nonzero() == bank.grads_KP.count_nonzero() == 0


@pytest.mark.parametrize(
    ("adapter", "r", "message"),
    [
        (random_adapter(6, 0), 6, "r=6 does not fit a bank of rank 5"),
        (random_adapter(2, 0), 3, "do not fit r=3"),
        ({"up": random_adapter(2, 0)["up"]}, 2, "other modules"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(bank: AdapterBank, adapter: dict, r: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bank.load(0, adapter, r=r, scaling=1.0)
