"""The fault script, shortened: whatever goes wrong, no good request fails and no process ends."""

import json
import subprocess
import sys

import pytest

from making import ROOT, SHIPPED


@pytest.mark.long
def test_no_good_request_fails_whatever_goes_wrong():
    script = ROOT / "benchmarks" / "serve_faults.py"
    command = [sys.executable, str(script), "--model", str(SHIPPED), "--json"]
    command += ["--malformed", "300", "--reloads", "3"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = {row["case"]: row for row in json.loads(ran.stdout)}
    assert len(rows) == 8
    assert all(row["answered"] > 0 and row["failed"] == 0 for row in rows.values())
    assert ", 0 of them an internal error" in rows["malformed requests"]["noted"]
