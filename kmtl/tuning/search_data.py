"""What a search is given to train on and measure with, as all its trials take it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from kmtl import _arrays
from kmtl.data.hashing import fingerprint
from kmtl.training import raw_sets
from kmtl.training.feed import is_arrays
from kmtl.training.sources import is_split, plan_of
from kmtl.tuning.hypermodel import HyperModel
from kmtl.typing import AnyHyperModel, Callbacks, Data, Inputs, Labels, Options


@dataclasses.dataclass(frozen=True)
class SearchData:
    """The arguments of `fit` that the trials of a search share.

    Args:
        x, y, validation: Arrays, data sets, or functions that make data sets.
        callbacks: Keras callbacks, which each training copies.
        options: Further arguments of `fit`: `sample_weight`, `batch_size` and so on.
            How a `kmtl.data.Mixture` draws its rows is the option `plan`.
        epochs: Epochs of a training.
    """

    x: Inputs
    y: Labels
    validation: Data
    callbacks: list
    options: Options
    epochs: int = 1

    @classmethod
    def given(
        cls,
        x: Any,
        y: Any,
        validation: Any,
        callbacks: Callbacks,
        options: Options,
        epochs: int = 1,
    ) -> SearchData:
        """As users give it; a `Split`, or a tuple with sample weights, in its parts."""
        for data in (x, validation):
            refuse_test_split(data)
        options = dict(options)
        if y is None:
            plan = plan_of(x)
            if plan is not None:
                options["plan"] = plan
                if plan.by_loss:
                    raise ValueError(
                        "A search takes mixtures whose epochs are known before they "
                        "begin, for its trials pause and go on: another `sampling` "
                        f"than 'loss'. Received: {x!r}"
                    )
            x = plain_data(x)
            if isinstance(x, tuple):
                x, y, *weight = x
                if weight and options.get("sample_weight") is not None:
                    raise ValueError(
                        "`sample_weight` must be left out when `x` holds weights of "
                        "its own: a tuple of three, or a kmtl.data.Split of tasks "
                        "with `sample_weight`. Received: sample_weight of type "
                        f"{type(options['sample_weight']).__name__}"
                    )
                if weight:
                    options["sample_weight"] = weight[0]
        if not isinstance(callbacks, (list, tuple)):
            callbacks = [] if callbacks is None else [callbacks]
        return cls(x, y, plain_data(validation), list(callbacks), options, epochs)

    def ready(self, hypermodel: AnyHyperModel) -> SearchData:
        """Made, with the inputs as the model takes them, and with frames as arrays.

        Once for the search, and not once for each of its trials.
        """
        fixed = hypermodel.fixed if isinstance(hypermodel, HyperModel) else {}
        specs = raw_sets.specs_in(fixed)
        x, y, validation = made(self.x), self.y, made(self.validation)
        if x is not None:
            prepared = raw_sets.prepared_data(specs, x if y is None else (x, y))
            x = prepared if y is None else prepared[0]
        if validation is not None:
            validation = raw_sets.prepared_data(specs, validation)
        if isinstance(validation, (tuple, list)):
            first, *others = validation
            validation = (first, *map(_without_frames, others))
        return dataclasses.replace(
            self, x=x, y=_without_frames(y), validation=validation
        )

    def check(self) -> None:
        """Refuse what trials cannot be compared by."""
        options = self.options
        if options.get("validation_split"):
            raise ValueError(
                "`validation_split` is not taken here: the single-task baselines and "
                "every trial must be measured on the same rows. Give "
                "`validation_data`. "
                f"Received: validation_split={options['validation_split']}"
            )
        if self.validation is None:
            raise ValueError(
                "`search` needs `validation_data`: trials are compared on data that "
                "they were not trained on. Received: validation_data=None"
            )
        if options.get("validation_freq", 1) != 1:
            raise ValueError(
                "`validation_freq` must be 1: the best epoch of a trial is looked for "
                f"in all. Received: validation_freq={options['validation_freq']}"
            )

    def check_measured_on(self, baselines: Any) -> None:
        """Refuse the result of `kmtl.baselines` on other arrays than these."""
        measured = getattr(baselines, "fingerprints", {}).get("validation")
        if measured is None or not is_arrays(self.validation):
            return
        if measured != fingerprint(self.validation):
            raise ValueError(
                "`baselines` must have been measured on the `validation_data` of the "
                "search. These were measured on other data."
            )

    @property
    def sample_weight(self) -> Any:
        return self.options.get("sample_weight")

    @property
    def arrays(self) -> tuple[Any, ...]:
        """The positional arguments of `fit`."""
        return tuple(part for part in (self.x, self.y) if part is not None)

    @property
    def fit_options(self) -> dict[str, Any]:
        """The others, without `verbose`."""
        return {
            **self.options,
            "epochs": self.epochs,
            "callbacks": self.callbacks,
            "validation_data": self.validation,
        }


def refuse_test_split(data: Data) -> None:
    """Refuse the split called `"test"`: what is chosen on it is not tested."""
    if is_split(data) and getattr(data, "name", "") == "test":
        raise ValueError(
            "The test split stays out of a search: the winner's scores on it would "
            "be too good. Give the training and the validation split. "
            f"Received: {data!r}"
        )


def plain_data(data: Data) -> Data:
    """A `kmtl.data.Split` as its arrays; anything else as it is."""
    return tuple(data.arrays()) if is_split(data) else data


def made(data: Data) -> Data:
    """What a function without arguments makes; anything else as it is."""
    return data() if inspect.isroutine(data) else data


def _without_frames(data: Any) -> Any:
    """Frames of labels as dicts of arrays, series as arrays; all else as it is."""
    if isinstance(data, Mapping):
        return {name: _without_frames(part) for name, part in data.items()}
    if type(data).__module__.split(".")[0] != "pandas":
        return data
    if not hasattr(data, "columns"):
        return _arrays.as_array(data, "A series", holes=True)
    return {str(name): _without_frames(data[name]) for name in data.columns}
