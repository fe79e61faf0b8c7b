"""Learning rates."""

import numpy as np
import pytest
import torch

from lanline.config import Training
from lanline.training.schedule import Schedule


def rates(n=1000, **settings):
    return Schedule(Training(learning_rate=0.01, **settings), n).rates(0, n)


def test_cosine_rises_to_the_rate_and_falls_to_zero():
    values = rates(schedule="cosine", warmup_fraction=0.1)
    assert values[0] == pytest.approx(1e-4)
    assert values[99] == values.max() == pytest.approx(0.01)
    assert values[550] == pytest.approx(0.005, rel=1e-3)
    assert values[-1] < 1e-7
    assert (np.diff(values[99:]) <= 0).all()


def test_cosine_is_that_of_torch():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    expected = []
    for _ in range(50):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(rates(50, schedule="cosine", warmup_fraction=0.0), expected, rtol=1e-5)


def test_exponential_ends_at_the_decayed_rate():
    values = rates(schedule="exponential", decay=0.01, warmup_fraction=0.0)
    assert values[0] == pytest.approx(0.01)
    assert values[-1] == pytest.approx(1e-4, rel=0.01)
    np.testing.assert_allclose(values[1:] / values[:-1], values[1] / values[0], rtol=1e-5)


def test_constant_after_the_warm_up():
    values = rates(schedule="constant", warmup_fraction=0.5)
    assert (values[500:] == np.float32(0.01)).all()
    assert (np.diff(values[:500]) > 0).all()


def test_rates_do_not_depend_on_how_steps_are_grouped():
    schedule = Schedule(Training(), 1000)
    parts = [schedule.rates(first, 100) for first in range(0, 1000, 100)]
    np.testing.assert_array_equal(np.concatenate(parts), schedule.rates(0, 1000))


def test_plateau_cuts_after_epochs_without_improvement_and_remembers_them():
    settings = Training(schedule="reduce_on_plateau", patience=2, decay=0.5, warmup_fraction=0.0, learning_rate=0.01)
    schedule = Schedule(settings, 100)
    seen = []
    for loss in [1.0, 0.9, 0.95, 0.9, 0.8, 0.8, 0.8]:
        schedule.end_epoch(loss)
        again = Schedule(settings, 100)
        again.restore(schedule.state())
        seen.append(float(again.rates(10, 1)[0]))
    np.testing.assert_allclose(seen, [0.01, 0.01, 0.01, 0.005, 0.005, 0.005, 0.0025], rtol=1e-6)
