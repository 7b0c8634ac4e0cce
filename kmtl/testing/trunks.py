"""The batteries for backbones and sharing schemes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kmtl.backbones.base import Backbone
from kmtl.sharing.base import Sharing
from kmtl.sharing.hard import HardSharing
from kmtl.tasks.base import Task
from kmtl.tasks.classification import Classification
from kmtl.tasks.regression import Regression
from kmtl.testing._models import (
    IMAGES,
    VECTORS,
    check_outputs,
    exercise,
    model_of,
    one_array,
    through_json,
)
from kmtl.testing._running import dtype_policy, refused, run
from kmtl.typing import Inputs


def tasks_and_labels(x: Inputs) -> tuple[list[Task], dict[str, np.ndarray]]:
    """A classification and a regression, with labels for these inputs."""
    first = one_array(x)
    second = first.reshape(len(first), -1)[:, 0]
    labels = {"t": np.arange(len(first)) % 3, "second": second}
    return [Classification("t", classes=3), Regression("second")], labels


def check_backbone_config(backbone: Backbone, x: Inputs) -> None:
    """The config gives an equal backbone; shapes that do not fit are refused."""
    assert Backbone.from_config(through_json(backbone.to_config())) == backbone
    assert backbone.num_blocks >= 1
    with refused("`input_shape` of backbone"):
        backbone.check_input_shape((2,) * 9)


def check_every_depth(backbone: Backbone, x: Inputs) -> None:
    """Any number of its blocks can be shared; the depth in all stays the same."""
    tasks, _ = tasks_and_labels(x)
    shapes, sizes = set(), []
    for depth in range(backbone.num_blocks + 1):
        model = model_of(tasks, x, backbone, HardSharing(depth=depth))
        shapes.add(tuple(model(x)["second"].shape))
        sizes.append(model.count_params())
    assert shapes == {(len(one_array(x)), 1)}
    assert sizes == sorted(sizes, reverse=True), "sharing a block must save parameters"


def check_half_precision(backbone: Backbone, x: Inputs) -> None:
    """In half precision the outputs are in float32, and about the same."""
    tasks, _ = tasks_and_labels(x)
    full = model_of(tasks, x, backbone)(x)
    for policy in ("mixed_float16", "mixed_bfloat16"):
        with dtype_policy(policy):
            half = model_of(tasks, x, backbone)(x)
        check_outputs(half)
        for name, output in full.items():
            np.testing.assert_allclose(half[name], output, atol=0.1)


def check_backbone_training(backbone: Backbone, x: Inputs) -> None:
    """A model on it trains, and is saved and loaded."""
    tasks, labels = tasks_and_labels(x)
    exercise(model_of(tasks, x, backbone), x, labels)


BACKBONE_CHECKS = (
    check_backbone_config,
    check_every_depth,
    check_half_precision,
    check_backbone_training,
)


def check_backbone(backbone: Any, x: Inputs | None = None) -> None:
    """Run kmtl's own contract tests on a backbone.

    Config, every sharing depth, half precision, training and saving.

    Args:
        backbone: An object, or a class that needs no arguments; small, for time.
        x: Inputs of at least two rows, float32, or a dict input name -> inputs.
            Defaults to six images of 5 x 5 x 1, or six vectors of 5 or series of 5 x 5
            where the backbone takes no images.

    Raises:
        AssertionError: from the first check that fails; its notes say what it checks.
        TypeError: if it is no backbone of kmtl.

    Example:

    >>> kmtl.testing.check_backbone(kmtl.backbones.MLP(units=(4, 3)))
    """
    backbone = backbone() if isinstance(backbone, type) else backbone
    if not isinstance(backbone, Backbone):
        raise TypeError(
            "`backbone` must be a subclass of kmtl.backbones.Backbone, or an object of "
            f"one. Received: {backbone!r}"
        )
    if x is None:
        candidates = (IMAGES, VECTORS, IMAGES[..., 0])
        x = next((one for one in candidates if _takes(backbone, one)), VECTORS)
    if not isinstance(x, Mapping):
        x = np.asarray(x, "float32")
    run(BACKBONE_CHECKS, backbone, x)


def _takes(backbone: Backbone, x: np.ndarray) -> bool:
    try:
        backbone.check_input_shape(x.shape[1:])
    except ValueError:
        return False
    return True


def check_sharing_config(
    sharing: Sharing, backbone: Any, tasks: Sequence[Task], labels: Any, x: Inputs
) -> None:
    """The config gives an equal scheme."""
    assert Sharing.from_config(through_json(sharing.to_config())) == sharing


def check_order_of_tasks(
    sharing: Sharing, backbone: Any, tasks: Sequence[Task], labels: Any, x: Inputs
) -> None:
    """The order of the tasks does not matter to their outputs."""
    one = model_of(tasks, x, backbone, sharing)(x)
    two = model_of(tasks[::-1], x, backbone, sharing)(x)
    for name, output in one.items():
        np.testing.assert_allclose(output, two[name], rtol=1e-5, atol=1e-6)


def check_sharing_training(
    sharing: Sharing, backbone: Any, tasks: Sequence[Task], labels: Any, x: Inputs
) -> None:
    """A model trains, the gradient reaches every parameter, and it is saved."""
    exercise(model_of(tasks, x, backbone, sharing), x, labels)


SHARING_CHECKS = (check_sharing_config, check_order_of_tasks, check_sharing_training)


def check_sharing(
    sharing: Any,
    backbone: Any = None,
    tasks: Sequence[Task] | None = None,
    labels: Mapping[str, Any] | None = None,
    x: Inputs | None = None,
) -> None:
    """Run kmtl's own contract tests on a sharing scheme.

    Config, no meaning in the order of the tasks, training with a gradient for every
    parameter, saving.

    Args:
        sharing: An object, or a class that needs no arguments.
        backbone: A small backbone object. Defaults to two blocks that fit `x`.
        tasks: Tasks that the scheme takes. Default to a classification `"t"` and a
            regression `"second"`.
        labels: Dict task name -> labels without a missing one, for `tasks`.
        x: Inputs of at least two rows, float32. Defaults to six images of 5 x 5 x 1.

    Raises:
        AssertionError: from the first check that fails; its notes say what it checks.
        TypeError: if it is no sharing scheme of kmtl.

    Example:

    >>> kmtl.testing.check_sharing(kmtl.sharing.HardSharing)
    """
    sharing = sharing() if isinstance(sharing, type) else sharing
    if not isinstance(sharing, Sharing):
        raise TypeError(
            "`sharing` must be a subclass of kmtl.sharing.Sharing, or an object. "
            f"Received: {sharing!r}"
        )
    inputs = IMAGES if x is None else np.asarray(x, "float32")
    if tasks is None or labels is None:
        tasks, labels = tasks_and_labels(inputs)
    run(SHARING_CHECKS, sharing, backbone, list(tasks), dict(labels), inputs)
