"""At installation, compiles the binary kernels in `native/` where there is a C compiler.

Without one, or where it fails, the wheel is the pure Python one, which computes the same by numpy.
STRIATE_NO_NATIVE=1 leaves the kernels out.
"""

import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY = "striate/native/libstriate.so"


def compile_kernels(root: Path, build: Path) -> Path | None:
    """The library, compiled into a folder of its own (`native/build` may be another processor's, or
    not be writable), or None where this machine cannot make it."""
    compiler = os.environ.get("CC", "cc").split()[0]
    if os.environ.get("STRIATE_NO_NATIVE") or not shutil.which("make"):
        return None
    if not shutil.which(compiler):
        return None
    library = build / "libstriate.so"
    command = ["make", "-s", "-C", root / "native", library, f"BUILD={build}"]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        print(f"striate is installed without compiled kernels:\n{made.stderr}")
        return None
    return library


class KernelBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict) -> None:
        if self.target_name != "wheel" or version == "editable":
            return  # a checkout finds native/build by itself
        self.folder = tempfile.TemporaryDirectory()  # until the wheel is written
        library = compile_kernels(Path(self.root), Path(self.folder.name))
        if library is None:
            return
        build_data["force_include"][str(library)] = LIBRARY
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict, artifact_path: str) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()
