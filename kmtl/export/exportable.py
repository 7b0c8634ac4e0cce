"""What an export needs of a model, whoever made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import keras

from kmtl.inputs.base import Input
from kmtl.tasks.base import Task
from kmtl.tasks.output import TaskOutput
from kmtl.typing import Inputs, Layer, Outputs, Tensor, Variable


class ExportableModel(Protocol):
    """A functional model with one output per task, such as `kmtl.MultiTaskModel`."""

    name: str
    inputs: list[Tensor]
    layers: list[Layer]
    trainable_variables: list[Variable]
    non_trainable_variables: list[Variable]
    #: The inputs in the structure in which `predict` takes them.
    input: Any

    @property
    def input_specs(self) -> Mapping[str, Input]:
        """Input name -> what is known of it; empty where nothing is."""

    def prepare_inputs(self, x: Inputs) -> Inputs:
        """What the model takes, of what users have."""

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the outputs."""

    @property
    def task_outputs(self) -> Mapping[str, TaskOutput]:
        """The layers at which the outputs end, by task name."""

    @property
    def seam(self) -> Tensor:
        """The layer at which the shared trunk ends, or None."""

    def task(self, name: str) -> Task:
        """The task of an output."""

    def to_keras(self, activated: bool = False) -> keras.Model:
        """A copy that holds only layers of Keras."""

    def stateless_call(self, *values: Any, **options: Any) -> Any:
        """Outputs for other values of the variables, and values of those it changes."""

    def predict(self, x: Inputs, **options: Any) -> Outputs:
        """Dict task name -> outputs."""
