"""Labels for heads that write: in a step they are told what stands before each token.

A decoder's head writes token by token after what it has written itself. While it
learns, and where its tokens are scored, each comes after those of the label (teacher
forcing), of all places at once.
"""

from __future__ import annotations

from kmtl.layers.text_decoder import TextDecoder
from kmtl.tasks.checks import label_dict
from kmtl.typing import Labels, Model, Outputs, TaskName, Tensor

#: Behind a task's name: what its head wrote by itself. No task can have such a name.
_OWN = " as written"


def teach(model: Model, y: Labels, y_pred: Outputs) -> None:
    """Put scores after the labels in the place of what heads wrote by themselves.

    To be called after the model, in the same trace. In the dict itself: metrics see it
    after the loss, on JAX outside of the trace of the gradient.
    """
    given: Labels | None = None
    for layer in model.layers:
        if not isinstance(layer, TextDecoder) or layer.task + _OWN in y_pred:
            continue
        given = label_dict(y, model.tasks) if given is None else given
        labels, _ = model.task(layer.task).clean_labels(given[layer.task])
        written = y_pred[layer.task]
        y_pred[layer.task] = model.task_outputs[layer.task](layer.taught(labels))
        y_pred[layer.task + _OWN] = written


def as_written(y_pred: Outputs, name: TaskName) -> Tensor | None:
    """What a head wrote by itself; None where it does not write."""
    return y_pred.get(name + _OWN)
