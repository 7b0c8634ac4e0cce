"""A forest of decision trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class DecisionTrees(keras.layers.Layer):
    """The mean of many decision trees that were grown elsewhere.

    From its root a row goes to a node's left child where its column is at most the
    node's threshold, else to the right one, and takes the value of the leaf where it
    ends. `DecisionTrees.of(forest)` makes the layer from a forest of scikit-learn.
    Training does not change it.

    Args:
        trees: Number of trees.
        nodes: Of all trees together.
        depth: Steps from a root to its furthest leaf.
        units: Numbers in a leaf.

    Call arguments:
        inputs: `(N, columns)`.

    Returns:
        `(N, units)`, in float32: the mean of the leaves' values.

    Weights:
        `roots (trees,)`, the numbers of their nodes; and, one after the other for all
        nodes, `column`, `threshold`, `left`, `right` and `value (nodes, units)`. A leaf
        is its own child on both sides.

    Example:

    >>> from sklearn.ensemble import ExtraTreesRegressor
    >>> x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
    >>> forest = ExtraTreesRegressor(5, random_state=0).fit(x, x[:, 0])
    >>> layer = kmtl.layers.DecisionTrees.of(forest, columns=3)
    >>> bool(np.allclose(layer(x)[:, 0], forest.predict(x), atol=1e-6))
    True
    """

    def __init__(self, trees: int, nodes: int, depth: int, units: int, **options: Any):
        super().__init__(**{"dtype": "float32", **options})
        self.trees = _checks.check_int("trees", trees, 1)
        self.nodes = _checks.check_int("nodes", nodes, 1)
        self.depth = _checks.check_int("depth", depth, 0)
        self.units = _checks.check_int("units", units, 1)

    @classmethod
    def of(cls, forest: Any, columns: int, **options: Any) -> DecisionTrees:
        """The layer that says what a fitted forest of scikit-learn says.

        Args:
            forest: A `RandomForest` or `ExtraTrees` of one output. Of a classifier, the
                layer gives the shares of its classes.
            columns: Number of the input's columns.
            **options: Of the layer, such as `name`.
        """
        trees = [tree.tree_ for tree in forest.estimators_]
        sizes = [tree.node_count for tree in trees]
        roots = np.cumsum([0, *sizes[:-1]])
        left: list[np.ndarray] = []
        right: list[np.ndarray] = []
        for root, tree in zip(roots, trees, strict=True):
            own = np.arange(tree.node_count)
            for children, found in (
                (tree.children_left, left),
                (tree.children_right, right),
            ):
                found.append(root + np.where(children < 0, own, children))
        value = np.concatenate([tree.value[:, 0, :] for tree in trees])
        if hasattr(forest, "classes_"):
            value = value / value.sum(axis=1, keepdims=True)
        depth = max(tree.max_depth for tree in trees)
        layer = cls(len(trees), len(value), depth, value.shape[1], **options)
        layer.build((None, columns))
        layer.set_weights(
            [
                roots,
                np.maximum(np.concatenate([tree.feature for tree in trees]), 0),
                _at_most(np.concatenate([tree.threshold for tree in trees])),
                np.concatenate(left),
                np.concatenate(right),
                value,
            ]
        )
        return layer

    def build(self, input_shape: Shape) -> None:
        def held(name: str, dtype: str, *shape: int) -> Any:
            return self.add_weight(
                name=name,
                shape=shape,
                dtype=dtype,
                initializer="zeros",
                trainable=False,
            )

        self.roots = held("roots", "int32", self.trees)
        self.column = held("column", "int32", self.nodes)
        self.threshold = held("threshold", "float32", self.nodes)
        self.left = held("left", "int32", self.nodes)
        self.right = held("right", "int32", self.nodes)
        self.value = held("value", "float32", self.nodes, self.units)
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return self._mean(
            inputs,
            *(self.roots, self.column, self.threshold),
            *(self.left, self.right, self.value),
        )

    def _mean(self, inputs: Tensor, *parts: Any) -> Tensor:
        roots, column, threshold, left, right, value = map(ops.convert_to_tensor, parts)
        x = ops.cast(inputs, "float32")
        rows = ops.zeros_like(x[:, :1], dtype="int32")
        node = ops.expand_dims(roots, 0) + rows

        def step(_: Any, node: Tensor) -> Tensor:
            seen = ops.take_along_axis(x, ops.take(column, node), axis=1)
            goes_left = seen <= ops.take(threshold, node)
            return ops.where(goes_left, ops.take(left, node), ops.take(right, node))

        node = ops.fori_loop(0, self.depth, step, node)
        return ops.mean(ops.take(value, node, axis=0), axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> Config:
        names = ("trees", "nodes", "depth", "units")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _at_most(thresholds: Sequence[float] | np.ndarray) -> np.ndarray:
    """The largest float32 that is no larger: the same float32 pass it."""
    most = np.finfo("float32").max
    exact = np.clip(np.asarray(thresholds, "float64"), -most, most)
    found = exact.astype("float32")
    return np.where(found > exact, np.nextafter(found, np.float32(-np.inf)), found)
