"""Freezing parts of a model by name."""

from __future__ import annotations

from kmtl.training import freezing
from kmtl.training.still import StillModel


class FreezingAccess(StillModel):
    """Base of `kmtl.MultiTaskModel`: what of it is trained."""

    def freeze(self, *parts: str) -> None:
        """Leave parts of the model as they are, bit for bit, in all training from now.

        Neither gradients nor momentum, weight decay or averages move what is frozen;
        batch normalisation in it uses its moving statistics and leaves them alone, and
        dropout and noise in it are off. Before or after `compile`, before or after
        `fit`; kept in the model's file.

        Args:
            *parts: `"trunk"` (all but the heads), `"block_1"` and so on (that block,
                shared or the tasks' own), and names of tasks: what a task has for
                itself, its head and the blocks whose features no other task reads.

        Raises:
            ValueError: for names of no part.

        Example:

        >>> tasks = [kmtl.Regression("size"), kmtl.Regression("age")]
        >>> model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8, 8), seed=0)
        >>> model.compile("adam")
        >>> model.freeze("block_1", "age")
        >>> model.frozen
        ('block_1', 'age')
        >>> model.unfreeze("age")
        >>> model.frozen
        ('block_1',)
        """
        if not parts:
            raise ValueError(
                "`freeze` needs a part of the model: one or more of "
                f"{', '.join(freezing.parts_of(self))}."
            )
        layers = freezing.layers_of(self, parts, "freeze")
        freezing.set_trainable(self, layers, False)

    def unfreeze(self, *parts: str) -> None:
        """Train parts of the model again, also what was frozen in other ways.

        The optimizer goes on with the moments that it had, and begins anew for parts
        that it has never trained.

        Args:
            *parts: As for `freeze`; without any, all of the model.
        """
        layers = freezing.layers_of(
            self, parts or tuple(freezing.parts_of(self)), "unfreeze"
        )
        freezing.set_trainable(self, layers, True)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names of the parts, as `freeze` takes them, in which nothing is trained."""
        return freezing.frozen_parts(self)
