"""Several data sets, each labelled for its own tasks, as one to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kmtl import _checks
from kmtl.data.containers import TaskData
from kmtl.data.mixed_sets import LabelledSet, mixed
from kmtl.data.plans import BY_LOSS, TURNS, check_steps
from kmtl.typing import Data


def mixture(
    datasets: Mapping[Any, Data | TaskData],
    sampling: str | Mapping[Any, float] = "proportional",
    steps: str | int = "longest",
    *,
    temperature: float = 2.0,
    alternate: bool | str = False,
    batch_size: int = 32,
    seed: int = 0,
) -> Any:
    """Several data sets, each labelled for its own tasks only, as one to train on.

    Each row trains the trunk and the heads of its own tasks; labels of the others are
    missing there (NaN, or the task's `missing`). By default batches are mixed, which is
    joint training: every batch has rows of all sets, as evenly as its size allows. With
    `alternate=True` every batch has rows of one set, and sets take turns; with
    `alternate="epoch"` every epoch has.

    What an epoch holds of each set is exact, spread evenly over it, and comes from the
    seed and the epoch's number alone: a run that goes on sees what an unbroken one
    would. A set is read in passes, each in an order of its own, and a new epoch goes on
    in the pass where the last one ended. `mixture.counts()` tells how often each set is
    seen. Validation and evaluation take every row once, whatever the sampling.

    Beware of `BatchNormalization`: in batches of one set it normalises by the
    statistics of one set, while at inference it takes a mean of all sets' statistics,
    which may be right for none; the more so, the less alike the inputs are. Mix the
    batches, or use a normalisation of single rows (`LayerNormalization`,
    `GroupNormalization`).

    Args:
        datasets: Dict task, or tuple of tasks -> data set with their labels: `(x, y)`
            arrays (`y` a dict, or an array for one task), a `kmtl.data.Split`, or a
            batched `tf.data.Dataset` of `(x, y)` or `(x, y, masks)`, whose last batch
            counts as a whole one. Or `kmtl.data.TaskData` all of them. A task may be in
            several sets; tasks of a Split may be given by name. Inputs are arrays of
            one shape and dtype in all sets, or dicts: then an input that a set lacks is
            zeros (or empty strings) there, which only its own tasks see.
        sampling: Share of each set in an epoch: `"proportional"` to its rows;
            `"equal"`; `"temperature"`, in proportion to rows ** (1 / temperature);
            `"loss"`, equal in the first epochs and then in proportion to each set's
            loss in the last epoch over that in the first, so that what is learned
            slowly is seen more (not for a `tf.data.Dataset`, nor in searches); or a
            dict set -> number > 0, with the keys of `datasets`.
        steps: End of an epoch: when the set that lasts `"longest"` has been seen once
            (default; others are repeated), the `"shortest"`, or a number of batches.
        temperature: >= 1: 1 is proportional, infinity equal. Defaults to 2.
        alternate: True: batches of one set each; `sampling` shares out the batches.
            `"epoch"`: epochs of one set each, all equally long, that of the longest or
            shortest set or of `steps`; `sampling` shares out the epochs. Not for a
            `tf.data.Dataset`. Defaults to False, mixed batches.
        batch_size: Rows per batch where there is a `tf.data.Dataset`; of arrays `fit`
            is told. Defaults to 32.
        seed: Integer >= 0, of the order of rows.

    Returns:
        Of arrays and splits a `Mixture`, which `fit`, `validation_data`,
        `kmtl.evaluate`, `fit_run` and `search` take as a `kmtl.data.Split`, on every
        backend, in populations too; it holds a copy of the rows. Where one of the sets
        is a `tf.data.Dataset` a data set of `(x, y, masks)` batches, which reads while
        it trains: give it sets that are shuffled, for each epoch begins them anew. Of
        `TaskData` a `TaskData` whose training part is a `Mixture`, and the others all
        rows.

    Raises:
        ValueError, TypeError: for labels that do not fit their task, inputs that differ
            in shape, dtype or form, and sample weights of arrays.

    Example:

    >>> letter = kmtl.Classification("letter", classes=3)
    >>> size = kmtl.Regression("size")
    >>> letters = np.zeros((30, 4)), np.arange(30) % 3
    >>> sizes = np.ones((10, 4)), np.linspace(0, 1, 10)
    >>> train = kmtl.data.mixture({letter: letters, size: sizes}, "equal")
    >>> train.counts()[["rows", "share", "passes"]]
            rows  share  passes
    set
    letter    30    0.5     1.0
    size      10    0.5     3.0
    >>> model = kmtl.build_mlp(
    ...     input_shape=(4,), tasks=train.tasks, units=(8,), seed=0
    ... )
    >>> model.compile("adam")
    >>> history = model.fit(train, batch_size=16, epochs=2, verbose=0)
    >>> kmtl.evaluate(model, train).examples
    40

    References: temperature sampling: Arivazhagan et al., "Massively multilingual neural
    machine translation in the wild", arXiv:1907.05019; by what has been learned: Jean
    et al., "Adaptive scheduling for multi-task learning", arXiv:1909.06434.
    """
    sets = [LabelledSet.of(key, data) for key, data in _checked(datasets).items()]
    names = [one.name for one in sets]
    if len(set(names)) < len(names):
        raise ValueError(
            "Each set must have tasks of its own; give rows with the same tasks as one "
            f"set. Received: {', '.join(names)}"
        )
    batch_size = _checks.check_int("batch_size", batch_size, 1)
    options = {
        "sampling": _by_name(sampling, datasets, names),
        "steps": check_steps(steps),
        "temperature": temperature,
        "alternate": _checks.check_choice("alternate", alternate, TURNS),
        "seed": _checks.check_int("seed", seed, 0),
    }
    if options["sampling"] == BY_LOSS:
        _check_losses(sets)
    kinds = {isinstance(one.data, TaskData) for one in sets}
    if kinds == {True}:
        from kmtl.data.mixed_parts import mixed_data

        return mixed_data(sets, options)
    if True in kinds:
        raise TypeError(
            "`datasets` must be kmtl.data.TaskData all of them, or parts such as "
            "`data.train` all of them. Received: some of each"
        )
    if any(hasattr(one.data, "element_spec") for one in sets):
        from kmtl.data.mixed_streams import mixed_stream

        return mixed_stream(sets, batch_size=batch_size, **options)
    return mixed(sets, **options)


def _checked(datasets: Any) -> Mapping[Any, Any]:
    if not isinstance(datasets, Mapping):
        raise TypeError(
            "`datasets` must be a dict task, or tuple of tasks -> data set with their "
            f"labels. Received: {type(datasets).__name__}"
        )
    if not datasets:
        raise ValueError("`datasets` must hold at least one data set. Received: none")
    return datasets


def _check_losses(sets: Sequence[LabelledSet]) -> None:
    """Shares by losses need losses above 0, and epochs that are drawn here."""
    from kmtl.tasks.terms import may_be_negative

    for one in sets:
        for task in one.tasks:
            if may_be_negative(task):
                raise ValueError(
                    "sampling='loss' needs losses above 0, and that of task "
                    f"'{task.name}' may be negative: take another sampling, or loss. "
                    f"Received: loss={task.loss!r}"
                )
        if hasattr(one.data, "element_spec"):
            raise ValueError(
                "sampling='loss' needs arrays or splits: a tf.data.Dataset is laid out "
                f"before it trains. Received: a tf.data.Dataset for '{one.name}'"
            )


def _by_name(sampling: Any, datasets: Mapping, names: Sequence[str]) -> Any:
    """Shares by the names of sets, where they are given by the keys of `datasets`."""
    if not isinstance(sampling, Mapping):
        return sampling
    keys = dict(zip(datasets, names, strict=True))
    return {keys.get(key, key): share for key, share in sampling.items()}
