"""Inputs as users have them, in a served model: columns, strings, bytes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping

import keras
import numpy as np

from kmtl.export import serving
from kmtl.export.exportable import ExportableModel
from kmtl.inputs.base import Input
from kmtl.inputs.matching import match
from kmtl.typing import Config, Inputs, Layer, Tensor


@dataclasses.dataclass(frozen=True)
class RawInputs:
    """What a SavedModel takes, and how it becomes what the model takes.

    Args:
        specs: Input name -> its kind.
        names: Input name -> the kind's own served name -> the name in the SavedModel.
        signature: Name in the SavedModel -> dtype and shape.
    """

    specs: Mapping[str, Input]
    names: Mapping[str, Mapping[str, str]]
    signature: Mapping[str, keras.InputSpec]

    def prepare(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Input name -> prepared array, of TensorFlow's tensors by name."""
        return {
            name: spec.serve(
                {own: tensors[key] for own, key in self.names[name].items()}
            )
            for name, spec in self.specs.items()
        }

    def resources(self) -> list[Layer]:
        """What must be saved with the graph."""
        return [
            part for spec in self.specs.values() for part in spec.serving_resources()
        ]

    def rows(self, x: Inputs) -> dict[str, np.ndarray]:
        """Rows by the names and in the dtypes of the SavedModel."""
        found: dict[str, np.ndarray] = {}
        for name, (part, what) in match(self.specs, x).items():
            own = self.specs[name].serving_rows(name, part, what)
            found |= {self.names[name][key]: array for key, array in own.items()}
        return found

    def from_rows(self, rows: Mapping[str, np.ndarray]) -> dict[str, Inputs]:
        """What `predict` takes, of what `rows` has given."""
        return {
            name: spec.from_serving(
                name, {own: rows[key] for own, key in self.names[name].items()}
            )
            for name, spec in self.specs.items()
        }

    def renamed(self) -> dict[str, str]:
        """Name in the SavedModel -> the column's own name, where these differ."""
        return renamed(self.describe())

    def describe(self) -> dict[str, Config]:
        """What the description says of each name, besides dtype and shape."""
        return {
            key: {
                "input": name,
                "kind": spec.registered_name,
                "column": spec.serving_columns(name).get(own),
            }
            for name, spec in self.specs.items()
            for own, key in self.names[name].items()
        }


def raw_inputs(model: ExportableModel) -> RawInputs | None:
    """What a SavedModel of this model takes; None if it takes the model's own arrays.

    A name that several inputs serve gets their names before it, `<input>_<name>`.

    Raises:
        ValueError: if two names are the same even so.
    """
    specs = dict(model.input_specs)
    if all(spec.served_prepared for spec in specs.values()):
        return None
    served = {name: spec.serving_signature(name) for name, spec in specs.items()}
    often = Counter(key.lower() for own in served.values() for key in own)
    names: dict[str, dict[str, str]] = {}
    signature: dict[str, keras.InputSpec] = {}
    for name, own in served.items():
        names[name] = {}
        for key, spec in own.items():
            full = key if often[key.lower()] == 1 else f"{name}_{key}"
            if full.lower() in map(str.lower, signature):
                raise ValueError(
                    "What an export takes must have different names: rename an input "
                    f"or a column. Received: two called '{full}'"
                )
            names[name][key] = full
            signature[full] = keras.InputSpec(
                shape=spec.shape, dtype=spec.dtype, name=full
            )
    return RawInputs(specs, names, signature)


def as_structure(plain: keras.Model, arrays: Mapping[str, Tensor]) -> Inputs:
    """Prepared arrays in the structure in which a model takes its inputs."""
    names = serving.input_names(plain)
    return keras.tree.pack_sequence_as(plain.input, [arrays[name] for name in names])


def renamed(described: Mapping[str, Config]) -> dict[str, str]:
    """Of what a description says of inputs: those that are columns of other names."""
    found = {name: one.get("column") for name, one in described.items()}
    return {name: own for name, own in found.items() if own not in (None, name)}
