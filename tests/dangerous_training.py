"""A training process that can be killed at a chosen moment; `test_resume.py` starts it.

It is a module of its own because a process started by a server imports what it runs by name.
"""

import os
import signal
import sys
from pathlib import Path

RECIPE = {
    "model": "lenet5",
    "strategy": "lp_ft",  # two phases, so that a kill can fall between them
    "probe": {"l2": 100.0},  # one that later epochs are better than
    # random state must survive too, and averages, and what a schedule has seen
    "augment": {"flip": "horizontal", "translate": 0.1, "mixup": 0.2},
    "optimizer": {"name": "sgd", "learning_rate": 0.02, "ema": 0.9},
    "schedule": {"name": "plateau", "patience": 1, "factor": 0.7},
    "early_stopping": {"restore_best": True, "patience": 5},
    "epochs": 6,
    "batch_size": 8,
    "checkpoint_seconds": 0,
}


LONG = {"epochs": 40, "early_stopping.patience": 40}  # for 20 kills and more


def run(output, data, kill_at=None, count_into=None, changes=None):
    """What a process does: train; die by SIGKILL just before the n-th touch of the disk."""
    from striate.errors import StriateError
    from striate.train import loop, train

    loop.STRETCH = 4  # checkpoints within an epoch
    touches = 0

    def dangerous(function):
        def touch(*arguments, **options):
            nonlocal touches
            touches += 1
            if touches == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return touch

    os.fsync, Path.replace, Path.rename = map(dangerous, (os.fsync, Path.replace, Path.rename))
    try:
        train(RECIPE, output, data=data, progress=False, **(changes or {}))
    except StriateError as error:
        Path(f"{output}.error").write_text(str(error))
        sys.exit(1)
    if count_into:
        Path(count_into).write_text(str(touches))
