"""Evaluation of a classifier whose every score is known in closed form.

It names the brightness of a grey picture: logits (0, 20 m - 20/3, 40 m - 20) of its mean level m,
so that dark goes over into middle at 1/3 and middle into bright at 2/3.
"""

import base64
import dataclasses
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from striate import metrics
from striate.artifact import load, write_version
from striate.data import load as load_data
from striate.errors import DataError, EngineError, UsageError
from striate.evaluate import answers, evaluate
from striate.evaluate import report as report_module
from striate.preprocess import preset

LABELS = ["dark", "middle", "bright"]
LEVELS = {"dark": (0, 20, 60), "middle": (110, 128, 150), "bright": (190, 220, 255)}
SIDE = 8
HISTORY = [
    {"phase": "probe", "loss": 0.9, "accuracy": 0.5},
    {
        "phase": "rest",
        "epoch": 1,
        "loss": 0.5,
        "accuracy": 0.7,
        "val_loss": 0.6,
        "val_accuracy": 0.6,
    },
    {
        "phase": "rest",
        "epoch": 2,
        "loss": 0.25,
        "accuracy": 1,
        "val_loss": 0.5,
        "val_accuracy": 0.75,
    },
]


def scores_at(level: int) -> np.ndarray:
    """The scores of a picture of one grey level, 0 to 255, by the formula above."""
    m = level / 255
    logits = np.array([0, 20 * m - 20 / 3, 40 * m - 20])
    return np.exp(logits) / np.exp(logits).sum()


def write_picture(path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (SIDE, SIDE), level).save(path)


@pytest.fixture
def pictures(tmp_path):
    """Three pictures a class."""
    for label, levels in LEVELS.items():
        for level in levels:
            write_picture(tmp_path / "pictures" / label / f"{level}.png", level)
    return tmp_path / "pictures"


def write_artifact(base, labels=LABELS, **fields):
    import keras

    image = keras.Input((SIDE, SIDE, 1))
    mean = keras.layers.GlobalAveragePooling2D()(image)
    model = keras.Model(image, keras.layers.Dense(3, name="logits")(mean))
    model.set_weights([np.array([[0, 20, 40]]), np.array([0, -20 / 3, -20])])
    return write_version(
        base,
        model=model,
        labels=labels,
        preprocess=preset("unit", SIDE, SIDE, 1),
        model_name="brightness",
        goldens=np.full((1, SIDE, SIDE, 1), 128, np.uint8),
        **fields,
    )


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return write_artifact(tmp_path_factory.mktemp("saved") / "brightness")


@pytest.fixture
def mislabelled(pictures):
    """One bright picture lies among the dark ones."""
    shutil.move(pictures / "bright" / "220.png", pictures / "dark" / "220.png")
    return pictures


def test_everything_right_is_accuracy_1(artifact, pictures):
    found = evaluate(artifact, pictures)
    assert (found.n, found.accuracy, found.macro["f1"], found.mistakes) == (9, 1.0, 1.0, ())
    assert found.intervals["accuracy"] == metrics.wilson(9, 9)
    assert (found.engine, found.kernel[:5]) == ("keras", "keras")


def test_a_wrong_label_is_found_with_its_scores(artifact, mislabelled):
    found = evaluate(artifact, mislabelled)
    scores = scores_at(220)
    assert found.accuracy == pytest.approx(8 / 9)
    assert found.confusion.tolist() == [[3, 0, 1], [0, 3, 0], [0, 0, 2]]
    (mistake,) = found.mistakes
    assert (mistake.path, mistake.true, mistake.predicted) == ("dark/220.png", "dark", "bright")
    assert (mistake.score, mistake.true_score) == pytest.approx((scores[2], scores[0]), rel=1e-4)
    assert (mistake.pixels == 220).all()


def test_loss_and_calibration_are_those_of_the_scores(artifact, mislabelled):
    found = evaluate(artifact, mislabelled)
    rows = [(0, 0), (0, 20), (0, 60), (0, 220), (1, 110), (1, 128), (1, 150), (2, 190), (2, 255)]
    scores = np.array([scores_at(level) for _, level in rows])
    true = np.array([label for label, _ in rows])
    correct = scores.argmax(axis=1) == true
    assert found.nll == pytest.approx(-np.log(scores[range(9), true]).mean(), rel=1e-4)
    assert found.mean_score == pytest.approx(scores.max(axis=1).mean(), rel=1e-4)
    assert found.ece == pytest.approx(
        metrics.calibration_error(scores.max(axis=1), correct), rel=1e-4
    )


def test_batch_size_changes_nothing_and_progress_reaches_the_end(artifact, mislabelled):
    steps = []
    small = evaluate(artifact, mislabelled, batch_size=2, on_progress=lambda *s: steps.append(s))
    large = evaluate(artifact, mislabelled, batch_size=64)
    assert steps == [(2, 9), (4, 9), (6, 9), (8, 9), (9, 9)]
    assert (small.confusion == large.confusion).all()
    assert (small.nll, small.ece) == pytest.approx((large.nll, large.ece))


def test_only_the_most_confident_mistakes_are_kept_in_order(artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "MISTAKES", 3)
    levels = (100, 255, 120, 200, 250)
    for level in levels:
        write_picture(tmp_path / "pictures" / "dark" / f"{level}.png", level)
    found = evaluate(artifact, tmp_path / "pictures", batch_size=2)
    assert (found.n, found.accuracy) == (5, 0.0)
    surest = sorted(levels, key=lambda level: -scores_at(level).max())[:3]
    assert [mistake.path for mistake in found.mistakes] == [f"dark/{i}.png" for i in surest]


def test_data_may_have_some_of_the_labels(artifact, pictures):
    shutil.rmtree(pictures / "dark")
    found = evaluate(artifact, pictures)
    dark, middle, _ = found.class_rows()
    assert (found.n, found.labels, found.macro["recall"]) == (6, tuple(LABELS), 1.0)
    assert (dark["support"], dark["recall"], dark["precision"]) == (0, None, None)
    assert (middle["support"], middle["recall"]) == (3, 1.0)


def test_classes_are_matched_by_name_not_by_order(artifact, pictures):
    dataset = load_data(pictures)
    assert list(dataset.classes) == ["bright", "dark", "middle"]
    assert evaluate(artifact, dataset).accuracy == 1.0


def test_an_unknown_class_is_named_with_the_nearest_label(artifact, pictures):
    (pictures / "bright").rename(pictures / "brigth")
    with pytest.raises(DataError, match=r"'brigth'.* mean 'bright'"):
        evaluate(artifact, pictures)
    with pytest.raises(DataError, match=r"'brigth'.* mean 'bright'"):
        evaluate(artifact, load_data(pictures))


def test_a_class_that_two_labels_are_named_after_is_an_error(tmp_path, pictures):
    twice = write_artifact(tmp_path / "twice", labels=["dark", "bright", "bright"])
    shutil.rmtree(pictures / "middle")
    with pytest.raises(DataError, match="2 labels 'bright'"):
        evaluate(twice, pictures)


def test_unreadable_pictures_are_named_skipped_and_not_counted(artifact, pictures):
    (pictures / "dark" / "text.png").write_text("no picture")
    whole = (pictures / "dark" / "0.png").read_bytes()
    (pictures / "dark" / "cut.png").write_bytes(whole[: len(whole) // 2])
    found = evaluate(artifact, pictures)
    assert (found.n, found.accuracy, len(found.skipped)) == (9, 1.0, 2)
    assert "cut.png" in found.skipped[0]
    assert "text.png" in found.skipped[1]


def test_nothing_readable_is_an_error_that_names_a_picture(artifact, tmp_path):
    for label in ("dark", "bright"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        (tmp_path / "pictures" / label / "text.png").write_text("no picture")
    with pytest.raises(DataError, match=r"none of 2 .*text\.png"):
        evaluate(artifact, tmp_path / "pictures")


def test_arrays_are_judged_like_files(artifact, tmp_path):
    levels = [level for label in LABELS for level in LEVELS[label]]
    images = np.stack([np.full((SIDE, SIDE), level, np.uint8) for level in levels])
    np.savez(tmp_path / "a.npz", images=images, labels=np.repeat(LABELS, 3))
    assert evaluate(artifact, tmp_path / "a.npz").confusion.tolist() == (3 * np.eye(3)).tolist()


def test_by_default_all_of_foreign_pictures_are_judged(artifact, pictures):
    found = evaluate(artifact, pictures)
    assert (found.data["split"], found.n, found.data["trained_on"]) == ("all", 9, False)


def test_by_default_only_held_out_pictures_of_the_training_data_are_judged(tmp_path, pictures):
    rotated = ["middle", "bright", "dark"]  # always wrong, so that every picture is a mistake
    dataset = load_data(pictures, split=0.34, seed=5, classes=rotated)
    trained = write_artifact(
        tmp_path / "trained",
        labels=rotated,
        recipe={"data": {"validation": 0.34}, "seed": 5},
        data={"fingerprint": dataset.fingerprint},
    )
    found = evaluate(trained, pictures)
    held_out = {dataset.names[i] for i in dataset.split("val")}
    assert {mistake.path for mistake in found.mistakes} == held_out
    assert (found.data["split"], found.data["trained_on"]) == ("val", False)
    for split in ("train", "all"):
        assert evaluate(trained, pictures, split=split).data["trained_on"]


def test_pictures_that_training_did_not_hold_out_are_not_taken_for_held_out(tmp_path, pictures):
    """By other shares or seeds, and by none: `folds` holds out nothing in the end."""
    dataset = load_data(pictures, split=0.34, seed=5, classes=LABELS)
    other = load_data(pictures, split=0.34, seed=6, classes=LABELS)
    assert dataset.digest_of("val") != other.digest_of("val")

    def judged(name, digests):
        trained = write_artifact(
            tmp_path / name,
            recipe={"data": {"validation": 0.34}, "seed": 5},
            data={"fingerprint": dataset.fingerprint, "split_digests": digests},
        )
        default, val = evaluate(trained, pictures).data, evaluate(trained, pictures, split="val")
        assert val.data["trained_on"] == default["trained_on"]
        return default["split"], default["trained_on"]

    assert judged("same", {"val": dataset.digest_of("val")}) == ("val", False)
    assert judged("other", {"val": other.digest_of("val")}) == ("all", True)
    assert judged("folds", {"train": "of all"}) == ("all", True)


def test_a_baseline_that_could_not_be_kept_is_refused_before_the_work(
    artifact, pictures, monkeypatch
):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UsageError, match="expected a folder that takes a drift baseline"):
        evaluate(artifact, pictures, baseline=True)


def test_given_splits_come_first_test_before_val(artifact, pictures, tmp_path):
    tree = tmp_path / "tree"
    for split in ("train", "val", "test"):
        shutil.copytree(pictures, tree / split)
    assert evaluate(artifact, tree).data["split"] == "test"
    shutil.rmtree(tree / "test")
    assert evaluate(artifact, tree).data["split"] == "val"


def test_an_unknown_split_is_a_usage_error(artifact, pictures):
    with pytest.raises(UsageError, match=r"vla.*'val'"):
        evaluate(artifact, pictures, split="vla")


def test_scores_that_are_not_finite_are_an_error(artifact, pictures, monkeypatch):
    class Broken:
        name, kernel = "broken", "none"

        def predict(self, images):
            return np.full((len(images), 3), np.nan, np.float32)

    monkeypatch.setattr("striate.evaluate.open_engine", lambda *_: Broken())
    with pytest.raises(EngineError, match="not finite"):
        evaluate(artifact, pictures)


def test_the_dictionary_is_json_without_nan(artifact, mislabelled):
    shutil.rmtree(mislabelled / "middle")
    found = json.loads(json.dumps(evaluate(artifact, mislabelled).to_dict(), allow_nan=False))
    assert {"n", "accuracy", "top5", "per_class", "ece", "confusion"} <= found.keys()
    assert np.trace(found["confusion"]) / found["n"] == found["accuracy"]
    assert [row["label"] for row in found["per_class"]] == LABELS
    assert sum(row["n"] for row in found["reliability"]) == found["n"]
    assert found["mistakes"][0].keys() == {"path", "true", "predicted", "score", "true_score"}


# === The report ===


@pytest.fixture(scope="module")
def evaluation(artifact, tmp_path_factory):
    """Ten pictures, one of them wrong, one skipped; with a report beside."""
    root = tmp_path_factory.mktemp("report")
    for label, levels in LEVELS.items():
        for level in levels:
            write_picture(root / "pictures" / label / f"{level}.png", level)
    write_picture(root / "pictures" / "dark" / "220.png", 220)
    (root / "pictures" / "dark" / "text.png").write_text("no picture")
    found = evaluate(artifact, root / "pictures", report=root / "new" / "report.html")
    return found, (root / "new" / "report.html").read_text("utf-8")


def with_classes(found, n: int):
    """The same evaluation as if there were n classes, each confused once with the next."""
    confusion = np.eye(n, dtype=np.int64) + np.roll(np.eye(n, dtype=np.int64), 1, axis=1)
    return dataclasses.replace(
        found,
        n=2 * n,
        labels=tuple(f"class {i}" for i in range(n)),
        confusion=confusion,
        per_class=metrics.per_class(confusion),
    )


def test_the_report_asks_nothing_of_the_network(evaluation):
    page = evaluation[1]
    assert not re.search(r"(?i)https?:|//[a-z]|@import|<script|<link|url\(", page)
    assert all(url.startswith("data:") for url in re.findall(r'(?:src|href)="([^"]*)"', page))


def test_the_report_shows_the_numbers_and_what_was_skipped(evaluation):
    found, page = evaluation
    assert "9 of 10 pictures right" in page
    assert "90.0%" in page
    low, high = found.intervals["accuracy"]
    assert f"{100 * low:.1f}% to {100 * high:.1f}%" in page
    assert found.kernel in page
    assert found.data["fingerprint"] in page
    assert "1 picture could not be read" in page
    assert "text.png" in page


def test_the_report_holds_the_mistakes_as_pictures(evaluation):
    (url,) = re.findall(r'<img src="data:image/png;base64,([^"]*)"', evaluation[1])
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(url)))) == 220).all()


def test_the_report_escapes_what_strangers_named(evaluation, artifact):
    labels = ("<script>alert(1)</script>", "b", "c")
    page = report_module.render(dataclasses.replace(evaluation[0], labels=labels), artifact)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_few_classes_are_a_matrix_and_many_are_pairs(evaluation, artifact):
    few = report_module.render(with_classes(evaluation[0], 12), artifact)
    many = report_module.render(with_classes(evaluation[0], 1000), artifact)
    assert 'class="matrix' in few
    assert 'class="matrix' not in many
    assert many.count("pair-bar") == report_module.PAIRS + 1  # and once in the style
    assert len(many) < 1_000_000


def test_the_report_draws_what_training_measured(evaluation, artifact):
    trained = dataclasses.replace(artifact.manifest, metrics={"training": {"history": HISTORY}})
    page = report_module.render(evaluation[0], dataclasses.replace(artifact, manifest=trained))
    assert page.count("<polyline") == 4
    # loss from 0.25 to 0.6 over 50 units of height: validation begins at the top, ends at 0.5
    assert 'class="validation" points="0.00,0.00 100.00,14.29"' in page
    assert "<polyline" not in evaluation[1]


def test_the_report_lists_the_exported_forms(evaluation, artifact):
    record = {"kernel": "onnxruntime 1", "bytes": 1_234_567, "n": 16}
    record |= {"max_abs_diff": 3e-7, "top1_agreement": 1.0}
    exported = dataclasses.replace(artifact.manifest, forms={"keras": {}, "onnx": record})
    page = report_module.render(evaluation[0], dataclasses.replace(artifact, manifest=exported))
    assert "1.2 MB" in page
    assert "3.0e-07" in page


def test_the_command_in_the_report_gives_the_same_numbers(evaluation):
    found, page = evaluation
    arguments = re.search(r'<code class="command">(.*?)</code>', page, re.S)[1].split()
    assert arguments[:2] == ["striate", "evaluate"]
    again = evaluate(load(arguments[2]), arguments[4], split=arguments[6], engine=arguments[8])
    assert arguments[3::2] == ["--data", "--split", "--engine"]
    assert (again.confusion == found.confusion).all()


def test_a_report_that_cannot_be_written_stops_before_the_work(artifact, pictures, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "report.html", tmp_path):
        with pytest.raises(UsageError, match="report"):
            evaluate(artifact, pictures, report=place, on_progress=lambda *_: pytest.fail("worked"))
