"""Examples whose rows are lists: ranking, and a number per step of a sequence."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pandas
import scipy.io
from example import Errors, Example, parts_of
from rows import by_year, days
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import ndcg_score

import kmtl

#: Days of a sequence.
LENGTH = 10


def pupils(folder: Path, fast: bool) -> tuple[list, list]:
    """Of each school the pupils' features, and their scores in the exam."""
    if fast:
        rng = np.random.default_rng(0)
        sizes = rng.integers(5, 12, 20)
        return [rng.normal(size=(n, 4)) for n in sizes], [rng.random(n) for n in sizes]
    found = scipy.io.loadmat(folder / "multitask_classic" / "school.mat")
    return (
        [np.asarray(x, float) for x in found["X"].ravel()],
        [np.asarray(y, float).ravel() for y in found["Y"].ravel()],
    )


def schools(folder: Path, seed: int, fast: bool) -> dict[str, Errors]:
    features, scores = pupils(folder, fast)
    part = parts_of(len(features), seed)
    sizes = [len(y) for y in scores]
    x, y = kmtl.Ranking.lists(
        np.concatenate(features),
        np.concatenate(scores),
        np.repeat(np.arange(len(sizes)), sizes),
    )
    net = kmtl.backbones.ConvNet1D(kernel_size=1, pooling=None)
    model = kmtl.build(
        backbone=net, input_shape=x.shape[1:], tasks=[kmtl.Ranking("exam")], seed=seed
    )
    model.compile("adam")
    keras.utils.set_random_seed(seed)
    train, held, test = (part[name] for name in ("train", "validation", "test"))
    stop = keras.callbacks.EarlyStopping(
        "val_exam_ndcg", patience=5, restore_best_weights=True
    )
    model.fit(
        *(x[train], {"exam": y[train]}),
        validation_data=(x[held], {"exam": y[held]}),
        epochs=1 if fast else 50,
        callbacks=[stop],
        verbose=0,
    )
    found = model.predict(x[test], verbose=0)["exam"]
    known = np.concatenate([train, held])
    line = Ridge(1.0).fit(
        np.concatenate([features[n] for n in known]),
        np.concatenate([scores[n] for n in known]),
    )

    def wrong(each: list) -> float:
        pairs = [
            (scores[n], found[: len(scores[n])])
            for n, found in zip(test, each, strict=True)
        ]
        return 100 * (1 - float(np.mean([ndcg_score([y], [s]) for y, s in pairs])))

    rng = np.random.default_rng(seed)
    return {
        "ranking": Errors(
            wrong(list(found)),
            wrong([line.predict(features[n]) for n in test]),
            wrong([rng.random(len(scores[n])) for n in test]),  # an order by chance
        )
    }


def sequences(
    frame: pandas.DataFrame, x: np.ndarray, y: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Runs of ten days of one station among these rows."""
    inside = np.zeros(len(frame), bool)
    inside[rows] = True
    xs, ys = [], []
    for _, where in frame.groupby("station").indices.items():
        where = where[np.argsort(frame["day"].to_numpy()[where])]
        where = where[inside[where]]
        day = frame["day"].to_numpy()[where]
        for first in range(0, len(where) - LENGTH + 1, LENGTH // 2):
            if day[first + LENGTH - 1] - day[first] == LENGTH - 1:
                chosen = where[first : first + LENGTH]
                xs.append(x[chosen])
                ys.append(y[chosen])
    return np.stack(xs).astype("float32"), np.stack(ys)


def weather(folder: Path, seed: int, fast: bool) -> dict[str, Errors]:
    frame = days(folder, fast)
    parts = by_year(frame, seed)
    year = pandas.to_datetime(frame["Date"]).dt.year
    # Whole summers validate: sequences of days must not be cut.
    last = sorted(set(year))[-2] if year.nunique() > 2 else None
    before = np.flatnonzero(year < year.max())
    held = np.flatnonzero(year == last) if last else before
    frame["day"] = pandas.to_datetime(frame["Date"]).map(pandas.Timestamp.toordinal)
    target = frame["Next_Tmax"].to_numpy()
    columns = frame.drop(columns=["Next_Tmax", "Next_Tmin", "Date", "day", "station"])
    known = columns.iloc[before]
    x = (columns.fillna(known.median()) - known.mean()) / known.std()
    x = x.to_numpy()
    trained = before if last is None else np.setdiff1d(before, held)
    train, validation, test = (
        sequences(frame, x, target, rows) for rows in (trained, held, parts["test"])
    )
    net = kmtl.backbones.RNN(bidirectional=False)  # the day after tells all
    task = kmtl.SequenceRegression("high", transform="standardize", unit="°C")
    model = kmtl.build(
        backbone=net, input_shape=train[0].shape[1:], tasks=[task], seed=seed
    )
    model.compile("adam")
    keras.utils.set_random_seed(seed)
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=5, restore_best_weights=True
    )
    model.fit(
        train[0],
        {"high": train[1]},
        validation_data=(validation[0], {"high": validation[1]}),
        epochs=1 if fast else 50,
        callbacks=[stop],
        verbose=0,
    )
    found = model.predict(test[0], verbose=0)["high"][..., 0]
    line = LinearRegression().fit(x[before], target[before])
    beside = line.predict(test[0].reshape(-1, x.shape[1])).reshape(found.shape)

    def off(values: np.ndarray | float) -> float:
        return float(np.abs(values - test[1]).mean())

    return {
        "sequence_regression": Errors(
            off(found), off(beside), off(np.median(target[before]))
        )
    }


EXAMPLES = (
    Example(
        schools,
        {"ranking": "the order of a school's pupils in an exam; 100 - NDCG in %"},
        "139 schools in London, 15,362 pupils; other schools test",
        "scikit-learn's `Ridge` on the scores (the constant: an order by chance)",
    ),
    Example(
        weather,
        {
            "sequence_regression": "tomorrow's highest temperature on each of ten days "
            "in a row; MAE, °C"
        },
        "the days in Seoul as above, without the stations' names",
        "scikit-learn's `LinearRegression`, day by day",
    ),
)
