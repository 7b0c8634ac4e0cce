"""Inputs that are made harder before a net learns from them: attacks, and noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl._one_model import OneModel
from kmtl.typing import Config, Model, Tensor


class Adversary(OneModel, keras.layers.Layer):
    """Base class of what `compile(adversary=...)` takes: a change of a batch's inputs.

    A subclass says in `change` what becomes of the inputs. Labels, and inputs that are
    themselves a task's target, stay as they are.

    Sizes and bounds count in the unit of what the model is given: where the model
    scales an input itself (`keras.layers.Normalization`, a `kmtl.inputs` kind of
    floats), in that of the input before. In a `kmtl.inputs.Table`, whose columns have
    units of their own, 1 is the width of the middle half of a column's training rows,
    and its booleans, categories and flags for missing cells stay as they are.

    Args:
        tasks: Names of the tasks whose loss is raised, the sum of their weighted
            losses. Defaults to all.
        inputs: Names of the inputs that are changed. Defaults to all.
        bounds: Smallest and largest number that an input may have, such as (0, 1) for
            images. Defaults to none.
        share: Share of a batch's rows that are changed, in (0, 1]; the others stay
            clean. Defaults to 1.
        seed: Int of what is drawn at random, or None for an arbitrary one.
    """

    built: bool
    #: The changed inputs depend on the model.
    attacks: bool = True

    def __init__(
        self,
        *,
        tasks: Sequence[str] | None = None,
        inputs: Sequence[str] | None = None,
        bounds: Sequence[float] | None = None,
        share: float = 1.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        name = f"{type(self).__name__.lower()}_adversary"
        super().__init__(**{"dtype": "float32", "name": name, **kwargs})
        self.tasks = _names("tasks", tasks)
        self.inputs = _names("inputs", inputs)
        self.bounds = None
        if bounds is not None:
            low, high = (float(bound) for bound in bounds)
            if not low < high:
                raise ValueError(
                    "`bounds` must be two numbers, the smaller one first. "
                    f"Received: bounds={tuple(bounds)}"
                )
            self.bounds = (low, high)
        self.share = _checks.check_range("share", share, 0, 1, low_open=True)
        self.seed = None if seed is None else _checks.check_int("seed", seed)
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.built = True

    def change(
        self, inputs: list[Tensor], gradient: Callable[[list], list]
    ) -> list[Tensor]:
        """The changed inputs.

        Args:
            inputs: Float32 tensors `(N, ...)`.
            gradient: Function of such inputs that gives the gradients of the loss.
        """
        raise NotImplementedError

    def within(self, inputs: list[Tensor]) -> list[Tensor]:
        """Inputs that are brought within `bounds`."""
        if self.bounds is None:
            return inputs
        return [ops.clip(part, *self.bounds) for part in inputs]

    def shown(self, inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor] | None]:
        """Changed inputs as the net gets them, and what of them is hidden from it.

        Returns:
            The inputs, and bool tensors of their shape, on which alone a task learns
            whose target is the input; None (default) for all of them.
        """
        return inputs, None

    def check(self, model: Model) -> None:
        """Refuse a model whose inputs cannot be changed by a small step.

        Raises:
            ValueError: naming the input, or the task that there is not.
        """
        names = [tensor.name for tensor in model.inputs]
        for argument, given, known in (
            ("task", self.tasks, model.task_names),
            ("input", self.inputs, names),
        ):
            for name in given or ():
                if name not in known:
                    raise ValueError(_checks.unknown_name(argument, name, known))
        for tensor in model.inputs:
            if tensor.name in (self.inputs or names):
                spec = model.input_specs.get(tensor.name)
                sizes = None if spec is None else spec.step_sizes()
                if not keras.backend.is_float_dtype(tensor.dtype):
                    problem = f"dtype {tensor.dtype}"
                elif sizes is not None and not sizes.any():
                    found = ", ".join(spec.takes_columns())
                    problem = f"a {type(spec).__name__} without numbers: {found}"
                elif (
                    self.bounds is not None
                    and sizes is not None
                    and not np.isin(sizes, (0, 1)).all()
                ):
                    raise ValueError(
                        f"`bounds` are for inputs of one unit, and input "
                        f"'{tensor.name}' is a {type(spec).__name__}: leave them out, "
                        "or name the inputs to change as `inputs=`. "
                        f"Received: bounds={self.bounds}"
                    )
                else:
                    continue
                raise ValueError(
                    f"Input '{tensor.name}' must be an array of floats, to be changed "
                    "by a small step: give images as kmtl.inputs.Image(shape, dtype="
                    "'float32') or input_dtype='float32'; or name the inputs to change "
                    f"as `inputs=`. Received: {problem}"
                )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "tasks": self.tasks,
            "inputs": self.inputs,
            "bounds": self.bounds,
            "share": self.share,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="kmtl")
class FGSM(Adversary):
    """One step of size `epsilon` along the sign of the gradient of the loss.

    Formula: x + epsilon sign(dL/dx). Of the training loss, without dropout and with
    the moving statistics of batch normalization. `share=0.5` trains on clean and
    attacked rows alike, as the paper does.

    Args:
        epsilon: Size of the step, > 0, in the unit of the inputs (of a table, see
            `kmtl.training.Adversary`).
        **kwargs: `tasks`, `inputs`, `bounds`, `share`, `seed`: see
            `kmtl.training.Adversary`.

    Cost: one more pass forward and back.

    Example:

    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=[kmtl.Regression("size")])
    >>> model.compile("adam", adversary=kmtl.training.FGSM(0.1))
    >>> history = model.fit(np.ones((8, 4)), np.zeros(8), verbose=0)

    Reference: Goodfellow, Shlens, Szegedy, "Explaining and Harnessing Adversarial
    Examples", ICLR 2015, arXiv:1412.6572.
    """

    def __init__(self, epsilon: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.epsilon = _checks.check_range("epsilon", epsilon, 0, low_open=True)

    def change(
        self, inputs: list[Tensor], gradient: Callable[[list], list]
    ) -> list[Tensor]:
        found = gradient(inputs)
        return self.within(
            [x + self.epsilon * _sign(g) for x, g in zip(inputs, found, strict=True)]
        )

    def get_config(self) -> Config:
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="kmtl")
class PGD(Adversary):
    """Projected gradient descent: several steps, none further than `epsilon`.

    Formula: x <- clip(x + step_size sign(dL/dx), x0 - epsilon, x0 + epsilon), from a
    random point within epsilon of x0.

    Args:
        epsilon: Largest change of a number, > 0, in the unit of the inputs.
        steps: Number of steps, >= 1. Defaults to 7.
        step_size: Size of a step. Defaults to 2.5 epsilon / steps.
        random_start: Whether to begin at a random point. Defaults to True.
        **kwargs: `tasks`, `inputs`, `bounds`, `share`, `seed`: see
            `kmtl.training.Adversary`.

    Cost: `steps` more passes forward and back.

    Example:

    >>> attack = kmtl.training.PGD(0.03, steps=10, bounds=(0, 1))
    >>> round(attack.step_size, 4)
    0.0075

    Reference: Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models
    Resistant to Adversarial Attacks", ICLR 2018, arXiv:1706.06083.
    """

    def __init__(
        self,
        epsilon: float,
        steps: int = 7,
        step_size: float | None = None,
        random_start: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.epsilon = _checks.check_range("epsilon", epsilon, 0, low_open=True)
        self.steps = _checks.check_int("steps", steps, 1)
        size = 2.5 * self.epsilon / self.steps if step_size is None else step_size
        self.step_size = _checks.check_range("step_size", size, 0, low_open=True)
        self.random_start = bool(random_start)

    def change(
        self, inputs: list[Tensor], gradient: Callable[[list], list]
    ) -> list[Tensor]:
        now = inputs
        if self.random_start:
            now = [
                x
                + keras.random.uniform(
                    ops.shape(x),
                    -self.epsilon,
                    self.epsilon,
                    dtype="float32",
                    seed=self.seed_generator,
                )
                for x in inputs
            ]
            now = self.within(now)
        for _ in range(self.steps):
            found = gradient(now)
            moved = [
                x + self.step_size * _sign(g) for x, g in zip(now, found, strict=True)
            ]
            near = [
                ops.clip(x, start - self.epsilon, start + self.epsilon)
                for x, start in zip(moved, inputs, strict=True)
            ]
            now = self.within(near)
        return now

    def get_config(self) -> Config:
        own = ("epsilon", "steps", "step_size", "random_start")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


@keras.saving.register_keras_serializable(package="kmtl")
class InputNoise(Adversary):
    """Normal noise on the inputs while training, new in every step.

    A task whose target is the input learns the clean one: to take the noise away.

    Args:
        stddev: Standard deviation of the noise, > 0, in the unit of the inputs.
        **kwargs: `inputs`, `bounds`, `share`, `seed`: see `kmtl.training.Adversary`.

    Example:

    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=[kmtl.Regression("size")])
    >>> model.compile("adam", adversary=kmtl.training.InputNoise(0.1, seed=0))

    Reference: Bishop, "Training with Noise is Equivalent to Tikhonov Regularization",
    Neural Computation 7(1), 1995; Vincent et al. (denoising), ICML 2008.
    """

    attacks = False

    def __init__(self, stddev: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.stddev = _checks.check_range("stddev", stddev, 0, low_open=True)

    def change(
        self, inputs: list[Tensor], gradient: Callable[[list], list]
    ) -> list[Tensor]:
        noise = [
            keras.random.normal(
                ops.shape(x), 0.0, self.stddev, "float32", self.seed_generator
            )
            for x in inputs
        ]
        return self.within([x + part for x, part in zip(inputs, noise, strict=True)])

    def get_config(self) -> Config:
        return {**super().get_config(), "stddev": self.stddev}


def check_adversary(model: Model, adversary: Any) -> Adversary | None:
    """What `compile` was given, for this model.

    Raises:
        TypeError, ValueError: for what is none, or does not fit the model.
    """
    if adversary is None:
        return None
    if not isinstance(adversary, Adversary):
        raise TypeError(
            "`adversary` must be an object of kmtl.training, such as "
            f"kmtl.training.FGSM(0.1). Received: adversary={adversary!r}"
        )
    adversary.check_is_free(model, "adversary")
    adversary.check(model)
    return adversary


def _sign(gradient: Tensor) -> Tensor:
    """The sign, 0 where a gradient is not finite."""
    sign = ops.sign(gradient)
    return ops.where(ops.isfinite(gradient), sign, ops.zeros_like(sign))


def _names(argument: str, names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"`{argument}` must be a sequence of names. Received: {argument}={names!r}"
        )
    found = tuple(names)
    if not found:
        raise ValueError(f"`{argument}` must have a name, or be None. Received: ()")
    return found
