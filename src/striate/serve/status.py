"""The codes with which every protocol says how a request went: gRPC's, by their numbers."""

from enum import IntEnum

from striate.errors import StriateError


class Code(IntEnum):
    """google.rpc.Code."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


# As TensorFlow Serving answers over REST
HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


def code_of(status: int) -> Code:
    """The code that an HTTP status stands for, the commonest where several share one."""
    if status == 413:  # the body alone is too large
        return Code.RESOURCE_EXHAUSTED
    return next((code for code, given in HTTP_STATUS.items() if given == status), Code.UNKNOWN)


class ServingError(StriateError):
    """A request that is refused, or that a server refused: `code` and one line."""

    def __init__(self, code: Code, message: str):
        super().__init__(message)
        self.code = code


class UnknownSignature(ServingError):
    """A signature that the model does not have; each API words it in its own way."""

    def __init__(self, signature: str):
        message = f'Serving signature key "{signature}" not found.'
        super().__init__(Code.FAILED_PRECONDITION, message)
        self.signature = signature


class UnknownLabel(ServingError):
    """A version label that the model does not have; each API words it in its own way."""

    def __init__(self, label: str):
        super().__init__(Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")


class QueueFull(ServingError):
    """A request that comes when all places are taken; each API words it in its own way."""

    def __init__(self, message: str):
        super().__init__(Code.UNAVAILABLE, message)


def invalid(message: str) -> ServingError:
    """The error for a request that can never be answered as it is."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def cut(message: str) -> str:
    """A message as TensorFlow Serving sends it: at most 1024 characters of it."""
    return message if len(message) <= 1024 else message[:1024] + "...TRUNCATED"
