"""A model whose heads are single layers, made of one in which many are one layer."""

from __future__ import annotations

from typing import Any

import keras

from kmtl.layers.copying import copy_state, copy_tables
from kmtl.layers.head_group import HeadGroup, HeadOfGroup
from kmtl.layers.named import remade
from kmtl.training.model import MultiTaskModel
from kmtl.typing import Layer, Model


def ungrouped(model: Model) -> Model:
    """The same model with a layer of its own for each task's head.

    The builders make the heads of a dozen tasks alike, or more, as one layer, which is
    much faster. To freeze one of them, say, or for an optimizer that looks at whole
    variables (`Lamb`, `Muon`, or `clipnorm`), take them apart.

    Args:
        model: A `kmtl.MultiTaskModel`. It stays as it is.

    Returns:
        A `kmtl.MultiTaskModel` with the same names and values, not compiled.

    Example:

    >>> tasks = [kmtl.Regression(f"y{i}") for i in range(12)]
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8,), seed=0)
    >>> [layer.name for layer in model.layers if layer.trainable_variables]
    ['shared_block1_dense', 'grouped_heads_logits']
    >>> single = kmtl.ungrouped(model)
    >>> len([layer for layer in single.layers if layer.trainable_variables])
    13
    >>> x = np.ones((2, 4), "float32")
    >>> bool(np.allclose(single(x)["y3"], model(x)["y3"]))
    True
    """
    made: list[tuple[Layer, Layer]] = []

    def taken_apart(layer: Layer) -> Any:
        if not isinstance(layer, keras.layers.Layer):  # an operation of keras.ops
            return layer.__class__.from_config(layer.get_config())
        if isinstance(layer, (HeadGroup, HeadOfGroup)):
            new = layer.to_keras()
            new.trainable = _group(layer).trainable
        else:
            new = remade(layer)
            copy_tables(layer, new)  # before it is called
        made.append((layer, new))
        return new

    # Of a plain model, whose class says nothing of how to make it again.
    plain = keras.Model(model.input, model.output, name=model.name)
    copy = keras.models.clone_model(plain, clone_function=taken_apart)
    single = MultiTaskModel(copy.input, copy.output, name=model.name)
    for source, new in made:
        if isinstance(source, HeadOfGroup):
            new.set_weights(source.get_weights())
        elif not isinstance(source, HeadGroup):
            copy_state(source, new)
    for name, layer in single.task_outputs.items():
        layer.set_loss(model.task_outputs[name].replaced_loss)
    single.built_with = model.built_with
    return single


def _group(layer: HeadGroup | HeadOfGroup) -> HeadGroup:
    return layer if isinstance(layer, HeadGroup) else layer.group
