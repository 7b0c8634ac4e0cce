"""A table for the tests: numbers, text, missing cells and labels; three targets."""

from __future__ import annotations

import numpy as np
import pandas as pd

ROWS = 160
TARGETS = ["price in $", "sold", "stars"]


def houses(rows: int = ROWS) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rooms = rng.integers(1, 8, rows).astype(float)
    area = 20 * rooms + rng.normal(scale=10, size=rows)
    town = rng.choice(["Ulm", "Bonn", "Köln"], rows)
    price = 50.0 * rooms + area + 100 * (town == "Köln") + rng.normal(size=rows)
    frame = pd.DataFrame(
        {
            "rooms": np.where(rng.random(rows) < 0.2, np.nan, rooms),
            "area": area,
            "town": np.where(rng.random(rows) < 0.1, None, town.astype(object)),
            "price in $": np.where(rng.random(rows) < 0.1, np.nan, price),
            "sold": np.where(price > 400, "yes", "no"),
            "stars": np.digitize(price + rng.normal(scale=60, size=rows), [300, 500]),
        }
    )
    frame["stars"] += 2
    return frame.set_index(np.arange(rows)[::-1])  # the index says nothing
