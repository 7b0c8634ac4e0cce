"""What `compile` makes of a model."""

from __future__ import annotations

import dataclasses
from typing import Any

from kmtl.typing import Config, Tensor


@dataclasses.dataclass
class CompileState:
    """What `compile` made; a plain object, which Keras neither tracks nor saves."""

    terms: Any = None
    metrics: Any = None
    guards: Any = None
    config: Config = dataclasses.field(default_factory=dict)
    #: What a gradient-based weighting acts on; None for all others.
    plan: Any = None
    #: Groups of names of tasks alike.
    alike: tuple = ()
    #: Losses over several heads.
    joint: tuple = ()
    #: The net up to the layers of several heads; the same while a step packs outputs.
    packed_net: Any = None
    packed: Any = None
    #: `steps_per_execution` is `"auto"`.
    chooses_steps: bool = False
    #: Names of the values in packed logs.
    log_names: tuple = ()
    #: These, and the names of all logs in the order that users see.
    log_order: Any = None
    #: Packed logs of steps stay so: nobody reads them before the epoch's end.
    logs_wait: bool = False
    #: `(T,)` bool tensor of the step being traced: the batch has labels.
    present: Tensor | None = None
    #: Every row that `fit` trains on has a label of every task.
    complete: bool = False
    #: Steps look at labels and inputs: data sets or generators have been given.
    streams: bool = False
    #: Dropout layers at rate 0 that the compiled step of training has not.
    left_out: set = dataclasses.field(default_factory=set)
    #: It has them: their rates are about to change.
    rates_change: bool = False
    #: Rows of the batch being traced that are data, where it is filled up; else None.
    rows: Tensor | None = None
    #: Gives the outputs of which `all_rows` needs those of all rows.
    gathering: Any = None
    #: Layers call `add_loss` in a step (seen while tracing it on JAX).
    adds_losses: bool = False
