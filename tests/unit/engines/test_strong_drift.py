"""Parameters outside the registered bounds keep their mass: exact choice probabilities of the drift diffusion model."""

import numpy as np
import pytest

from lanline.config import Data
from lanline.engines import densities
from lanline.models import get_model


@pytest.mark.parametrize("z", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("v", "a"), [(12, 4), (8, 5), (20, 2.5), (-12, 4), (40, 10), (100, 4), (5, 20), (4.9, 2.5)])
def test_no_mass_is_lost_where_drift_is_strong(v, a, z):
    model = get_model("ddm")
    density = densities(model, np.array([[v, a, z, 0.3]], float), Data(), np.random.default_rng(0))
    # Feller (1968), An introduction to probability theory, vol. 1, XIV.2, for a walk from 2 a z between 0 and 2 a.
    upper = np.expm1(-4.0 * v * a * z) / np.expm1(-4.0 * v * a)
    np.testing.assert_allclose(density.choice_probability()[0], [1 - upper, upper], atol=5e-5)
    rt, _ = density.sample(20_000, np.random.default_rng(1))
    # The mean decision time follows from Wald's identity: v E[t] = E[end] - start.
    mean = (2 * a * upper - 2 * a * z) / v
    assert rt.mean() - 0.3 == pytest.approx(mean, rel=0.03)


@pytest.mark.parametrize(
    ("name", "theta"),
    [
        ("angle", [12, 4, 0.5, 0.3, 0.3]),
        ("full_ddm", [12, 4, 0.5, 0.3, 0.1, 0.5, 0.1]),
        ("full_ddm_rv", [20, 2.5, 0.5, 0.3, 0.1, 0.5, 0.1]),
    ],
)
def test_nor_do_its_relatives_lose_any(name, theta):
    density = densities(get_model(name), np.array([theta], float), Data(), np.random.default_rng(0))
    assert density.choice_probability().sum() == pytest.approx(1, abs=1e-4)
