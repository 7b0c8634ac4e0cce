"""Known sets of tensorflow-datasets: the tasks, the input and the parts of each.

A new set is one function in `TABLE`, and a row in `tests/data/test_presets.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kmtl.data.preset_features import clip, depth_map, label_map, photo

if TYPE_CHECKING:
    from kmtl.tasks.base import Task

Size = tuple[int, int]

#: The end of train validates.
TWO = {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}
#: Where papers report on a part called "validation".
NO_TEST = {"train": "train[:90%]", "validation": "train[90%:]", "test": "validation"}
THREE = {"train": "train", "validation": "validation", "test": "test"}
ONE = {"train": "train[:80%]", "validation": "train[80%:90%]", "test": "train[90%:]"}

CLOTHES = (
    *("t_shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle_boot"),
)
CELEB_A = (
    *("5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald"),
    *("Bangs", "Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry"),
    *("Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses", "Goatee"),
    *("Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open"),
    *("Mustache", "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose"),
    *("Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair"),
    *("Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick"),
    *("Wearing_Necklace", "Wearing_Necktie", "Young"),
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known of a set.

    Args:
        tfds: Its name in tensorflow-datasets.
        tasks: Dict task -> source, as for `kmtl.data.from_tfds`.
        inputs: Source of the input.
        input: `kmtl.inputs` object for the input.
        parts: Dict train, validation, test -> split of tensorflow-datasets.
    """

    tfds: str
    tasks: Mapping[Task, Any]
    inputs: Any
    input: Any
    parts: Mapping[str, str]


def _photos(
    tfds: str, tasks: Mapping[Task, Any], shape: tuple, parts: Any, **source: Any
) -> Entry:
    from kmtl.inputs import Image

    return Entry(tfds, tasks, photo(shape, **source), Image(shape), parts)


def _classes(**counts: int) -> list[Task]:
    from kmtl.tasks import Classification

    return [Classification(name, classes=count) for name, count in counts.items()]


def _labelled(tfds: str, task: str, shape: tuple) -> Callable[[Any], Entry]:
    """One task of ten classes in the feature `label`."""

    def entry(size: Size | None) -> Entry:
        from kmtl.tasks import Classification

        names = CLOTHES if task == "garment" else None
        made = Classification(task, classes=10, labels=names)
        return _photos(tfds, {made: "label"}, _sized(shape, size), TWO)

    return entry


def _factors(tfds: str, shape: tuple, parts: Any, /, **counts: int) -> Callable:
    """Tasks of classes, each in the feature `label_` + its name."""

    def entry(size: Size | None) -> Entry:
        tasks = {task: f"label_{task.name}" for task in _classes(**counts)}
        scale = 255 if tfds == "dsprites" else 1  # whose pixels are 0 and 1
        return _photos(tfds, tasks, _sized(shape, size), parts, scale=scale)

    return entry


def _cifar100(size: Size | None) -> Entry:
    fine, coarse = _classes(fine=100, coarse=20)
    tasks = {fine: "label", coarse: "coarse_label"}
    return _photos("cifar100", tasks, _sized((32, 32, 3), size), TWO)


def _pets(size: Size | None) -> Entry:
    from kmtl.tasks import BinaryClassification, Segmentation

    shape = _sized((128, 128, 3), size)
    (breed,) = _classes(breed=37)
    species = BinaryClassification("species", labels=("cat", "dog"))
    mask = Segmentation("mask", classes=3, labels=("pet", "background", "border"))
    tasks: dict[Task, Any] = {
        species: "species",
        breed: "label",
        mask: label_map("segmentation_mask", shape[:2], first=1),
    }
    return _photos("oxford_iiit_pet", tasks, shape, TWO)


def _faces(size: Size | None) -> Entry:
    from kmtl.data.targets import task_name
    from kmtl.tasks import BinaryClassification

    tasks: dict[Task, Any] = {
        BinaryClassification(task_name(name.lower())): f"attributes/{name}"
        for name in CELEB_A
    }
    return _photos("celeb_a", tasks, _sized((109, 89, 3), size), THREE)


def _rooms(size: Size | None) -> Entry:
    from kmtl.tasks import DenseRegression

    shape = _sized((120, 160, 3), size)
    depth = DenseRegression("depth", missing=0, unit="m")
    tasks: dict[Task, Any] = {depth: depth_map("depth", shape[:2])}
    return _photos("nyu_depth_v2", tasks, shape, NO_TEST)


def _streets(size: Size | None) -> Entry:
    from kmtl.tasks import Segmentation

    shape = _sized((128, 256, 3), size)
    things = Segmentation("things", classes=34)
    tasks: dict[Task, Any] = {things: label_map("segmentation_label", shape[:2])}
    return _photos("cityscapes", tasks, shape, NO_TEST, name="image_left")


def _commands(size: Size | None) -> Entry:
    from kmtl.inputs import Audio

    _unsized("speech_commands", size)
    (command,) = _classes(command=12)
    sound = Audio(16_000, seconds=1.0)
    return Entry("speech_commands", {command: "label"}, clip(16_000), sound, THREE)


def _reviews(size: Size | None) -> Entry:
    from kmtl.inputs import Text
    from kmtl.tasks import BinaryClassification

    _unsized("imdb", size)
    sentiment = BinaryClassification("sentiment", labels=("negative", "positive"))
    words = Text(length=256)
    return Entry("imdb_reviews", {sentiment: "label"}, "text", words, TWO)


def _sized(shape: tuple, size: Size | None) -> tuple:
    return shape if size is None else (*size, shape[-1])


def _unsized(name: str, size: Size | None) -> None:
    if size is not None:
        raise ValueError(
            f"`size` is of images, which '{name}' has not. Received: {size}"
        )


#: Name -> what makes the entry for a size of images, None for the set's own.
TABLE: dict[str, Callable[[Size | None], Entry]] = {
    "mnist": _labelled("mnist", "digit", (28, 28, 1)),
    "fashion_mnist": _labelled("fashion_mnist", "garment", (28, 28, 1)),
    "svhn": _labelled("svhn_cropped", "house_digit", (32, 32, 3)),
    "cifar10": _labelled("cifar10", "thing", (32, 32, 3)),
    "cifar100": _cifar100,
    "oxford_iiit_pet": _pets,
    "celeb_a": _faces,
    "nyu_depth_v2": _rooms,
    "cityscapes": _streets,
    "dsprites": _factors(
        *("dsprites", (64, 64, 1), ONE),
        **{"shape": 3, "scale": 6, "orientation": 40},
        **{"x_position": 32, "y_position": 32},
    ),
    "shapes3d": _factors(
        *("shapes3d", (64, 64, 3), ONE),
        **{"floor_hue": 10, "wall_hue": 10, "object_hue": 10},
        **{"scale": 8, "shape": 4, "orientation": 15},
    ),
    "smallnorb": _factors(
        *("smallnorb", (96, 96, 1), TWO),
        **{"category": 5, "elevation": 9, "azimuth": 18, "lighting": 6},
    ),
    "speech_commands": _commands,
    "imdb": _reviews,
}
