"""Traps of Keras and KerasTuner that kmtl works around.

Each test asserts that the trap is still there. When one fails after an upgrade, the
work-around named in it can go.
"""

from __future__ import annotations

import re

import keras
import keras_tuner
import numpy as np
import pytest

ROWS = 22
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 3)).astype("float32")
Y = {
    "seg": RNG.normal(size=(ROWS, 1)).astype("float32"),
    "depth": (100 * RNG.normal(size=(ROWS, 1))).astype("float32"),
}


def model(names=("seg", "depth"), seed=0, **options):
    """A plain Keras model with a dict of outputs."""
    inputs = keras.Input((3,))
    outputs = {
        name: keras.layers.Dense(
            1, name=name, kernel_initializer=keras.initializers.GlorotUniform(seed=seed)
        )(inputs)
        for name in names
    }
    built = keras.Model(inputs, outputs)
    options = {"loss": dict.fromkeys(names, "mse")} | options
    built.compile(keras.optimizers.SGD(0.0), **options)
    return built


def logs(built, **options) -> dict:
    y = {name: Y[name] for name in built.output_names}
    return built.evaluate(X, y, return_dict=True, verbose=0, **options)


@pytest.fixture(scope="module")
def true() -> dict:
    """The unweighted losses."""
    return logs(model(), batch_size=ROWS)


def test_wrong_keys_of_loss_weights_are_paired_in_sorted_order(true) -> None:
    """kmtl: `check_task_keys`, and weights of its own in `compute_loss` (D2, D3)."""
    got = logs(model(loss_weights={"aaa": 1.0, "zzz": 100.0}), batch_size=ROWS)
    expected = 1.0 * true["depth_loss"] + 100.0 * true["seg_loss"]
    assert got["loss"] == pytest.approx(expected, rel=1e-4)


def test_a_list_of_loss_weights_is_paired_in_sorted_order(true) -> None:
    """kmtl: lists are refused. The first weight was meant for `seg`."""
    got = logs(model(loss_weights=[1.0, 100.0]), batch_size=ROWS)
    expected = 1.0 * true["depth_loss"] + 100.0 * true["seg_loss"]
    assert got["loss"] == pytest.approx(expected, rel=1e-4)


def test_losses_per_output_are_means_of_batch_means(true) -> None:
    """kmtl: `LossTerms` keeps sums. The total and metrics of Keras are right."""
    got = logs(model(metrics={"depth": "mse"}), batch_size=16)  # 16 + 6 rows
    assert got["depth_mse"] == pytest.approx(true["depth_loss"], rel=1e-5)
    assert got["loss"] == pytest.approx(true["loss"], rel=1e-5)
    assert got["depth_loss"] != pytest.approx(true["depth_loss"], rel=1e-3)


def test_one_output_loses_its_prefix() -> None:
    """kmtl: names of its own, for one head as for many."""
    got = logs(model(names=("seg",), metrics={"seg": ["mae"]}))
    assert set(got) == {"loss", "mae"}


def test_outputs_are_listed_in_alphabetical_order() -> None:
    """kmtl: `task_names` keeps the given order, and lists of labels are refused."""
    built = model()
    assert built.output_names == ["depth", "seg"]
    assert list(built.predict(X, verbose=0)) == ["seg", "depth"]


def test_class_weight_is_refused_for_several_outputs() -> None:
    """kmtl: `class_weight` of a task."""
    with pytest.raises(ValueError, match="only supported for Models with a single"):
        model().fit(X, Y, class_weight={"seg": {0: 1.0}}, verbose=0)


def test_partial_sample_weights_are_refused() -> None:
    """kmtl: completed with ones."""
    with pytest.raises(ValueError, match="You should provide one `sample_weight`"):
        model().fit(X, Y, sample_weight={"seg": np.ones(ROWS)}, verbose=0)


def test_zero_weights_still_count_in_the_mean_and_nan_survives_them() -> None:
    """kmtl: `masked_mean` over present labels, of labels cleaned beforehand (D10)."""
    weights = {"seg": np.r_[np.zeros(11), np.ones(11)], "depth": np.ones(ROWS)}
    built = model()
    got = logs(built, batch_size=ROWS, sample_weight=weights)["seg_loss"]
    present = np.square(built.predict(X, verbose=0)["seg"] - Y["seg"])[11:].mean()
    assert got == pytest.approx(present / 2, rel=1e-5)
    holes = {**Y, "seg": np.where(weights["seg"][:, None] > 0, Y["seg"], np.nan)}
    logs_of_holes = built.evaluate(
        X, holes, sample_weight=weights, return_dict=True, verbose=0
    )
    assert np.isnan(logs_of_holes["loss"])


def test_loss_weights_that_are_variables_freeze_on_loading(tmp_path) -> None:
    """kmtl: task weights are variables of the model (D3)."""
    weight = keras.Variable(20.0, trainable=False, name="w")
    built = model(loss_weights={"seg": weight, "depth": 1.0})
    assert built._compile_loss._user_loss_weights["seg"] is weight
    built.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    kept = loaded._compile_loss._user_loss_weights["seg"]
    assert not isinstance(kept, keras.Variable)


def test_the_state_of_dropout_seeds_is_not_saved(tmp_path) -> None:
    """kmtl: `kmtl.layers.Dropout` saves it."""
    built = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5, seed=1)])
    start = np.asarray(built.layers[0].seed_generator.state)
    built(X, training=True)
    assert (np.asarray(built.layers[0].seed_generator.state) != start).any()
    built.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.layers[0].seed_generator.state, start)


def test_an_untrained_compiled_model_does_not_load_cleanly(tmp_path) -> None:
    """kmtl: the optimizer is built before saving."""
    built = model()
    built.compile("adam", loss=built.loss)
    built.save(tmp_path / "m.keras")
    with pytest.raises((UserWarning, ValueError), match="Skipping variable loading"):
        keras.models.load_model(tmp_path / "m.keras")


def test_keras_auc_counts_a_column_without_positives_as_zero() -> None:
    """kmtl: `kmtl.metrics.AUC` leaves it out."""
    metric = keras.metrics.AUC(multi_label=True, num_labels=2)
    labels = np.array([[0.0, 0.0], [1.0, 0.0]])
    metric.update_state(labels, np.array([[0.1, 0.4], [0.9, 0.6]]))
    assert float(metric.result()) == pytest.approx(0.5, abs=1e-3)


def test_the_direction_of_a_metric_of_one_output_is_unknown() -> None:
    """kmtl: metrics carry their direction."""
    stop = keras.callbacks.EarlyStopping(monitor="val_seg_accuracy")
    with pytest.raises(ValueError, match="isn't able to automatically determine"):
        model().fit(X, Y, validation_data=(X, Y), callbacks=[stop], verbose=0)


def tuner(folder, objective, **options):
    return keras_tuner.RandomSearch(
        lambda hp: (
            hp.Float("x", 0, 1),
            model(loss_weights={"seg": 5.0, "depth": 1.0}),
        )[1],
        objective=objective,
        max_trials=2,
        directory=str(folder),
        project_name="p",
        **options,
    )


def test_keras_tuner_overrides_drop_loss_weights(tmp_path) -> None:
    """kmtl: overrides are refused."""
    search = tuner(tmp_path, "val_loss", metrics={"seg": ["mae"]})
    built = search.hypermodel.build(keras_tuner.HyperParameters())
    search._override_compile_args(built)
    assert built._compile_loss._user_loss_weights is None


def test_keras_tuner_cannot_infer_the_direction(tmp_path) -> None:
    """kmtl: objectives are made from a task and its metric."""
    with pytest.raises(ValueError, match="Could not infer optimization direction"):
        tuner(tmp_path, "val_seg_mae")


def test_keras_tuner_returns_normally_when_all_trials_failed(tmp_path, capsys) -> None:
    """kmtl: a search in which every trial failed raises (D7)."""
    objective = keras_tuner.Objective("val_seg_acuracy", "max")
    search = tuner(tmp_path, objective, max_consecutive_failed_trials=9)
    search.search(X, Y, validation_data=(X, Y), verbose=0)
    statuses = {trial.status for trial in search.oracle.trials.values()}
    assert statuses == {"FAILED"}
    printed = capsys.readouterr()
    assert "val_seg_acuracy" in printed.out + printed.err


# -- names that Keras keeps private, of `kmtl/_private/keras.py` -----------------------


def test_the_graph_can_be_walked_from_its_outputs() -> None:
    """kmtl: `node_of`, `producer`, `nodes_of`."""
    from kmtl._private.keras import node_of, nodes_of, producer

    shared = keras.layers.Dense(3)
    inputs = keras.Input((3,))
    first = shared(inputs)
    second = shared(first)
    assert producer(second) is shared
    assert isinstance(producer(inputs), keras.layers.InputLayer)
    assert [node.outputs[0] for node in nodes_of(shared)] == [first, second]
    assert node_of(second) is nodes_of(shared)[1]
    assert node_of(second).input_tensors == [first]
    assert node_of(second).parent_nodes == [nodes_of(shared)[0]]
    assert nodes_of(keras.layers.Dense(3)) == []
    assert shared.output is first  # public, of the first call only


def test_masks_are_on_the_tensors() -> None:
    """kmtl: `mask_on`, and what `_graph.py` reads of them."""
    from kmtl._private.keras import mask_on, node_of

    ids = keras.Input((None,), dtype="int32")
    features = keras.layers.Embedding(5, 2, mask_zero=True)(ids)
    node = node_of(mask_on(features))
    assert type(node.operation).__name__ == "NotEqual"
    assert node.arguments.args == (ids, 0)
    steps = keras.layers.GRU(2, return_sequences=True)(features)
    assert mask_on(steps) is mask_on(features)
    assert node_of(steps).arguments.kwargs["mask"] is mask_on(features)
    both = node_of(mask_on(keras.layers.Add()([features, steps])))
    assert type(both.operation).__name__ == "LogicalOr"
    values = keras.Input((None, 2))
    node = node_of(mask_on(keras.layers.Masking(3.0)(values)))
    assert (type(node.operation).__name__, node.operation.axis) == ("Any", [-1])
    node = node_of(node.input_tensors[0])
    assert type(node.operation).__name__ == "NotEqual"
    assert node.arguments.args == (values, 3.0)
    assert mask_on(values) is None


def test_layers_inside_layers_are_found() -> None:
    """kmtl: `sublayers`; `model.layers` lists those at the top."""
    from kmtl._private.keras import sublayers

    inner = keras.layers.Dense(2)
    built = keras.Sequential([keras.Input((3, 2)), keras.layers.TimeDistributed(inner)])
    assert inner in sublayers(built)
    assert inner not in built.layers
    assert built not in sublayers(built)


def test_a_functional_model_asks_what_to_call_at_a_node() -> None:
    """kmtl: `StillModel`, by which Keras' own dropout is off where it is frozen."""
    from kmtl.training.still import StillModel

    inputs = keras.Input((4,))
    x = np.ones((2, 4), "float32")
    for frozen in (False, True):
        dropout = keras.layers.Dropout(0.5, trainable=not frozen)
        outputs = dropout(inputs)
        plain, still = (kind(inputs, outputs) for kind in (keras.Model, StillModel))
        assert np.any(plain(x, training=True) != x)  # Keras looks at `training` alone
        assert np.all(still(x, training=True) == x) is np.bool_(frozen)


def test_a_layer_can_be_made_to_forget() -> None:
    """kmtl: `forget_layer`, `forget_variable`; assigning None keeps the old ones."""
    from kmtl._private.keras import forget_layer, forget_variable

    class Owner(keras.layers.Layer):
        pass

    owner = Owner()
    owner.part = keras.layers.Dense(1)
    owner.part.build((None, 2))
    kernel = owner.part.kernel
    forget_variable(owner.part, kernel)
    assert [v.name for v in owner.part.variables] == ["bias"]
    old, owner.part = owner.part, None
    assert owner.variables == old.variables  # the trap
    forget_layer(owner, old)
    assert owner.variables == []


def test_validation_in_fit_is_marked() -> None:
    """kmtl: `CACHED_EVALUATION`; data that `fit` has checked are not checked again."""
    from kmtl._private.keras import CACHED_EVALUATION

    seen = []

    class Marked(keras.Model):
        def evaluate(self, *args, **options):
            seen.append(options.get(CACHED_EVALUATION))
            return super().evaluate(*args, **options)

    inputs = keras.Input((3,))
    made = Marked(inputs, keras.layers.Dense(1)(inputs))
    made.compile("sgd", "mse", run_eagerly=True)
    made.fit(X, Y["seg"], validation_data=(X, Y["seg"]), verbose=0)
    made.evaluate(X, Y["seg"], verbose=0)
    assert seen == [True, None]


def test_weights_files_of_old_versions_are_read(tmp_path) -> None:
    """kmtl: `OLD_LAYERS`; files are read by the names of the layers."""
    import h5py

    from kmtl._private.keras import OLD_LAYERS

    first, second = model(seed=0), model(seed=1)
    path = tmp_path / "old.weights.h5"
    first.save_weights(path)
    with h5py.File(path, "r+") as file:
        file.move("layers", OLD_LAYERS)
    second.load_weights(path)
    for expected, found in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_variable_gives_what_the_backend_has() -> None:
    """kmtl: `value_of`; `value` fails where JAX's `fit` has taken the array away."""
    from kmtl._private.keras import value_of

    variable = keras.Variable(np.ones(2))
    held = value_of(variable)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(held), np.ones(2))
    variable._value = None
    assert value_of(variable) is None
    with pytest.raises(TypeError):
        _ = variable.value


def test_an_optimizer_knows_the_place_of_a_variable() -> None:
    """kmtl: `variable_index`, for factors of the learning rate."""
    from kmtl._private.keras import value_of, variable_index

    variables = [keras.Variable(np.ones(2)), keras.Variable(np.ones(2))]
    optimizer = keras.optimizers.SGD()
    optimizer.build(variables)
    assert variable_index(optimizer, variables[1]) == 1
    if keras.backend.backend() == "tensorflow":  # which hands on its own variable
        assert variable_index(optimizer, value_of(variables[1])) == 1


def test_what_add_loss_adds_is_kept_in_one_list() -> None:
    """kmtl: `LossesOfThreads`, one per thread."""
    import threading

    from kmtl._private.keras import LossesOfThreads

    class Plain(keras.layers.Layer):
        def call(self, inputs):
            self.add_loss(keras.ops.sum(inputs))
            return inputs

    class PerThread(LossesOfThreads, Plain):
        pass

    counts = []
    for kind in (Plain, PerThread):
        layer = kind()
        layer(np.ones(2))
        threads = []

        def other(layer=layer, seen=threads) -> None:
            seen.append(len(layer._losses))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        counts.append((len(layer.losses), threads[0]))
    assert counts == [(1, 1), (1, 0)]


def test_the_privates_of_keras_tuner_are_there(tmp_path) -> None:
    """kmtl: all of `kmtl/_private/keras_tuner.py`, on KerasTuner's own tuner."""
    from kmtl._private import keras_tuner as private

    space = keras_tuner.HyperParameters()
    space.Fixed("fixed", 1)
    space.Float("rate", 0.1, 0.2)
    tuner = keras_tuner.BayesianOptimization(
        lambda hp: model(names=("seg",)),
        hyperparameters=space,
        objective="loss",
        max_trials=1,
        seed=0,
        directory=str(tmp_path),
    )
    trial = keras_tuner.engine.trial.Trial(space)
    copies = private.own_callbacks(tuner, [keras.callbacks.Callback()], trial, 0)
    assert len(copies) == 1


def test_a_branch_without_the_attribute_is_inlined() -> None:
    """kmtl: `STAYS_A_CALL` of `kmtl/_private/tensorflow.py`."""
    import tensorflow as tf

    from kmtl._private.tensorflow import STAYS_A_CALL

    made = tf.function(lambda x: x + 1.0, experimental_attributes=STAYS_A_CALL)
    graph = made.get_concrete_function(tf.TensorSpec((), "float32"))
    assert graph.function_def.attr["_noinline"].b


def test_caches_are_found_in_any_part_of_a_pipeline(tmp_path) -> None:
    """kmtl: `unfilled_caches` of `kmtl/_private/tensorflow.py`."""
    import tensorflow as tf

    from kmtl._private.tensorflow import unfilled_caches
    from kmtl.data.caches import fill_caches

    first = tf.data.Dataset.range(4).cache()
    both = first.concatenate(tf.data.Dataset.range(3).cache(str(tmp_path / "kept")))
    data = tf.data.Dataset.zip((both.batch(4), both.batch(4))).cache()
    last = data.map(lambda a, b: a + b).prefetch(1)
    found = unfilled_caches(last)
    assert found[0] is first or found[1] is first
    assert found[-1] is data
    assert len(found) == 3
    fill_caches(last)
    assert len(unfilled_caches(last)) == 2  # that in a file is known to be full
    assert unfilled_caches(tf.data.Dataset.range(4).batch(2)) == []
    fill_caches(first.repeat().cache())  # has no end: left alone


def test_jax_writes_programs_that_tensorflow_reads() -> None:
    jax = pytest.importorskip("jax")
    from kmtl._private.jax import READ_BY_TENSORFLOW, programs_for_tensorflow

    def version() -> list[int]:
        shape = jax.ShapeDtypeStruct((2,), "float32")
        program = jax.export.export(jax.jit(lambda x: x + 1))(shape)
        made_by = re.search(rb"StableHLO_v([\d.]+)", program.mlir_module_serialized)
        assert made_by is not None
        return [int(part) for part in made_by[1].split(b".")]

    before = version()
    read = [int(part) for part in READ_BY_TENSORFLOW.split(".")]
    with programs_for_tensorflow():
        assert version() == min(before, read)
    assert version() == before
