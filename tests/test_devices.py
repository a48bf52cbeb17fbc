"""Several devices share each batch, and the result is that of one."""

import json
import os
import subprocess

import numpy as np
import pytest

from striate.data import load
from striate.data.pipeline import epoch_order
from striate.errors import UsageError
from striate.train import fit

RECIPE = {"model": "lenet5", "epochs": 2, "batch_size": 16}

TRAIN = """
import json, sys, numpy as np
from striate.data import load
from striate.train import fit
dataset = load(sys.argv[1])
groups = {
    "augment": {"flip": "horizontal", "mixup": 0.2},
    "optimizer": {"ema": 0.5, "accumulate": 2},
    "schedule": {"name": "plateau", "patience": 1},
    "adversarial": {"epsilon": 4, "steps": 2},
}
recipe = {**json.loads(sys.argv[2]), **groups, "devices": int(sys.argv[3])}
fitted = fit(recipe, dataset, np.arange(64), np.arange(64, 95))  # 31 that two cannot share
rows = [[row[key] for key in ("loss", "accuracy", "val_loss")] for row in fitted.history]
print(json.dumps([rows, fitted.val_logits.tolist()]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (96, 32, 32), dtype=np.uint8)
    path = tmp_path_factory.mktemp("data") / "noise.npz"
    np.savez(path, images=images, labels=np.arange(96) % 3)
    return path


@pytest.mark.slow
def test_two_devices_train_as_one(data, jax_python):
    """With an average, mixing, attacks and several batches a step, on JAX."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    found = []
    for devices in "12":
        command = [jax_python, "-c", TRAIN, str(data), json.dumps(RECIPE), devices]
        ran = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
        found.append(json.loads(ran.stdout.splitlines()[-1]))
    (one, one_logits), (two, two_logits) = found
    np.testing.assert_allclose(two, one, rtol=1e-4)  # sums in another order
    np.testing.assert_allclose(two_logits, one_logits, atol=1e-3)


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_every_batch_can_be_shared_out_and_no_picture_is_missed(parts):
    batches = list(epoch_order(61, 12, seed=0, epoch=0, parts=parts))
    assert all(len(batch) % parts == 0 for batch in batches)
    drawn = np.concatenate(batches)
    assert set(drawn) == set(range(61))
    assert len(drawn) - 61 == -61 % parts
    assert max(map(len, batches)) - min(map(len, batches)) <= parts


def test_several_devices_without_jax_are_one_line(data):
    dataset = load(data)
    with pytest.raises(UsageError, match=r"devices=2 needs JAX|expected 2 devices, found 1"):
        fit(RECIPE, dataset, np.arange(64), devices=2)
