"""Every row twice, each time changed anew, to learn what stays the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl.typing import Inputs, Labels

if TYPE_CHECKING:
    from kmtl.data.view_batches import TwoViews

#: Changes the inputs of a batch; draws from the generator.
Change = Callable[[Any, np.random.Generator], Any]


def two_views(
    x: Inputs,
    y: Labels | None = None,
    *,
    task: str,
    change: Change,
    batch_size: int = 64,
    seed: int = 0,
) -> TwoViews:
    """Batches in which every row comes twice, for `kmtl.Embedding` without labels.

    The two views of a row have one label, their place in the batch: with
    `loss="contrastive"` that is InfoNCE (NT-Xent), with the other rows' views as
    negatives.

    Args:
        x: Inputs, an array or a dict of arrays.
        y: Dict task name -> labels of the other tasks, which both views have.
        task: Name of the `kmtl.Embedding`.
        change: Function `(inputs of a batch, numpy generator)` that gives changed
            inputs of the same shape: crops, noise, missing words. It is called twice
            for each batch.
        batch_size: Rows of a batch before they are doubled, >= 2. Defaults to 64. A
            last row alone is left out.
        seed: Integer >= 0: same seed, same order and changes, epoch by epoch.

    Returns:
        A `keras.utils.PyDataset` for `fit`.

    Example:

    >>> def noise(rows, rng):
    ...     return rows + 0.1 * rng.normal(size=rows.shape)
    >>> x = np.random.default_rng(0).normal(size=(6, 4))
    >>> views = kmtl.data.two_views(x, task="face", change=noise, batch_size=3)
    >>> inputs, labels = views[0]
    >>> inputs.shape, labels["face"].tolist()
    ((6, 4), [0, 1, 2, 0, 1, 2])
    >>> face = kmtl.Embedding("face", dimensions=2, loss="contrastive")
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=[face], units=(8,), seed=0)
    >>> model.compile("adam")
    >>> logs = model.fit(views, verbose=0).history

    Reference: Chen et al. (SimCLR), ICML 2020, arXiv:2002.05709.
    """
    from kmtl.data.view_batches import TwoViews  # loads Keras

    return TwoViews(x, y, task=task, change=change, batch_size=batch_size, seed=seed)
