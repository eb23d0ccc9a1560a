"""csl.training.optim: the groups, the cycle and the moving average."""

import copy

import pytest
import torch
from torch import nn

from csl import InputError
from csl.models import create_model
from csl.training.optim import SCHEDULES, ModelEma, create_optimizer, create_schedule


def test_no_weight_decay_for_vectors():
    model = create_model("tresnet_m", num_classes=4)
    plain, decay = create_optimizer(model, "adam", 1e-3, weight_decay=0.5).param_groups
    assert plain["weight_decay"] == 0
    assert decay["weight_decay"] == 0.5
    assert all(p.dim() <= 1 for p in plain["params"])
    assert all(p.dim() > 1 for p in decay["params"])
    assert len(plain["params"]) + len(decay["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 6, 7, 10, 100])
def test_one_cycle_rises_for_a_fifth_and_takes_every_step(total):
    optimizer = create_optimizer(nn.Linear(2, 2), "adam", weight_decay=0.0, lr=1.0)
    schedule = create_schedule(optimizer, 1.0, total, "onecycle")
    rates, betas = [], []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        betas.append(optimizer.param_groups[0]["betas"][0])
        optimizer.step()
        schedule.step()
    if total == 100:
        assert rates[0] == pytest.approx(1 / 25)
        assert max(rates) == pytest.approx(1.0)
        assert rates.index(max(rates)) == 19
        assert betas[19] == pytest.approx(0.85)
        assert rates[-1] < 1e-4


def test_adam_is_l2_and_adamw_is_decoupled():
    assert type(create_optimizer(nn.Linear(2, 2), "adam", 1e-3, 0.0)) is torch.optim.Adam
    assert type(create_optimizer(nn.Linear(2, 2), "adamw", 1e-3, 0.0)) is torch.optim.AdamW
    with pytest.raises(InputError, match="expected one of adam, adamw"):
        create_optimizer(nn.Linear(2, 2), "sgd", 1e-3, 0.0)


def test_ema_warms_up_and_copies_counters():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    ema = ModelEma(model, decay=0.3)
    expected = {k: v.clone() for k, v in model.state_dict().items()}
    for t in range(12):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
            model[1].num_batches_tracked += 1
        ema.update(model)
        decay = min(0.3, (1 + t) / (10 + t))
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                expected[key] = decay * expected[key] + (1 - decay) * value
            else:
                expected[key] = value.clone()
    for key, value in ema.module.state_dict().items():
        torch.testing.assert_close(value, expected[key])


def test_a_constant_schedule_changes_nothing():
    optimizer = create_optimizer(nn.Linear(2, 2), "adam", weight_decay=0.0, lr=0.3)
    schedule = create_schedule(optimizer, 0.3, 20, "constant")
    before = copy.deepcopy(optimizer.state_dict()["param_groups"])
    for _ in range(20):
        optimizer.step()
        schedule.step()
        assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.3]
    after = optimizer.state_dict()["param_groups"]
    for group in (*before, *after):
        group.pop("initial_lr", None)
    assert before == after


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_goes_on_from_its_state(name):
    rates = []
    for stop in (None, 7):
        optimizer = create_optimizer(nn.Linear(2, 2), "adam", weight_decay=0.0, lr=1.0)
        schedule = create_schedule(optimizer, 1.0, 20, name)
        seen = []
        for step in range(20):
            if step == stop:
                state, groups = schedule.state_dict(), optimizer.state_dict()
                assert state["total_steps"] == 20
                optimizer = create_optimizer(nn.Linear(2, 2), "adam", weight_decay=0.0, lr=1.0)
                schedule = create_schedule(optimizer, 1.0, 20, name)
                optimizer.load_state_dict(groups)
                schedule.load_state_dict(state)
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        rates.append(seen)
    assert rates[0] == rates[1]


def test_unknown_schedules_and_decays():
    with pytest.raises(InputError, match="--schedule cosine: unknown, expected one of onecycle, constant"):
        create_schedule(create_optimizer(nn.Linear(2, 2), "adam", 1e-3, 0.0), 1.0, 5, "cosine")
    for decay in (0.0, 1.0, -0.1):
        with pytest.raises(InputError, match="--ema_decay .*: expected more than 0 and less than 1"):
            ModelEma(nn.Linear(2, 2), decay)
