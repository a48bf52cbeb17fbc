"""A search that is killed."""

import contextlib

import pytest

from striate.search import trials


@contextlib.contextmanager
def killed_at(number, made, monkeypatch):
    """What searches in here is interrupted when so many fits were made, by the list of them."""
    fit = trials.fit

    def killed(recipe, *arguments):
        if len(made) == number:
            raise KeyboardInterrupt
        return fit(recipe, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(trials, "fit", killed)
        with pytest.raises(KeyboardInterrupt):
            yield
