"""How many processors a server takes for its own, in containers too."""

import os

import pytest

from striate.serve.processors import processors, share

GROUPS = {
    "second version": ("0::/pods/mine\n", "pods/mine/cpu.max", "250000 100000\n"),
    "a group around it": ("0::/pods/mine\n", "pods/cpu.max", "250000 100000\n"),
    "a container's own view": ("0::/\n", "cpu.max", "250000 100000\n"),
    "a path from outside": ("0::/../../kubelet/mine\n", "cpu.max", "250000 100000\n"),
    "first version": (
        "5:memory:/a\n3:cpu,cpuacct:/mine\n",
        "cpu,cpuacct/mine/cpu.cfs_quota_us",
        "250000\n",
    ),
}


@pytest.mark.parametrize(("groups", "file", "text"), GROUPS.values(), ids=GROUPS)
def test_a_containers_share_of_time_counts(tmp_path, groups, file, text):
    (tmp_path / "groups").write_text(groups)
    file = tmp_path / "root" / file
    file.parent.mkdir(parents=True)
    file.write_text(text)
    if file.name == "cpu.cfs_quota_us":
        file.with_name("cpu.cfs_period_us").write_text("100000\n")
    assert share(tmp_path / "groups", tmp_path / "root") == 2.5


@pytest.mark.parametrize(
    ("groups", "text"),
    [("0::/\n", "max 100000\n"), ("0::/\n", ""), ("", "1000 1000"), ("3:memory:/\n", "1000 1000")],
)
def test_without_a_limit_all_cores_do(tmp_path, groups, text):
    (tmp_path / "groups").write_text(groups)
    (tmp_path / "cpu.max").write_text(text)
    assert share(tmp_path / "groups", tmp_path) == float("inf")
    assert share(tmp_path / "nothing", tmp_path) == float("inf")


def test_there_is_always_one_and_never_more_than_there_are():
    assert 1 <= processors() <= os.cpu_count()
