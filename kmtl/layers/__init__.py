"""Keras layers that the builders use."""

from kmtl.layers.dropout import Dropout
from kmtl.layers.maker import LayerMaker
from kmtl.layers.recorded import Recorded
from kmtl.layers.reusing import ReusingMaker
from kmtl.layers.seam import Seam
from kmtl.layers.stitch import Stitch
from kmtl.layers.subspaces import SubspaceOrthogonality
from kmtl.layers.task_output import TaskOutput

__all__ = [
    "Dropout",
    "LayerMaker",
    "Recorded",
    "ReusingMaker",
    "Seam",
    "Stitch",
    "SubspaceOrthogonality",
    "TaskOutput",
]
