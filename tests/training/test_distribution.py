"""Two replicas with half the batch give what one gives with the whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from kmtl import _registry

SCRIPT = textwrap.dedent(
    """
    import json, sys
    import numpy as np
    import keras
    import kmtl

    def run(replicas, backend, weightings):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(44, 6)).astype("float32")
        y = {
            "size": rng.normal(size=44).astype("float32"),
            "kind": rng.integers(0, 3, 44).astype("int32"),
            "flag": rng.integers(0, 2, 44).astype("int32"),
        }
        # Uneven over replicas, and one batch of eight without any flag.
        y["size"][rng.random(44) < 0.5] = np.nan
        y["size"][:4] = np.nan
        y["flag"][8:16] = -1
        tasks = [
            kmtl.Regression("size"),
            kmtl.Classification("kind", classes=3, weight=0.5),
            kmtl.BinaryClassification("flag", hidden=(4,)),
        ]

        def make(weighting):
            model = kmtl.build_mlp(
                input_shape=(6,), units=(8, 8), sharing_depth=1, tasks=tasks, seed=1,
                kernel_regularizer="l2",
            )
            if weighting is not None:
                name, options = weighting
                weighting = kmtl._registry.get("weighting", name)(**options)
            model.compile(keras.optimizers.Adam(0.01), weighting=weighting)
            return model

        if backend == "tensorflow":
            import tensorflow as tf
            names = [f"CPU:{i}" for i in range(replicas)]
            scope = tf.distribute.MirroredStrategy(names).scope
        else:
            import contextlib
            import jax
            keras.distribution.set_distribution(
                keras.distribution.DataParallel(devices=jax.devices()[:replicas])
            )
            scope = contextlib.nullcontext
        # 44 rows in batches of 8: the last one is partial.
        rows = 44 if backend == "tensorflow" else 40
        data = (x[:rows], {k: v[:rows] for k, v in y.items()})
        results = []
        for weighting in weightings:
            with scope():
                model = make(weighting)
            history = model.fit(
                *data, batch_size=8, epochs=2, shuffle=False, verbose=0,
                validation_data=data,
            ).history
            values = [
                keras.ops.convert_to_numpy(v).ravel()[:5].tolist()
                for v in model.trainable_variables
            ]
            results.append({"history": history, "weights": values})
        return results, failures(model, *data) if replicas > 1 else []

    def failures(model, x, y):
        # What `fit` raises for wrong numbers that one replica alone sees.
        import tensorflow as tf
        found = []
        for name, value in (("kind", 7), ("size", 3e38)):
            wrong = {k: v[:40].copy() for k, v in y.items()}
            wrong[name][20] = value
            rows = tf.data.Dataset.from_tensor_slices((x[:40], wrong))
            try:
                model.fit(rows.batch(8), verbose=0)
            except (ValueError, FloatingPointError) as error:
                found.append(str(error))
        return found

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
    import kmtl._registry
    weightings = json.loads(sys.argv[1])
    both = [run(replicas, backend, weightings) for replicas in (1, 2)]
    print("RESULT" + json.dumps(both, default=float))
    """
)


@pytest.mark.backend
@pytest.mark.parametrize(
    "weightings",
    [
        [None],
        pytest.param(
            [
                ["uncertainty", {}],
                ["mgda", {"level": "features"}],
                ["imtl_g", {"level": "parameters"}],
            ],
            marks=pytest.mark.thorough(on="jax"),
        ),
    ],
    ids=["none", "weightings"],
)
def test_two_replicas_equal_one(weightings):
    label, loss = compare(weightings)
    assert "Labels of task 'kind'" in label
    assert "Received: 7, first in step 3 of epoch 1" in label
    assert "task size was NaN or infinite in step 3 of epoch 1" in loss


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("name", _registry.names("weighting"))
def test_every_deterministic_weighting(name):
    rule = _registry.get("weighting", name)
    config = rule().get_config()
    if "seed" in config and name not in ("pcgrad", "gradvac", "auto_lambda"):
        pytest.skip("random")
    options = {"shuffle": False} if "shuffle" in config else {}
    if name == "auto_lambda":  # the same validation rows in each run
        options = {"seed": 0, "learning_rate": 0.01}
    levels = ["parameters"] if rule.kind == "gradient" else [None]
    if rule.kind == "gradient" and not rule.parameter_state:
        levels.append("features")
    compare([[name, options | ({"level": at} if at else {})] for at in levels])


def compare(weightings) -> list[str]:
    """Compare, and give what was raised for wrong numbers."""
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "0",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "KERAS_BACKEND": keras.backend.backend(),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(weightings)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # A branch of the step that TensorFlow tries to fold, and cannot.
    assert "OP_REQUIRES failed" not in done.stderr
    line = next(x for x in done.stdout.splitlines() if x.startswith("RESULT"))
    (ones, _), (twos, raised) = json.loads(line.removeprefix("RESULT"))
    for weighting, one, two in zip(weightings, ones, twos, strict=True):
        assert set(one["history"]) == set(two["history"])
        for key, values in one["history"].items():
            np.testing.assert_allclose(
                two["history"][key],
                values,
                rtol=1e-3,
                atol=1e-5,
                err_msg=f"{weighting} {key}",
            )
        for expected, weights in zip(one["weights"], two["weights"], strict=True):
            np.testing.assert_allclose(
                weights, expected, rtol=2e-3, atol=2e-5, err_msg=str(weighting)
            )
    return raised
