"""What a person sees of a run: lines that fit a terminal, words and paths that stay whole."""

import io

import pytest
from rich.console import Console

from striate.train.progress import Bar, Lines, Silent, row_line

ROW = {"phase": "layerwise", "epoch": 100, "loss": 2.34567, "accuracy": 0.98765, "seconds": 123.4}


def bar(columns=40):
    """A bar on a terminal of that width, and what it has written so far."""
    watch, written = Bar(), io.StringIO()
    watch._console = Console(file=written, force_terminal=True, width=columns, highlight=False)
    return watch, written


def test_the_line_of_an_epoch_fits_a_terminal():
    line = row_line({**ROW, "val_loss": 2.34567, "val_accuracy": 0.98765}, 100)
    assert line == (
        "layerwise 100/100  loss 2.3457 (val 2.3457)  accuracy 0.988 (val 0.988)  123.4 s"
    )
    assert len(line) <= 80


def test_without_validation_an_epoch_has_its_own_numbers_alone():
    assert row_line(ROW, 100) == "layerwise 100/100  loss 2.3457  accuracy 0.988  123.4 s"
    solved = {"phase": "linear_probe", "loss": 0.5, "accuracy": 1.0, "seconds": 2.0}
    assert row_line(solved, 5) == "linear_probe  loss 0.5000  accuracy 1.000  2.0 s"


def test_on_a_terminal_lines_break_between_words_and_never_in_a_path():
    watch, written = bar(columns=40)
    path = "/a/long/path/of/which/somebody/may/want/a/copy"
    watch.say(f"wrote {path} and then there is more to say of it")
    lines = written.getvalue().splitlines()
    assert [line for line in lines if path in line]
    assert [line for line in lines if len(line) > 40] == [path]


@pytest.mark.parametrize("watch", [Silent(), Lines(), bar()[0]])
def test_work_of_unknown_length_passes_an_error_on(watch):
    with pytest.raises(ZeroDivisionError), watch.busy("dividing"):
        raise ZeroDivisionError
    with watch.busy("dividing"):
        watch.say("a line in between")


def test_a_terminal_says_what_takes_long():
    watch, written = bar()
    with watch.busy("solving for the classifier"):
        pass
    assert "solving for the classifier" in written.getvalue()
