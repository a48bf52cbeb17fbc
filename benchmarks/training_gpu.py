"""Training a net on a GPU, beside timm's training of the same net under `torch.compile`.

    python benchmarks/training_gpu.py [--net resnet50] [--batch 256] [--size 224] [--json]

Both sides take random uint8 pictures from the host's memory, normalise them on the device, and step
with SGD in bfloat16 (weights in float32), channels last. Each is a process of its own, started with
`--python` (striate, on JAX) and `--peer-python` (torch and timm; the same interpreter where it has
all). Both are compiled and warm before the first round; rounds alternate, so that a slow minute of
the machine falls on both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

RATE = 0.1


def striate_steps(net: str, batch: int, size: int, steps: int):
    """A function that takes `steps` steps of striate's loop and returns the seconds."""
    import numpy as np

    from striate.data import load
    from striate.data.pipeline import epoch_order
    from striate.train import build, make_recipe
    from striate.train.graphs import compile_graph, training_graph

    recipe = make_recipe(
        {
            "model": {"name": net, "size": size},
            "optimizer": {"name": "sgd", "learning_rate": RATE},
            "precision": "mixed_bfloat16",
            "batch_size": batch,
            "deterministic": False,
        }
    )
    start = build.start_of(recipe)
    path = f"noise_{os.getpid()}.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (steps * batch, size, size, 3), np.uint8)
    np.savez(path, x=pixels, y=np.arange(len(pixels)) % 1000)
    dataset = load(path, split=0)
    os.remove(path)
    train = build.pixels_of(dataset, start, recipe, dataset.split("train"))
    trainer = training_graph(build.build(start, recipe, 1000), recipe, start.preprocess)
    compile_graph(trainer, recipe, steps=steps, epochs=1000)

    def run() -> float:
        order = epoch_order(len(train), batch, seed=0, epoch=0)
        begun = time.perf_counter()
        trainer.fit(train.stream(order), steps_per_epoch=steps, shuffle=False, verbose=0)
        return time.perf_counter() - begun

    return run


def timm_steps(net: str, batch: int, size: int, steps: int):
    """The same of timm's net under torch.compile."""
    import numpy as np
    import timm
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = timm.create_model(net).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, nesterov=True)
    mean = torch.tensor([123.7, 116.3, 103.5], device=device).view(1, 3, 1, 1)
    spread = torch.tensor([58.4, 57.1, 57.4], device=device).view(1, 3, 1, 1)
    pixels = np.random.default_rng(0).integers(0, 256, (steps * batch, size, size, 3), np.uint8)
    labels = torch.arange(len(pixels)) % 1000

    @torch.compile
    def loss_of(images, truth):
        with torch.autocast(device, torch.bfloat16):
            x = (images.permute(0, 3, 1, 2).float() - mean) / spread
            logits = model(x)
        return torch.nn.functional.cross_entropy(logits.float(), truth)

    def run() -> float:
        order = np.random.permutation(len(pixels))
        begun = time.perf_counter()
        for rows in np.array_split(order, steps):
            images = torch.from_numpy(pixels[rows])
            if device == "cuda":
                images = images.pin_memory()
            images = images.to(device, non_blocking=True)
            loss = loss_of(images, labels[rows].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        loss.item()  # wait for the device
        return time.perf_counter() - begun

    return run


SIDES = {"ours": striate_steps, "peer": timm_steps}


def work(side: str, given: argparse.Namespace) -> None:
    """A worker: compile, say so, then take a round of steps for each line on stdin."""
    run = SIDES[side](given.net, given.batch, given.size, given.steps)
    run()
    run()
    print(json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        print(json.dumps(run()), flush=True)


class Worker:
    """One side in a process of its own."""

    def __init__(self, side: str, python: str, argv: list[str]):
        environment = os.environ | {
            "KERAS_BACKEND": "jax",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # two processes share the memory
        }
        self.process = subprocess.Popen(
            [python, __file__, "--worker", side, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def answer(self) -> float | str:
        """The next line that is JSON; frameworks print others."""
        for line in self.process.stdout:
            try:
                return json.loads(line)
            except ValueError:
                print(line, end="", file=sys.stderr)
        raise SystemExit(f"a side ended: {' '.join(self.process.args)}")

    def round(self) -> float:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(given: argparse.Namespace) -> dict:
    """Images a second of both sides, round by round in turn."""
    argv = [f"--{name}={getattr(given, name)}" for name in ("net", "batch", "size", "steps")]
    workers = {}
    for side, python in (("ours", given.python), ("peer", given.peer_python)):
        workers[side] = Worker(side, python, argv)
        workers[side].answer()
        print(f"{side}: compiled", file=sys.stderr, flush=True)
    pictures = given.batch * given.steps
    pairs = []
    for _ in range(given.rounds):
        pairs.append([pictures / workers[side].round() for side in ("ours", "peer")])
        print(*(f"{rate:.0f}" for rate in pairs[-1]), "images/s", file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.close()
    ratios = sorted(a / b for a, b in pairs)
    return {
        "case": f"{given.net}, {given.size} pixels, batches of {given.batch}, bfloat16",
        "unit": "images/s",
        "ours": round(statistics.median(a for a, _ in pairs), 1),
        "peer_name": "timm under torch.compile",
        "peer": round(statistics.median(b for _, b in pairs), 1),
        "ratio": round(statistics.median(ratios), 4),
        "spread": [round(ratios[0], 4), round(ratios[-1], 4)],
        "rounds": given.rounds,
        "steps": given.steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", default="resnet50", help="a name that striate and timm share")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=20, help="of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--worker", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.worker:
        work(given.worker, given)
        return
    row = measure(given)
    if given.json:
        print(json.dumps([row], indent=2))
        return
    low, high = row["spread"]
    print(f"{row['case']}: {row['ours']:.0f} and {row['peer']:.0f} images/s, ", end="")
    print(f"ratio {row['ratio']:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
