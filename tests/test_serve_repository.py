"""Which versions are served: policies, changes on disk, versions that fail; no engine involved."""

import errno
import logging
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from striate.errors import ArtifactError, UsageError
from striate.serve import memory
from striate.serve.options import ModelConfig, ServerOptions, VersionPolicy
from striate.serve.protos import get_model_status_pb2
from striate.serve.repository import KEPT, Model, Repository, State
from striate.serve.repository.model_config import find_models
from striate.serve.status import Code, ServingError


def put(base: Path, number: int, content: str = "good") -> Path:
    """A version directory as far as a repository looks into it."""
    directory = base / str(number)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "striate.json").write_text(content)
    return directory


class Servable:
    """Stands for a loaded version."""

    engine, kernel, seconds = "none", "none at all", 0.5

    def __init__(self, path: Path):
        self.name = f"servable {path.name}"
        self.closed = False

    def close(self) -> None:
        self.closed = True


def opened(path: Path) -> Servable:
    """Stands for `open_servable`: a version whose manifest says `bad` cannot be loaded."""
    if (path / "striate.json").read_text() == "bad":
        raise ArtifactError(f"{path.name} is bad")
    return Servable(path)


def repository(base: Path, policy: str = "latest", open_version=opened) -> Repository:
    found = Repository([Model("m", base, VersionPolicy.parse(policy))], open_version)
    found.refresh()
    return found


def states(found: Repository) -> dict[int, str]:
    return {version.number: version.state.name for version in found.statuses("m")}


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def answers(found: Repository, number: int | None = None) -> str:
    with found.lease("m", number) as lease:
        return lease.servable.name


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("latest", {9}),
        ("latest:1", {9}),
        ("latest:2", {4, 9}),
        ("latest:7", {2, 4, 9}),
        ("all", {2, 4, 9}),
        ("4", {4}),
        ("2, 9, 11", {2, 9}),
    ],
)
def test_a_policy_chooses_versions(text, chosen):
    assert VersionPolicy.parse(text).choose([4, 9, 2]) == chosen


@pytest.mark.parametrize("text", ["", "newest", "latest:0", "latest:x", "all:2", "1,,2", "-1"])
def test_a_policy_that_does_not_exist_is_refused(text):
    with pytest.raises(UsageError, match="expected a version policy"):
        VersionPolicy.parse(text)


def test_the_newest_version_answers_and_the_numbers_are_not_text(tmp_path):
    for number in (2, 9, 10):
        put(tmp_path, number)
    found = repository(tmp_path)
    assert answers(found) == "servable 10"
    assert states(found) == {10: "AVAILABLE"}
    with pytest.raises(ServingError) as error:
        answers(found, 9)
    assert error.value.code == Code.NOT_FOUND
    assert str(error.value) == "Servable not found for request: Specific(m, 9)"


def test_what_ended_long_ago_is_listed_no_more(tmp_path):
    """A server whose models are replaced every hour lists as much after a year as after a day."""
    put(tmp_path, 1, "bad")
    found = repository(tmp_path)
    forgotten = []
    found.forgotten = lambda *whom: forgotten.append(whom)
    for number in range(2, 300):
        put(tmp_path, number)
        found.refresh()
        shutil.rmtree(tmp_path / str(number - 1), ignore_errors=number != 2)
        if number == 2:
            put(tmp_path, 1, "bad")
    ended = dict.fromkeys([*range(298, 298 - KEPT, -1), 1], "END")  # what fails is still there
    assert states(found) == {299: "AVAILABLE", **ended}
    assert forgotten == [("m", number) for number in range(2, 299 - KEPT)]
    assert len(found.loads.attempts) == len(found.loads.micros) + 1 == KEPT + 2
    shutil.rmtree(tmp_path / "1")
    put(tmp_path, 300)
    found.refresh()
    assert states(found) == {300: "AVAILABLE", **dict.fromkeys(range(299, 299 - KEPT, -1), "END")}


def test_of_models_that_are_no_longer_configured_a_few_are_listed(tmp_path):
    found = repository(tmp_path)
    for name in map(str, range(50)):
        put(tmp_path / name, 1)
        found.configure([ModelConfig(name, tmp_path / name)])
    assert [*found.models] == [str(number) for number in range(49 - KEPT, 50)]
    assert answers_of(found, "49") == "servable 1"
    assert found.ready(), "the others are not meant to answer"
    assert {version.state for version in found.statuses("48")} == {State.END}


def test_models_that_fail_stay_listed_however_many_they_are(tmp_path):
    models = [Model(str(n), tmp_path / str(n), VersionPolicy()) for n in range(KEPT + 2)]
    for model in models:
        put(model.base_path, 1, "bad")
    found = Repository(models, opened)
    found.refresh()
    assert len(found.models) == KEPT + 2
    assert not found.ready()


def answers_of(found: Repository, name: str) -> str:
    with found.lease(name) as lease:
        return lease.servable.name


def test_of_two_directories_of_a_version_one_is_served_and_the_other_is_said(tmp_path, caplog):
    put(tmp_path, 7)
    found = repository(tmp_path)
    for name in ("007", "07"):
        shutil.copytree(tmp_path / "7", tmp_path / name)
    for _ in range(3):
        found.refresh()
    assert answers(found) == "servable 7"
    (line,) = caplog.messages
    assert line == "m version 7 is the directory 7; the same version in 07, 007 is ignored"
    shutil.rmtree(tmp_path / "7")
    shutil.rmtree(tmp_path / "07")
    found.refresh()
    assert answers(found, 7) == "servable 007"


def test_version_0_means_itself_where_it_exists_and_the_newest_where_not(tmp_path):
    put(tmp_path, 1)
    put(tmp_path, 2)
    found = repository(tmp_path, "all")
    assert answers(found, 0) == "servable 2"
    assert [version.number for version in found.statuses("m", 0)] == [2, 1]
    put(tmp_path, 0)
    found.refresh()
    assert answers(found, 0) == "servable 0"
    assert [version.number for version in found.statuses("m", 0)] == [0]


def test_several_versions_answer_by_number(tmp_path):
    for number in (1, 2, 3):
        put(tmp_path, number)
    found = repository(tmp_path, "latest:2")
    assert [answers(found, n) for n in (None, 3, 2)] == ["servable 3", "servable 3", "servable 2"]
    assert states(found) == {3: "AVAILABLE", 2: "AVAILABLE"}


def test_the_newest_version_answers_though_an_older_one_came_later(tmp_path):
    put(tmp_path, 5)
    found = repository(tmp_path, "all")
    put(tmp_path, 3)
    found.refresh()
    assert answers(found) == "servable 5"


def test_states_are_tensorflow_servings():
    theirs = dict(get_model_status_pb2.ModelVersionStatus.State.items())
    assert {state.name: state.value for state in State} | {"UNKNOWN": 0} == theirs


def test_what_is_let_go_of_is_closed_and_nothing_else(tmp_path):
    loaded: list[Servable] = []

    def keeping(path):
        servable = opened(path)
        loaded.append(servable)
        return servable

    put(tmp_path, 1)
    found = repository(tmp_path, open_version=keeping)
    with found.lease("m"):
        put(tmp_path, 2)
        found.refresh()
        assert [s.closed for s in loaded] == [False, False], "a request is under way"
    assert [s.closed for s in loaded] == [True, False]
    put(tmp_path, 3)
    found.refresh()
    assert [s.closed for s in loaded] == [True, True, False]
    (tmp_path / "3").rename(tmp_path / "003")  # another directory is another version 3
    found.refresh()
    assert [s.closed for s in loaded] == [True, True, True, False]
    (tmp_path / "003").rename(tmp_path / "3")
    put(tmp_path, 3, "bad")
    found.refresh()
    assert answers(found) == "servable 2"
    assert [s.closed for s in loaded] == [True] * 4 + [False]
    found.close()
    assert all(s.closed for s in loaded)


def test_a_new_version_is_loaded_before_the_old_one_goes(tmp_path):
    put(tmp_path, 1)
    seen = []

    def opening(path):
        if path.name == "2":
            seen.append(answers(found))
        return opened(path)

    found = Repository([Model("m", tmp_path, VersionPolicy())], opening)
    found.refresh()
    put(tmp_path, 2)
    events = found.refresh()
    assert seen == ["servable 1"]
    assert [event.text for event in events] == [
        "m version 2 is served: none (none at all)",
        "m version 1 is no longer served",
    ]
    assert answers(found) == "servable 2"
    assert states(found) == {2: "AVAILABLE", 1: "END"}


def test_a_version_in_use_ends_when_its_last_request_does(tmp_path):
    put(tmp_path, 1)
    found = repository(tmp_path)
    with found.lease("m") as lease:
        put(tmp_path, 2)
        found.refresh()
        assert states(found) == {2: "AVAILABLE", 1: "UNLOADING"}
        assert lease.servable.name == "servable 1"
    assert states(found)[1] == State.END.name
    assert found.models["m"].versions[1].servable is None


def test_a_version_that_fails_says_why_and_the_others_go_on(tmp_path):
    put(tmp_path, 1)
    found = repository(tmp_path)
    put(tmp_path, 2, "bad")
    (event,) = found.refresh()
    assert (event.failed, event.text) == (True, "m version 2 is not served: 2 is bad")
    assert answers(found) == "servable 1"
    newest = found.statuses("m")[0]
    assert (newest.state, newest.code, newest.message) == (State.END, Code.DATA_LOSS, "2 is bad")


def test_at_the_start_the_newest_sound_version_is_served(tmp_path):
    put(tmp_path, 1)
    put(tmp_path, 2, "bad")
    found = repository(tmp_path)
    assert states(found) == {2: "END", 1: "AVAILABLE"}


@pytest.mark.parametrize(
    ("content", "seconds"), [("good now", 0), ("god", 1)], ids=["in size", "in time"]
)
def test_a_version_that_failed_is_tried_again_when_its_files_change(tmp_path, content, seconds):
    """What copies files may keep their times, and what is mended its size."""
    put(tmp_path, 1)
    put(tmp_path, 2, "bad")
    tried = []

    def counting(path):
        tried.append(path.name)
        return opened(path)

    found = repository(tmp_path, open_version=counting)
    found.refresh()
    assert tried == ["2", "1"]
    before = (tmp_path / "2" / "striate.json").stat().st_mtime + seconds
    put(tmp_path, 2, content)
    os.utime(tmp_path / "2" / "striate.json", (before, before))
    found.refresh()
    assert states(found) == {2: "AVAILABLE", 1: "END"}


def test_a_directory_with_neither_a_manifest_nor_a_model_is_not_looked_at(tmp_path):
    put(tmp_path, 1)
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "model.keras").write_bytes(b"half")
    (tmp_path / "4").mkdir()  # nothing is there yet
    (tmp_path / ".tmp-3").mkdir()
    (tmp_path / "notes").mkdir()
    assert states(repository(tmp_path)) == {1: "AVAILABLE"}


def test_deleting_a_version_goes_back_to_the_one_before(tmp_path):
    put(tmp_path, 1)
    put(tmp_path, 2)
    found = repository(tmp_path)
    shutil.rmtree(tmp_path / "2")
    found.refresh()
    assert answers(found) == "servable 1"


def test_what_is_loaded_goes_on_when_the_directory_vanishes(tmp_path):
    put(tmp_path / "m", 1)
    found = repository(tmp_path / "m")
    shutil.rmtree(tmp_path / "m")
    found.refresh()
    assert answers(found) == "servable 1"


def test_memory_goes_back_to_the_system_when_versions_change_and_only_then(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(memory, "give_back", lambda: given.append(1))
    put(tmp_path, 1)
    found = repository(tmp_path)
    assert len(given) == 1
    found.refresh()
    assert len(given) == 1
    put(tmp_path, 2)
    found.refresh()
    assert len(given) == 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_what_was_freed_between_what_is_in_use_goes_back():
    code = (
        "import gc\nfrom pathlib import Path\nfrom striate.serve.memory import give_back\n"
        "def megabytes():\n"
        "    text = Path('/proc/self/status').read_text()\n"
        "    return int(text.split('VmRSS:')[1].split()[0]) / 1024\n"
        "blocks = [bytearray(100_000) for _ in range(2000)]\n"
        "blocks = blocks[::10]\n"
        "before = megabytes()\ngive_back()\nprint(before - megabytes())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(ran.stdout) > 100  # of 180


def test_what_is_unknown_is_not_found(tmp_path):
    put(tmp_path, 1)
    found = repository(tmp_path)
    for call, message in [
        (lambda: found.lease("nope").__enter__(), "Servable not found for request: Latest(nope)"),
        (lambda: found.statuses("nope"), "Could not find any versions of model nope"),
        (lambda: found.statuses("m", 99), "Could not find version 99 of model m"),
    ]:
        with pytest.raises(ServingError) as error:
            call()
        assert (error.value.code, str(error.value)) == (Code.NOT_FOUND, message)


def test_a_directory_is_a_model_a_version_or_a_repository(tmp_path):
    put(tmp_path / "a", 1)
    put(tmp_path / "a", 2)
    put(tmp_path / "b", 1)
    (tmp_path / "empty").mkdir()
    policy = VersionPolicy()
    (model,) = find_models(tmp_path / "a", None, policy)
    assert (model.name, model.base_path) == ("a", tmp_path / "a")
    (version,) = find_models(tmp_path / "a" / "1", "mine", policy)
    assert (version.name, version.policy.choose([1, 2])) == ("mine", {1})
    assert [m.name for m in find_models(tmp_path, None, policy)] == ["a", "b"]
    for path, name in [(tmp_path / "empty", None), (tmp_path / "nope", None), (tmp_path, "mine")]:
        with pytest.raises(ArtifactError, match="expected"):
            find_models(path, name, policy)


def test_links_are_followed_anew_at_every_look(tmp_path):
    """As of ConfigMaps and git-sync: the directory is a link that leads elsewhere one day."""
    put(tmp_path / "revision 1" / "a", 1)
    put(tmp_path / "revision 2" / "a", 2)
    now = tmp_path / "now"
    now.symlink_to("revision 1")
    (model,) = find_models(now / "a", None, VersionPolicy())
    found = repository(model.base_path)
    assert answers(found) == "servable 1"
    (tmp_path / "next").symlink_to("revision 2")
    (tmp_path / "next").rename(now)
    shutil.rmtree(tmp_path / "revision 1")
    found.refresh()
    assert answers(found) == "servable 2"


def test_a_link_to_a_version_is_that_version(tmp_path):
    put(tmp_path / "a", 3)
    (tmp_path / "newest").symlink_to("a/3")
    (version,) = find_models(tmp_path / "newest", None, VersionPolicy())
    assert (version.name, version.policy.choose([2, 3])) == ("a", {3})


@pytest.fixture
def shut(monkeypatch):
    """Names of directories that this process may not look into; permissions do not stop root."""
    names: set[str] = set()
    iterdir, status = Path.iterdir, Path.stat

    def looked_into(path: Path):
        if path.name in names:
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    def looked_at(path: Path, **how):
        if path.parent.name in names:
            raise PermissionError(13, "Permission denied")
        return status(path, **how)

    monkeypatch.setattr(Path, "iterdir", looked_into)
    monkeypatch.setattr(Path, "stat", looked_at)
    return names


def test_a_version_whose_disk_fails_for_a_moment_goes_on(tmp_path, monkeypatch):
    """The one before it would answer again, of a disk that only did not answer."""
    put(tmp_path, 1)
    put(tmp_path, 2)
    found = repository(tmp_path)
    status = os.stat

    def fails(path, **how):
        if str(path) == str(tmp_path / "2" / "striate.json"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return status(path, **how)

    monkeypatch.setattr(os, "stat", fails)
    assert found.refresh() == []
    assert answers(found) == "servable 2"


def test_that_all_versions_are_gone_is_said_once_and_that_they_are_back(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    put(tmp_path / "m", 1)
    found = repository(tmp_path / "m")
    (tmp_path / "m").rename(tmp_path / "away")
    found.refresh()
    found.refresh()
    (tmp_path / "m").mkdir()
    found.refresh()
    (tmp_path / "m").rmdir()
    (tmp_path / "away").rename(tmp_path / "m")
    found.refresh()
    gone, empty, back = [record.getMessage() for record in caplog.records]
    assert "got nothing there; what is loaded goes on answering" in gone
    assert "expected a version with all its files" in empty
    assert back == f"m: there are versions in {tmp_path / 'm'} again"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_disk_that_never_answers_does_not_keep_a_server_from_ending(tmp_path, threads, caplog):
    """Nor is what answers after all left open."""
    others = set(threading.enumerate())
    put(tmp_path, 1)
    never, late = threading.Event(), []

    def open_version(path: Path) -> Servable:
        if path.name != "1":
            never.wait(20)
            late.append(opened(path))
            return late[-1]
        return opened(path)

    model = Model("m", tmp_path, VersionPolicy.parse("all"))
    found = Repository([model], open_version, load_threads=threads)
    found.refresh()
    put(tmp_path, 2)
    put(tmp_path, 3)
    found.watch(0.01)
    until(lambda: 2 in found.models["m"].versions)
    found.close(0.1)
    assert "is not waited for" in caplog.text
    waiting = set(threading.enumerate()) - others
    assert waiting
    assert all(thread.daemon for thread in waiting)
    never.set()
    until(lambda: len(late) == 2 and all(servable.closed for servable in late))
    assert states(found) == {1: "END", 2: "END", 3: "END"}


def test_a_directory_among_models_that_nobody_may_look_into_is_none(tmp_path, shut, caplog):
    put(tmp_path / "a", 1)
    (tmp_path / "lost+found").mkdir()
    shut.add("lost+found")
    assert [m.name for m in find_models(tmp_path, None, VersionPolicy())] == ["a"]
    assert "lost+found cannot be read (Permission denied)" in caplog.text
    for where in (tmp_path.name, tmp_path.parent.name):
        shut.add(where)
        with pytest.raises(ArtifactError, match=r"cannot be read \(Permission denied\)"):
            find_models(tmp_path, None, VersionPolicy())
        shut.clear()


def test_what_a_config_map_hides_is_no_model(tmp_path):
    """`..data` leads to the directory in which all models are, in the latest state of the map."""
    put(tmp_path / "..2026_11_23" / "m", 1)
    put(tmp_path / "..2026_11_23", 1)
    (tmp_path / "..data").symlink_to("..2026_11_23")
    (tmp_path / "m").symlink_to("..data/m")
    assert [model.name for model in find_models(tmp_path, None, VersionPolicy())] == ["m"]


def test_a_model_that_cannot_be_read_goes_on_and_does_not_hold_up_the_others(tmp_path, shut):
    policy = VersionPolicy()
    put(tmp_path / "m", 1)
    put(tmp_path / "other", 1)
    models = [Model(name, tmp_path / name, policy) for name in ("m", "other")]
    found = Repository(models, opened)
    found.refresh()
    shut.add("m")
    put(tmp_path / "m", 2)
    put(tmp_path / "other", 2)
    found.refresh()
    assert answers(found) == "servable 1"
    with found.lease("other") as lease:
        assert lease.servable.name == "servable 2"
    shut.clear()
    found.refresh()
    assert answers(found) == "servable 2"


def test_a_version_that_cannot_be_read_says_so_and_the_one_before_it_answers(tmp_path, shut):
    put(tmp_path, 1)
    (tmp_path / "2").mkdir()
    shut.add("2")

    def open_version(path: Path) -> Servable:
        if path.name in shut:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path)

    found = repository(tmp_path, open_version=open_version)
    assert answers(found) == "servable 1"
    message = f"{tmp_path / '2'}: cannot be read (Permission denied)"
    assert found.statuses("m", 2)[0].message == message
    shut.clear()
    put(tmp_path, 2)
    found.refresh()
    assert answers(found) == "servable 2"


def test_what_is_done_again_and_again_goes_on_after_a_mistake(caplog):
    done, found = threading.Event(), Repository([], opened)
    calls = iter([RuntimeError("once"), None])

    def call() -> None:
        if error := next(calls, None):
            raise error
        done.set()

    found.every(0.01, call)
    assert done.wait(10)
    found.close()
    assert [r.levelno for r in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": ""},
        {"port": 70_000},
        {"port": 0},
        {"port": 8500, "rest_api_port": 8500},
        {"workers": 0},
        {"threads": 0},
        {"grpc_max_threads": 0},
        {"max_queue": -1},
        {"drain_seconds": float("inf")},
        {"file_system_poll_wait_seconds": float("nan")},
        {"model_config_file_poll_wait_seconds": 1e20},
        {"model_name": ""},
        {"model_base_path": ""},
    ],
)
def test_options_that_cannot_be_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ServerOptions(**{"model_base_path": "models", **wrong})
