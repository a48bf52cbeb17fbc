"""The server without a protocol: which version answers, is the request sound, whose turn is it.

Every request of every protocol goes through `Core.predict`. A face (gRPC, REST) turns its messages
into the arguments, the answer back into a message, and a `ServingError` into its own status.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from striate.serve.repository import Lease, Repository, Version
from striate.serve.scheduler import Scheduler
from striate.serve.signatures import (
    DEFAULT,
    Signature,
    Tensors,
    check_classifier,
    check_filter,
    check_names,
    check_tensors,
)
from striate.serve.status import Code, ServingError, UnknownSignature, invalid


@dataclass(frozen=True)
class Target:
    """Whom a request asks: a model, and maybe a version of it, by number or by label."""

    model: str
    version: int | None = None
    label: str | None = None


@dataclass(frozen=True)
class Request:
    """What a request asks, and how to read it.

    read: signature -> its named tensors; called once the signature is known, because JSON has no
    dtypes. names: of the tensors, where they are known before reading. outputs: those wanted, none
    for all. deadline: in `time.monotonic()`.
    """

    target: Target
    signature: str
    read: Callable[[Signature], Tensors]
    names: Iterable[str] | None = None
    outputs: tuple[str, ...] = ()
    deadline: float | None = None
    classify: bool = False


@dataclass(frozen=True)
class Answer:
    """Named tensors, and who gave them: the model, its version, the signature."""

    model: str
    version: int
    signature: str
    outputs: Tensors


class Core:
    """The models that are served, and the scheduler that computes for them."""

    def __init__(self, repository: Repository, scheduler: Scheduler, max_bytes: int):
        self.repository = repository
        self.scheduler = scheduler
        self.max_bytes = max_bytes

    def predict(self, request: Request) -> Answer:
        """Answer a request, or raise the `ServingError` that says why not."""
        with self._lease(request.target) as lease:
            signature = _signature(lease, request)
            if request.names is not None:
                check_names(signature, set(request.names))
            with self.scheduler.admit():
                tensors = request.read(signature)
                check_filter(signature, list(request.outputs))
                check_tensors(signature, tensors)
                self._check_size(lease, tensors)
                images = signature.images(tensors)
                ask = getattr(lease.servable, signature.ask)
                found = self.scheduler.run(ask, images, request.deadline)
        outputs = signature.answer(found)
        wanted = request.outputs or tuple(signature.outputs)
        return Answer(
            lease.model, lease.version, signature.name, {name: outputs[name] for name in wanted}
        )

    def signatures(self, target: Target) -> tuple[int, dict[str, Signature]]:
        """The version that would answer, and its signatures by name."""
        with self._lease(target) as lease:
            return lease.version, lease.servable.signatures

    def statuses(self, target: Target) -> list[Version]:
        """What became of the versions of a model; a label does not narrow them."""
        if not target.model:
            raise invalid("ModelSpec has no name specified.")
        return self.repository.statuses(target.model, target.version)

    def _lease(self, target: Target):
        if not target.model:
            raise invalid("ModelSpec has no name specified.")
        if target.label is not None:
            raise invalid(f"Unrecognized servable version label: {target.label}")
        return self.repository.lease(target.model, target.version)

    def _check_size(self, lease: Lease, tensors: Tensors) -> None:
        """Small requests can name many pictures; what they unfold to is bounded as well."""
        shape = lease.servable.artifact.preprocess.shape
        count = max(len(tensor) for tensor in tensors.values())
        most = max(1, self.max_bytes // math.prod(shape))
        if count > most:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"Expected at most {most} images of {list(shape)} in a request, got {count}",
            )


def _signature(lease: Lease, request: Request) -> Signature:
    signatures = lease.servable.signatures
    name = request.signature or DEFAULT
    if request.classify and not request.signature and "classify" in signatures:
        name = "classify"  # the default signature takes pixels, which Classify cannot carry
    if name not in signatures:
        raise UnknownSignature(name)
    if request.classify:
        check_classifier(signatures[name])
    return signatures[name]
