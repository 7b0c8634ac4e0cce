"""What a quickstart run says of its tasks and of what it found."""

from __future__ import annotations

from collections.abc import Mapping

from kmtl.evaluation import Evaluation

#: What is asked of an image, in the words of a person.
MEANINGS = {
    "digit": "which digit it is",
    "parity": "whether the digit is odd",
    "mask": "which of the 64 pixels are ink and which are paper",
    "ink": "how much ink there is, in standard deviations from the mean image",
}
#: Within so many % a shared net is as good as separate ones to most users; one training
#: of each does not tell less.
ACCEPTABLE = 2.0


def verdict(
    evaluation: Evaluation,
    depth: int,
    blocks: int,
    sizes: Mapping[str, int],
) -> list[str]:
    """Whether to share, from the comparison on the test split, in sentences.

    Args:
        evaluation: Of the best model, with baselines.
        depth: Blocks of the trunk that the best model shares.
        blocks: Blocks that it has.
        sizes: Numbers of parameters: `"shared"` of the best model, `"separate"` of all
            single-task models together.
    """
    mean = evaluation.delta_m
    if mean is None:
        return []
    share = f"{sizes['shared'] / sizes['separate']:.0%} of their parameters"
    where = f"one net that shares {depth} of {blocks} blocks"
    if depth == 0:
        said = [
            "The best trial shares nothing (sharing depth 0). Whether these tasks gain "
            "from sharing a net of this size, so few trainings do not tell; trained "
            f"apart they are at Δm {mean:+.1f} %, which is noise of training and what "
            "the search chose."
        ]
    elif mean > ACCEPTABLE:
        said = [
            f"The tasks are better off in {where}, by {mean:.1f} % on average (Δm), "
            f"with {share}."
        ]
    elif mean >= -ACCEPTABLE:
        said = [
            f"In {where} the tasks are within {abs(mean):.1f} % of separate nets on "
            f"average (Δm {mean:+.1f} %), with {share}."
        ]
    else:
        said = [
            f"Separate nets are better by {-mean:.1f} % on average (Δm) than {where}, "
            f"which has {share}."
        ]
    worst = min(evaluation.deltas, key=lambda name: evaluation.deltas[name])
    row = evaluation[worst]
    if row.delta is not None and row.delta < -ACCEPTABLE:
        said.append(
            f"It is `{worst}` that loses most: {row.metric} {row.shown} against "
            f"{row.baseline:.4g} alone. More epochs (--epochs) help a task that has "
            "just not learned enough yet; more trials (--trials) find it more weight."
        )
    return said
