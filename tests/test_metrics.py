"""Metrics against hand-computed cases, closed forms and scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from striate import metrics


@pytest.fixture(scope="module")
def answers():
    """Labels and predictions of 6 classes, right two times in three; class 5 never occurs."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 5, 400)
    predicted = np.where(rng.random(400) < 2 / 3, labels, rng.integers(0, 6, 400))
    return labels, predicted


def test_rank_is_the_number_of_better_scores():
    scores = np.array([[0.1, 0.7, 0.2], [0.1, 0.7, 0.2], [0.1, 0.7, 0.2]])
    assert metrics.ranks(scores, np.array([1, 2, 0])).tolist() == [0, 1, 2]


def test_of_equal_scores_the_lower_index_comes_first_as_in_argmax():
    scores = np.full((3, 3), 1 / 3)
    ranks = metrics.ranks(scores, np.array([0, 1, 2]))
    assert ranks.tolist() == [0, 1, 2]
    assert ((ranks == 0) == (scores.argmax(axis=1) == [0, 1, 2])).all()


def test_top_k_accuracy_counts_ranks_below_k():
    ranks = np.array([0, 0, 1, 4, 5])
    assert [metrics.top_k_accuracy(ranks, k) for k in (1, 2, 5, 6)] == [0.4, 0.6, 0.8, 1.0]


def test_top_k_accuracy_is_scikit_learns():
    oracle = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, labels = rng.random((200, 7)), rng.integers(0, 7, 200)
    for k in (1, 3, 5):
        assert metrics.top_k_accuracy(metrics.ranks(scores, labels), k) == pytest.approx(
            oracle.top_k_accuracy_score(labels, scores, k=k, labels=range(7))
        )


def test_wilson_gives_the_published_interval():
    # 81 of 263: Newcombe, Statistics in Medicine 17, 1998, table I
    assert metrics.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert metrics.wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_wilson_of_none_right_or_all_right_ends_exactly_at_the_edge():
    assert metrics.wilson(0, 20) == (0.0, pytest.approx(0.1611, abs=5e-5))
    assert metrics.wilson(20, 20) == (pytest.approx(0.8389, abs=5e-5), 1.0)
    assert metrics.wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_within_0_and_1(counts):
    right, n = counts
    low, high = metrics.wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1


def test_wilson_of_arrays_is_that_of_each():
    low, high = metrics.wilson(np.array([0, 3, 9]), np.array([0, 4, 9]))
    each = [metrics.wilson(s, n) for s, n in ((0, 0), (3, 4), (9, 9))]
    assert list(zip(low, high, strict=True)) == each


def test_bootstrap_of_a_mean_is_near_the_normal_interval_and_repeats():
    values = np.random.default_rng(0).normal(size=2000)
    low, high = metrics.bootstrap(np.mean, values)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 5)
    assert metrics.bootstrap(np.mean, values) == (low, high)


def test_bootstrap_draws_its_arrays_together():
    values = np.arange(50.0)
    assert metrics.bootstrap(lambda a, b: float(np.abs(a - b).max()), values, values) == (0.0, 0.0)


def test_confusion_rows_are_true_and_columns_predicted():
    confusion = metrics.confusion_matrix(np.array([0, 0, 2]), np.array([0, 1, 2]), 3)
    assert confusion.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_per_class_of_a_hand_computed_case():
    found = metrics.per_class(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]))
    assert found.precision == pytest.approx([3 / 5, 4 / 5, np.nan], nan_ok=True)
    assert found.recall == pytest.approx([3 / 4, 4 / 6, np.nan], nan_ok=True)
    assert found.f1 == pytest.approx([6 / 9, 8 / 11, np.nan], nan_ok=True)
    assert found.support.tolist() == [4, 6, 0]


def test_confusion_and_per_class_are_scikit_learns(answers):
    oracle = pytest.importorskip("sklearn.metrics")
    labels, predicted = answers
    confusion = metrics.confusion_matrix(labels, predicted, 6)
    found = metrics.per_class(confusion)
    expected = oracle.precision_recall_fscore_support(
        labels, predicted, labels=range(6), zero_division=np.nan
    )
    assert (confusion == oracle.confusion_matrix(labels, predicted, labels=range(6))).all()
    for ours, theirs in zip(found, expected, strict=False):  # ours has two more columns
        assert ours == pytest.approx(theirs, nan_ok=True)


def test_macro_f1_is_the_mean_over_the_classes_that_occur(answers):
    oracle = pytest.importorskip("sklearn.metrics")
    labels, predicted = answers
    assert metrics.macro_f1(labels, predicted) == pytest.approx(
        oracle.f1_score(labels, predicted, labels=range(5), average="macro")
    )


def test_a_score_on_an_edge_belongs_to_the_bin_below_it():
    diagram = metrics.reliability(np.array([0.0, 0.2, 0.2001, 1.0]), np.ones(4, bool), bins=5)
    assert diagram.n.tolist() == [2, 1, 0, 0, 1]


def test_reliability_bins_hold_mean_score_and_accuracy():
    scores, correct = np.array([0.6, 0.7, 0.95]), np.array([True, False, True])
    diagram = metrics.reliability(scores, correct, bins=2)
    assert diagram.edges.tolist() == [0, 0.5, 1]
    assert diagram.confidence == pytest.approx([np.nan, 0.75], nan_ok=True)
    assert diagram.accuracy == pytest.approx([np.nan, 2 / 3], nan_ok=True)


@pytest.mark.parametrize(
    ("scores", "correct", "error"),
    [
        ([1.0] * 4, [True] * 4, 0.0),
        ([1.0] * 4, [True, False, True, False], 0.5),
        ([0.75] * 4, [True, True, True, False], 0.0),
        ([0.9] * 3, [False] * 3, 0.9),
        # two bins: 2/4 |1/2 - 0.9| + 2/4 |0 - 0.3|
        ([0.9, 0.9, 0.3, 0.3], [True, False, False, False], 0.35),
        # errors of one bin cancel, and do not over two bins
        ([0.61, 0.65], [True, False], 0.13),
    ],
)
def test_calibration_error_of_closed_cases(scores, correct, error):
    found = metrics.calibration_error(np.array(scores), np.array(correct))
    assert found == pytest.approx(error)


def test_calibration_error_of_calibrated_answers_goes_to_0():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.1, 1, 200_000)
    correct = rng.random(200_000) < scores
    assert metrics.calibration_error(scores, correct) < 0.005
    assert metrics.calibration_error(scores**2, correct) > 0.1


def test_negative_log_likelihood_is_scikit_learns():
    oracle = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, labels = rng.dirichlet(np.ones(5), 100), rng.integers(0, 5, 100)
    found = metrics.negative_log_likelihood(scores[np.arange(100), labels])
    assert found == pytest.approx(oracle.log_loss(labels, scores, labels=range(5)))


def test_negative_log_likelihood_of_a_score_of_0_is_finite():
    assert metrics.negative_log_likelihood(np.zeros(1, np.float32)) == pytest.approx(
        87.34, abs=0.01
    )
