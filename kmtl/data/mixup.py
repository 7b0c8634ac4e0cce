"""Training rows that are mixtures of two: mixup and cutmix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kmtl import _checks
from kmtl.typing import Data, Tensor

if TYPE_CHECKING:
    from kmtl.tasks.base import Task

#: Kinds of task whose labels can be mixed: of classes by counting both, of values by
#: the value between; all others are refused.
CLASSES = ("classification", "binary_classification", "multi_label", "segmentation")
VALUES = ("regression", "dense_regression", "reconstruction")


def mixup(
    data: Data,
    *,
    tasks: Sequence[Task],
    alpha: float = 0.2,
    seed: int = 0,
) -> Data:
    """A data set whose rows are mixtures of two rows of a batch.

    Inputs are the mean with shares λ and 1 - λ, λ drawn for every row. A mixture has
    the labels of both rows: of classes it stands in the batch twice, with each row's
    label, weighing λ and 1 - λ, which is the loss on a soft label; values are the mean
    likewise, and so are their weights. A label that one of the two rows lacks counts
    for nothing (of classes the other one counts by its share).

    It is a part of the training data, not of the model: validation and exports see
    nothing of it. With tasks of classes a batch has twice the rows.

    Args:
        data: A `tf.data.Dataset` of batches `(inputs, {task: label})` or
            `(inputs, {task: label}, {task: mask})`, such as of
            `kmtl.data.Split.dataset`. Inputs are floats, or images of bytes.
        tasks: The tasks: of classes, several yes and no, segmentation, and values, each
            number or map; and reconstruction, whose target is then the mixture.
        alpha: λ is drawn from Beta(alpha, alpha), > 0. Defaults to 0.2.
        seed: Integer >= 0: same seed, same mixtures, epoch by epoch.

    Returns:
        A `tf.data.Dataset` of `(inputs, labels, masks)`.

    Raises:
        ValueError: for tasks whose labels have no mixture, such as counts, ordered
            classes and tags, and inputs that have none, such as category codes.

    Example:

    >>> data = kmtl.data.digits().select("digit", "mask")
    >>> train = kmtl.data.mixup(data.train.dataset(64), tasks=data.tasks)
    >>> images, labels, masks = next(iter(train))
    >>> images.shape, labels["digit"].shape
    (TensorShape([128, 8, 8, 1]), TensorShape([128]))

    Reference: Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk
    Minimization", ICLR 2018, arXiv:1710.09412.
    """
    return _mixed(data, tasks, alpha, seed, cut=False)


def cutmix(
    data: Data,
    *,
    tasks: Sequence[Task],
    alpha: float = 1.0,
    seed: int = 0,
) -> Data:
    """A data set of images into which a box of another image of the batch is pasted.

    Maps of labels and their masks are cut likewise. Labels of whole images are mixed as
    by `kmtl.data.mixup`, by the share of the image that is left.

    Args:
        data: As for `kmtl.data.mixup`; inputs are images `(N, H, W, C)`, and maps are
            of their size.
        tasks: As for `kmtl.data.mixup`.
        alpha: The share that is left is drawn from Beta(alpha, alpha), > 0, before the
            box is cut off at the edges. Defaults to 1.
        seed: Integer >= 0: same seed, same boxes, epoch by epoch.

    Returns:
        A `tf.data.Dataset` of `(inputs, labels, masks)`.

    Raises:
        ValueError: as `kmtl.data.mixup`, and for inputs that are no images.

    Example:

    >>> data = kmtl.data.digits().select("mask")
    >>> train = kmtl.data.cutmix(data.train.dataset(64), tasks=data.tasks)
    >>> images, labels, masks = next(iter(train))
    >>> images.shape, labels["mask"].shape
    (TensorShape([64, 8, 8, 1]), TensorShape([64, 8, 8]))

    Reference: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers
    with Localizable Features", ICCV 2019, arXiv:1905.04899.
    """
    return _mixed(data, tasks, alpha, seed, cut=True)


def _mixed(
    data: Data, tasks: Sequence[Task], alpha: float, seed: int, *, cut: bool
) -> Data:
    from kmtl.data import moving
    from kmtl.data.cleaning import tensorflow
    from kmtl.tasks.checks import check_unique_tasks

    tasks = check_unique_tasks(tasks)
    alpha = _checks.check_range("alpha", alpha, 0, low_open=True)
    seed = _checks.check_int("seed", seed, 0)
    _check_tasks(tasks)
    if not hasattr(data, "element_spec"):
        raise TypeError(
            "`data` must be a tf.data.Dataset of batches: of a kmtl.data.Split "
            "`split.dataset(64)`, of arrays kmtl.data.from_arrays(x, y, tasks=tasks); "
            "mix each of several sets before kmtl.data.mixture. Received: "
            f"{type(data).__name__}"
        )
    _check_inputs(data.element_spec, tasks, cut)
    tf = tensorflow()

    @tf.autograph.experimental.do_not_convert
    def transform(batch: tuple, draw: Tensor) -> tuple:
        x, y, masks = moving.cleaned(batch, tasks)
        parts = dict(x) if isinstance(x, Mapping) else {"": x}
        first = next(iter(parts.values()))
        rows = tf.shape(first)[0]
        share, order = _drawn(tf, draw, rows, alpha)
        box = None
        if cut:
            box, share = _boxes(tf, draw, rows, tf.shape(first)[1:3], share)
        for name, part in parts.items():
            other = tf.gather(part, order)
            if box is not None:
                parts[name] = tf.where(box[..., None], other, part)
            else:
                mean = _between(tf, part, other, share)
                parts[name] = moving.as_before(mean, part.dtype)
        mixture = _Mixture(tf, order, share, box)
        labelled = [task for task in tasks if task.name in y]
        twice = any(mixture.has_two(task) for task in labelled)
        for task in labelled:
            name = task.name
            y[name], masks[name] = mixture.labels(task, y[name], masks[name], twice)
        if twice:
            parts = {n: tf.concat([part, part], 0) for n, part in parts.items()}
        return (parts if isinstance(x, Mapping) else parts[""]), y, masks

    draws = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    both = tf.data.Dataset.zip((data, draws))
    made = both.map(transform, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return made.prefetch(tf.data.AUTOTUNE)


class _Mixture:
    """Which rows are mixed, and by how much.

    Args:
        tf: TensorFlow.
        order: `(N,)`, the other row of each.
        share: `(N,)`, the row's own share.
        box: `(N, H, W)`, where the other row is pasted in; None for mixup.
    """

    def __init__(self, tf: Any, order: Tensor, share: Tensor, box: Tensor | None):
        self.tf, self.order, self.share, self.box = tf, order, share, box

    def _cuts(self, task: Task) -> bool:
        return self.box is not None and task.dense_prediction

    def _cut(self, other: Tensor, own: Tensor) -> Tensor:
        """The other's in the box."""
        channels = len(own.shape) == 4
        box = self.box[..., None] if channels else self.box  # type: ignore[index]
        return self.tf.where(box, other, own)

    def has_two(self, task: Task) -> bool:
        """Whether a mixture has two labels of this task, one after the other."""
        return task.registered_name in CLASSES and not self._cuts(task)

    def labels(
        self, task: Task, label: Tensor, mask: Tensor, twice: bool
    ) -> tuple[Tensor, Tensor]:
        """Labels and what they weigh, of every mixture, or twice of every one."""
        tf = self.tf
        if len(mask.shape) == len(label.shape):  # else labels are vectors
            mask = tf.broadcast_to(mask, tf.shape(label))
        other, its = tf.gather(label, self.order), tf.gather(mask, self.order)
        if self.has_two(task):
            own = _like(tf, self.share, mask)
            weights = [mask * own, its * (1.0 - own)]
            return tf.concat([label, other], 0), tf.concat(weights, 0)
        if self._cuts(task):
            label, mask = self._cut(other, label), self._cut(its, mask)
        else:
            label = _between(tf, label, other, self.share)
            # So is what they weigh, where both are there.
            both = (mask > 0) & (its > 0)
            mask = tf.where(both, _between(tf, mask, its, self.share), 0.0)
            label = tf.where(mask > 0, label, tf.zeros_like(label))
        if not twice:
            return label, mask
        own = _like(tf, self.share, mask)
        weights = [mask * own, mask * (1.0 - own)]
        return tf.concat([label, label], 0), tf.concat(weights, 0)


def _drawn(tf: Any, draw: Tensor, rows: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Every row's own share, and its other row."""

    def seeds(number: int) -> Tensor:
        return tf.stack([draw, tf.constant(number, draw.dtype)])

    def gamma(number: int) -> Tensor:
        """The logarithm of a gamma variable: of a small alpha it is below any float."""
        above = tf.random.stateless_gamma(
            [rows], seeds(number), alpha + 1.0, dtype=tf.float64
        )
        least = tf.constant(1e-300, tf.float64)
        drawn = tf.random.stateless_uniform([rows], seeds(number + 4), dtype=tf.float64)
        return tf.math.log(above) + tf.math.log(tf.maximum(drawn, least)) / alpha

    share = tf.sigmoid(gamma(1) - gamma(2))
    order = tf.argsort(tf.random.stateless_uniform([rows], seeds(3)))
    return tf.cast(share, tf.float32), order


def _boxes(
    tf: Any, draw: Tensor, rows: Tensor, size: Tensor, share: Tensor
) -> tuple[Tensor, Tensor]:
    """Boxes `(N, H, W)`, and the shares that they leave."""
    seeds = tf.stack([draw, tf.constant(4, draw.dtype)])
    centres = tf.random.stateless_uniform([2, rows], seeds)
    side = tf.sqrt(1.0 - share)
    inside = []
    for axis in (0, 1):
        length = tf.cast(size[axis], tf.float32)
        centre = tf.floor(centres[axis] * length)
        half = tf.floor(side * length) / 2.0
        places = tf.range(length)[None]
        low, high = tf.floor(centre - half)[:, None], tf.floor(centre + half)[:, None]
        inside.append((places >= low) & (places < high))
    box = inside[0][:, :, None] & inside[1][:, None, :]
    return box, 1.0 - tf.reduce_mean(tf.cast(box, tf.float32), [1, 2])


def _like(tf: Any, share: Tensor, part: Tensor) -> Tensor:
    """Shares with the rank of what they multiply."""
    return tf.reshape(share, [-1] + [1] * (len(part.shape) - 1))


def _between(tf: Any, one: Tensor, other: Tensor, share: Tensor) -> Tensor:
    one, other = tf.cast(one, tf.float32), tf.cast(other, tf.float32)
    return other + _like(tf, share, one) * (one - other)


def _check_tasks(tasks: Sequence[Task]) -> None:
    from kmtl.tasks.terms import terms_of

    for task in tasks:
        if task.registered_name not in (*CLASSES, *VALUES):
            raise ValueError(
                "Rows are mixed for tasks whose labels have a mixture: "
                f"{', '.join((*CLASSES, *VALUES))}. Train the task on data of its own. "
                f"Received: task '{task.name}' of kind {task.registered_name}"
            )
        if any(term.task.loss == "focal" for term in terms_of(task)):
            raise ValueError(
                "A mixture of two classes needs a loss that is the sum over both, as "
                f"cross-entropy is. Received: loss='focal' of task '{task.name}'"
            )


def _check_inputs(spec: Any, tasks: Sequence[Task], cut: bool) -> None:
    import keras

    from kmtl.tasks.checks import label_dict

    x, y, _ = keras.utils.unpack_x_y_sample_weight(spec)
    parts = dict(x) if isinstance(x, Mapping) else {"": x}
    if any(label.shape.rank == 0 for label in label_dict(y, tasks).values()):
        raise ValueError(
            "Rows are mixed with others of their batch: call `.batch(64)` on the data "
            "set. Received: single examples"
        )
    for name, part in parts.items():
        what = f"input '{name}'" if name else "an input"
        image = len(part.shape) == 4
        if not (part.dtype.is_floating or (image and part.dtype == "uint8")):
            raise ValueError(
                "Rows are mixed where inputs are floats, or images of bytes: what "
                "stands for a category has no mixture. "
                f"Received: {what} of dtype {part.dtype.name}"
            )
        if cut and not image:
            raise ValueError(
                "`cutmix` needs images (N, height, width, channels); for other inputs "
                f"there is `mixup`. Received: {what} of shape {tuple(part.shape)}"
            )
    if not cut:
        return
    labels = label_dict(y, tasks)
    sizes = {tuple(part.shape[1:3]) for part in parts.values()}
    sizes |= {
        tuple(labels[task.name].shape[1:3])
        for task in tasks
        if task.name in labels and task.dense_prediction
    }
    if len(sizes) > 1:
        raise ValueError(
            "Images and maps that are cut together must be of one size. "
            f"Received: {sorted(sizes, key=str)}"
        )
