"""Embeddings: formulas of the papers by loops, and scikit-learn's neighbours."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import logsumexp
from sklearn.neighbors import NearestNeighbors

import kmtl

RNG = np.random.default_rng(0)
ROWS = 24
LABELS = RNG.integers(0, 6, ROWS)
LABELS[0] = 99  # alone
KEPT = np.arange(ROWS) % 6 > 0
KEPT[0] = True
HOLES = np.where(KEPT, LABELS, -1)
VECTORS = RNG.normal(size=(ROWS, 5)) + np.eye(5)[LABELS % 5] * 1.5
VECTORS = (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)).astype("float32")


def others(row: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines with the other labelled rows of the class, and of other classes."""
    cosine = VECTORS.astype("float64") @ VECTORS[row]
    there = KEPT & (np.arange(ROWS) != row)
    alike = LABELS[row] == LABELS
    return cosine[there & alike], cosine[there & ~alike]


def contrastive(same: np.ndarray, different: np.ndarray) -> float:
    total = np.exp(np.append(same, different) / 0.1).sum()
    return -np.log(np.exp(same / 0.1) / total).mean()


def triplet(same: np.ndarray, different: np.ndarray) -> float:
    far, near = np.sqrt(2 - 2 * same.min()), np.sqrt(2 - 2 * different.max())
    return max(far - near + 0.2, 0)


def multi_similarity(same: np.ndarray, different: np.ndarray) -> float:
    hard = same[same < different.max() + 0.1]
    near = different[different > same.min() - 0.1]
    pulled = np.log1p(np.exp(-2 * (hard - 0.5)).sum()) / 2
    return pulled + np.log1p(np.exp(50 * (near - 0.5)).sum()) / 50


PAPERS = {
    "contrastive": contrastive,
    "triplet": triplet,
    "multi_similarity": multi_similarity,
}


@pytest.mark.backend
@pytest.mark.thorough(on="jax")
def test_losses_leave_missing_rows_out() -> None:
    task = kmtl.Embedding("t", dimensions=5)
    clean, mask = task.clean_labels(HOLES)
    np.testing.assert_array_equal(ops.convert_to_numpy(mask), KEPT)
    for loss, formula in PAPERS.items():
        values = task.replace(loss=loss).loss_values(clean, VECTORS)
        values = ops.convert_to_numpy(values)
        for row in np.flatnonzero(KEPT):
            same, different = others(row)
            expected = formula(same, different) if len(same) else 0.0
            assert values[row] == pytest.approx(expected, rel=1e-3, abs=1e-5), loss


def of_angles(loss: str, cosine: np.ndarray, label: int) -> float:
    """The papers' formulas, with their margins and scale."""
    shifted = cosine.copy()
    if loss == "cosface":
        shifted[label] -= 0.35
    elif np.arccos(cosine[label]) + 0.5 <= np.pi:
        shifted[label] = np.cos(np.arccos(cosine[label]) + 0.5)
    else:
        shifted[label] -= 0.5 * np.sin(0.5)
    logits = 64 * shifted
    return logsumexp(logits) - logits[label]


@pytest.mark.backend
@pytest.mark.parametrize("loss", ["arcface", "cosface"])
def test_losses_of_angles(loss: str) -> None:
    task = kmtl.Embedding("who", dimensions=3, classes=4, loss=loss)
    model = kmtl.build_mlp(input_shape=(5,), tasks=[task], units=(4,), seed=0)
    labels = np.array([0, 3, -1, 2, 1, 1, 0, 3])
    model.compile("sgd")
    report = model.loss_report(VECTORS[:8], {"who": labels})
    vectors = ops.convert_to_numpy(model(VECTORS[:8])["who"]).astype("float64")
    directions = ops.convert_to_numpy(model.get_layer("who_head_classes").directions)
    cosines = vectors @ (directions / np.linalg.norm(directions, axis=0))
    cosines = np.clip(cosines, -1, 1)
    rows = [(c, n) for c, n in zip(cosines, labels, strict=True) if n >= 0]
    expected = np.mean([of_angles(loss, cosine, number) for cosine, number in rows])
    assert report["who"]["loss"] == pytest.approx(expected, rel=1e-3)
    assert report["who"]["labels"] == 7
    far = np.array([[-0.99, 0.1]], "float32")  # beyond a half turn with the margin
    values = task.loss_values_beside(np.array([0]), VECTORS[:1], np.ones(1), far)
    assert float(values[0]) == pytest.approx(of_angles(loss, far[0], 0), rel=1e-4)


def test_angles_train_save_and_leave_nothing_in_exports(tmp_path) -> None:
    task = kmtl.Embedding(
        "who", dimensions=4, classes=3, loss={"arcface": 1, "triplet": 0.5}
    )
    tasks = [task, kmtl.Regression("size")]
    model = kmtl.build_mlp(input_shape=(3,), tasks=tasks, units=(8,), seed=0)
    who = np.arange(30) % 3
    x = (np.eye(3)[who] + 0.1 * RNG.normal(size=(30, 3))).astype("float32")
    y = {"who": who, "size": x[:, 0]}
    model.compile("adam")
    model.optimizer.learning_rate = 0.05
    logs = model.fit(x, y, batch_size=30, epochs=25, verbose=0).history
    parts = logs["who_arcface_loss"][-1] + 0.5 * logs["who_triplet_loss"][-1]
    assert logs["who_loss"][-1] == pytest.approx(parts, rel=1e-4)
    assert logs["who_arcface_loss"][-1] < 0.5 * logs["who_arcface_loss"][0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    found, wanted = (net.loss_report(x, y)["who"] for net in (loaded, model))
    assert found == pytest.approx(wanted, abs=1e-5)
    plain = model.to_keras()
    np.testing.assert_allclose(plain(x)["who"], model(x)["who"], rtol=1e-5)
    assert len(plain.weights) == 6  # kernels and biases, no directions
    with pytest.raises(ValueError, match="a head of its own loss"):
        model.compile("adam", loss={"who": "triplet"})
    other = kmtl.build_mlp(
        input_shape=(3,), tasks=[kmtl.Embedding("who", classes=3)], seed=0
    )
    with pytest.raises(ValueError, match="given to the task, not to `compile`"):
        other.compile("adam", loss={"who": "cosface"})


def test_averages_and_merged_trunks() -> None:
    who, size = kmtl.Embedding("who", dimensions=3), kmtl.Regression("size")
    models = [
        kmtl.build_mlp(
            input_shape=(5,), tasks=[task], units=(4,), activation="tanh", seed=0
        )
        for task in (who, size)
    ]
    with pytest.raises(ValueError, match="several have no mean"):
        kmtl.evaluation.average([models[0], models[0]])
    with pytest.raises(ValueError, match="several have no mean"):  # before training
        kmtl.ensemble(
            kmtl.build_mlp,
            (VECTORS, {"who": np.arange(len(VECTORS))}),
            tasks=[who],
            input_shape=(5,),
            members=2,
            epochs=10**9,
        )
    merged = kmtl.merge(models)  # of trunks, before the vectors have their length
    lengths = np.linalg.norm(ops.convert_to_numpy(merged(VECTORS)["who"]), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-4)


def test_two_views() -> None:
    x, y = np.arange(7.0)[:, None], {"size": np.arange(7)}

    def noise(rows, rng):
        return rows + 0.1 * rng.random(rows.shape)

    def made(**options):
        return kmtl.data.two_views(x, y, task="who", change=noise, **options)

    views = made(batch_size=3)
    assert views.num_batches == 2  # the seventh row would be alone
    seen = []
    for index in range(2):
        rows, labels = views[index]
        np.testing.assert_array_equal(labels["who"], [0, 1, 2, 0, 1, 2])
        np.testing.assert_array_equal(np.floor(rows[:, 0]), labels["size"])
        np.testing.assert_array_equal(labels["size"][:3], labels["size"][3:])
        assert (rows[:3] != rows[3:]).all()
        seen += labels["size"][:3].tolist()
    assert len(set(seen)) == 6
    again = made(batch_size=3)
    np.testing.assert_array_equal(again[1][0], views[1][0])
    again.on_epoch_end()
    assert (again[1][0] != views[1][0]).any()
    assert made(batch_size=5).num_batches == 2
    with pytest.raises(ValueError, match="whose classes are the rows"):
        kmtl.data.two_views(x, {"size": y, "who": y}, task="who", change=noise)
    with pytest.raises(TypeError, match="`change` must be a function"):
        kmtl.data.two_views(x, task="who", change=0.1)


@pytest.mark.parametrize("k", [1, 5])
def test_recall_of_the_nearest(k: int) -> None:
    task = kmtl.Embedding("t", dimensions=5, metrics=f"recall{k}")
    clean, mask = task.clean_labels(HOLES)
    metric = task.score.make(task)
    metric.update_state(clean, VECTORS, mask)
    vectors, labels = VECTORS[KEPT], LABELS[KEPT]
    search = NearestNeighbors(n_neighbors=k + 1).fit(vectors)
    near = search.kneighbors(vectors, return_distance=False)
    right = [
        any(labels[j] == labels[i] for j in row if j != i)
        for i, row in enumerate(near)
        if (labels == labels[i]).sum() > 1
    ]
    assert float(metric.result()) == pytest.approx(np.mean(right), rel=1e-6)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: kmtl.Embedding("t", dimensions=1), "`dimensions` must be"),
        (lambda: kmtl.Embedding("t", temperature=0), "`temperature` must be"),
        (lambda: kmtl.Embedding("t", loss="mse"), "`loss` of task 't' must be one of"),
        (lambda: kmtl.Embedding("t", loss="arcface"), "needs `classes`"),
        (lambda: kmtl.Embedding("t", classes=3).check_labels([3]), r"in \[0, 2\]"),
        (lambda: kmtl.Embedding("t").check_labels([0.5]), "np.unique"),
        (lambda: kmtl.Embedding("t").check_labels([2.0**25]), "whole numbers in"),
    ],
)
def test_refused(act, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()
