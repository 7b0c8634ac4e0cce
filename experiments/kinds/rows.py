"""Examples whose rows come from tables: ordinal, zero-inflated, quantile, distribution,
survival."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
from example import Errors, Example, parts_of
from sklearn.linear_model import LinearRegression, QuantileRegressor
from sklearn.metrics import mean_pinball_loss

import kmtl

LEVELS = (0.05, 0.5, 0.95)


def train(
    frame: pandas.DataFrame, tasks: dict, parts: dict, seed: int, fast: bool
) -> tuple[kmtl.MultiTaskModel, dict[str, np.ndarray]]:
    """A model with the defaults for tables, and what it says of the test rows."""
    data = kmtl.data.from_dataframe(frame, tasks, split=parts, verbose=False)
    model = kmtl.build(
        backbone="tabular", inputs=data.inputs, tasks=data.tasks, seed=seed
    )
    recipe = kmtl.Recipe(epochs=1) if fast else kmtl.Recipe()
    recipe.fit(model, data.train, validation_data=data.validation, verbose=0)
    return model, model.predict(frame.iloc[parts["test"]], verbose=0)


def numbers(frame: pandas.DataFrame, parts: dict) -> tuple[np.ndarray, np.ndarray]:
    """Columns for scikit-learn: one-hot, filled and standardized by training rows."""
    x = pandas.get_dummies(frame).astype(float)
    known = x.iloc[parts["train"]]
    x = (x.fillna(known.median()) - known.mean()) / known.std().replace(0, 1)
    fitted = np.concatenate([parts["train"], parts["validation"]])
    return x.iloc[fitted].to_numpy(), x.iloc[parts["test"]].to_numpy()


def fair(fast: bool) -> pandas.DataFrame:
    if not fast:
        from statsmodels.datasets import fair

        return fair.load_pandas().data
    rng = np.random.default_rng(0)
    columns = ("age", "yrs_married", "children", "religious", "educ", "occupation")
    drawn = {name: rng.normal(size=80) for name in columns}
    drawn["rate_marriage"] = 1 + np.arange(80) % 5
    drawn["affairs"] = np.maximum(rng.normal(size=80), 0)
    return pandas.DataFrame(drawn)


def of_grades(x: np.ndarray, y: np.ndarray, test: np.ndarray, fast: bool) -> np.ndarray:
    """Probabilities of the proportional odds model."""
    if fast:
        return np.full((len(test), 5), 0.2)
    from statsmodels.miscmodels.ordinal_model import OrderedModel

    model = OrderedModel(y, x, distr="logit").fit(
        method="bfgs", disp=False, maxiter=200
    )
    return model.model.predict(model.params, test)


def marriage(folder: Path, seed: int, fast: bool) -> dict[str, Errors]:
    frame = fair(fast)
    frame["rate_marriage"] = frame["rate_marriage"].astype(int) - 1
    parts = parts_of(len(frame), seed)
    tasks = {
        kmtl.Ordinal("rate", classes=5): "rate_marriage",
        kmtl.ZeroInflated("affairs"): "affairs",
    }
    _, found = train(frame, tasks, parts, seed, fast)
    fitted, test = numbers(frame.drop(columns=["rate_marriage", "affairs"]), parts)
    known = np.concatenate([parts["train"], parts["validation"]])

    rate = frame["rate_marriage"].to_numpy()
    beside = of_grades(fitted, rate[known], test, fast)

    def off(probabilities: np.ndarray) -> float:
        median = (np.cumsum(probabilities, axis=1) < 0.5).sum(axis=1)
        return float(np.abs(median - rate[parts["test"]]).mean())

    middle = np.abs(np.median(rate[known]) - rate[parts["test"]]).mean()
    ours = np.exp(np.float64(found["rate"]))
    affairs = frame["affairs"].to_numpy()
    line = LinearRegression().fit(fitted, affairs[known]).predict(test)

    def root(predicted: np.ndarray) -> float:
        return float(np.sqrt(np.mean((predicted - affairs[parts["test"]]) ** 2)))

    return {
        "ordinal": Errors(off(ours), off(beside), middle),
        "zero_inflated": Errors(
            root(found["affairs"][:, 0]), root(line), root(affairs[known].mean())
        ),
    }


def days(folder: Path, fast: bool) -> pandas.DataFrame:
    if fast:
        rng = np.random.default_rng(0)
        columns = ("station", "Present_Tmax", "Present_Tmin", "LDAPS_Tmax_lapse")
        drawn = {name: rng.normal(size=300) for name in columns}
        drawn["Next_Tmax"], drawn["Next_Tmin"] = rng.normal(size=(2, 300))
        drawn["station"] = np.arange(300) % 5
        drawn["Date"] = np.repeat(
            pandas.date_range("2013-06-30", periods=20).tolist()
            + pandas.date_range("2017-06-30", periods=40).tolist(),
            5,
        ).astype(str)
        return pandas.DataFrame(drawn)
    path = folder / "multitask_classic" / "Bias_correction_ucl.csv.gz"
    frame = pandas.read_csv(path)
    there = frame[["station", "Date", "Next_Tmax", "Next_Tmin"]].notna().all(axis=1)
    return frame[there].reset_index(drop=True)


def by_year(frame: pandas.DataFrame, seed: int) -> dict[str, np.ndarray]:
    """The last year tests; a fifth of the days before, by chance, validate."""
    year = pandas.to_datetime(frame["Date"]).dt.year
    before = np.unique(frame["Date"][year < year.max()])
    chosen = np.random.default_rng(seed).permutation(before)[: len(before) // 5]
    validation = frame["Date"].isin(chosen)
    return {
        "train": np.flatnonzero((year < year.max()) & ~validation),
        "validation": np.flatnonzero(validation),
        "test": np.flatnonzero(year == year.max()),
    }


def tomorrow(folder: Path, seed: int, fast: bool) -> dict[str, Errors]:
    frame = days(folder, fast)
    parts = by_year(frame, seed)
    frame["station"] = frame["station"].astype(int).astype(str)
    frame = frame.drop(columns="Date")
    tasks = {
        kmtl.Quantile("high", transform="standardize", unit="°C"): "Next_Tmax",
        kmtl.Distribution("low", transform="standardize", unit="°C"): "Next_Tmin",
    }
    _, found = train(frame, tasks, parts, seed, fast)
    fitted, test = numbers(frame.drop(columns=["Next_Tmax", "Next_Tmin"]), parts)
    known = np.concatenate([parts["train"], parts["validation"]])
    high, low = frame["Next_Tmax"].to_numpy(), frame["Next_Tmin"].to_numpy()

    def pinball(each: np.ndarray) -> float:
        rows = high[parts["test"]]
        pairs = zip(LEVELS, each.T, strict=True)
        return float(np.mean([mean_pinball_loss(rows, q, alpha=a) for a, q in pairs]))

    lines = [
        QuantileRegressor(quantile=a, alpha=0).fit(fitted, high[known]).predict(test)
        for a in LEVELS
    ]
    same = np.tile(np.quantile(high[known], LEVELS), (len(test), 1))

    def crps(place: np.ndarray, spread: float | np.ndarray) -> float:
        from scipy.stats import norm

        z = (low[parts["test"]] - place) / spread
        each = z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi)
        return float(np.mean(spread * each))

    line = LinearRegression().fit(fitted, low[known])
    spread = (low[known] - line.predict(fitted)).std()
    return {
        "quantile": Errors(
            pinball(found["high"]), pinball(np.transpose(lines)), pinball(same)
        ),
        "distribution": Errors(
            crps(found["low"][:, 0], found["low"][:, 1]),
            crps(line.predict(test), spread),
            crps(low[known].mean(), low[known].std()),
        ),
    }


def patients(fast: bool) -> pandas.DataFrame:
    if not fast:
        from lifelines.datasets import load_gbsg2

        return load_gbsg2()
    rng = np.random.default_rng(0)
    drawn = pandas.DataFrame(
        rng.normal(size=(80, 3)), columns=["age", "tsize", "nodes"]
    )
    return drawn.assign(time=rng.exponential(900, 80) + 1, cens=np.arange(80) % 2)


def of_hazards(
    x: np.ndarray, y: pandas.DataFrame, test: np.ndarray, fast: bool
) -> np.ndarray:
    """Logarithms of Cox' factors."""
    if fast:
        return test[:, 0]
    from lifelines import CoxPHFitter

    def named(x: np.ndarray) -> pandas.DataFrame:
        return pandas.DataFrame(x).add_prefix("x")

    rows = named(x).assign(time=y["time"].to_numpy(), cens=y["cens"].to_numpy())
    cox = CoxPHFitter(penalizer=0.01).fit(rows, "time", "cens")
    return cox.predict_log_partial_hazard(named(test)).to_numpy()


def recurrence(folder: Path, seed: int, fast: bool) -> dict[str, Errors]:
    frame = patients(fast)
    parts = parts_of(len(frame), seed)
    tasks = {kmtl.Survival("recurrence"): ["time", "cens"]}
    _, found = train(frame, tasks, parts, seed, fast)
    fitted, test = numbers(frame.drop(columns=["time", "cens"]), parts)
    known = np.concatenate([parts["train"], parts["validation"]])
    beside = of_hazards(fitted, frame[["time", "cens"]].iloc[known], test, fast)
    time, seen = frame[["time", "cens"]].to_numpy()[parts["test"]].T

    def wrong(risk: np.ndarray) -> float:
        return 100 * (1 - concordance(time, np.ravel(risk), seen > 0))

    return {
        "survival": Errors(
            wrong(found["recurrence"]), wrong(beside), wrong(np.zeros(len(time)))
        )
    }


def concordance(time: np.ndarray, risk: np.ndarray, seen: np.ndarray) -> float:
    """Harrell's: of pairs of which one is known to be first, where it has more risk."""
    first = seen[:, None] & (time[:, None] < time[None, :])
    first |= seen[:, None] & ~seen[None, :] & (time[:, None] == time[None, :])
    more = np.sign(risk[:, None] - risk[None, :]) / 2 + 0.5
    return float(more[first].mean())


EXAMPLES = (
    Example(
        marriage,
        {
            "ordinal": "how happy a marriage is said to be, in five "
            "grades; MAE in grades",
            "zero_inflated": "how much time goes into affairs, often none; RMSE",
        },
        "6,366 women (`statsmodels.datasets.fair`), one model for both",
        "statsmodels' `OrderedModel` (logit), scikit-learn's `LinearRegression`",
    ),
    Example(
        tomorrow,
        {
            "quantile": "tomorrow's highest temperature at 5, 50 and 95 %; "
            "pinball loss, °C",
            "distribution": "tomorrow's lowest, a normal distribution; CRPS, °C",
        },
        "7,700 days of 25 stations in Seoul, what the weather model says and what was "
        "measured; the last summer tests, one model for both",
        "scikit-learn's `QuantileRegressor`, `LinearRegression` with its spread",
    ),
    Example(
        recurrence,
        {"survival": "who has the cancer back first; 100 - concordance in %"},
        "686 patients (`lifelines.datasets.load_gbsg2`)",
        "lifelines' `CoxPHFitter(penalizer=0.01)`",
    ),
)
