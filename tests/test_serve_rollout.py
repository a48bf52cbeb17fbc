"""Canaries and shadows: who answers whom, and what is compared."""

import json
import shutil
import time
import urllib.request
from collections import Counter

import pytest

from served import ServerProcess
from striate.errors import UsageError
from striate.serve.client import Client
from striate.serve.rollout import choose, parse, parse_canary

pytest_plugins = ["serving_fixtures"]


def test_several_models_and_labels_are_read():
    assert parse_canary("a:stable=90,next=10;b:c:3=50,4=50") == {
        "a": {"stable": 90, "next": 10},
        "b:c": {"3": 50, "4": 50},
    }
    assert parse("a:next=2.5", "shadow") == {"a": {"next": 2.5}}
    assert parse("", "shadow") == {}


@pytest.mark.parametrize("text", ["a", "a:", "a:b", "a:b=x", ":b=100", "a:=100", "a:b=101,c=-1"])
def test_what_is_no_share_is_said(text):
    with pytest.raises(UsageError, match="expected canary MODEL:LABEL=PERCENT"):
        parse_canary(text)


def test_a_canarys_shares_are_a_hundred_together():
    with pytest.raises(UsageError, match="canary of a with 100 % together, got 90 %"):
        parse_canary("a:b=80,c=10")


def test_clients_keep_their_version_and_the_shares_are_those_asked_for():
    clients = [f"10.0.{i // 256}.{i % 256}" for i in range(4000)]
    first = {c: choose({"old": 90, "new": 10}, "m", c) for c in clients}
    assert first == {c: choose({"old": 90, "new": 10}, "m", c) for c in clients}
    # 4000 clients at 10 %: a standard deviation of 0.5 %
    assert Counter(first.values())["new"] / len(clients) == pytest.approx(0.1, abs=0.025)
    grown = {c: choose({"old": 70, "new": 30}, "m", c) for c in clients}
    assert all(grown[c] == "new" for c in clients if first[c] == "new")


def test_models_do_not_share_their_canary_clients():
    clients = [str(i) for i in range(1000)]
    shares = {"a": 50, "b": 50}
    both = {(choose(shares, "m", c), choose(shares, "n", c)) for c in clients}
    assert both == {("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")}


def test_nobody_gets_a_version_of_no_percent():
    assert {choose({"a": 0, "b": 100}, "m", str(i)) for i in range(500)} == {"b"}
    assert {choose({"a": 100, "b": 0}, "m", str(i)) for i in range(500)} == {"a"}


@pytest.fixture(scope="module")
def two(tiny, tmp_path_factory):
    """A server for the same net as versions 1 and 2, each for half of the clients."""
    base = tmp_path_factory.mktemp("models") / "tiny"
    for number in ("1", "2"):
        shutil.copytree(tiny.path, base / number)
    options = {"version_policy": "all", "canary": "tiny:1=50,2=50", "shadow": "tiny:1=100,9=100"}
    with ServerProcess(base, **options) as server:
        yield server


def version_for(server, picture: bytes, client: str, path: str = "") -> int:
    headers = {"Content-Type": "image/png", "X-Client-Id": client}
    url = f"{server.url}/v1/models/tiny{path}:classify"
    with urllib.request.urlopen(urllib.request.Request(url, picture, headers)) as response:
        return json.load(response)["version"]


def test_the_server_answers_each_client_by_its_own_version(two, picture):
    found = {client: version_for(two, picture, client) for client in map(str, range(12))}
    expected = {c: int(choose({"1": 50, "2": 50}, "tiny", c)) for c in found}
    assert found == expected
    assert set(found.values()) == {1, 2}
    for number in (1, 2):  # who names a version gets it
        assert version_for(two, picture, "0", f"/versions/{number}") == number


def test_a_shadow_is_compared_and_one_that_is_not_there_fails_alone(two, tiny):
    images, _ = tiny.goldens()
    with Client(two.address, "tiny", version=2) as client:
        for _ in range(3):
            client.predict(images)
    whom = 'model="tiny",version="2",shadow'
    deadline = time.monotonic() + 60
    lines: dict[str, str] = {}
    while int(lines.get(f'striate_shadow_items_total{{{whom}="1"}}', 0)) < len(images):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        with urllib.request.urlopen(f"{two.url}/metrics") as response:
            text = response.read().decode()
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines())
    items = lines[f'striate_shadow_items_total{{{whom}="1"}}']
    assert lines[f'striate_shadow_same_total{{{whom}="1"}}'] == items
    assert float(lines[f'striate_shadow_distance_total{{{whom}="1"}}']) < 1e-3
    assert int(lines[f'striate_shadow_failed_total{{{whom}="9"}}']) >= 1
