"""Several data sets as one: what is drawn of each, labels, masks, and training."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kmtl
from kmtl.data.plans import RowPlan

pytestmark = pytest.mark.backend

LETTER = kmtl.Classification("letter", classes=3)
SIZE = kmtl.Regression("size")


def sets(letters: int = 9, sizes: int = 3):
    rng = np.random.default_rng(0)
    return {
        LETTER: (
            rng.normal(size=(letters, 4)).astype("float32"),
            np.arange(letters) % 3,
        ),
        SIZE: (
            rng.normal(size=(sizes, 4)).astype("float32"),
            np.linspace(0, 1, sizes).astype("float32"),
        ),
    }


class TestWhatAnEpochHolds:
    @pytest.mark.parametrize(
        ("sampling", "options", "counts"),
        [
            ("proportional", {}, [90, 10]),
            ("equal", {}, [90, 90]),
            ("equal", {"steps": "shortest"}, [10, 10]),
            ("temperature", {}, [90, 30]),  # the roots of 90 and 10 are as 3 to 1
            ("temperature", {"temperature": 1.0}, [90, 10]),
            ("temperature", {"temperature": np.inf}, [90, 90]),
            ({SIZE: 3, LETTER: 1}, {"steps": 5}, [10, 30]),
            ({"size": 0.5, "letter": 0.25}, {"steps": "shortest"}, [5, 10]),
            # By batches of 8: 90 rows are 12 of them, 10 are 2.
            ("equal", {"alternate": True}, [96, 96]),
            ("equal", {"alternate": True, "steps": "shortest"}, [16, 16]),
            ("equal", {"alternate": True, "steps": 3}, [16, 8]),
            ({LETTER: 3, SIZE: 1}, {"alternate": True, "steps": 8}, [48, 16]),
            # 10 rows last as long as 90: to round them to two batches is not to see 90
            # twice.
            ("proportional", {"alternate": True}, [96, 8]),
            ("proportional", {"alternate": True, "steps": "shortest"}, [96, 8]),
        ],
    )
    def test_shares_are_exact(self, sampling, options, counts):
        mixture = kmtl.data.mixture(sets(90, 10), sampling, **options)
        table = mixture.counts(epochs=2, batch_size=8)
        assert table.index.tolist() == ["letter", "size"]
        assert table["rows_per_epoch"].tolist() == counts
        assert table["rows_seen"].tolist() == [2 * count for count in counts]
        assert table["passes"].tolist() == [2 * counts[0] / 90, 2 * counts[1] / 10]
        rows = mixture.plan.order(0, 0, 8)
        assert [(rows < 90).sum(), (rows >= 90).sum()] == counts

    def test_every_row_is_seen_equally_often_over_epochs(self):
        plan = RowPlan(("a", "b"), (10, 4), (0.5, 0.5), "shortest")
        epochs = [plan.order(0, epoch, 3) for epoch in range(5)]
        assert all(len(epoch) == 8 for epoch in epochs)
        seen = np.bincount(np.concatenate(epochs), minlength=14)
        assert seen.tolist() == [2] * 10 + [5] * 4
        # Two epochs and a half are one pass over the ten.
        first = np.concatenate([epoch[epoch < 10] for epoch in epochs])[:10]
        assert sorted(first) == list(range(10))

    def test_orders_come_from_seed_and_epoch_alone(self):
        mixture = kmtl.data.mixture(sets(), "equal", seed=3)
        plan = mixture.plan
        late = plan.order(0, 7, 4)
        assert plan.order(0, 0, 4).tolist() != plan.order(0, 1, 4).tolist()
        assert plan.order(1, 7, 4).tolist() != late.tolist()
        other = kmtl.data.mixture(sets(), "equal", seed=4).plan
        assert other.order(0, 7, 4).tolist() != late.tolist()
        again = kmtl.data.mixture(sets(), "equal", seed=3).plan
        assert again.order(0, 7, 4).tolist() == late.tolist()

    def test_mixed_batches_have_the_shares_of_the_epoch(self):
        plan = kmtl.data.mixture(sets(90, 10), {LETTER: 3, SIZE: 1}).plan
        batches = plan.sets(8).reshape(-1, 8)
        assert set(batches.sum(1)) == {2}

    def test_alternating_batches_are_of_one_set_in_turn(self):
        plan = kmtl.data.mixture(sets(90, 10), "equal", alternate=True).plan
        batches = plan.sets(8).reshape(-1, 8)
        assert batches[:, 0].tolist() == [0, 1] * 12
        assert (batches == batches[:, :1]).all()

    def test_epochs_of_one_set_in_turn(self):
        plan = RowPlan(("a", "b"), (6, 4), (0.75, 0.25), alternate="epoch")
        assert plan.turns(8).tolist() == [0, 0, 1, 0, 0, 0, 1, 0]
        orders = [plan.order(0, epoch, 2) for epoch in range(8)]
        assert {len(order) for order in orders} == {plan.length(2)} == {6}
        owners = [set(order >= 6) for order in orders]
        assert owners == [{bool(turn)} for turn in plan.turns(8)]
        first, second = orders[2], orders[6]  # passes go on where they ended
        assert sorted(first[:4]) == [6, 7, 8, 9]
        assert sorted([*first[4:], *second[:2]]) == [6, 7, 8, 9]
        assert plan.seen(4, 2).tolist() == [18, 6]
        short = RowPlan(("a", "b"), (6, 4), (0.5, 0.5), "shortest", "epoch")
        assert short.length(2) == 4
        assert RowPlan(("a", "b"), (6, 4), (0.5, 0.5), 1, "epoch").length(2) == 2

    def test_too_few_steps_are_refused(self):
        mixture = kmtl.data.mixture(sets(), {LETTER: 99, SIZE: 1}, steps=1)
        with pytest.raises(ValueError, match=r"every set has a part .* 'size'"):
            mixture.counts(batch_size=4)


class TestLabels:
    def test_those_of_other_tasks_are_missing(self):
        mixture = kmtl.data.mixture(sets(3, 2))
        assert mixture.y["letter"].tolist() == [0, 1, 2, -1, -1]
        assert mixture.y["letter"].dtype == "int32"
        np.testing.assert_array_equal(mixture.y["size"], [np.nan] * 3 + [0, 1])
        assert mixture.tasks == [LETTER, SIZE]
        np.testing.assert_array_equal(mixture.x[3:], sets(3, 2)[SIZE][0])

    def test_a_task_may_be_in_several_sets_and_a_set_have_several(self):
        x = np.zeros((2, 4), "float32")
        mixture = kmtl.data.mixture(
            {
                (LETTER, SIZE): (x, {"letter": [0, -1], "size": [1.0, np.nan]}),
                LETTER: (x, [2, 1]),
            }
        )
        assert mixture.y["letter"].tolist() == [0, -1, 2, 1]
        np.testing.assert_array_equal(mixture.y["size"], [1] + [np.nan] * 3)
        assert mixture.counts().index.tolist() == ["letter+size", "letter"]

    def test_classes_without_a_missing_number_are_marked_by_nan(self):
        kind = kmtl.Classification("kind", classes=3, missing=None)
        x = np.zeros((2, 4), "float32")
        mixture = kmtl.data.mixture({kind: (x, [0, 2]), SIZE: (x, [0.0, 1.0])})
        np.testing.assert_array_equal(mixture.y["kind"], [0, 2, np.nan, np.nan])

    @pytest.mark.parametrize(
        "hard",
        [[2, 0, -1], [[2], [0], [-1]], [[0, 0, 1], [1, 0, 0], [-1, -1, -1]]],
    )
    def test_class_numbers_are_vectors_beside_vectors(self, hard):
        x, soft = np.zeros((3, 4), "float32"), np.full((3, 3), 1 / 3)
        mixture = kmtl.data.mixture(
            {
                LETTER: (x, soft),
                (LETTER, SIZE): (x, {"letter": hard, "size": np.zeros(3)}),
                SIZE: (x, np.zeros(3)),
            }
        )
        wanted = [[0, 0, 1], [1, 0, 0], *[[np.nan] * 3] * 4]
        np.testing.assert_allclose(mixture.y["letter"], [*soft, *wanted])
        model = kmtl.build_mlp(input_shape=(4,), tasks=[LETTER, SIZE], units=(2,))
        model.compile("sgd")
        # Of zeros the net says as much of each class, before it has learned.
        report = model.loss_report(mixture.x, mixture.y)["letter"]
        assert report["labels"] == 5
        assert report["loss"] == pytest.approx(np.log(3), rel=1e-4)

    def test_maps_of_classes_are_vectors_beside_maps_of_shares(self):
        mask = kmtl.Segmentation("mask", classes=3, ignore=(2,))
        x, soft = np.zeros((1, 2, 2, 1), "float32"), np.full((1, 2, 2, 3), 1 / 3)
        hard = np.array([[[0, 1], [2, -1]]])
        mixture = kmtl.data.mixture(
            {mask: (x, soft), (mask, SIZE): (x, {"mask": hard, "size": [0.0]})}
        )
        wanted = [[[1, 0, 0], [0, 1, 0]], [[np.nan] * 3] * 2]
        np.testing.assert_allclose(mixture.y["mask"], [soft[0], wanted])

    def test_maps_are_missing_whole(self):
        mask = kmtl.Segmentation("mask", classes=2)
        x = np.zeros((2, 4, 4, 1), "float32")
        mixture = kmtl.data.mixture(
            {mask: (x, np.ones((2, 4, 4), "uint8")), SIZE: (x, [0.0, 1.0])}
        )
        assert mixture.y["mask"].shape == (4, 4, 4)
        assert mixture.y["mask"][1:3].mean((1, 2)).tolist() == [1, -1]

    def test_the_input_as_target_of_one_set_only(self):
        image = kmtl.Reconstruction("image")
        x = np.arange(8, dtype="float32").reshape(2, 4)
        mixture = kmtl.data.mixture({image: (x, None), SIZE: (x, [0.0, 1.0])})
        np.testing.assert_array_equal(mixture.y["image"][:2], x)
        assert np.isnan(mixture.y["image"][2:]).all()
        both = kmtl.data.mixture(
            {
                (image, LETTER): (x, {"letter": [0, 1]}),
                (image, SIZE): (x, {"size": [0.0, 1.0]}),
            }
        )
        assert list(both.y) == ["letter", "size"]


class TestInputs:
    def test_what_a_set_lacks_is_zeros_there(self):
        photo, words = np.ones((2, 4), "float32"), np.array(["a", "b"], object)
        mixture = kmtl.data.mixture(
            {
                LETTER: ({"photo": photo}, [0, 1]),
                SIZE: ({"words": words, "photo": photo}, [0.0, 1.0]),
            }
        )
        assert mixture.x["words"].tolist() == ["", "", "a", "b"]
        assert mixture.x["photo"].tolist() == [[1] * 4] * 4

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (
                np.zeros((2, 5), "float32"),
                r"one shape .* 'letter' \(4,\), 'size' \(5,\)",
            ),
            (np.zeros((2, 4), "uint8"), "one dtype .* 'letter' float32, 'size' uint8"),
            ({"x": np.zeros((2, 4), "float32")}, "inputs of one form"),
        ],
    )
    def test_those_that_differ_are_refused(self, x, message):
        other = (np.zeros((2, 4), "float32"), [0, 1])
        with pytest.raises(ValueError, match=message):
            kmtl.data.mixture({LETTER: other, SIZE: (x, [0.0, 1.0])})


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ((np.zeros((2, 4)), [0, 9]), r"'letter' must be integers in \[0, 2\]"),
            ((np.zeros((2, 4)), [0, 1, 2]), "as many rows as the inputs"),
            ((np.zeros((2, 4)), {"size": [0, 1]}), "Labels lack task letter"),
            ((np.zeros((2, 4)), [0, 1], np.ones(2)), "Sample weights .* not taken"),
            (np.zeros((2, 4)), r"\(x, y\) arrays"),
        ],
    )
    def test_data(self, data, message):
        with pytest.raises((ValueError, TypeError), match=message):
            kmtl.data.mixture({LETTER: data})

    def test_arguments(self):
        with pytest.raises(ValueError, match="sampling"):
            kmtl.data.mixture(sets(), "equally")
        with pytest.raises(ValueError, match="Unknown task 'lettr' in `sampling`"):
            kmtl.data.mixture(sets(), {"lettr": 1, "size": 1})
        with pytest.raises(ValueError, match="steps"):
            kmtl.data.mixture(sets(), steps="long")
        with pytest.raises(ValueError, match="tasks of its own"):
            kmtl.data.mixture({LETTER: sets()[LETTER], (LETTER,): sets()[LETTER]})
        with pytest.raises(TypeError, match="as it is"):
            kmtl.data.mixture(sets()).dataset(32)


def test_parts_of_whole_sets():
    digits = kmtl.data.digits()
    data = kmtl.data.mixture(
        {"digit": digits, ("mask", "ink"): digits}, "equal", steps=2, alternate=True
    )
    assert [task.name for task in data.tasks] == ["digit", "mask", "ink"]
    assert data.train.name == "train"
    assert data.train.plan.steps == 2
    assert type(data.test) is kmtl.data.Split
    assert len(data.test) == 2 * len(digits.test)
    half = len(digits.test)
    assert (data.test.y["digit"][half:] == -1).all()
    assert np.isnan(data.test.y["ink"][:half]).all()
    with pytest.raises(TypeError, match="all of them"):
        kmtl.data.mixture({"digit": digits, "ink": digits.train})


def numpy(variable):
    return keras.ops.convert_to_numpy(variable)


def net(mixture):
    model = kmtl.build_mlp(input_shape=(4,), tasks=mixture.tasks, units=(5,), seed=0)
    model.compile(keras.optimizers.SGD(0.1))
    return model


@pytest.fixture(scope="module")
def trained():
    """A mixture whose short set is seen twice, and weights after two epochs of it."""
    mixture = kmtl.data.mixture(sets(6, 3), "equal", alternate=True)
    model = net(mixture)
    history = model.fit(mixture, batch_size=3, epochs=2, verbose=0)
    return mixture, model, history


class TestTraining:
    def test_is_that_of_masked_arrays_in_its_order(self, trained):
        mixture, model, _ = trained
        x, y = mixture.arrays()
        by_hand = net(mixture)
        heads = [v for v in by_hand.weights if "size" in v.path]
        before = [numpy(v).copy() for v in heads]
        for epoch in range(2):
            for place, rows in enumerate(
                mixture.plan.order(0, epoch, 3).reshape(-1, 3)
            ):
                labels = {name: part[rows] for name, part in y.items()}
                by_hand.train_on_batch(x[rows], labels)
                if epoch == place == 0:  # letters, of which the other head sees nothing
                    assert (numpy(heads[0]) == before[0]).all()
        assert (numpy(heads[0]) != before[0]).any()
        for one, other in zip(model.weights, by_hand.weights, strict=True):
            np.testing.assert_allclose(numpy(one), numpy(other), atol=1e-6)

    def test_a_run_that_goes_on_sees_what_an_unbroken_one_does(self, trained, tmp_path):
        mixture, _, history = trained
        for epochs in (1, 2):
            run = kmtl.training.fit_run(
                net(mixture),
                mixture,
                folder=tmp_path,
                epochs=epochs,
                batch_size=3,
                verbose=0,
            )
        np.testing.assert_allclose(run.history["loss"], history.history["loss"])
        other = kmtl.data.mixture(sets(6, 3), "equal")
        with pytest.raises(ValueError, match=r"mixture\.alternate"):
            kmtl.training.fit_run(
                net(mixture), other, folder=tmp_path, epochs=3, batch_size=3
            )

    def test_measures_take_every_row_once(self, trained):
        mixture, model, _ = trained
        assert kmtl.evaluate(model, mixture).examples == 9

    @pytest.mark.parametrize(
        "options",
        [{"shuffle": False}, {"validation_split": 0.5}, {"steps_per_epoch": 2}],
    )
    def test_what_would_draw_other_rows_is_refused(self, trained, options):
        mixture, model, _ = trained
        with pytest.raises(ValueError, match=f"`{next(iter(options))}` is not taken"):
            model.fit(mixture, verbose=0, **options)


@pytest.mark.thorough
@pytest.mark.parametrize("population", [1, 2])
def test_a_search_trains_as_fit_does(trained, tmp_path, population):
    mixture, _, history = trained
    if population > 1 and keras.backend.backend() != "jax":
        pytest.skip("populations are JAX's")
    hypermodel = kmtl.HyperModel(
        kmtl.build_mlp,
        tasks=mixture.tasks,
        input_shape=(4,),
        units=(5,),
        optimizer=keras.optimizers.SGD(0.1),
        space={"dropout": (0.0, 0.5)},
        seed=0,
    )
    tuner = kmtl.RandomSearch(
        hypermodel,
        objective="val_mean_score",
        max_trials=2,
        population=population,
        directory=tmp_path,
        project_name="mixed",
        seed=0,
    )
    options = {"validation_data": mixture, "epochs": 2, "batch_size": 3}
    tuner.search(mixture, verbose=0, **options)
    curves = next(iter(tuner.oracle.curves("0").values()))
    # Trial 0 is the defaults.
    losses = [logs["loss"] for logs in curves]
    np.testing.assert_allclose(losses, history.history["loss"], rtol=1e-5)
    other = kmtl.data.mixture(sets(6, 3), "equal", seed=1)
    with pytest.raises(ValueError, match="mixture"):
        tuner.search(other, verbose=0, **options)
    with pytest.raises(ValueError, match="`folds` divides rows"):
        tuner.search(mixture, folds=3, epochs=2, verbose=0)
