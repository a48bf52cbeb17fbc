"""Words in the log about what may happen any number of times: of them, one line a second."""

import logging
import time

log = logging.getLogger("striate.serve")

OFTEN = 1.0  # seconds between two lines


class Seldom:
    """Lines of one kind, from one thread at a time; each says how many were left out before it."""

    def __init__(self) -> None:
        self._said = -OFTEN  # when the last one was, in time.monotonic()
        self._left_out = 0

    def warn(self, text: str, *values: object) -> None:
        now = time.monotonic()
        if now < self._said + OFTEN:
            self._left_out += 1
            return
        more = f" (and {self._left_out} like it before)" if self._left_out else ""
        log.warning(f"{text}%s", *values, more)
        self._said, self._left_out = now, 0
