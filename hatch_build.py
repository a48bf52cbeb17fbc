"""At installation, compiles the binary kernels in `native/` where there is a C compiler.

Without one, or where it fails, the wheel is the pure Python one, which computes the same by numpy.
STRIATE_NO_NATIVE=1 leaves the kernels out.
"""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY = "striate/native/libstriate.so"


def compile_kernels(root: Path) -> Path | None:
    """The compiled library, or None where this machine cannot make it."""
    compiler = os.environ.get("CC", "cc").split()[0]
    if os.environ.get("STRIATE_NO_NATIVE") or not shutil.which("make"):
        return None
    if not shutil.which(compiler):
        return None
    made = subprocess.run(["make", "-s", "-C", root / "native"], capture_output=True, text=True)
    if made.returncode:
        print(f"striate is installed without compiled kernels:\n{made.stderr}")
        return None
    return root / "native" / "build" / "libstriate.so"


class KernelBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict) -> None:
        if self.target_name != "wheel" or version == "editable":
            return  # a checkout finds native/build by itself
        library = compile_kernels(Path(self.root))
        if library is None:
            return
        build_data["force_include"][str(library)] = LIBRARY
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
