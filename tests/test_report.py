"""`striate report`: one page with everything, and a line for each part that cannot be had."""

import re
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import striate
from chromium import chromium
from making import tiny_artifact
from striate.cli import app
from striate.errors import UsageError
from striate.evaluate import evaluate
from striate.explain import subject_of
from striate.explain.fgsm import endurance, fgsm
from test_evaluate import write_artifact

SECTIONS = [
    "Data",
    "Worst mistakes",
    "Classes",
    "Confusion",
    "Calibration",
    "Spoilt pictures",
    "Under attack",
    "Features",
    "First filters",
    "Training",
    "Exported forms",
    "Latency",
    "How it was measured",
]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return tiny_artifact(tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture(scope="module")
def pictures(artifact, tmp_path_factory):
    """Twelve pictures; eight are named as the net names them, four otherwise."""
    images, scores = artifact.goldens()
    answers = scores.argmax(axis=1)
    labels = np.concatenate([answers, answers, (answers + 1) % 4])
    noise = np.random.default_rng(0).integers(0, 3, (12, *images.shape[1:]), np.uint8)
    path = tmp_path_factory.mktemp("data") / "pictures.npz"
    some = np.concatenate([images] * 3) + noise  # no two alike: equal ones would be reported
    np.savez(path, images=some, labels=np.array(artifact.labels)[labels])
    return path


@pytest.fixture(scope="module")
def report(artifact, pictures, tmp_path_factory):
    """The evaluation, its page, and what the progress said."""
    path, steps = tmp_path_factory.mktemp("report") / "new" / "report.html", []
    found = striate.report(
        artifact, pictures, path, split="all", on_progress=lambda *step: steps.append(step)
    )
    return found, path, steps


def test_the_page_has_every_section_and_lacks_nothing(report):
    found, path, _ = report
    page = path.read_text("utf-8")
    assert re.findall(r"<h2>(.*?)</h2>", page) == SECTIONS
    assert found.inside.missing == {}
    assert page.count('class="lacks"') == 2  # the net was neither trained nor exported


def test_the_page_asks_nothing_of_the_network(report):
    page = re.sub(r"base64,[^\"]*", "", report[1].read_text("utf-8"))
    assert not re.search(r"(?i)https?:|//[a-z]|@import|<script|<link|url\(", page)
    assert all(url.startswith("data:") for url in re.findall(r'(?:src|href)="([^"]*)"', page))


def test_every_mistake_has_its_map_beside_it(report):
    found, path, _ = report
    assert len(found.inside.maps) == len(found.mistakes) >= 4
    for heat, mistake in zip(found.inside.maps, found.mistakes, strict=True):
        assert heat.shape == (*mistake.pixels.shape[:2], 3)
    assert path.read_text("utf-8").count('class="pair"') == len(found.mistakes)


def test_features_and_filters_are_of_all_the_pictures_and_kernels(report, artifact):
    inside = report[0].inside
    assert inside.points.shape == (12, 2)
    assert np.bincount(inside.true, minlength=4).tolist() == report[0].per_class.support.tolist()
    page = report[1].read_text("utf-8")
    assert page.count("<circle") >= 12
    assert 'class="filters" src="data:image/png' in page


def test_unattacked_accuracy_is_the_accuracy(report):
    levels, shares = zip(*report[0].inside.endurance, strict=True)
    assert levels[0] == 0
    assert shares[0] == pytest.approx(report[0].accuracy)
    assert shares[-1] < shares[0]


def test_endurance_is_what_is_left_after_the_fast_gradient_sign_method(artifact):
    subject = subject_of(artifact)
    pixels = artifact.goldens()[0].astype(np.float32)
    answers = np.asarray(subject.logits(pixels)).argmax(axis=1)
    found = endurance(subject, pixels, answers, [0, 0.02])
    moved = np.asarray(subject.logits(fgsm(subject, pixels, answers, epsilon=0.02)))
    assert found[0].all()
    assert found[1].tolist() == (moved.argmax(axis=1) == answers).tolist()


def test_progress_rises_to_the_end(report):
    done, totals = zip(*report[2], strict=True)
    assert list(done) == sorted(done)
    assert done[-1] == totals[-1]
    assert len(set(totals)) == 1


def test_the_command_on_the_page_asks_for_the_page_again(report):
    words = re.search(r'class="command">(.*?)</code>', report[1].read_text("utf-8"), re.S)[1]
    assert words.startswith("striate report ")
    assert "--split all" in words
    assert "--corruptions" not in words


def test_a_net_that_cannot_be_seen_into_says_so_in_lines(tmp_path):
    levels = np.array([0, 60, 128, 220], np.uint8)
    images = np.tile(levels[:, None, None], (1, 8, 8))
    np.savez(tmp_path / "a.npz", images=images, labels=["dark", "dark", "middle", "middle"])
    stranger = write_artifact(tmp_path / "brightness")
    found = striate.report(stranger, tmp_path / "a.npz", tmp_path / "r.html", split="all")
    page = (tmp_path / "r.html").read_text("utf-8")
    assert re.findall(r"<h2>(.*?)</h2>", page) == SECTIONS
    assert "a net that `striate models` lists" in found.inside.missing["everything"]
    assert page.count('class="lacks"') == 6  # maps, attack, features, filters; training, forms
    assert found.inside.latency["median_ms"] > 0


def test_without_scikit_learn_the_features_are_drawn_by_principal_components(
    artifact, pictures, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    found = evaluate(artifact, pictures, inside=True, split="all", report=tmp_path / "r.html")
    assert found.inside.plane == "principal components"
    assert "by principal components" in (tmp_path / "r.html").read_text("utf-8")


def test_what_the_report_chooses_itself_is_no_option_of_it(artifact, pictures):
    with pytest.raises(UsageError, match="'inside'"):
        striate.report(artifact, pictures, inside=False)


def test_a_browser_opens_the_page_without_a_word(report):
    with chromium() as chrome:
        chrome.get(report[1].as_uri())
        broken = "return [...document.images].filter((each) => !each.naturalWidth).length"
        assert chrome.execute_script(broken) == 0
        assert chrome.get_log("browser") == []


@pytest.mark.parametrize("verb", [["evaluate"], ["report"], ["ensemble", "curve", "other"]])
def test_a_negative_seed_is_refused_at_once(verb):
    ran = CliRunner().invoke(app, [*verb, "nowhere", "--data", "nothing", "--seed", "-1"])
    assert ran.exit_code == 2
    assert "Invalid value for '--seed'" in ran.output
