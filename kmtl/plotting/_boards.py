"""Trials of a search for TensorBoard's HParams tab."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl.typing import PathLike

if TYPE_CHECKING:
    import pandas

#: End of the names of the files written here, which another call replaces.
SUFFIX = ".kmtl"


def write_boards(
    table: pandas.DataFrame, curves: pandas.DataFrame, folder: PathLike
) -> Path:
    """What a tuner's `results(all_columns=True)` and `curve_table()` have."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ValueError(
            "`to_tensorboard` needs TensorFlow, which writes the files, on every "
            "backend: install it, or take `results()` and `curve_table()`."
        )
    from tensorboard.plugins.hparams import api, api_pb2
    from tensorboard.plugins.hparams.summary import session_end_pb

    from kmtl.data.cleaning import tensorflow

    tf, root = tensorflow(), Path(folder)
    ends = {"COMPLETED": "SUCCESS", "FAILED": "FAILURE", "INVALID": "FAILURE"}
    logs = list(curves.columns[5:])
    names = table.attrs["hyperparameters"]
    with _writer(tf, root):
        api.hparams_config(
            hparams=[api.HParam(name) for name in names],
            metrics=[api.Metric(name) for name in sorted(logs, key=_validation_first)],
        )
    for trial, row in table.iterrows():
        means = curves[curves["trial"] == trial].groupby("epoch")[logs].mean()
        with _writer(tf, root / f"trial_{trial}"):
            api.hparams(_values({n: row[n] for n in names}), trial_id=str(trial))
            for epoch, values in means.iterrows():
                for name, value in values.dropna().items():
                    tf.summary.scalar(name, float(value), step=int(epoch))
            if row["status"] in ends:
                status = getattr(api_pb2, f"STATUS_{ends[row['status']]}")
                end = session_end_pb(status).SerializeToString()
                tf.summary.experimental.write_raw_pb(end, step=0)
    return root


def _writer(tf: Any, folder: Path) -> Any:
    """What writes to a folder, in the place of what was written there before."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
        old.unlink()
    made = tf.summary.create_file_writer(str(folder), filename_suffix=SUFFIX)
    return made.as_default()


def _validation_first(log: str) -> bool:
    """TensorBoard shows the metrics in the order in which they are given."""
    return not log.startswith("val_")


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    """Those that count in the trial, as TensorBoard takes them."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        value = value.item() if isinstance(value, np.generic) else value
        if value is None or (isinstance(value, float) and math.isnan(value)):
            continue
        known = isinstance(value, (bool, int, float, str))
        found[name] = value if known else str(value)
    return found
