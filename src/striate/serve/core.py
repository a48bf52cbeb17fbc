"""The server without a protocol: which version answers, is the request sound, whose turn is it.

Every request of every protocol goes through `Core.predict`. A face (gRPC, REST) turns its messages
into the arguments, the answer back into a message, and a `ServingError` into its own status.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from striate.serve.calls import Call, current
from striate.serve.canary import Canaries, Limits
from striate.serve.keys import PROBES, Keys
from striate.serve.observe.access_log import AccessLog
from striate.serve.observe.counters import Asked, Counters
from striate.serve.observe.drift import Drift
from striate.serve.observe.request_log import Logged, RequestLog
from striate.serve.options import ModelConfig
from striate.serve.repository import Lease, Repository, Version
from striate.serve.repository.servable import Servable
from striate.serve.rollout import Compared, Shadow
from striate.serve.scheduler import Scheduler
from striate.serve.signatures import (
    CLASSIFY,
    DEFAULT,
    PREDICT,
    REGRESS,
    Signature,
    Tensors,
    check_classifier,
    check_filter,
    check_names,
    check_regressor,
    check_tensors,
)
from striate.serve.status import Code, ServingError, UnknownSignature, invalid

if TYPE_CHECKING:
    from striate.serve.observe.tracing import Tracing

RELOADING = 60.0  # seconds that a change of models waits for the one before it

_WORDS = {CLASSIFY: "classification", REGRESS: "regression"}
_APIS = {PREDICT: "Predict", CLASSIFY: "Classify", REGRESS: "Regress"}
_CHECKS = {CLASSIFY: check_classifier, REGRESS: check_regressor}


@dataclass(frozen=True)
class Target:
    """Whom a request asks: a model, and maybe a version of it, by number or by label."""

    model: str
    version: int | None = None
    label: str | None = None


def version_number(digits: str) -> int | None:
    """The version that digits name; None for a number that no version can have."""
    number = int(digits.lstrip("0")[:20] or 0)  # the rest would only make it larger yet
    return number if number < 1 << 63 else None


@dataclass(frozen=True)
class Request:
    """What a request asks, and how to read it.

    read: signature -> its named tensors; called once the signature is known, because JSON has no
    dtypes. names: of the tensors, where they are known before reading. outputs: those wanted, none
    for all. deadline: in `time.monotonic()`. method: `PREDICT`, or another that the signature must
    be fit for. gone: whether the client went away, so that nobody waits for the answer.
    """

    target: Target
    signature: str
    read: Callable[[Signature], Tensors]
    names: Iterable[str] | None = None
    outputs: tuple[str, ...] = ()
    deadline: float | None = None
    method: str = PREDICT
    gone: Callable[[], bool] | None = None


@dataclass(frozen=True)
class Answer:
    """Named tensors, and who gave them: the model, its version, the signature.

    servable: what that version is (its labels, its engine). items: how many things (pictures,
    examples) the request asked about. queue, compute: seconds it waited, and was computed.
    """

    model: str
    version: int
    signature: str
    outputs: Tensors
    servable: Servable
    items: int = 1
    queue: float = 0.0
    compute: float = 0.0


class Core:
    """The models that are served, and the scheduler that computes for them.

    max_bytes: of one request, encoded or decoded. tensor_content: how Predict writes its answers.
    check_methods: whether Classify and Regress hold signatures to their method names.
    labels_first: whether a new label may name a version that is not loaded yet. keys: without which
    nothing is answered; none for everybody. access_log, tracing: that are told of every call.
    request_log: that is given a sample of requests and answers. canary, shadow: see `rollout`;
    limits: beyond which a canary is held.
    """

    def __init__(
        self,
        repository: Repository,
        scheduler: Scheduler,
        max_bytes: int,
        *,
        tensor_content: bool = False,
        check_methods: bool = False,
        labels_first: bool = False,
        keys: Keys | None = None,
        access_log: AccessLog | None = None,
        request_log: RequestLog | None = None,
        tracing: "Tracing | None" = None,
        canary: Mapping[str, dict[str, float]] | None = None,
        limits: Limits | None = None,
        shadow: Mapping[str, dict[str, float]] | None = None,
    ):
        self.repository = repository
        self.scheduler = scheduler
        self.max_bytes = max_bytes
        self.tensor_content = tensor_content
        self.check_methods = check_methods
        self.labels_first = labels_first
        self.keys = keys
        self.access_log = access_log
        self.request_log = request_log
        self.tracing = tracing
        self.counters = Counters()
        self.shadow = Shadow(dict(shadow), self._named) if shadow else None
        self.canaries = Canaries(
            canary or {}, limits or Limits(), repository.models, self.counters, self.shadow
        )
        self.drift = Drift()
        self._reloading = threading.Lock()
        repository.forgotten = self._forget

    def predict(self, request: Request) -> Answer:
        """Answer a request, or raise the `ServingError` that says why not."""
        call = current()
        kept: Tensors = {}
        sampling = self.request_log and self.request_log.sample(request.target.model)
        if sampling:
            request = replace(request, read=_keeping(request.read, kept))
        with (
            self.lease(request.target) as lease,
            self.counters.request(
                lease.model,
                lease.version,
                (call.api or _APIS[request.method], call.entrypoint, lease.servable.engine),
                call.begun if call.placed else None,
            ) as asked,
        ):
            call.asked = asked
            answer = self._answer(lease, request, asked, placed=call.placed)
        if sampling and self.request_log is not None:
            whom = answer.model, answer.version, answer.signature
            self.request_log.write(Logged(*whom, time.time(), kept, answer.outputs), sampling)
        return answer

    def _answer(self, lease: Lease, request: Request, asked: Asked, *, placed: bool) -> Answer:
        """Have a version answer. placed: whether the request has a place in the scheduler."""
        servable = lease.servable
        signature = signature_for(servable.signatures, request, check_method=self.check_methods)
        asked.signature = signature.name
        with nullcontext() if placed else self.scheduler.admit():
            feeds, asked.items = feeds_for(servable, signature, request, self.max_bytes)
            asked.ready()
            gone = _watched(request, asked)
            found = self.scheduler.run(
                servable, signature.ask, feeds, request.deadline, gone, asked.begun
            )
            asked.computed()
        self._observe(lease, signature, feeds, found)
        outputs = signature.answer(found)
        wanted = request.outputs or tuple(signature.outputs)
        return Answer(
            lease.model,
            lease.version,
            signature.name,
            {name: outputs[name] for name in wanted},
            servable,
            asked.items,
            asked.queue,
            asked.compute,
        )

    def _observe(self, lease: Lease, signature: Signature, feeds: Tensors, found: Tensors) -> None:
        """Compare what was asked and answered: with the baseline, and with a shadow."""
        self.drift.observe(lease.servable, feeds, found)
        if self.shadow is not None:
            self.shadow.offer(Compared(lease.model, lease.version, signature.ask, feeds, found))

    def signatures(self, target: Target) -> tuple[int, Mapping[str, Signature]]:
        """The version that would answer, and its signatures by name."""
        with self.lease(target) as lease:
            return lease.version, lease.servable.signatures

    def statuses(self, target: Target) -> list[Version]:
        """What became of the versions of a model; a label does not narrow them."""
        if not target.model:
            raise invalid("ModelSpec has no name specified.")
        self.permit(target.model)
        return self.repository.statuses(target.model, target.version)

    def reload(self, configs: list[ModelConfig]) -> None:
        """Serve these models and no others, by these labels; who asks for it, if it is anybody, is
        permitted to by then. Of several at a time one follows the other.

        Raises `ServingError` when one of them does not become available, or a label names a
        version that is not; the others are served as they are meant to be. UNAVAILABLE where the
        one before it takes too long: of a disk that does not answer, they would take all threads.
        """
        if not self._reloading.acquire(timeout=RELOADING):
            why = "Another configuration is still being loaded; ask again later"
            raise ServingError(Code.UNAVAILABLE, why)
        try:
            self._reload(configs)
        finally:
            self._reloading.release()

    def _reload(self, configs: list[ModelConfig]) -> None:
        if self.request_log is not None:
            self.request_log.configure(configs)
        events = self.repository.configure(configs)
        for event in events:
            event.log()
        missing = [m.name for m in self.repository.configured() if not m.available()]
        if missing:
            reasons = [event.text for event in events if event.failed] + self.repository.absent()
            raise ServingError(
                Code.UNKNOWN,
                f"{len(missing)} model(s) did not become available: {{{', '.join(missing)}}}. "
                f"{'; '.join(reasons)}",
            )
        self.repository.label(configs, allow_unavailable=self.labels_first)

    def resume(self, model: str) -> list[int]:
        """Send the versions of a model that are held clients again; returns their numbers."""
        self.permit(None)
        current().model = model
        self.repository.statuses(model)  # a model that is not there is no model without any
        return self.canaries.resume(model)

    def admit(self, call: Call, authorization: str | None) -> None:
        """Let a call in, by the key that it shows; UNAUTHENTICATED where it needs one and has none.

        Faces ask before they read anything else of it.
        """
        if self.keys is not None and call.method not in PROBES:
            call.key = self.keys.identify(authorization)

    def permit(self, model: str | None) -> None:
        """Check that the key of the current call opens a model; None: what is about all of them."""
        call = current()
        call.model = call.model or model or ""
        if not self.opens(model):
            what = "what concerns all models" if model is None else f"model {model}"
            raise ServingError(Code.PERMISSION_DENIED, f"The API key is not for {what}")

    def opens(self, model: str | None) -> bool:
        """Whether the key of the current call opens a model, for lists of them."""
        key = current().key
        return self.keys is None or (
            key is not None and (key.models is None or model in key.models)
        )

    def finished(self, call: Call) -> None:
        """Take note of a call that has been answered; faces say so of every one.

        A probe comes every few seconds from each that watches: there is no line for one that was
        answered, and no span.
        """
        call.ended = time.monotonic()
        if call.method in PROBES and call.code == Code.OK:
            return
        if self.access_log is not None:
            self.access_log.write(call)
        if self.tracing is not None:
            self.tracing.record(call)
        if call.asked is None and call.code != Code.OK:
            self.counters.refuse(call.entrypoint, call.code)

    def lease(self, target: Target) -> AbstractContextManager[Lease]:
        """The version that would answer, kept while somebody looks at it."""
        if not target.model:
            raise invalid("ModelSpec has no name specified.")
        self.permit(target.model)
        if target.version is None and target.label is None:
            version = self.canaries.choose(target.model, current().client)
            target = replace(target, version=version) if version is not None else target
        return self.repository.lease(target.model, target.version, target.label)

    def _forget(self, model: str, version: int) -> None:
        self.counters.forget(model, version)
        self.canaries.forget(model, version)
        if self.shadow is not None:
            self.shadow.forget(model, version)

    def _named(self, model: str, label: str) -> AbstractContextManager[Lease]:
        """A version by its label, or by its number as text."""
        if label.isdecimal():
            return self.repository.lease(model, int(label))
        return self.repository.lease(model, label=label)


def _keeping(read: Callable[[Signature], Tensors], kept: Tensors) -> Callable[[Signature], Tensors]:
    """The same `read`, which leaves what it found in `kept`."""

    def reading(signature: Signature) -> Tensors:
        kept.update(read(signature))
        return dict(kept)

    return reading


def _watched(request: Request, asked: Asked) -> Callable[[], bool]:
    """The request's `gone`; schedulers call it when the turn of a request has come."""

    def gone() -> bool:
        asked.turn()
        return request.gone is not None and request.gone()

    return gone


def signature_for(
    signatures: Mapping[str, Signature], request: Request, *, check_method: bool = False
) -> Signature:
    """The signature that a request asks, fit for its method; names are checked already."""
    name = request.signature or DEFAULT
    if not request.signature and request.method == CLASSIFY and _takes_pixels(signatures):
        name = "classify"  # the default signature takes pixels, which Classify cannot carry
    if name not in signatures:
        raise UnknownSignature(name)
    signature = signatures[name]
    if request.method in _CHECKS:
        if check_method and signature.method != request.method:
            raise invalid(
                f"Expected {_WORDS[request.method]} signature method_name to be {request.method}. "
                f"Was: {signature.method}"
            )
        _CHECKS[request.method](signature)
    if request.names is not None:
        check_names(signature, set(request.names))
    return signature


def _takes_pixels(signatures: Mapping[str, Signature]) -> bool:
    default = signatures.get(DEFAULT)
    return "classify" in signatures and default is not None and "inputs" not in default.inputs


def feeds_for(
    servable: Servable, signature: Signature, request: Request, max_bytes: int
) -> tuple[Tensors, int]:
    """What the engine is given for a request, checked, and how many items there are in it."""
    tensors = {**signature.defaults, **request.read(signature)}
    check_filter(signature, list(request.outputs))
    check_tensors(signature, tensors)
    items = max((len(tensor) for tensor in tensors.values() if tensor.ndim), default=1)
    most = max(1, max_bytes // servable.item_bytes) if servable.item_bytes else items
    if items > most:  # small requests can name many pictures; what they unfold to is bounded too
        raise ServingError(
            Code.RESOURCE_EXHAUSTED,
            f"Expected at most {most} images of {servable.item_bytes:,} bytes in a request, "
            f"got {items}",
        )
    return signature.feeds(tensors), items
