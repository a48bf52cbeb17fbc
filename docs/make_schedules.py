"""Draw docs/schedules.png: the learning rate of every schedule over 20 epochs.

python docs/make_schedules.py
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from striate.train.recipe import Schedule
from striate.train.schedules import FORMULAS, learning_rate

STEPS, EPOCHS = 20, 20
SHOWN = {
    "constant": {},
    "cosine": {"warmup": 2, "final": 0.05},
    "cosine_restarts": {"every": 5},
    "step": {"steps": [10, 15]},
    "exponential": {"factor": 0.8, "every": 2},
    "polynomial": {"power": 2},
    "one_cycle": {"rise": 0.3},
    "cyclical": {"every": 5, "final": 0.1},
    "plateau": {"patience": 3},
}
STALLED = (9, 15)  # epochs after which validation has not got better for `patience`, for plateau


def shares(name: str, options: dict) -> np.ndarray:
    """The rate after each step, as a share of `optimizer.learning_rate`."""
    schedule = Schedule(name=name, **options)
    rate = learning_rate(1.0, schedule, steps=STEPS, epochs=EPOCHS)
    at = np.arange(STEPS * EPOCHS)
    found = np.array([float(rate(step)) if callable(rate) else rate for step in at])
    if name == "plateau":
        found *= schedule.factor ** sum(at >= epoch * STEPS for epoch in STALLED)
    return found


def main() -> None:
    assert SHOWN.keys() == FORMULAS.keys()
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    grid = figure.subplots(3, 3, sharex=True, sharey=True)
    for axes, (name, options) in zip(grid.flat, SHOWN.items(), strict=True):
        axes.plot(np.arange(STEPS * EPOCHS) / STEPS, shares(name, options), linewidth=2)
        said = ", ".join(f"{key} {value}" for key, value in options.items())
        axes.set_title(f"{name}\n{said}" if said else f"{name}\n", fontsize=10)
        axes.set_ylim(-0.03, 1.08)
        axes.grid(alpha=0.3)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    for axes in grid[:, 0]:
        axes.set_ylabel("share of the rate")
    figure.savefig(Path(__file__).with_name("schedules.png"), dpi=110)


if __name__ == "__main__":
    main()
