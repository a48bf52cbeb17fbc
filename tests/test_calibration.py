"""The temperature that makes scores believable."""

import numpy as np
import pytest

from striate.metrics import calibration_error
from striate.train import judge

RNG = np.random.default_rng(0)


def drawn(n: int, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that come as often as the logits say."""
    logits = 2 * RNG.standard_normal((n, classes)).astype("float32")
    labels = (logits + RNG.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, labels


def error(logits: np.ndarray, labels: np.ndarray) -> float:
    scores = judge.softmax(logits)
    return calibration_error(scores.max(axis=1), scores.argmax(axis=1) == labels)


@pytest.mark.parametrize("heat", [0.3, 1.0, 4.0])
def test_the_temperature_takes_back_what_the_logits_were_multiplied_by(heat):
    logits, labels = drawn(20_000)
    assert judge.temperature(heat * logits, labels) == pytest.approx(heat, rel=0.05)


def test_it_mends_scores_that_are_too_sure_and_changes_no_answer():
    logits, labels = drawn(2000)
    sure = 3 * logits
    cooled = sure / judge.temperature(sure, labels)
    assert error(cooled, labels) < 0.25 * error(sure, labels)
    np.testing.assert_array_equal(cooled.argmax(axis=1), sure.argmax(axis=1))


def test_a_net_without_a_mistake_does_not_become_certain():
    labels = RNG.integers(0, 3, 50)
    logits = 5 * np.eye(3, dtype="float32")[labels]
    found = judge.temperature(logits, labels)
    score = judge.softmax(logits / found).max()
    assert score == pytest.approx(1 - 1 / 52, abs=2e-3)


def test_two_classes_and_few_pictures_are_no_special_case():
    found = judge.temperature(np.array([[2.0, 0.0], [0.0, 1.0]], "float32"), np.array([0, 0]))
    assert 1 / 20 <= found <= 20
