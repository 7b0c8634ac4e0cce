"""The search space of a builder: which of its arguments vary, and how far."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kmtl import _checks
from kmtl._dimensions import Dimension, Float, Int, as_dimension
from kmtl.sharing import HardSharing
from kmtl.tasks.base import Task
from kmtl.tasks.checks import check_unique_tasks
from kmtl.tuning import defaults
from kmtl.tuning.parts import PerBlock, PerTask, WeightDimension, WeightGrid
from kmtl.tuning.signature import (
    BLOCK_ARGUMENTS,
    COMPILE_NAMES,
    FIT_NAMES,
    STANDS_FOR,
    TASK_WEIGHTS,
    Signature,
    active_names,
    check_conditions,
    default_range,
    is_gradient_weighting,
    split_name,
    with_condition,
)
from kmtl.typing import HyperParameters, Values

#: Dimensions that a space has by default, in the order they are tried and shown.
DEFAULT_NAMES = ("sharing_depth", "dropout", TASK_WEIGHTS, "learning_rate")


class Space:
    """A declarative search space over the arguments of a builder.

    Args:
        builder: Callable that returns a `kmtl.MultiTaskModel` from keyword arguments,
            `tasks` among them.
        tasks: The tasks.
        space: None: every default that applies, see below. A sequence of names: these
            with their default ranges. A dict name -> range is the whole space:

            - `(low, high)` or `(low, high, "log")`: whole numbers if both are;
            - `[value, ...]` or `{name: object}`: one of them;
            - a `kmtl.tuning.Int`, `Float`, `Choice`, `TaskWeights`, `UniformWeights`,
              `WeightGrid`, `PerBlock` or `PerTask`. With `when={"other": value}` it
              counts only where another hyperparameter has that value;
            - `"default"`: the default range of that name; `"per_block"` for dropout,
              `"per_task"` for the sharing depth, `"uniform"` for the task weights.

            Names are arguments of the builder (or of its fixed `backbone`), those
            below, and `"dwa.temperature"` or `"sgd.momentum"`: arguments of a
            weighting, optimizer or sharing scheme, which count where it is chosen.
        fixed: The builder's other arguments. What is fixed leaves the default space.
        fixed_compile: Names of `compile` and `fit` that are settled.
        chosen: Dict `"optimizer"`, `"weighting"` and `"learning_rate"` -> what is used
            unless searched.

    The first trial of a search has the defaults: a dimension's own, else what the
    builder or the optimizer has where nothing is searched (or the end of the range that
    is nearest to it), else the middle.

    In the space by default:
        - `sharing_depth`: every whole number from 0 (nothing shared) to the number of
          blocks (all shared), where there are two tasks or more.
        - `dropout`: 0 to 0.3, linear.
        - `task_weights`: each task's weight 1/4 to 4 times the first task's,
          log-uniform, where there are two tasks or more. They sum to the number of
          tasks: equal ones are 1 each, as without a search.
        - `learning_rate`: 5e-4 to 5e-2, log-uniform; 3e-3 in the first trial, as a
          search's trials are short for the 1e-3 of most optimizers.

    On request, with the range of `"default"`:
        - `sharing_depth="per_task"`: 0 to all blocks for each task; `dropout=
          "per_block"`: 0 to 0.5 for each block; `task_weights="uniform"`: uniform on
          the simplex.
        - `width`: 64, 128 or 256 units in every block, or 8, 16, 32 or 64
          filters in the first one, doubled from block to block. `blocks`: 1 to 4.
        - `activation`: relu, gelu, silu, tanh. `normalization`: none, batch, layer.
        - `l2`: 1e-6 to 1e-2, log: L2 regularisation of all kernels.
        - `optimizer`: adam, adamw, nadam, rmsprop, which one range of learning rates
          fits. For SGD add `"sgd.learning_rate"` (1e-3 to 1, log), which counts in
          the place of `learning_rate`, and `"sgd.momentum"` (0 to 0.99).
        - `learning_rate_schedule`: constant, linear, cosine, step, warmup_cosine over
          the epochs of a trial. `batch_size`: 16, 32, 64, 128.
        - `weighting`: equal, uncertainty, dwa, rlw, famo, with `dwa.temperature` (0.5
          to 8, log) and `famo.learning_rate` (0.0025 to 0.25, log).
        - `sharing`: hard, cross_stitch, mmoe, ple, mtan, film, with their numbers of
          experts and the like, each of which counts where its scheme is chosen.

    Raises:
        ValueError, TypeError: for names the builder does not know, bad ranges, names
            that are both fixed and searched, and missing arguments of the builder.
    """

    def __init__(
        self,
        builder: Callable[..., Any],
        tasks: Sequence[Task],
        space: Mapping[str, Any] | Sequence[str] | None = None,
        fixed: Values | None = None,
        fixed_compile: Iterable[str] = (),
        chosen: Values | None = None,
    ):
        self.builder = builder
        self.tasks = check_unique_tasks(tasks)
        self.fixed = dict(fixed or {})
        self.signature = Signature(builder, self.fixed)
        self._chosen = {
            "optimizer": "adam",
            "sharing": self.signature.default("sharing"),
            **(chosen or {}),
        }
        settled = {*self.fixed, *fixed_compile}
        settled |= {
            name
            for name, filled in STANDS_FOR.items()
            if settled.intersection(filled) and not self.signature.owns(name)
        }
        space = self._as_dict(space, settled)
        for name in space:
            self._check_name(name, space, settled)
        #: Dict name -> `Dimension`, in the order of the space.
        self.dimensions: dict[str, Dimension] = {}
        # Ranges given by the user first, the depth last: it depends on the blocks.
        for name, given in space.items():
            given = defaults.from_word(name, given)
            if name == TASK_WEIGHTS and isinstance(given, list):
                given = WeightGrid(given)
            if not (isinstance(given, str) and given == "default"):
                self.dimensions[name] = as_dimension(name, given)
        for name in sorted(space, key="sharing_depth".__eq__):
            if name not in self.dimensions:
                self.dimensions[name] = self._default(name)
        self.dimensions = {
            name: self._checked(name, self.dimensions[name]) for name in space
        }
        check_conditions(self.dimensions, self._chosen["optimizer"])
        self._check_weighting()
        given_elsewhere = {"tasks", *settled.intersection({"seed"})}
        lacking = self.signature.lacking(
            {*self.fixed, *self.dimensions, *given_elsewhere}
        )
        if lacking:
            given = sorted({*self.fixed, *self.dimensions})
            raise ValueError(
                f"The builder needs `{'`, `'.join(lacking)}`: give it to HyperModel, "
                f"or in `space`. Received: {', '.join(given)}"
            )

    # -- use --------------------------------------------------------------------------

    def values(self, hp: HyperParameters) -> dict[str, Any]:
        """Declare the space in `hp` and return the values that count there.

        All hyperparameters are declared, flat; those whose `when` does not hold are
        left out of the values.

        Args:
            hp: `keras_tuner.HyperParameters`.
        """
        values = {
            name: dimension.declare(hp, name)
            for name, dimension in self.dimensions.items()
        }
        usual = self._chosen["optimizer"]
        active = active_names(self.dimensions, values, hp, usual)
        kept = {name: value for name, value in values.items() if name in active}
        kept = self.signature.fitted(kept)
        if is_gradient_weighting(kept.get("weighting")) and not self.shares(kept):
            own = f"{hp.values['weighting']}."  # it has nothing to balance
            kept = {n: v for n, v in kept.items() if not n.startswith(own)}
            del kept["weighting"]
        return kept

    def shares(self, values: Values) -> bool:
        """Whether tasks have parameters in common, as far as the values say."""
        sharing = values.get("sharing", self._chosen["sharing"])
        if len(self.tasks) < 2 or sharing == "independent":
            return False
        depth = values.get("sharing_depth", self.signature.default("sharing_depth"))
        if isinstance(sharing, HardSharing):
            depth = depth if sharing.depth is None else sharing.depth
        elif sharing not in (None, HardSharing.registered_name):
            return True
        if isinstance(depth, Mapping):
            depth = sorted(depth.values())[-2]
        return depth != 0

    def _check_weighting(self) -> None:
        """Refuse weightings that balance shared parameters where none can be."""
        given = getattr(self.dimensions.get("weighting"), "objects", None)
        names = [self._chosen.get("weighting")] if given is None else given
        found = next(filter(is_gradient_weighting, names), None)
        searched = {"sharing", "sharing_depth"} & self.dimensions.keys()
        if found is None or len(self.tasks) < 2 or searched or self.shares({}):
            return
        name = getattr(found, "registered_name", found)
        raise ValueError(
            f"`weighting='{name}'` balances gradients of shared parameters, and these "
            "models share none: build them with `sharing_depth` >= 1. Received: "
            f"sharing={self._chosen['sharing']!r}, "
            f"sharing_depth={self.signature.default('sharing_depth')!r}"
        )

    # -- defaults ---------------------------------------------------------------------

    def _as_dict(self, space: Any, settled: set[str]) -> dict[str, Any]:
        if space is None:
            space = [name for name in DEFAULT_NAMES if self._applies(name, settled)]
        if isinstance(space, Mapping):
            space = dict(space)
        elif isinstance(space, str) or not isinstance(space, Iterable):
            raise TypeError(
                "`space` must be None, a list of names or a dict name -> range. "
                f"Received: space={space!r}"
            )
        else:
            space = dict.fromkeys(space, "default")
        for name, companions in defaults.COMPANIONS.items():
            given = space.get(name)
            if isinstance(given, str) and given == "default":
                space |= {item: "default" for item in companions if item not in space}
        return space

    def _applies(self, name: str, settled: set[str]) -> bool:
        if name in settled:
            return False
        signature = self.signature
        if name == "learning_rate":
            return name not in signature.arguments  # whose would it be?
        if name == TASK_WEIGHTS:
            return len(self.tasks) > 1 and signature.filled_by(name) is not None
        if name == "dropout" and signature.backbone is not None:
            return signature.backbone.dropout is not None
        if name == "sharing_depth":
            return (
                len(self.tasks) > 1
                and signature.takes(name)
                and signature.count_blocks({}) is not None
                and _is_open_hard_sharing(self.fixed.get("sharing", "hard"))
            )
        return signature.takes(name) and (
            not signature.open or name in signature.arguments
        )

    def _default(self, name: str) -> Dimension:
        own = name in STANDS_FOR and self.signature.owns(name)
        if name in defaults.RANGES and not own:
            return defaults.RANGES[name]
        known_range = default_range(name)
        if known_range is not None:
            return known_range
        if name == "width" and not own:
            return defaults.WIDTHS[str(self.signature.filled_by(name))]
        if name == "sharing_depth":
            blocks = self._most_blocks()
            if blocks is None:
                raise ValueError(
                    "`sharing_depth` has no default range for this builder, which has "
                    "no `units`, `filters` or `backbone`: give `space="
                    "{'sharing_depth': (0, n), ...}` with n, the number of blocks."
                )
            return Int(0, blocks, default=blocks)
        known = [*DEFAULT_NAMES[:1], *defaults.RANGES, "width"]
        raise ValueError(
            f"`{name}` has no default range: give one in `space`. Names that have one: "
            f"{', '.join(known)}, and what a scheme or weighting has in `ranges`."
        )

    def _checked(self, name: str, dimension: Dimension) -> Dimension:
        """The dimension, bound to tasks and blocks, if its range can be right."""
        if split_name(name):
            return with_condition(name, dimension, self.dimensions, self._chosen)
        if (name == TASK_WEIGHTS) != isinstance(dimension, WeightDimension):
            raise TypeError(
                f"`space['{TASK_WEIGHTS}']` and nothing else must be a "
                "kmtl.tuning.TaskWeights, UniformWeights, WeightGrid, 'uniform' or "
                f"'default'. Received: {name}={dimension!r}"
            )
        if isinstance(dimension, WeightDimension):
            if len(self.tasks) < 2:
                raise ValueError(
                    f"`{TASK_WEIGHTS}` needs two tasks or more. Received: "
                    f"{self.tasks[0].name}"
                )
            return dimension.bound_to(tuple(task.name for task in self.tasks))
        for kind, where in ((PerBlock, "dropout"), (PerTask, "sharing_depth")):
            if isinstance(dimension, kind) and name != where:
                raise TypeError(
                    f"A kmtl.tuning.{kind.__name__} is for `space['{where}']`. "
                    f"Received: {name}={dimension!r}"
                )
        if isinstance(dimension, PerBlock):
            blocks = self._most_blocks()
            if blocks is None:
                raise ValueError(
                    "`dropout` per block needs a builder whose number of blocks is "
                    "known, by `units`, `filters` or `backbone`."
                )
            return dataclasses.replace(dimension, blocks=blocks)
        if isinstance(dimension, PerTask):
            most = self._most_blocks()
            high = most if dimension.high is None else dimension.high
            high = _checks.check_int("space['sharing_depth'] high", high, 0, most)
            names = tuple(task.name for task in self.tasks)
            dimension = dataclasses.replace(dimension, high=high, tasks=names)
        if isinstance(dimension, (Int, Float)):
            self._check_range(name, dimension)
            if dimension.default is None:
                dimension = defaults.begun(dimension, self._usual(name))
        searched = name == "sharing_depth" and "sharing" in self.dimensions
        if searched and not dimension.when:  # other schemes have no such argument
            hard = {"sharing": HardSharing.registered_name}
            dimension = dataclasses.replace(dimension, when=hard)
        return dimension

    def _usual(self, name: str) -> Any:
        """What a model has that no search changes; None where nothing is known."""
        if name in STANDS_FOR and self.signature.owns(name):
            return self.signature.default(name)
        if name in ("learning_rate", "batch_size"):
            return self._chosen.get(name, {"batch_size": 32}.get(name))
        usual = self.signature.default(name)
        if name == "sharing_depth" and usual is None:
            return self._most_blocks()  # all are shared
        return usual

    def _check_range(self, name: str, dimension: Int | Float) -> None:
        if name in STANDS_FOR and self.signature.owns(name):
            return
        low, high = dimension.low, dimension.high
        where = f"space['{name}']"
        if name == "dropout":
            _checks.check_range(f"{where} low", low, 0, 1)
            _checks.check_range(f"{where} high", high, 0, 1, high_open=True)
        if name == "learning_rate":
            _checks.check_range(f"{where} low", low, 0, low_open=True)
        if name in ("batch_size", "width", "blocks"):
            _checks.check_int(f"{where} low", low, 1)
        if name == "l2":
            _checks.check_range(f"{where} low", low, 0)
        if name == "sharing_depth":
            _checks.check_int(f"{where} low", low, 0)
            most = self._most_blocks()
            _checks.check_int(f"{where} high", high, 0, most)

    def _most_blocks(self) -> int | None:
        """The largest number of blocks that the space can build."""
        blocks = self.dimensions.get("blocks")
        if blocks is not None and not self.signature.owns("blocks"):
            return max(getattr(blocks, "objects", [getattr(blocks, "high", 1)]))
        for name in BLOCK_ARGUMENTS:
            values = getattr(self.dimensions.get(name), "objects", ())
            lengths = [len(value) for value in values if isinstance(value, tuple)]
            if lengths:
                return max(lengths)
        return self.signature.count_blocks({})

    # -- checks -----------------------------------------------------------------------

    def _check_name(
        self, name: Any, space: Mapping[str, Any], settled: set[str]
    ) -> None:
        if name in settled:
            raise ValueError(
                f"`{name}` is fixed and in `space`. Give it once. "
                f"Received: {name}={self.fixed.get(name, 'fixed')!r}"
            )
        if name == "loss_weights":
            raise ValueError(f"Search the task weights as `space['{TASK_WEIGHTS}']`.")
        if name in ("tasks", "seed"):
            raise ValueError(f"`{name}` cannot be searched; give it to HyperModel.")
        if name in (*COMPILE_NAMES, *FIT_NAMES) and name in self.signature.arguments:
            kind = "fit" if name in FIT_NAMES else "compile"
            raise ValueError(
                f"`{name}` is searched for `{kind}`, and the builder has an argument "
                f"of that name too: rename the builder's, to `model_{name}` for one. "
                f"Received: space['{name}']"
            )
        filled = set(STANDS_FOR.get(name, ())) & set(space)
        if filled and not self.signature.owns(name):
            raise ValueError(
                f"`{name}` and `{filled.pop()}` are one thing: search one of them."
            )
        known = self.signature.known_names()
        usual = name in known or (self.signature.open and name not in STANDS_FOR)
        if not usual and not split_name(name):
            raise ValueError(
                _checks.unknown_name("hyperparameter in `space`:", name, known)
            )


def _is_open_hard_sharing(sharing: Any) -> bool:
    if isinstance(sharing, HardSharing):
        return sharing.depth is None
    return sharing == HardSharing.registered_name
