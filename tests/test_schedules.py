"""Every learning-rate schedule against its formula, written out in NumPy."""

import numpy as np
import pytest

from striate.train.recipe import make_recipe
from striate.train.schedules import FORMULAS, learning_rate

STEPS, EPOCHS = 10, 4
T = np.arange(STEPS * EPOCHS + 1)


def rates(name: str, **schedule) -> np.ndarray:
    recipe = make_recipe({"model": "lenet5", "schedule": {"name": name, **schedule}})
    rate = learning_rate(2.0, recipe.schedule, steps=STEPS, epochs=EPOCHS)
    return np.array([float(rate(step)) if callable(rate) else rate for step in T])


def half_cosine(share, start=1.0, end=0.0):
    return end + (start - end) * (1 + np.cos(np.pi * np.minimum(share, 1))) / 2


FOUND = {
    "constant": ({}, np.ones(41)),
    "cosine": ({"final": 0.1}, half_cosine(T / 40, 1, 0.1)),
    "cosine_restarts": ({"every": 2}, half_cosine(T % 20 / 20)),
    "step": ({"steps": [2, 3]}, 0.1 ** ((T >= 20) * 1.0 + (T >= 30))),
    "exponential": ({"factor": 0.96, "every": 0.5}, 0.96 ** (T // 5)),
    "polynomial": ({"power": 2, "final": 0.2}, 0.2 + 0.8 * (1 - T / 40) ** 2),
    "one_cycle": (
        {"rise": 0.25},
        np.where(T < 10, half_cosine(T / 10, 1 / 25, 1), half_cosine((T - 10) / 30)),
    ),
    "cyclical": ({"every": 2, "final": 0.5}, 0.5 + 0.5 * (1 - np.abs(T % 20 / 10 - 1))),
    "plateau": ({}, np.ones(41)),  # until validation stalls: see test_optimize.py
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_schedule_is_its_formula(name):
    options, shares = FOUND[name]
    np.testing.assert_allclose(rates(name, **options), 2.0 * shares, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_warm_up_rises_in_a_straight_line_and_the_formula_follows_it(name):
    found = rates(name, warmup=1, **({"steps": [3]} if name == "step" else {}))
    begin = 2.0 / 25 if name == "one_cycle" else 0.0 if name == "cyclical" else 2.0
    np.testing.assert_allclose(found[:11], begin * T[:11] / 10, rtol=1e-5, atol=1e-6)
    if name in ("cosine", "polynomial", "one_cycle"):
        assert found[-1] == pytest.approx(0, abs=1e-6)
    if name == "step":
        assert found[[29, 30]] == pytest.approx([2.0, 0.2])
