"""The sides: from training and validation rows to predictions.

What is chosen is chosen by the mean score on the validation rows, per task where a side
has one model per task. Every side gets the same rows; those that need numbers get them
from `data.plain`, those that take categories themselves get the frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import data
import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Problem:
    """A split of a set.

    Args:
        x: Inputs, all rows.
        y: Targets `(rows, tasks)`, all rows.
        kind: `"regression"` or `"binary"`.
        train, validation: Row numbers.
    """

    x: pd.DataFrame
    y: np.ndarray
    kind: str
    train: np.ndarray
    validation: np.ndarray

    def goodness(self, found: np.ndarray, task: int | None = None) -> float:
        """Score on validation rows, larger is better; of all tasks, or of one."""
        tasks = slice(None) if task is None else slice(task, task + 1)
        given = self.y[:, tasks]
        scores = data.score(
            self.kind,
            given[self.train],
            given[self.validation],
            found[self.validation][:, tasks],
        )
        mean = float(np.nanmean(scores)) if np.isfinite(scores).any() else 0.0
        return mean if self.kind == "binary" else -mean


Maker = Callable[..., Any]


def _per_task(problem: Problem, x: Any, makers: dict[str, Maker]) -> np.ndarray:
    """One model per task, the best of several on the task's validation rows."""
    found = np.zeros(problem.y.shape)
    for task in range(problem.y.shape[1]):
        y = problem.y[:, task]
        rows = problem.train[np.isfinite(y[problem.train])]
        best = -np.inf
        for make in makers.values():
            own = np.zeros(problem.y.shape)
            own[:, task] = _fitted(problem, make(), x, rows, y)
            good = problem.goodness(own, task)
            if good > best:
                best, found[:, task] = good, own[:, task]
    return found


def _fitted(problem: Problem, model: Any, x: Any, rows: np.ndarray, y: Any) -> Any:
    if len(np.unique(y[rows])) < 2:
        return np.full(len(y), y[rows].mean())
    model.fit(_rows(x, rows), y[rows])
    return _predicted(problem, model, x)


def _rows(x: Any, rows: np.ndarray) -> Any:
    return x.iloc[rows] if isinstance(x, pd.DataFrame) else x[rows]


def _predicted(problem: Problem, model: Any, x: Any) -> np.ndarray:
    if problem.kind == "binary":
        return np.asarray(model.predict_proba(x))[:, 1]
    return np.asarray(model.predict(x))


def linear(problem: Problem, seed: int) -> np.ndarray:
    """Ridge or logistic regression, the penalty chosen per task."""
    from sklearn.linear_model import LogisticRegression, Ridge

    x = data.plain(problem.x, problem.train)
    if problem.kind == "binary":
        strengths = (1e-3, 1e-2, 1e-1, 1.0)
        makers = {
            f"{c}": lambda c=c: LogisticRegression(C=c, max_iter=300) for c in strengths
        }
    else:
        strengths = (1e-1, 1.0, 1e1, 1e2, 1e3)
        makers = {f"{a}": lambda a=a: Ridge(a) for a in strengths}
    return _per_task(problem, x, makers)


def forest(problem: Problem, seed: int) -> np.ndarray:
    """A random forest or extremely randomised trees, one for all tasks of a regression;
    leaves and inputs per division chosen."""
    from sklearn import ensemble

    x = data.plain(problem.x, problem.train)
    options = [
        {"min_samples_leaf": leaf, "max_features": share}
        for leaf in (1, 5)
        for share in (1.0, "sqrt")
    ]
    common = {"n_estimators": 300, "random_state": seed, "n_jobs": 1}
    if problem.kind == "binary":
        makers = {
            str(one): lambda one=one: ensemble.RandomForestClassifier(**common, **one)
            for one in options
            if one["max_features"] == "sqrt"
        }
        return _per_task(problem, x, makers)
    found, best = np.zeros(problem.y.shape), -np.inf
    y = problem.y[problem.train]
    for kind in (ensemble.RandomForestRegressor, ensemble.ExtraTreesRegressor):
        for one in options:
            model = kind(**common, **one).fit(x[problem.train], y)
            own = model.predict(x).reshape(problem.y.shape)
            if problem.goodness(own) > best:
                found, best = own, problem.goodness(own)
    return found


def hist_gradient_boosting(problem: Problem, seed: int) -> np.ndarray:
    """scikit-learn's histogram gradient boosting, rate and leaves chosen per task."""
    from sklearn import ensemble

    names = {"binary": "Classifier", "regression": "Regressor"}
    kind = getattr(ensemble, f"HistGradientBoosting{names[problem.kind]}")
    wide = problem.x.shape[1] > 200
    makers = {
        f"{rate}, {leaves}": lambda rate=rate, leaves=leaves: kind(
            learning_rate=rate,
            max_leaf_nodes=leaves,
            max_iter=200 if wide else 400,
            early_stopping=False,
            categorical_features="from_dtype",
            random_state=seed,
        )
        for rate in (0.05, 0.1)
        for leaves in ((15,) if wide else (15, 31))
    }
    return _per_task(problem, _few_categories(problem.x), makers)


def _few_categories(x: pd.DataFrame) -> pd.DataFrame:
    """Categories of more than 255 values, which are more than it takes, as numbers."""
    many = [c for c in x if x[c].dtype == "category" and x[c].nunique() > 255]
    return x.assign(**{c: x[c].cat.codes.astype(float) for c in many})


def lightgbm(problem: Problem, seed: int) -> np.ndarray:
    """LightGBM at its defaults."""
    import lightgbm as package

    names = {"binary": "LGBMClassifier", "regression": "LGBMRegressor"}
    kind = getattr(package, names[problem.kind])
    make = {"defaults": lambda: kind(random_state=seed, n_jobs=1, verbosity=-1)}
    return _per_task(problem, problem.x, make)


def xgboost(problem: Problem, seed: int) -> np.ndarray:
    """XGBoost at its defaults."""
    import xgboost as package

    names = {"binary": "XGBClassifier", "regression": "XGBRegressor"}
    kind = getattr(package, names[problem.kind])
    options = {"random_state": seed, "n_jobs": 1, "enable_categorical": True}
    return _per_task(problem, problem.x, {"defaults": lambda: kind(**options)})


def realmlp(problem: Problem, seed: int) -> np.ndarray:
    """RealMLP-TD of pytabkit, which takes the validation rows for stopping.

    It takes no missing numbers: they are the column's median of the training rows.
    """
    import pytabkit

    x = problem.x
    x = x.fillna(x.iloc[problem.train].median(numeric_only=True))
    if problem.kind == "regression":
        model = pytabkit.RealMLP_TD_Regressor(device="cpu", random_state=seed)
        model.fit(
            x.iloc[problem.train],
            problem.y[problem.train],
            x.iloc[problem.validation],
            problem.y[problem.validation],
        )
        return np.asarray(model.predict(x)).reshape(problem.y.shape)
    found = np.zeros(problem.y.shape)
    for task in range(problem.y.shape[1]):
        y = problem.y[:, task]
        train, validation = (
            rows[np.isfinite(y[rows])] for rows in (problem.train, problem.validation)
        )
        model = pytabkit.RealMLP_TD_Classifier(device="cpu", random_state=seed)
        model.fit(x.iloc[train], y[train], x.iloc[validation], y[validation])
        found[:, task] = np.asarray(model.predict_proba(x))[:, 1]
    return found


def tabm(problem: Problem, seed: int) -> np.ndarray:
    """TabM of pytabkit, one model per task."""
    import pytabkit

    names = {"binary": "TabM_D_Classifier", "regression": "TabM_D_Regressor"}
    kind = getattr(pytabkit, names[problem.kind])
    found = np.zeros(problem.y.shape)
    for task in range(problem.y.shape[1]):
        y = problem.y[:, task]
        train, validation = (
            rows[np.isfinite(y[rows])] for rows in (problem.train, problem.validation)
        )
        model = kind(device="cpu", random_state=seed)
        x = problem.x
        model.fit(x.iloc[train], y[train], x.iloc[validation], y[validation])
        found[:, task] = _predicted(problem, model, x)
    return found


#: Sides by name: what `--sides` takes, apart from kmtl's own (`kmtl_side.py`).
SIDES: dict[str, Callable[[Problem, int], np.ndarray]] = {
    "linear": linear,
    "forest": forest,
    "hist_gradient_boosting": hist_gradient_boosting,
    "lightgbm": lightgbm,
    "xgboost": xgboost,
    "realmlp": realmlp,
    "tabm": tabm,
}
