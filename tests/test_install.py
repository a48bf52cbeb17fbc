"""The wheel, built where there is a C compiler and where there is none."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from making import ROOT

pytest.importorskip("hatchling", reason="needs hatchling, of the dev extra")


def build(tmp_path, **environment: str) -> list[str]:
    """The names in the wheel that this source makes."""
    source = tmp_path / "source"
    keep = ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py")
    for name in keep:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    for folder in ("src", "native", "saved_models/squeezenet1_1"):
        skip = shutil.ignore_patterns("__pycache__", "build")
        shutil.copytree(ROOT / folder, source / folder, ignore=skip, dirs_exist_ok=True)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    environment = {**os.environ, **environment}
    subprocess.run(command, cwd=source, env=environment, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    return [wheel.name, *zipfile.ZipFile(wheel).namelist()]


@pytest.mark.long
def test_with_a_compiler_the_wheel_brings_compiled_kernels(tmp_path):
    if not shutil.which(os.environ.get("CC", "cc")) or not shutil.which("make"):
        pytest.skip("needs make and a C compiler (cc)")
    name, *files = build(tmp_path)
    assert "striate/native/libstriate.so" in files
    assert not name.endswith("-none-any.whl")


def test_a_library_that_lies_in_the_checkout_is_not_taken_into_the_wheel(tmp_path):
    """It may be another processor's, or older than the sources."""
    (tmp_path / "source" / "native" / "build").mkdir(parents=True)
    stale = tmp_path / "source" / "native" / "build" / "libstriate.so"
    stale.write_bytes(b"stale")
    os.utime(stale, (2**32, 2**32))  # newer than every source
    _, *files = build(tmp_path, CC="false")
    assert not any("libstriate" in file for file in files)
    assert stale.read_bytes() == b"stale"


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_or_with_one_that_fails_the_wheel_is_pure_python(tmp_path, compiler):
    name, *files = build(tmp_path, CC=compiler)
    assert not any("libstriate" in file for file in files)
    assert name.endswith("py3-none-any.whl")
    assert "striate/runtime/binary.py" in files
