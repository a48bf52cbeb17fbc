"""Canaries and shadows: who answers whom, and what is compared."""

import json
import re
import shutil
import threading
import time
import urllib.request
from collections import Counter
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

from making import tiny_artifact
from served import ServerProcess
from striate.errors import UsageError
from striate.serve import protos, tensors
from striate.serve.calls import address, client_of
from striate.serve.canary import Canaries, Limits
from striate.serve.client import Client
from striate.serve.observe.counters import Counters
from striate.serve.options import VersionPolicy
from striate.serve.repository import Model, State, Version
from striate.serve.rollout import (
    WAITING,
    Agreement,
    Compared,
    Missing,
    Shadow,
    choose,
    parse,
    parse_canary,
)
from striate.serve.status import Code, ServingError

pytest_plugins = ["serving_fixtures"]


def test_several_models_and_labels_are_read():
    assert parse_canary("a:stable=90,next=10;b:c:3=50,4=50") == {
        "a": {"stable": 90, "next": 10},
        "b:c": {"3": 50, "4": 50},
    }
    assert parse("a:next=2.5", "shadow") == {"a": {"next": 2.5}}
    assert parse("", "shadow") == {}
    assert parse_canary("a:stable=100,next=0") == {"a": {"stable": 100, "next": 0}}


@pytest.mark.parametrize(
    "text", ["a", "a:", "a:b", "a:b=x", ":b=100", "a:=100", "a:b=101", "a:b=101,c=-1"]
)
def test_what_is_no_share_is_said(text):
    with pytest.raises(UsageError, match="expected canary MODEL:LABEL=PERCENT"):
        parse_canary(text)


def test_a_canarys_shares_are_a_hundred_together():
    for twice in ("m:a=50,a=50", "m:a=100;m:b=100"):
        with pytest.raises(UsageError, match="expected canary with every model and label once"):
            parse_canary(twice)
    with pytest.raises(UsageError, match="canary of a with 100 % together, got 90 %"):
        parse_canary("a:b=80,c=10")


@pytest.mark.parametrize(
    "peers",
    [
        ("ipv4:10.0.0.7:4711", "10.0.0.7:4712", "ipv6:[::ffff:10.0.0.7]:4713"),
        ("ipv6:[2001:db8::7]:4711", address("2001:db8::7", 4712)),
    ],
)
def test_a_client_without_a_name_is_the_same_over_both_protocols(peers):
    """And so has the same version, whatever it asks over."""
    (host,) = {client_of(None, peer) for peer in peers}
    assert host in ("10.0.0.7", "2001:db8::7")
    assert client_of("shop", peers[0]) == "shop"


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


def test_a_shadow_whose_scores_are_no_numbers_is_as_far_off_as_can_be():
    lease = SimpleNamespace(version=2, servable=SimpleNamespace(run=lambda ask, feeds: feeds))
    shadow = Shadow({"m": {"next": 100}}, lambda model, label: nullcontext(lease))
    broken = np.full([2, 3], np.nan)
    shadow.offer(Compared("m", 1, "", {"scores": broken}, {"scores": np.eye(2, 3)}))
    shadow.close()
    assert shadow.counts["m", 1, "next"] == Agreement(items=2, same=0, distance=2.0)


def test_scores_that_cannot_be_compared_are_failures_and_the_shadow_goes_on():
    """Of models that striate did not write, `scores` may be anything."""
    words = np.array([[b"a"], [b"b"]], object)
    answers = iter([np.ones(2, np.float32), words, np.ones((2, 3), np.float32)])
    asked = SimpleNamespace(run=lambda ask, feeds: {"scores": next(answers)})
    lease = SimpleNamespace(version=2, servable=asked)
    shadow = Shadow({"m": {"next": 100}}, lambda model, label: nullcontext(lease))
    for found in (np.ones(2, np.float32), words, np.ones((2, 3), np.float32)):
        shadow.offer(Compared("m", 1, "predict", {}, {"scores": found}))
    shadow.close()
    assert shadow.counts["m", 1, "next"] == Agreement(items=2, same=2, distance=0.0, failed=2)


def test_scores_of_other_classes_are_not_compared_by_broadcasting():
    agreement = Agreement()
    with pytest.raises(ValueError, match=re.escape("scores [2, 1] beside [2, 3]")):
        agreement.add(np.ones((2, 3)), np.ones((2, 1)))
    with pytest.raises(ValueError, match="scores"):
        agreement.add(np.ones((2, 3, 4)), np.ones((2, 3, 4)))
    assert agreement == Agreement()


def test_agreement_is_by_the_best_class_of_each_item_and_by_its_largest_difference():
    agreement = Agreement()
    before = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.0, 0.4, 0.6]])
    now = np.array([[0.1, 0.3, 0.6], [0.3, 0.7, 0.0], [0.0, 0.3, 0.7]])
    agreement.add(before, now)
    assert (agreement.items, agreement.same) == (3, 2)
    assert agreement.distance == pytest.approx(0.8 + 0.1 + 0.1)
    assert (agreement.skipped, agreement.failed) == (0, 0)


def test_a_shadow_of_no_percent_is_never_asked():
    shadow = Shadow({"m": {"next": 0}}, lambda model, label: nullcontext())
    for _ in range(200):
        shadow.offer(Compared("m", 1, "predict", {}, {"scores": np.ones((2, 3))}))
    shadow.close()
    assert shadow.counts == {}


def test_a_shadow_is_not_compared_with_itself_and_one_that_is_not_there_is_a_failure():
    asked = SimpleNamespace(run=lambda ask, feeds: {"scores": np.ones((1, 3))})

    def lease(model, label):
        if label == "gone":
            raise ServingError(Code.NOT_FOUND, "no such version")
        return nullcontext(SimpleNamespace(version=1, servable=asked))

    shadow = Shadow({"m": {"itself": 100, "gone": 100}}, lease)
    shadow.offer(Compared("m", 1, "predict", {}, {"scores": np.ones((1, 3))}))
    shadow.close()
    assert shadow.counts["m", 1, "itself"] == Agreement()
    assert shadow.counts["m", 1, "gone"] == Agreement(failed=1)


def test_requests_that_a_slow_shadow_cannot_take_are_passed_over_and_counted():
    begun, go = threading.Event(), threading.Event()

    def run(ask, feeds):
        begun.set()
        assert go.wait(30)
        return {"scores": np.ones((1, 3))}

    lease = SimpleNamespace(version=2, servable=SimpleNamespace(run=run))
    shadow = Shadow({"m": {"next": 100}}, lambda model, label: nullcontext(lease))
    request = Compared("m", 1, "predict", {}, {"scores": np.ones((1, 3))})
    shadow.offer(request)
    assert begun.wait(30)
    for _ in range(WAITING + 3):
        shadow.offer(request)
    go.set()
    shadow.close()
    assert shadow.counts["m", 1, "next"] == Agreement(
        items=1 + WAITING, same=1 + WAITING, skipped=3
    )


def test_a_shadow_forgets_the_version_that_is_over_and_no_other():
    shadow = Shadow({}, lambda model, label: nullcontext())
    others = {("m", 2, "next"): Agreement(items=2), ("n", 1, "next"): Agreement(items=3)}
    shadow.counts.update({("m", 1, "next"): Agreement(items=1), **others})
    shadow.forget("m", 1)
    assert shadow.counts == others
    shadow.close()


class Counted:
    """Stands for what happened: tells `Canaries` so many requests of each version and code."""

    def __init__(self):
        self.counters = Counters()

    def answer(self, version: int, code: Code, times: int, how=("", "", "")) -> None:
        for _ in range(times):
            with suppress(ServingError), self.counters.request("m", version, how):
                if code != Code.OK:
                    raise ServingError(code, "")


def on_trial(**limits) -> tuple[Canaries, Counted, Model]:
    """Versions 1 (trusted) and 2 (on trial) of a model, judged by ten requests."""
    versions = {n: Version(n, Path(str(n)), State.AVAILABLE, servable=Named(n)) for n in (1, 2)}
    model = Model("m", Path("m"), VersionPolicy("all"), {"next": 2}, versions)
    counted = Counted()
    shadow = SimpleNamespace(counts={})
    canaries = Canaries(
        {"m": {"1": 0, "next": 100}},
        Limits(least=10, **limits),
        {"m": model},
        counted.counters,
        shadow,
    )
    canaries.shadow = shadow
    canaries.look()  # the trial begins
    return canaries, counted, model


class Named:
    """Stands for a servable."""

    def __init__(self, name: int):
        self.name = name


def test_a_canary_that_fails_is_held_and_its_clients_get_the_first_label():
    canaries, counted, _ = on_trial()
    assert canaries.choose("m", "client") == 2
    counted.answer(2, Code.INTERNAL, 9)
    canaries.look()
    assert canaries.choose("m", "client") == 2, "nine requests are too few to judge by"
    counted.answer(2, Code.OK, 1)
    canaries.look()
    assert canaries.choose("m", "client") == 1
    assert canaries.states() == [("m", 2, True)]


def test_a_canary_is_judged_by_the_requests_of_all_protocols_together():
    canaries, counted, _ = on_trial()
    counted.answer(2, Code.INTERNAL, 5, ("Predict", "GRPC", "onnx"))
    counted.answer(2, Code.INTERNAL, 5, ("Predict", "REST", "onnx"))
    canaries.look()
    assert canaries.choose("m", "client") == 1


def test_a_canary_is_judged_by_enough_requests_each_time():
    canaries, counted, _ = on_trial()
    counted.answer(2, Code.OK, 10)
    canaries.look()
    counted.answer(2, Code.INTERNAL, 9)
    canaries.look()
    assert canaries.choose("m", "client") == 2
    counted.answer(2, Code.INTERNAL, 1)
    canaries.look()
    assert canaries.choose("m", "client") == 1


def test_what_failed_before_a_canary_was_judged_is_not_counted_again():
    canaries, counted, _ = on_trial(errors=50)
    for failing in (4, 0, 5):  # percent of the last ten: 40, 0, and 50, which is still allowed
        counted.answer(2, Code.INTERNAL, failing)
        counted.answer(2, Code.OK, 10 - failing)
        canaries.look()
        assert canaries.choose("m", "client") == 2
    counted.answer(2, Code.INTERNAL, 51)
    counted.answer(2, Code.OK, 49)
    canaries.look()
    assert canaries.choose("m", "client") == 1


def test_what_failed_before_a_canary_was_replaced_is_not_held_against_it():
    canaries, counted, model = on_trial()
    counted.answer(2, Code.INTERNAL, 9)
    model.versions[2].servable = Named(3)
    canaries.look()
    counted.answer(2, Code.OK, 1)
    canaries.look()
    assert canaries.choose("m", "client") == 2


@pytest.mark.parametrize("how", ["resumed", "replaced", "forgotten"])
def test_a_canary_that_goes_on_is_held_again_when_it_fails_again(how):
    canaries, counted, model = on_trial()
    counted.answer(2, Code.INTERNAL, 10)
    canaries.look()
    assert canaries.states() == [("m", 2, True)]
    if how == "resumed":
        canaries.resume("m")  # from this moment on it is judged
    elif how == "replaced":
        model.versions[2].servable = Named(3)
        canaries.look()
    else:
        canaries.forget("m", 2)
        assert canaries.states() == [("m", 2, False)]
        canaries.look()
    counted.answer(2, Code.INTERNAL, 10)
    canaries.look()
    assert canaries.states() == [("m", 2, True)]


def test_on_trial_are_versions_that_are_served_beside_another_one():
    canaries, counted, model = on_trial()
    assert canaries.states() == [("m", 2, False)]
    shares = {"m": {"1": 40, "one": 20, "nobody": 20, "9": 20}, "elsewhere": {"1": 50, "2": 50}}
    model.labels["one"] = 1
    others = Canaries(shares, Limits(), {"m": model}, counted.counters)
    others.look()
    assert others.states() == []
    model.versions[2].state = State.END
    assert canaries.states() == []


def test_a_canary_is_judged_by_what_its_shadow_found_since_and_by_enough_of_it():
    canaries, _, _ = on_trial(agreement=90)
    for items, same, version in [(1000, 1000, 2), (1009, 1000, 2), (1010, 1000, 1)]:
        canaries.shadow.counts["m", 1, "next"] = Agreement(items=items, same=same)
        canaries.look()
        assert canaries.choose("m", "client") == version


def test_a_canary_is_not_judged_by_the_shadows_of_others():
    canaries, _, _ = on_trial(agreement=90)
    differing = Agreement(items=1000)
    canaries.shadow.counts.update({("n", 1, "next"): differing, ("m", 2, "1"): differing})
    canaries.look()
    assert canaries.choose("m", "client") == 2


def test_a_model_without_a_canary_is_answered_by_its_newest():
    _, counted, model = on_trial()
    canaries = Canaries({}, Limits(), {"m": model}, counted.counters)
    canaries.look()
    assert canaries.choose("m", "client") is None
    assert canaries.states() == []


def test_a_canary_stays_held_though_it_answers_well_who_names_it(caplog):
    canaries, counted, _ = on_trial()
    counted.answer(2, Code.INTERNAL, 10)
    canaries.look()
    for _ in range(3):
        counted.answer(2, Code.OK, 10)
        canaries.look()
    assert canaries.choose("m", "client") == 1
    (line,) = caplog.messages
    assert line.startswith("m version 2 is held: 10 of 10 requests failed (100.0 %")
    assert line.endswith("POST /v1/models/m:resume sends it clients again")


def test_a_canary_that_does_well_is_not_talked_of(caplog):
    canaries, counted, _ = on_trial()
    counted.answer(2, Code.OK, 10)
    canaries.look()
    assert canaries.choose("m", "client") == 2
    assert caplog.messages == []


def test_the_clients_of_a_canary_that_is_not_there_get_the_first_label():
    canaries, _, model = on_trial()
    model.versions[3] = Version(3, Path("3"), State.AVAILABLE, servable=Named(3))
    assert canaries.choose("m", "client") == 2
    model.versions[2].state = State.END
    assert canaries.choose("m", "client") == 1, "the newest is on nobody's trial"
    model.versions[1].state = State.END
    assert canaries.choose("m", "client") is None


def test_versions_that_are_named_and_not_served_are_said_once_until_they_are(caplog):
    _, _, model = on_trial()
    named = {"canary": {"m": {"1": 50, "9": 50}}, "shadow": {"n": {"next": 5}, "m": {"next": 5}}}
    missing = Missing(named, {"m": model})
    for _ in range(3):
        missing.look()
    assert caplog.messages == [
        "canary: model m serves no version 9",
        "shadow: model n serves no version next",
    ]
    model.versions[1].state = State.END
    missing.look()
    assert caplog.messages[2:] == ["canary: model m serves no version 1"]


def test_the_server_says_which_versions_of_its_canary_it_does_not_serve(tiny, tmp_path):
    """The newest alone is served unless the policy says otherwise: all clients would get it."""
    for number in ("1", "2"):
        shutil.copytree(tiny.path, tmp_path / "tiny" / number)
    with ServerProcess(tmp_path / "tiny", canary="tiny:1=90,2=10") as server:
        server.stop()  # it has been said by then, and read
        assert "canary: model tiny serves no version 1\n" in server.errors


def test_what_fails_of_the_first_label_as_well_is_not_the_canarys_fault():
    canaries, counted, _ = on_trial(errors=5)
    for version in (1, 2):
        counted.answer(version, Code.OK, 10)
        counted.answer(version, Code.INVALID_ARGUMENT, 10)
    counted.answer(2, Code.CANCELLED, 100)  # clients that left
    canaries.look()
    assert canaries.choose("m", "client") == 2


def test_a_canary_is_judged_by_what_came_since_it_was_judged():
    canaries, counted, _ = on_trial()
    counted.answer(2, Code.OK, 1000)
    canaries.look()
    counted.answer(2, Code.INTERNAL, 10)  # 1 % of all, and all of the last ten
    canaries.look()
    assert canaries.choose("m", "client") == 1


@pytest.mark.parametrize(
    ("found", "limits"),
    [
        (Agreement(items=20, same=17, distance=1.0), {"agreement": 90}),
        (Agreement(items=20, same=20, distance=8.0), {"distance": 0.3}),
    ],
)
def test_a_canary_whose_shadow_answers_otherwise_is_held(found, limits):
    canaries, _, _ = on_trial(**limits)
    canaries.shadow.counts["m", 1, "next"] = found
    canaries.look()
    assert canaries.choose("m", "client") == 1
    agreeing, _, _ = on_trial(agreement=85, distance=0.4)
    agreeing.shadow.counts["m", 1, "2"] = found
    agreeing.look()
    assert agreeing.choose("m", "client") == 2


def test_a_held_canary_goes_on_when_it_is_resumed_or_replaced():
    canaries, counted, model = on_trial()
    counted.answer(2, Code.INTERNAL, 10)
    canaries.look()
    assert canaries.resume("m") == [2]
    canaries.look()
    assert canaries.choose("m", "client") == 2, "what made it held is behind it"
    assert canaries.resume("m") == []
    counted.answer(2, Code.INTERNAL, 10)
    canaries.look()
    assert canaries.choose("m", "client") == 1
    model.versions[2].servable = Named(3)
    assert canaries.choose("m", "client") == 2
    assert canaries.states() == [("m", 2, False)]


@pytest.fixture(scope="module")
def worse(tiny, tmp_path_factory):
    """A server whose version 2 takes other pictures than version 1, and has half of the clients."""
    base = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(tiny.path, base / "1")
    tiny_artifact(base, shape=(28, 28, 1))  # the next free version
    options = {"version_policy": "all", "canary": "tiny:1=50,2=50", "canary_min_requests": 5}
    with ServerProcess(base, engine="keras", **options) as server:
        yield server


@pytest.mark.long
def test_the_server_holds_a_canary_that_refuses_what_the_first_label_answers(worse, tiny):
    shares = {"1": 50, "2": 50}
    images, _ = tiny.goldens()
    refused = set()
    theirs = next(str(i) for i in range(99) if choose(shares, "tiny", str(i)) == "2")

    def ask() -> int:
        """The version that answers, or 0 where the picture is refused."""
        request = protos.predict_pb2.PredictRequest()
        request.model_spec.name = "tiny"
        request.inputs["image"].CopyFrom(tensors.to_content(images[:1]))
        try:
            found = stub.Predict(request, metadata=[("x-client-id", theirs)])
        except grpc.RpcError as error:
            refused.add(error.code())
            return 0
        return found.model_spec.version.value

    def held() -> str:
        with urllib.request.urlopen(f"{worse.url}/metrics") as response:
            return re.search(r"striate_canary_held\{.*\} (\d)", response.read().decode())[1]

    with grpc.insecure_channel(worse.address) as channel:
        stub = protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert (ask(), held()) == (0, "0")
        deadline = time.monotonic() + 60
        while (answered := ask()) == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert (answered, held()) == (1, "1")
        url = f"{worse.url}/v1/models/tiny:resume"
        with urllib.request.urlopen(urllib.request.Request(url, b"")) as response:
            assert json.load(response) == {"model": "tiny", "resumed": [2]}
        assert (ask(), held()) == (0, "0")
    assert refused == {grpc.StatusCode.INVALID_ARGUMENT}
    said = [line for line in worse.errors if "is held" in line]
    assert len(said) == 1
    assert "tiny version 2 is held" in said[0]
    assert "expected at most 5 % more. POST /v1/models/tiny:resume" in said[0]
