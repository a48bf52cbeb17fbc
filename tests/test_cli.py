"""The command line as a person meets it: quick, one JSON document, one line for a mistake."""

import contextlib
import fcntl
import io
import json
import os
import platform
import pty
import re
import resource
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from making import PHOTOS, SHIPPED, tiny_artifact
from striate import cli
from striate.cli.console import emit, table, write_json
from striate.export import export
from striate.files import made_folder


def run(*arguments, cwd=None):
    """The real program, as a process."""
    command = [sys.executable, "-m", "striate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


@pytest.fixture
def call(monkeypatch, capfd):
    """The program in this process, for what needs Keras: -> (exit code, stdout, stderr)."""

    def run_here(*arguments):
        monkeypatch.setattr(sys, "argv", ["striate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out = capfd.readouterr()
        return ended.value.code or 0, out.out, out.err

    return run_here


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    base = tmp_path_factory.mktemp("saved_models") / "mine"
    made, _ = export(tiny_artifact(base, shape=(32, 32, 3)), ["onnx", "litert"])
    return made


@pytest.fixture
def pictures(tmp_path):
    """Two classes of pictures that differ in colour."""
    rng = np.random.default_rng(0)
    for label, colour in (("warm", (220, 90, 30)), ("cold", (30, 90, 220))):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(8):
            noise = rng.integers(-25, 25, (40, 40, 3))
            levels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(levels).save(tmp_path / "pictures" / label / f"{i}.png")
    return tmp_path / "pictures"


def one_line(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.startswith("striate:")]
    assert "Traceback" not in stderr
    assert len(lines) == 1, stderr
    return lines[0]


# === Quick ===


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["models", "--json"], 0),
        (["train", "--help"], 0),
        (["train", "lenet5", "--data", ".", "--set", "optimzer.name=sgd"], 2),
        (["finetune", "squeezenet11", "--data", "."], 2),
        (["serve", "nowhere", "--prot", "1"], 2),
    ],
)
def test_looking_around_and_mistakes_answer_at_once(arguments, code):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run(*arguments).returncode == code
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time: what the clock would say if nothing else ran on this machine.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_models_lists_exact_counts_as_one_document():
    ran = run("models", "--json")
    rows = {row["name"]: row for row in json.loads(ran.stdout)}
    assert rows["squeezenet1_1"] == {
        "name": "squeezenet1_1",
        "family": "squeezenet",
        "year": 2016,
        "input_shape": [224, 224, 3],
        "classes": 1000,
        "trainable": 1_235_496,
        "total": 1_235_496,
        "macs": 349_151_936,
        "pretrained": ["imagenet"],
    }
    assert rows["mobilenet_v2_100"]["total"] == 3_538_984


def test_models_can_be_filtered():
    rows = json.loads(
        run("models", "*net*", "--family", "resnet", "--max-params", "300000", "--json").stdout
    )
    assert [row["name"] for row in rows] == ["resnet20_cifar"]
    years = ["--from", 2018, "--to", "2018"]
    rows = json.loads(run("models", *years, "--max-macs", "0.1G", "--pretrained", "--json").stdout)
    assert {row["name"] for row in rows} == {"mobilenet_v2_035", "mobilenet_v2_050"}
    shown = run("models", "vgg*", "--year", 2014, "--max-params", "132.9M").stdout
    assert shown.split("\n")[-2] == "3 nets"
    assert "7,609,090,048" in shown


# === Right ===


def test_the_shipped_net_names_what_is_in_photographs():
    ran = run("predict", SHIPPED, PHOTOS / "coffee.jpg", PHOTOS / "cat.jpg", "--top", 3, "--json")
    coffee, cat = json.loads(ran.stdout)
    assert coffee["top"][0]["label"] == "espresso"
    assert {row["index"] for row in cat["top"]} == {281, 282, 285}
    assert coffee["engine"] in ("onnx", "litert", "openvino")  # the fastest that there is


def test_a_folder_stands_for_the_pictures_in_it(call):
    code, out, _ = call("predict", SHIPPED, PHOTOS, "--top", 1, "--json")
    assert code == 0
    answers = json.loads(out)
    assert [answer["path"] for answer in answers] == sorted(map(str, PHOTOS.glob("*.jpg")))
    assert "espresso" in [answer["top"][0]["label"] for answer in answers]


@pytest.mark.parametrize("engine", ["onnx", "litert", "keras"])
def test_every_engine_gives_the_same_scores(call, artifact, engine):
    _, out, _ = call(
        "predict", artifact.path, PHOTOS / "cat.jpg", "--engine", engine, "--top", 4, "--json"
    )
    top = json.loads(out)[0]["top"]
    expected = artifact.predict([PHOTOS / "cat.jpg"])[0]
    assert [row["score"] for row in top] == pytest.approx(sorted(expected, reverse=True), abs=1e-4)


@pytest.mark.long
def test_finetune_evaluate_export_predict_one_after_the_other(call, pictures, tmp_path):
    base = tmp_path / "saved_models" / "mine"
    code, out, err = call(
        "finetune", "squeezenet1_1", "--data", pictures, "-o", base,
        "--set", "model.size=64", "--set", "strategy=linear_probe", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["artifact"] == str(base / "1")
    code, out, _ = call("evaluate", base, "--data", pictures, "--split", "all", "--json")
    assert code == 0
    assert json.loads(out)["accuracy"] == 1.0
    code, out, _ = call("export", base, "--to", "onnx", "--json")
    assert code == 0
    assert json.loads(out)[0]["form"] == "onnx"
    code, out, _ = call("export", base, "--check")
    assert code == 0
    code, out, _ = call("predict", base, pictures / "warm" / "0.png", "--json")
    assert json.loads(out)[0]["top"][0]["label"] == "warm"


@pytest.mark.long
def test_evaluate_says_where_the_net_learnt_from_the_pictures(call, pictures, tmp_path):
    call("train", "lenet5", "--data", pictures, "--folds", 2, "--epochs", 1, "-o", tmp_path / "m")
    _, out, _ = call("evaluate", tmp_path / "m", "--data", pictures)
    assert " pictures (all)\ncalibration error" in out  # of two classes the best five are no news
    assert "the net learnt from these very pictures" in out
    call("train", "lenet5", "--data", pictures, "--epochs", 1, "-o", tmp_path / "held")
    _, out, _ = call("evaluate", tmp_path / "held", "--data", pictures)
    assert " pictures (val)\n" in out
    assert "the net learnt from" not in out


def test_info_describes_a_net_and_an_artifact(artifact):
    assert json.loads(run("info", "resnet18", "--json").stdout)["paper"] == "1512.03385"
    assert json.loads(run("info", artifact.path, "--json").stdout)["labels"] == artifact.labels


def test_info_tells_of_an_artifact_what_a_person_asks_first(call, pictures, tmp_path):
    call("train", "lenet5", "--data", pictures, "--set", "epochs=2", "-o", tmp_path / "mine")
    code, out, _ = call("info", tmp_path / "mine")
    assert code == 0
    told = dict(line.strip().split("  ", 1) for line in out.splitlines())
    assert told["net"] == "lenet5"
    assert told["classes"].startswith("2: ")
    assert told["training"].startswith("full, 2 epochs; ")
    assert "% (" in told["accuracy, val"]
    assert told["accuracy, val"].endswith(" pictures")
    assert "{" not in out


def test_info_tells_what_a_net_costs(call):
    _, out, _ = call("info", "vgg16", "--json")
    vgg = json.loads(out)
    assert vgg["macs"] == 15_470_264_320
    assert vgg["receptive_field"] == [196, 196]
    # The parameters, and the second and third layer's outputs of each picture
    assert vgg["memory"]["inference"]["32"] == 4 * (138_357_544 + 32 * 2 * 224 * 224 * 64)
    assert vgg["memory"]["training"]["1"] == 4 * (3 * 138_357_544 + 15_237_608)
    _, out, _ = call("info", "vgg16")
    assert "15,470,264,320 multiply-adds" in out
    assert "196 x 196 of the input" in out


def test_info_counts_another_input_and_other_classes(call):
    code, out, _ = call(
        "info", "lenet5", "--input-shape", "64,48,3", "--num-classes", 7, "--layers", "--json"
    )
    document = json.loads(out)
    assert code == 0
    assert (document["input_shape"], document["classes"]) == ([64, 48, 3], 7)
    layers = {row["name"]: row for row in document["layers"]}
    assert document["macs"] == sum(row["macs"] for row in layers.values())
    assert document["trainable"] == sum(row["parameters"] for row in layers.values())
    assert layers["stage1_block1_conv"] == {
        "name": "stage1_block1_conv",
        "kind": "Conv2D",
        "output": [60, 44, 6],
        "parameters": 5 * 5 * 3 * 6 + 6,
        "macs": 60 * 44 * 5 * 5 * 3 * 6,
        "activation_bytes": 4 * 60 * 44 * 6,
        "receptive_field": [5, 5],
        "jump": [1, 1],
    }
    assert layers["logits"]["receptive_field"] is None
    _, out, _ = call("info", "lenet5", "--layers")
    assert "61,706 parameters, 416,520 multiply-adds, 36,472 bytes" in out


def test_info_draws_a_net_and_an_artifact_s_net(call, artifact, tmp_path):
    png, svg = tmp_path / "net.png", tmp_path / "net.svg"
    assert call("info", "squeezenet1_1", "--png", png, "--svg", svg)[0] == 0
    assert Image.open(png).width > 500
    assert svg.read_text().startswith("<?xml")
    assert call("info", artifact.path, "--png", png, "--layers")[0] == 0


def test_doctor_says_what_is_installed():
    document = json.loads(CliRunner().invoke(cli.app, ["doctor", "--json"]).stdout)
    assert document["backends"]["tensorflow"]
    kernels = {row["engine"]: row["kernel"] for row in document["engines"]}
    assert kernels["onnx"] in ("CPU", "CUDA, CPU")  # and not what ONNX Runtime has for clouds
    assert set(kernels) == {
        "onnx",
        "litert",
        "packed",
        "runner",
        "openvino",
        "tensorflow",
        "keras",
        "onnx-int8",
        "litert-int8",
        "litert-float16",
    }
    assert document["binary"]["kernel"] == document["binary"]["kernels"][0]
    assert document["binary"]["kernels"][-1] == "numpy"


# === One line for a mistake ===


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["info", "resnet51"], 2, "Did you mean 'resnet"),
        (["info", "lenet5", "--input-shape", "32 by 32"], 2, "numbers such as 96,96,3"),
        (["info", SHIPPED, "--num-classes", 3], 2, "are fixed"),
        (["models", "--max-macs", "many"], 2, "a number such as 600000 or 5M"),
        (["models", "--family", "resnets"], 2, "Did you mean 'resnet'"),
        (["train", "lenet55", "--data", "."], 2, "Did you mean 'lenet5'"),
        (["train", "lenet5", "--data", ".", "--set", "epoch=3"], 2, "Did you mean 'epochs'"),
        (["train", "lenet5", "--data", ".", "--set", "epochs=many"], 2, "epochs should be"),
        (["train", "lenet5", "--data", "nowhere"], 2, "nowhere does not exist"),
        (["train", "lenet5"], 2, "expected pictures to train on"),
        (["predict", "nowhere", "a.jpg"], 1, "expected an artifact directory"),
        (["predict", SHIPPED, "nowhere.jpg"], 1, "nowhere.jpg: cannot be read"),
        (["predict", SHIPPED, PHOTOS / "cat.jpg", "--engine", "tensorrt"], 2, "expected an engine"),
        (["export", SHIPPED, "--to", "onx"], 2, "Did you mean 'onnx'"),
        (["export", SHIPPED, "--to", " ,"], 2, "--to: expected names separated by commas"),
        (["bench", SHIPPED, "--engines", ""], 2, "--engines: expected names separated by commas"),
        (["quickstart", PHOTOS / "cat.jpg"], 2, "cat.jpg: expected a new or empty directory"),
        (["serve"], 2, "striate serve DIRECTORY"),
        (["serve", "nowhere"], 1, "nowhere"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments, code, complaint):
    ran = run(*arguments)
    assert complaint in one_line(ran.stderr)
    assert ran.returncode == code
    assert ran.stdout == ""


CAT = PHOTOS / "cat.jpg"


@pytest.mark.long
def test_a_pipe_in_a_folder_of_pictures_is_told_and_one_of_the_shell_is_read(tmp_path):
    shutil.copy(CAT, tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    ran = run("predict", SHIPPED, tmp_path, "--json")
    assert "pipe.jpg: cannot be read (a pipe or a device, not a file)" in one_line(ran.stderr)
    assert [answer["path"] for answer in json.loads(ran.stdout)] == [str(tmp_path / "cat.jpg")]
    assert ran.returncode == 1
    command = [sys.executable, "-m", "striate", "predict", SHIPPED, "/dev/stdin", "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        out, _ = shell.communicate(CAT.read_bytes(), timeout=300)
    assert json.loads(out)[0]["path"] == "/dev/stdin"


@pytest.mark.long
@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "random", "--range", "optimizer.learning_rat=log:1e-5:1e-1"],
        ["search", "lr", "--steps", "2"],
        ["search", "architecture", "--set", "model.options.width=3"],
    ],
)
def test_a_search_that_is_refused_leaves_no_folder(arguments, call, pictures, tmp_path):
    output = tmp_path / "found" / "here"
    code, _, error = call(
        *arguments[:2], "lenet5", "--data", pictures, "-o", output, *arguments[2:]
    )
    assert code == 2, error
    assert not output.parent.exists()


def test_a_folder_is_kept_where_it_was_or_something_is_in_it(tmp_path):
    def fail(folder: Path, *names: str) -> None:
        with made_folder(folder):
            for name in names:
                (folder / name).touch()
            raise ValueError("failed")

    for names in (["trials.json"], []):
        with pytest.raises(ValueError, match="failed"):
            fail(tmp_path / "mine", *names)
    assert (tmp_path / "mine" / "trials.json").exists()
    with pytest.raises(ValueError, match="failed"):
        fail(tmp_path / "new" / "one")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["export", SHIPPED, "--to", "onnx,packed"], "has no binary layers to pack"),
        (["export", SHIPPED, "--to", "onnx,int8"], "int8 needs at least 8 pictures"),
        (["export", SHIPPED, "--to", "onnx,int8", "--data", PHOTOS], "will see, got 4"),
        (["explain", SHIPPED, CAT, "--method", "gradcam"], "Did you mean 'grad_cam'"),
        (["explain", SHIPPED, CAT, "--set", "windw=0.3"], "grad_cam has no option 'windw'"),
        (["explain", SHIPPED], "grad_cam explains pictures: name some, or a data set with --data"),
        (["explain", SHIPPED, "--method", "maximise"], "name it with --class"),
        (["explain", SHIPPED, "nowhere.jpg"], "nowhere.jpg: cannot be read"),
        (["explain", "nowhere", CAT], "nowhere: expected an artifact directory"),
        (["explain", SHIPPED, CAT, "-m", "codes"], "t-SNE needs scikit-learn"),
        (["train", "lenet5", "--data", "hf:mnist"], "hf:NAME needs datasets: pip install"),
        (["info", "lenet5", "--input-shape", "8,8,1"], "at least 16 x 16 pixels, got 8 x 8"),
        (["info", "lenet5", "--num-classes", 0], "num_classes of at least 1"),
        (["info", "lenet5", "--png", "net.svg"], "a file name that ends in .png, got net.svg"),
        (["info", SHIPPED, "--svg", "/proc/nowhere/net.svg"], "net.svg: cannot be written"),
        (["bench", SHIPPED, "--chart", "/proc/nowhere/a.png"], "a.png: cannot be written"),
        (["bench", SHIPPED, "--chart", "bench.gif"], "a file name that ends in .png"),
    ],
)
def test_a_mistake_is_told_before_keras_is_loaded_and_leaves_nothing(
    arguments, complaint, tmp_path
):
    missing = ["keras", "tensorflow", "sklearn", "datasets"]
    without = f"import sys; sys.modules.update(dict.fromkeys({missing}))"
    program = f"{without}; from striate.cli import main; main()"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert complaint in one_line(ran.stderr)
    assert ran.returncode in (1, 2)
    assert ran.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_clear_line():
    ran = run("quickstart", "/proc/nowhere")
    assert "No such file or directory: '/proc/nowhere'" in one_line(ran.stderr)
    assert ran.returncode == 1


@pytest.mark.parametrize("content", ["nothing", "one class"])
def test_a_folder_that_teaches_nothing_is_refused(call, tmp_path, content):
    folder = tmp_path / "pictures"
    folder.mkdir()
    if content == "one class":
        (folder / "cat").mkdir()
        shutil.copy(PHOTOS / "cat.jpg", folder / "cat")
    code, _, err = call("train", "lenet5", "--data", folder, "-o", tmp_path / "out")
    assert code == 1
    assert "pictures" in one_line(err)
    assert not list((tmp_path / "out").glob("[0-9]*"))


def test_a_check_of_some_forms_checks_those(call, artifact):
    code, out, _ = call("export", artifact.path, "--check", "--to", "litert", "--json")
    assert code == 0
    assert [row["form"] for row in json.loads(out)] == ["litert"]
    code, _, err = call("export", artifact.path, "--check", "--to", "saved_model")
    assert code == 1
    assert "has no saved_model to verify; it holds onnx, litert" in one_line(err)


def test_a_check_without_an_exported_form_says_so(call, tmp_path):
    made = tiny_artifact(tmp_path / "mine")
    code, out, err = call("export", made.path, "--check", "--json")
    assert (code, json.loads(out)) == (0, [])
    assert "holds no exported form" in err


def test_explain_goes_on_past_a_picture_that_cannot_be_read(call, artifact, tmp_path):
    broken, good, output = tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "why"
    broken.write_bytes(b"no picture")
    shutil.copy(CAT, good)
    code, out, err = call("explain", artifact.path, broken, good, "-o", output, "--json")
    assert code == 1
    assert [Path(row["file"]).name for row in json.loads(out)] == ["b.grad_cam.png"]
    assert str(broken) in err
    classes = ["--class", "0", "--class", "1"]  # one for each: none may be left out
    assert call("explain", artifact.path, broken, good, *classes)[:2] == (1, "")
    assert call("explain", artifact.path, broken)[:2] == (1, "")


def test_explain_takes_a_folder_for_the_pictures_in_it(call, artifact, tmp_path):
    code, out, _ = call("explain", artifact.path, PHOTOS, "-o", tmp_path / "why", "--json")
    assert code == 0
    names = {path.stem for path in PHOTOS.glob("*.jpg")}
    assert {Path(row["file"]).name for row in json.loads(out)} == {
        f"{name}.grad_cam.png" for name in names
    }


def test_bad_pictures_among_good_ones_are_named_and_left_out(call, pictures, tmp_path):
    (pictures / "warm" / "notes.png").write_text("not a picture")
    cut = (PHOTOS / "coffee.jpg").read_bytes()[:3000]
    (pictures / "cold" / "cut.jpg").write_bytes(cut)
    deep = np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40
    Image.fromarray(deep).save(pictures / "cold" / "deep.png")
    Image.new("CMYK", (40, 40), (0, 200, 200, 0)).save(pictures / "warm" / "print.jpg")
    code, _, err = call(
        "train", "lenet5", "--data", pictures, "-o", tmp_path / "out", "--epochs", 1,
        "--set", "model.channels=3",
    )  # fmt: skip
    assert code == 0, err
    assert "notes.png" in err
    assert "cut.jpg" in err
    assert "deep.png" not in err
    assert "print.jpg" not in err


def test_a_picture_that_cannot_be_read_does_not_stop_the_others(tmp_path):
    ran = run("predict", SHIPPED, tmp_path / "no.jpg", PHOTOS / "coffee.jpg", "--json")
    assert ran.returncode == 1
    assert [row["path"] for row in json.loads(ran.stdout)] == [str(PHOTOS / "coffee.jpg")]
    assert "no.jpg" in one_line(ran.stderr)


@pytest.mark.long
def test_a_damaged_artifact_is_refused_and_a_broken_form_caught(artifact, tmp_path):
    broken = tmp_path / "mine" / "1"
    shutil.copytree(artifact.path, broken)
    data = (broken / "model.onnx").read_bytes()
    (broken / "model.onnx").write_bytes(data[: len(data) // 2])
    assert "incomplete" in one_line(run("predict", broken, PHOTOS / "cat.jpg").stderr)
    swapped = bytearray(data)
    swapped[len(data) // 2] ^= 0xFF
    (broken / "model.onnx").write_bytes(swapped)
    checked = run("export", broken, "--check")
    assert checked.returncode == 1
    assert "model.onnx: its contents changed" in one_line(checked.stderr)


def test_a_net_that_answers_with_a_map_is_no_classifier(call, tmp_path):
    made = tiny_artifact(tmp_path / "fcn", name="fcn32s_vgg16", shape=(32, 32, 3))
    code, _, err = call("predict", made.path, PHOTOS / "cat.jpg")
    assert code == 2
    assert "answers with a map [32, 32, 4]" in one_line(err)


def test_doctor_says_what_is_wrong_with_the_kernels_beside_all_else(monkeypatch):
    monkeypatch.setenv("STRIATE_KERNEL", "quantum")
    ran = CliRunner().invoke(cli.app, ["doctor", "--json"])
    document = json.loads(ran.stdout)
    assert ran.exit_code == 0
    assert document["machine"]["cores"]
    assert document["binary"]["kernel"] is None
    assert "got 'quantum'" in document["binary"]["problem"]
    said = CliRunner().invoke(cli.app, ["doctor"]).stdout
    assert "binary convolutions cannot run: STRIATE_KERNEL: expected a binary kernel" in said


def test_doctor_names_what_keras_trains_on(monkeypatch):
    import tensorflow as tf

    def doctor(*arguments):
        return CliRunner().invoke(cli.app, ["doctor", *arguments]).stdout

    assert json.loads(doctor("--json"))["training"]["problem"] is None
    names = {"a": "Fast 9", "b": "Fast 9", "c": "Slow 1"}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(names))
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda device: {"device_name": names[device]}
    )
    assert json.loads(doctor("--json"))["training"]["devices"] == ["Fast 9", "Fast 9", "Slow 1"]
    assert re.search(r"tensorflow +\S+ +2 x Fast 9, Slow 1", doctor())


def test_doctor_says_why_a_backend_does_not_load_beside_all_else(monkeypatch):
    def broken():
        raise ImportError("libcudnn.so.9: cannot open shared object file\nmore")

    monkeypatch.setattr("striate.cli.doctor._tensorflow_devices", broken)
    said = CliRunner().invoke(cli.app, ["doctor"]).stdout
    assert "\ntensorflow does not load: libcudnn.so.9: cannot open shared object file\n" in said
    assert "onnx" in said


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("model name\t: Fast\nflags\t: sse avx2 avx512f\n", "Fast (avx2 avx512f)"),
        ("model name\t: Old\nflags\t: sse\n", "Old (no AVX2)"),
        ("Features\t: fp asimd asimddp i8mm\n", f"{platform.machine()} (asimddp i8mm)"),
        ("Features\t: fp asimd\n", f"{platform.machine()} (no dot products)"),
    ],
)
def test_doctor_names_what_a_processor_of_either_kind_has(monkeypatch, lines, said):
    file = io.StringIO(lines)
    monkeypatch.setattr("striate.cli.doctor.open", lambda *_, **__: file, raising=False)
    ran = CliRunner().invoke(cli.app, ["doctor", "--json"])
    assert json.loads(ran.stdout)["machine"]["cpu"] == said


def test_doctor_names_no_kernel_of_an_engine_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("striate.runtime.installed", dict)
    rows = json.loads(CliRunner().invoke(cli.app, ["doctor", "--json"]).stdout)["engines"]
    assert {(row["version"], row["kernel"]) for row in rows} == {("not installed", None)}


def test_json_has_null_where_a_number_is_not_finite(capsys, tmp_path):
    document = {"a": [float("nan"), 1.5, (float("-inf"), "NaN")], "b": None}
    expected = {"a": [None, 1.5, [None, "NaN"]], "b": None}
    emit(document)
    assert json.loads(capsys.readouterr().out) == expected
    write_json(document, tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text()) == expected


def test_scores_that_are_no_numbers_are_an_error(monkeypatch):
    def unfit(*arguments, **options):
        return SimpleNamespace(name="onnx", predict=lambda images: np.full((1, 1000), np.nan))

    monkeypatch.setattr("striate.runtime.open_engine", unfit)
    ran = CliRunner().invoke(cli.app, ["predict", str(SHIPPED), str(PHOTOS / "cat.jpg")])
    assert ran.exit_code == 1
    assert "cat.jpg: the onnx engine's scores are no numbers" in str(ran.exception)


@pytest.mark.parametrize(
    ("variable", "file", "backend"),
    [
        (None, None, "tensorflow"),
        (None, '{"backend": "jax"}', "jax"),
        ("torch", '{"backend": "jax"}', "torch"),
        (None, "{", "tensorflow"),
    ],
)
def test_doctor_says_which_backend_keras_will_run_on(
    tmp_path, monkeypatch, variable, file, backend
):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", variable or "")
    if file:
        (tmp_path / "keras.json").write_text(file)
    ran = CliRunner().invoke(cli.app, ["doctor", "--json"])
    assert json.loads(ran.stdout)["keras_backend"] == backend


def test_a_user_without_a_home_is_given_that_of_containers(monkeypatch):
    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", unknown)  # as in a container that knows users by number
    for name in ("HOME", "KERAS_HOME", "KERAS_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    ran = CliRunner().invoke(cli.app, ["doctor", "--json"])
    assert json.loads(ran.stdout)["keras_backend"] == "tensorflow"
    assert os.environ["HOME"] == "/"


def test_a_backend_that_is_not_installed_is_one_clear_line(monkeypatch, call, pictures):
    monkeypatch.setenv("KERAS_BACKEND", "jacks")
    code, out, error = call("train", "lenet5", "--data", pictures)
    assert (code, out) == (2, "")
    assert error.startswith("striate: Keras is to run on jacks, which is not installed; ")


def test_a_backend_that_striate_is_not_made_for_is_one_clear_line(monkeypatch, call, pictures):
    monkeypatch.setenv("KERAS_BACKEND", "numpy")  # torch's libraries and TensorFlow's may crash
    line = "Keras is to run on numpy, for which striate is not made; "
    code, out, error = call("train", "lenet5", "--data", pictures)
    assert (code, out) == (2, "")
    assert error.startswith(f"striate: {line}")
    assert f"\n{line}" in call("doctor")[1]
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("absent", "what", "command"),
    [
        ("jinja2", "a report", "evaluate {artifact} --data {data} --report {new}/report.html"),
        ("matplotlib", "a report", "report {artifact} --data {data} -o {new}/report.html"),
        ("matplotlib", "--chart", "bench {artifact} --chart {new}/chart.png"),
        ("matplotlib", "the curve of a search", "search lr lenet5 --data {data} -o {new}"),
        ("matplotlib", "the picture of a curve", "ensemble curve a b --data {data} -o {new}"),
        ("matplotlib", "an explanation", "explain {artifact} {data}/cold/0.png -o {new}"),
        ("matplotlib", "a picture of a net", "info lenet5 --png {new}/net.png"),
        ("tf2onnx", "export to onnx", "export {artifact} --to onnx"),
        ("tensorflow", "export to saved_model, onnx, litert", "export {artifact}"),
        ("ai_edge_litert", "quickstart", "quickstart {new}"),
    ],
)
def test_a_missing_library_is_told_before_work_begins(
    absent, what, command, call, artifact, pictures, tmp_path, monkeypatch
):
    import tensorflow  # noqa: F401  # what is loaded already stays usable where it hides

    monkeypatch.setitem(sys.modules, absent, None)
    new = tmp_path / "new"
    code, out, error = call(*command.format(artifact=artifact.path, data=pictures, new=new).split())
    package = absent.replace("_", "-")
    assert (code, out) == (1, "")
    assert error == f"striate: {what} needs what is not installed here: pip install {package}\n"
    assert not new.exists()


def test_serving_without_the_library_of_its_messages_names_it():
    code = """
import sys
sys.modules["tensorflow_serving"] = None
sys.argv[1:] = ["serve", "anything"]
from striate.cli import main
main()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 1
    assert one_line(ran.stderr) == (
        "striate: serving needs what is not installed here: pip install tensorflow-serving-api"
    )


def test_quickstart_on_a_backend_that_cannot_export_stops_before_it_trains(
    call, tmp_path, monkeypatch
):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    code, _, error = call("quickstart", tmp_path / "new")
    assert code == 2
    assert error.endswith("run it with KERAS_BACKEND=tensorflow\n")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("absent", "package"), [("starlette", "starlette"), ("yaml", "pyyaml"), ("grpc", "grpcio")]
)
def test_an_import_that_fails_for_want_of_a_library_is_one_clear_line(
    absent, package, call, monkeypatch
):
    def verb(*arguments):
        raise ModuleNotFoundError(f"No module named {absent!r}", name=f"{absent}.part")

    monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.setattr(cli, "app", verb)
    code, out, error = call("serve")
    assert (code, out) == (1, "")
    assert error == f"striate: this needs what is not installed here: pip install {package}\n"


def test_an_import_that_fails_for_another_reason_shows_where(call, monkeypatch):
    def verb(*arguments):
        raise ModuleNotFoundError("No module named 'numpy.gone'", name="numpy.gone")

    monkeypatch.setattr(cli, "app", verb)
    with pytest.raises(ModuleNotFoundError):
        call("models")


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="Windows has no names but Unicode")
@pytest.mark.parametrize("coding", ["utf-8:strict", "ascii:strict"])
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_names_that_the_output_cannot_spell_are_printed_all_the_same(
    artifact, tmp_path, monkeypatch, coding, more
):
    monkeypatch.setenv("PYTHONIOENCODING", coding)
    names = [os.fsencode(tmp_path) + name for name in (b"/caf\xe9.png", "/猫é.png".encode())]
    for name in names:
        shutil.copy(PHOTOS / "cat.jpg", name)
    ran = run("predict", artifact.path, *map(os.fsdecode, names), "--engine", "onnx", *more)
    assert ran.returncode == 0, ran.stderr
    if more:
        found = [answer["path"] for answer in json.loads(ran.stdout)]
        assert found == list(map(os.fsdecode, names))
    else:
        assert r"caf\udce9.png" in ran.stdout


def test_a_table_shows_names_as_they_are(capsys):
    table(["[a]", "b"], [["[/red] cat", ":smile: [bold]"]], title="[x]/1")
    out = capsys.readouterr().out
    assert all(name in out for name in ("[a]", "[/red] cat", ":smile: [bold]", "[x]/1"))


def on_a_terminal(*arguments, columns=80):
    """What the real program writes to a terminal of that width, as lines."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    hidden = {"COLUMNS", "LINES", "NO_COLOR", "TERM"}
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | {"TERM": "xterm"}
    command = [sys.executable, "-m", "striate", *map(str, arguments)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment):
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # how a terminal ends on Linux
            while piece := os.read(ours, 65536):
                written += piece
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode()).replace("\r", "").splitlines()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["serve", "--help"],
        ["models"],
        ["recipes"],
        ["explain", "--list"],
        pytest.param(["doctor"], marks=pytest.mark.long),  # it loads TensorFlow
        ["info", SHIPPED],
    ],
)
def test_a_terminal_of_80_columns_shows_everything_whole(arguments):
    lines = on_a_terminal(*arguments)
    assert [line for line in lines if len(line) > 80] == []
    assert [line for line in lines if re.match(r"  [a-z]+ .*\.\.\.$", line)] == []
    assert "…" not in "".join(lines)


def test_what_a_narrow_terminal_has_no_room_for_is_named():
    narrow, wide = on_a_terminal("models", "lenet5"), on_a_terminal("models", "lenet5", columns=160)
    assert "(a wider terminal shows more: family, total)" in narrow
    assert not any("a wider terminal" in line for line in wide)
    assert any("61,706" in line for line in narrow)


def test_interrupted_output_is_no_error():
    shown = subprocess.run(
        f"{sys.executable} -m striate models --json | head -1",
        shell=True, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Traceback" not in shown.stderr
