"""The house: imports run only downwards, and looking around costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "striate"

# The floors of the design, from the ground up: a module imports from its own floor or below.
FLOORS = [
    {"arithmetic", "errors", "files", "gradients", "initializers", "layers", "lazy"},
    {"libraries", "metrics", "yaml_text"},
    {"registry", "costs", "diagram", "preprocess", "pretrained", "torch_files", "fetch"},
    {"models", "data", "artifact", "committee", "convolutional", "adopt"},
    {"train", "runtime", "explain"},
    {"bench", "ensemble", "evaluate", "export", "serve", "search"},
    {"cli", "__main__", "__init__"},
]
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}


def imports_of(file: Path) -> set[str]:
    """The rooms of striate that a file imports, at its top or inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "striate":
            names = [f"striate.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found |= {name.split(".")[1] for name in names if name.startswith("striate.")}
    return {name for name in found if name in FLOOR}


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_every_room_stands_on_a_floor():
    rooms = {room_of(file) for file in SOURCE.rglob("*.py")}
    assert rooms - FLOOR.keys() == set()


def test_imports_run_only_downwards():
    upward = [
        f"{file.relative_to(SOURCE)} imports striate.{room}"
        for file in SOURCE.rglob("*.py")
        for room in imports_of(file)
        if FLOOR[room] > FLOOR[room_of(file)]
    ]
    assert upward == []


def test_rooms_of_one_floor_do_not_import_in_a_circle():
    edges = {
        (room_of(file), room)
        for file in SOURCE.rglob("*.py")
        for room in imports_of(file)
        if room != room_of(file) and room_of(file) not in ("__init__", "cli", "__main__")
    }
    while edges:
        leaves = {room for _, room in edges} - {room for room, _ in edges}
        assert leaves, f"a circle among {sorted(edges)}"
        edges = {(a, b) for a, b in edges if b not in leaves}


def test_the_servers_core_knows_no_protocol():
    serve = SOURCE / "serve"
    faces = ("striate.serve.protocols", "striate.serve.grpc_server")
    outside = {
        file.name
        for file in serve.rglob("*.py")
        if file.relative_to(serve).parts[0] not in ("protocols", "grpc_server")
        and any(face in file.read_text("utf-8") for face in faces)
    }
    assert outside == {
        "listeners.py",
        "loading.py",
    }  # which begin them; whose warm-ups are messages


@pytest.mark.parametrize("module", ["striate", "striate.cli", "striate.train", "striate.serve"])
def test_importing_is_cheap(module):
    heavy = ["keras", "tensorflow", "jax", "onnxruntime", "matplotlib", "h5py"]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.long
def test_striate_before_tensorflow_leaves_keras_whole():
    code = "import striate, tensorflow, keras; keras.layers.Dense; striate.create_model('lenet5')"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
