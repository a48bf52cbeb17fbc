"""striate.search: the range test on curves whose answer is known; random search that resumes."""

import json
import math
import shlex
import sys

import numpy as np
import pytest

from searched import killed_at
from striate import cli
from striate.data import load
from striate.errors import StriateError, UsageError
from striate.search import Range, RangeTest, random_search, range_test
from striate.search import trials as searching
from striate.search.random import at_the_edge
from striate.search.trials import Trial
from striate.train import fit
from striate.train.failures import Diverged
from striate.train.recipe import make_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three classes of noisy stripes."""
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = generator.integers(0, 60, (90, 32, 32), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[10 * label : 10 * label + 10] += 80
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    np.savez(path, images=images, labels=labels)
    return path


LENET = {"model": "lenet5", "batch_size": 16}


# === The range test ===


def fall(rates, centre):
    """From 1 down to 0, fastest at `centre`, within about a decade."""
    return 1 / (1 + (rates / centre) ** 3)


def test_the_suggestion_is_where_the_loss_falls_fastest():
    rates = np.geomspace(1e-6, 1e0, 200)
    noise = np.random.default_rng(0).normal(0, 0.05, 200)
    found = RangeTest(rates, 0.2 + 2 * fall(rates, 2e-3) + (rates / 0.1) ** 2 + noise)
    assert abs(np.log10(found.steepest / 2e-3)) < 0.15  # the width of the smoothing
    assert found.suggestion == pytest.approx(found.steepest, rel=0.05)
    assert found.tenth == found.lowest / 10
    assert 1e-2 < found.lowest < 0.1


def test_what_rises_steeply_after_the_least_is_not_suggested():
    rates = np.geomspace(1e-6, 1e0, 200)
    spike = 50 * np.exp(-(((np.log10(rates) + 1) / 0.1) ** 2))  # rises, then falls much faster
    found = RangeTest(rates, 1 + fall(rates, 1e-4) + 0.3 * (rates > 3e-3) + spike)
    assert abs(np.log10(found.steepest / 1e-4)) < 0.15


@pytest.mark.parametrize("losses", [np.full(50, 2.3), np.linspace(2.3, 2.5, 50)])
def test_a_loss_that_never_falls_suggests_nothing(losses):
    found = RangeTest(np.geomspace(1e-6, 1, 50), losses)
    assert (found.steepest, found.tenth, found.suggestion) == (None, None, None)


@pytest.fixture(scope="module")
def tested(data):
    return range_test(LENET, data, low=1e-5, high=1e3, steps=80)


def test_a_range_test_stops_when_the_loss_explodes_and_suggests_a_rate_that_learns(tested, data):
    assert len(tested.rates) == len(tested.losses) < 80
    assert 1e-4 < tested.suggestion < 1e-1
    dataset = load(data)
    sets = {"optimizer.learning_rate": tested.suggestion, "epochs": 4}
    assert fit(LENET, dataset, *dataset.folds(3)[0], **sets).val_accuracy > 0.9


def test_the_curve_is_drawn(tested, tmp_path):
    from PIL import Image

    with Image.open(tested.draw(tmp_path / "lr.png", "lenet5")) as picture:
        assert picture.size == (840, 480)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10


def test_of_several_batches_a_step_each_rate_has_a_step_and_the_mean_of_the_next_batches(data):
    rates = {"low": 1e-3, "high": 1e-2, "steps": 10}
    small = {"model": "lenet5", "batch_size": 2, "optimizer": "sgd"}
    one = range_test(small, data, **rates, batch_size=6)
    several = range_test(small, data, **rates, **{"optimizer.accumulate": 3})
    assert len(several.losses) == 10
    assert len(np.unique(several.losses)) == 10
    np.testing.assert_allclose(several.losses, one.losses, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 1.0, "high": 0.1}, "expected rates 0 < low < high"),
        ({"high": np.inf}, "expected rates 0 < low < high"),
        ({"low": 1e30, "high": 1e31, "optimizer": "sgd"}, "the loss exploded at the first rate"),
        ({"steps": 3}, "steps as a whole number of at least 10"),
        ({"strategy": "linear_probe"}, "has no learning rate to look for"),
    ],
)
def test_a_range_test_that_makes_no_sense_is_one_line(data, options, message):
    with pytest.raises(UsageError, match=message):
        range_test(LENET, data, **options)


# === Ranges ===


def test_a_log_range_is_a_power_of_ten_with_an_even_exponent():
    """lr = 10 ** U(-6, -3), as the lecture writes it."""
    drawn_from = Range.parse("optimizer.learning_rate=log:1e-6:1e-3")
    exponents = np.log10([drawn_from.draw(0, trial) for trial in range(2000)])
    assert (exponents.min() >= -6.001, exponents.max() <= -2.999) == (True, True)
    shares = np.sort((exponents + 6) / 3)
    even = (np.arange(2000) + 0.5) / 2000
    assert np.abs(shares - even).max() < 0.036  # Kolmogorov and Smirnov's bound at 1 %


def test_draws_of_one_key_do_not_depend_on_other_keys_nor_on_their_order():
    first = [Range.parse(f"{key}=uniform:0:1").draw(5, 3) for key in ("a.b", "c")]
    again = [Range.parse(f"{key}=uniform:0:1").draw(5, 3) for key in ("c", "a.b")]
    assert first == again[::-1]
    assert first[0] != first[1]


def test_whole_keys_get_whole_numbers_and_choices_are_taken_as_written():
    sizes = {Range.parse("batch_size=log:4:64").draw(0, trial) for trial in range(100)}
    assert {type(size) for size in sizes} == {int}
    assert 4 <= min(sizes) < 8
    assert 32 < max(sizes) <= 64
    assert type(Range.parse("label_smoothing=uniform:0:1").draw(0, 0)) is float
    names = {Range.parse("optimizer.name=choice:sgd:adam").draw(0, trial) for trial in range(50)}
    assert names == {"sgd", "adam"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer.learning_rate", "expected KEY=log:LOW:HIGH"),
        ("epochs=lgo:1:2", "Did you mean 'log'"),
        ("penalty.l2=log:0:1", "expected log:LOW:HIGH with 0 < LOW < HIGH"),
        ("epochs=uniform:3:1", "expected uniform:LOW:HIGH with LOW < HIGH"),
        ("epochs=uniform:one:two", "expected uniform:LOW:HIGH with LOW < HIGH"),
        ("epochs=log:1", "expected log:LOW:HIGH"),
    ],
)
def test_a_range_that_is_none_is_one_line(text, message):
    with pytest.raises(UsageError, match=message):
        Range.parse(text)


def test_a_best_value_at_the_end_of_its_range_says_so():
    ranges = [Range.parse("a=log:1e-6:1e-3"), Range.parse("b=uniform:0:1")]
    (line,) = at_the_edge(Trial(0, {"a": 9e-4, "b": 0.5}), ranges)
    assert "best a, 0.0009, lies at the high end of its range" in line


def test_what_repeats_a_trial_can_be_pasted_into_a_shell():
    trial = Trial(0, {"epochs": 3, "augment.crop_scale": "[0.1, 1]"})
    assert shlex.split(trial.sets) == ["--set", "epochs=3", "--set", "augment.crop_scale=[0.1, 1]"]


def test_keys_that_may_be_whole_or_left_out_get_whole_numbers():
    for key in ("model.size", "early_stopping.patience"):
        assert isinstance(Range.parse(f"{key}=uniform:20:40").draw(0, 0), int)


# === Random search ===


def test_whole_numbers_are_drawn_alike_those_at_the_ends_too():
    even = Range.parse("optimizer.accumulate=uniform:1:4")
    counts = np.bincount([even.draw(0, trial) for trial in range(4000)], minlength=6)
    assert counts[[0, 5]].tolist() == [0, 0]
    assert abs(counts[1:5] - 1000).max() < 120
    in_logarithm = Range.parse("batch_size=log:1:16")
    drawn = np.array([in_logarithm.draw(0, trial) for trial in range(4000)])
    assert (drawn.min(), drawn.max()) == (1, 16)
    share = math.log(3) / math.log(33)  # of 0.5 to 1.5 in 0.5 to 16.5
    assert np.mean(drawn == 1) == pytest.approx(share, abs=0.03)


RANGES = ["optimizer.learning_rate=log:1e-4:1e-1", "optimizer.momentum=uniform:0.1:0.9"]


@pytest.fixture
def pretended(monkeypatch):
    """Fits that take no time: how far a rate is from 1e-2; the list says which were made."""
    made = []

    class Fitted:
        def __init__(self, rate):
            self.val_loss = float(abs(np.log10(rate / 1e-2)))
            self.val_accuracy = round(1 / (1 + self.val_loss), 3)

    def pretend(recipe, *_, **__):
        rate = recipe.optimizer.learning_rate
        made.append(rate)
        if rate > 5e-2:
            raise Diverged("training diverged: the loss became nan")
        return Fitted(rate)

    monkeypatch.setattr(searching, "fit", pretend)
    monkeypatch.setattr(searching.keras.utils, "clear_session", lambda: None)
    return made


def test_the_best_trial_comes_first_and_what_failed_last(pretended, data):
    found = random_search(LENET, data, RANGES, trials=30)
    assert sorted(t.number for t in found) == list(range(30))
    failed = [t for t in found if t.error]
    assert failed
    assert found[-len(failed) :] == failed
    losses = [t.val_loss for t in found if not t.error]
    assert losses == sorted(losses)
    assert all(t.values["optimizer.learning_rate"] > 5e-2 for t in failed)


def test_a_killed_search_goes_on_and_ends_the_same(pretended, data, tmp_path, monkeypatch):
    whole = random_search(LENET, data, RANGES, trials=8)
    with killed_at(8 + 3, pretended, monkeypatch):
        random_search(LENET, data, RANGES, trials=8, output=tmp_path / "s")
    resumed = random_search(LENET, data, RANGES, trials=8, output=tmp_path / "s")
    assert len(pretended) == 8 + 8
    assert [(t.number, t.values, t.val_loss) for t in resumed] == [
        (t.number, t.values, t.val_loss) for t in whole
    ]
    assert len(random_search(LENET, data, RANGES, trials=9, output=tmp_path / "s")) == 9
    assert len(pretended) == 8 + 9


def test_a_directory_of_another_search_is_refused(pretended, data, tmp_path):
    random_search(LENET, data, RANGES, trials=1, output=tmp_path)
    with pytest.raises(UsageError, match="holds a search with another recipe"):
        random_search(LENET, data, RANGES, trials=1, output=tmp_path, seed=1)


def test_a_directory_in_which_another_process_searches_is_refused(
    pretended, data, tmp_path, monkeypatch
):
    def search():
        return random_search(LENET, data, RANGES, trials=2, output=tmp_path)

    pretend = searching.fit

    def meanwhile(*arguments, **options):
        with pytest.raises(StriateError, match="another process is at work on a search here"):
            search()
        return pretend(*arguments, **options)

    with monkeypatch.context() as both:
        both.setattr(searching, "fit", meanwhile)
        found = search()
    assert search() == found


@pytest.mark.parametrize(
    ("ranges", "sets", "message"),
    [
        (["optimizer.learning_rat=log:1:2"], {}, "Did you mean 'optimizer.learning_rate'"),
        (["optimizer.momentum=uniform:2:3"], {}, "optimizer.momentum should be less than 1"),
        ([], {}, "expected a range"),
        ([RANGES[0], RANGES[0]], {}, "one range for each key, got 2 for optimizer.learning_rate"),
        (RANGES, {"data.validation": 0}, "needs validation pictures"),
    ],
)
def test_a_search_that_cannot_work_is_one_line_before_any_trial(
    pretended, data, ranges, sets, message
):
    with pytest.raises(UsageError, match=message):
        random_search(LENET, data, ranges, trials=3, **sets)
    assert pretended == []


def test_a_place_that_cannot_be_written_to_is_one_line_before_any_trial(pretended, data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/s: cannot be written to"):
        random_search(LENET, data, RANGES, trials=3, output=tmp_path / "file" / "s")
    assert pretended == []


@pytest.mark.long
def test_a_trial_is_repeated_by_its_values_and_one_that_diverges_stops_nothing(
    data, tmp_path, monkeypatch, capfd
):
    recipe = tmp_path / "relu.yaml"
    recipe.write_text("model: {name: lenet5, options: {activation: relu}}\nbatch_size: 16\n")
    arguments = ["random", str(recipe), "--data", str(data), "-o", str(tmp_path / "s"), "--json"]
    arguments += ["--trials", "3", "--epochs", "2", "--set", "optimizer=sgd"]
    arguments += ["--range", "optimizer.learning_rate=choice:0.01:1e30"]
    monkeypatch.setattr(sys, "argv", ["striate", "search", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    first, *_, last = json.loads(capfd.readouterr().out)
    assert "training diverged" in last["error"]
    assert first["values"] == {"optimizer.learning_rate": "0.01"}
    assert json.loads((tmp_path / "s" / "trials.json").read_text())[0] == first
    dataset = load(data)
    again = fit(
        make_recipe(recipe, ["epochs=2", "optimizer=sgd", "optimizer.learning_rate=0.01"]),
        dataset,
        dataset.split("train"),
        dataset.split("val"),
    )
    assert round(again.val_loss, 6) == first["val_loss"]
