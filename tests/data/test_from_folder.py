"""Folders of images: tables of labels, maps, several images per row, bad files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image as Pillow

import kmtl
from kmtl.data import from_folder

pytestmark = pytest.mark.backend

ROWS, SIDE = 20, 8


def picture(number: int, channels: int = 3) -> np.ndarray:
    shape = (SIDE, SIDE) if channels == 1 else (SIDE, SIDE, channels)
    return np.random.default_rng(number).integers(0, 256, shape).astype("uint8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """Two images per row, maps of classes with a palette, depths, and a table."""
    root = tmp_path_factory.mktemp("scenes")
    (root / "left").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for n in range(ROWS):
        Pillow.fromarray(picture(n)).save(root / "left" / f"{n}.png")
        Pillow.fromarray(picture(100 + n, 1)).save(root / f"right{n}.png")
        mask = Pillow.fromarray((picture(n)[..., 0] % 3).astype("uint8"))
        mask.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
        mask.save(root / f"mask{n}.png")
        np.save(root / f"depth{n}.npy", picture(n)[..., 1] / 10)
        rows.append(
            {
                "left": f"left/{n}.png",
                "right": f"right{n}.png",
                "things": f"mask{n}.png",
                "depth": None if n % 5 == 0 else f"depth{n}.npy",
                "room": ["kitchen", "bath"][n % 2],
                "area": rng.uniform(5, 30),
                "floor": int(n % 4),
            }
        )
    pd.DataFrame(rows).to_csv(root / "labels.csv", index=False)
    return root


def tasks() -> dict:
    return {
        kmtl.Segmentation("mask", classes=3): "things",
        kmtl.DenseRegression("depth"): "depth",
        kmtl.Regression("area", transform="standardize"): "area",
    }


@pytest.fixture(scope="module")
def data(folder: Path) -> kmtl.data.TaskData:
    return from_folder(
        folder,
        "labels.csv",
        tasks(),
        targets=["room"],
        inputs={"left": kmtl.inputs.Image((SIDE, SIDE, 3))},
        verbose=False,
    )


def test_images_maps_and_labels_are_those_of_the_row(data: Any) -> None:
    assert [task.name for task in data.tasks] == ["mask", "depth", "area", "room"]
    assert data.train.x.dtype == np.uint8
    for part in data.splits.values():
        for place, row in enumerate(part.rows):
            image = picture(row)
            np.testing.assert_array_equal(part.x[place], image)
            np.testing.assert_array_equal(part.y["mask"][place], image[..., 0] % 3)
            depth = part.y["depth"][place]
            if row % 5 == 0:
                assert np.isnan(depth).all()
            else:
                np.testing.assert_allclose(depth, image[..., 1] / 10, rtol=1e-6)
            assert data.tasks[3].labels[part.y["room"][place]] == (
                "bath" if row % 2 else "kitchen"
            )
    assert "left    left    image, 8 × 8 × 3" in data.description
    assert "segmentation 'mask'" in data.description


@pytest.mark.thorough(on="jax")
def test_it_trains_with_augmentation(data: Any) -> None:
    data = data.select("mask", "room")
    model = kmtl.build(
        inputs=data.inputs,
        tasks=data.tasks,
        backbone=kmtl.backbones.CNN(filters=(4,)),
        seed=0,
    )
    model.compile("adam")
    train = data.train.dataset(14, augment=[keras.layers.RandomFlip("horizontal")])
    model.fit(train, epochs=1, verbose=0)
    assert kmtl.evaluate(model, data.validation)["mask"].labels == len(data.validation)


def photo_model(inputs: dict) -> kmtl.MultiTaskModel:
    return kmtl.build(
        inputs=inputs,
        tasks=[kmtl.BinaryClassification("room")],
        backbone=kmtl.backbones.CNN(filters=(4,)),
        seed=0,
    )


def test_a_model_predicts_from_files(folder: Path) -> None:
    """In the size of training, which is not that of the files."""
    data = from_folder(
        folder,
        "labels.csv",
        targets="room",
        inputs={"left": kmtl.inputs.Image((5, 6, 3))},
        verbose=False,
    )
    model = photo_model(data.inputs)
    paths = [folder / f"left/{row}.png" for row in data.test.rows]
    np.testing.assert_array_equal(model.prepare_inputs(paths), data.test.x)
    wanted = model.predict(data.test.x, verbose=0)["room"]
    frame = pd.DataFrame({"left": paths, "floor": 1})
    for given in (paths, {"left": paths}, frame, np.array(paths, object)):
        found = model.predict(given, verbose=0)["room"]
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(model.predict_on_batch(paths)["room"], wanted)
    one = model.predict(paths[:1], verbose=0)["room"]
    np.testing.assert_allclose(one, wanted[:1], rtol=1e-5)
    model.compile("adam")
    scores = kmtl.evaluate(model, (paths, data.test.y))
    assert scores["room"].score == kmtl.evaluate(model, data.test)["room"].score


def test_files_that_cannot_be_predicted_from_are_named_together(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = photo_model({"left": kmtl.inputs.Image((5, 6, 3))})
    (tmp_path / "text.jpg").write_text("no image at all")
    good = folder / "left/0.png"
    paths = [good, tmp_path / "gone.png", good, tmp_path / "text.jpg", tmp_path]
    with pytest.raises(ValueError, match="3 files that cannot be used") as caught:
        model.predict(paths)
    rule, *lines = str(caught.value).split("\n")
    assert rule.startswith("Every file that `x` names must be there and be a photo.")
    assert "gone.png (row 1 of `x`): there is no such file" in lines[0]
    assert "text.jpg (row 3 of `x`): the file must be an image file" in lines[1]
    assert "(row 4 of `x`)" in lines[2]
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 4)
    with pytest.raises(ValueError, match=r"1 file .*\n.*0.png \(row 0 .*exceeds limit"):
        model.predict([good])
    monkeypatch.undo()
    with pytest.raises(TypeError, match=r"pathlib\.Path\(name\).*text, 'left/0.png'"):
        model.predict(["left/0.png"])
    with pytest.raises(TypeError, match=r"sorted\(pathlib\.Path\(folder\)\.glob"):
        model.predict(folder)


def test_an_export_is_checked_by_files(folder: Path) -> None:
    spec = kmtl.inputs.Image((5, 6, 3), served="bytes")
    paths = [folder / f"left/{n}.png" for n in range(3)]
    (rows,) = spec.serving_rows("left", paths, "`x`").values()
    assert rows.tolist() == [path.read_bytes() for path in paths]


def test_several_images_of_a_row_and_a_table(folder: Path) -> None:
    inputs = {
        "left": kmtl.inputs.Image((4, 4, 3)),
        "right": kmtl.inputs.Image((SIDE, SIDE, 1)),
        "facts": kmtl.inputs.Table(columns=["floor", "area"]),
    }
    data = from_folder(
        folder, "labels.csv", targets="room", inputs=inputs, verbose=False
    )
    assert data.input_shape == {
        "left": (4, 4, 3),
        "right": (SIDE, SIDE, 1),
        "facts": (2,),
    }
    for part in data.splits.values():
        right = np.stack([picture(100 + row, 1)[..., None] for row in part.rows])
        np.testing.assert_array_equal(part.x["right"], right)
        files = [(folder / f"left/{row}.png").read_bytes() for row in part.rows]
        np.testing.assert_array_equal(
            part.x["left"], data.inputs["left"].prepare(files, "`x`")
        )


def test_images_are_found_and_sized_by_themselves(folder: Path) -> None:
    frame = pd.read_csv(folder / "labels.csv")[["left", "right", "room"]]
    data = from_folder(folder, frame, targets=["room"], verbose=False)
    assert data.input_shape == {"left": (SIDE, SIDE, 3), "right": (SIDE, SIDE, 1)}
    small = from_folder(
        folder,
        "labels.csv",
        {kmtl.Segmentation("mask", classes=3): "things"},
        size=(4, 2),
        verbose=False,
    )
    assert small.input_shape["left"] == (4, 2, 3)
    row = small.train.rows[0]
    np.testing.assert_array_equal(  # the nearest pixels: classes are never mixed
        small.train.y["mask"][0], (picture(row)[..., 0] % 3)[1::2, 2::4]
    )


def test_cells_may_be_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `predict` takes them: of the folder's files, or as `glob` gives them."""
    frame = pd.read_csv(folder / "labels.csv")[["left", "room"]]
    wanted = from_folder(folder, frame, targets=["room"], verbose=False)
    monkeypatch.chdir(folder.parent)
    for below in (Path(), folder, Path(folder.name)):
        paths = [below / name for name in frame["left"]]
        given = {"left": paths, "room": frame["room"]}
        data = from_folder(folder, given, targets=["room"], verbose=False)
        np.testing.assert_array_equal(data.train.x, wanted.train.x)


def test_columns_beside_the_images_are_said_to_be_left_out(folder: Path) -> None:
    frame = pd.read_csv(folder / "labels.csv").drop(columns=["things", "depth"])
    frame.loc[:4, "area"] = np.nan
    data = from_folder(folder, frame, targets=["room"], verbose=False)
    *table, last = data.description.splitlines()
    lines = {line.split()[0]: line for line in table[2:]}
    assert list(lines) == ["left", "right", "area", "floor", "room"]
    assert "-       left out: not in `inputs`" in lines["area"]
    assert lines["area"].endswith("25 %")
    inputs = eval(last.partition("inputs=")[2], {"kmtl": kmtl})
    data = from_folder(folder, frame, targets=["room"], inputs=inputs, verbose=False)
    assert data.inputs["facts"].kinds == {"area": "numeric", "floor": "numeric"}
    assert "left out" not in data.description
    assert "To predict from" not in data.description
    photos = from_folder(
        folder, frame[["left", "room"]], targets=["room"], verbose=False
    )
    assert "To predict from" not in photos.description


def test_maps_divide_by_the_classes_in_them(folder: Path, tmp_path: Path) -> None:
    """A class that is in three maps alone is in each part."""
    frame = pd.DataFrame({"image": [f"left/{n}.png" for n in range(ROWS)]})
    for n in range(ROWS):
        np.save(tmp_path / f"{n}.npy", np.full((SIDE, SIDE), 1 + (n < 3), "uint8"))
    frame["mask"] = [str(tmp_path / f"{n}.npy") for n in range(ROWS)]
    data = from_folder(
        folder, frame, [kmtl.Segmentation("mask", classes=3)], verbose=False
    )
    assert [(p.y["mask"] == 2).any() for p in data.splits.values()] == [True] * 3


def test_bad_files_are_named_together(folder: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(folder / "labels.csv")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (tmp_path / "text.jpg").write_text("no image at all")
    Pillow.fromarray(picture(0)).save(tmp_path / "coloured.png")
    frame.loc[2, "left"] = "left/gone.png"
    frame.loc[4, "left"] = str(tmp_path / "broken.png")
    frame.loc[5, "left"] = str(tmp_path / "text.jpg")
    frame.loc[6, "left"] = None
    frame.loc[7, "things"] = str(tmp_path / "coloured.png")
    with pytest.raises(ValueError, match="5 files that cannot be used") as caught:
        from_folder(
            folder,
            frame,
            tasks(),
            inputs={"left": kmtl.inputs.Image((SIDE, SIDE, 3))},
            verbose=False,
        )
    lines = str(caught.value).split("\n")[1:]
    assert len(lines) == 5
    assert "gone.png (row 2, column 'left'): there is no such file" in "\n".join(lines)
    assert any("broken.png (row 4, column 'left')" in line for line in lines)
    (text,) = (line for line in lines if "text.jpg (row 5, column 'left')" in line)
    assert ": the file must be an image file" in text
    assert text.endswith("beginning with b'no image at '")
    assert "row 6, column 'left': no name of a file" in "\n".join(lines)
    (coloured,) = (line for line in lines if "coloured.png" in line)
    assert "one number per pixel" in coloured


def test_maps_of_floats_hold_whole_numbers_or_nothing(tmp_path: Path) -> None:
    names = {"image": [f"{n}.png" for n in range(ROWS)]}
    frame = pd.DataFrame({**names, "things": [f"{n}.npy" for n in range(ROWS)]})
    for n in range(ROWS):
        Pillow.fromarray(picture(n)).save(tmp_path / f"{n}.png")
        found = (picture(n)[..., 0] % 3).astype("float32")
        found[0, 0] = np.nan  # no label
        np.save(tmp_path / f"{n}.npy", found)
    mask = {kmtl.Segmentation("mask", classes=3): "things"}
    options = {"inputs": {"image": kmtl.inputs.Image((SIDE, SIDE, 3))}}
    data = from_folder(tmp_path, frame, mask, verbose=False, **options)
    for part in data.splits.values():
        labels = np.asarray(part.y["mask"])
        missing = (labels < 0) | np.isnan(labels)
        assert missing[:, 0, 0].all()
        assert missing.sum() == len(labels)
        wanted = [picture(n)[..., 0] % 3 for n in part.rows]
        np.testing.assert_array_equal(labels[~missing], np.stack(wanted)[~missing])
    np.save(tmp_path / "4.npy", np.full((SIDE, SIDE), 0.7))
    with pytest.raises(ValueError, match=r"4.npy \(row 4.*'mask' holds.*whole.*0.7"):
        from_folder(tmp_path, frame, mask, verbose=False, **options)


def turned_files(folder: Path, upright: bool, **options: Any) -> kmtl.data.TaskData:
    """Upright photos of 24 × 16, stored on their side, with upright maps."""
    pixels = np.zeros((24, 16, 3), "uint8")
    pixels[:8] = 255
    exif = Pillow.Exif()
    exif[0x0112] = 6
    side = Pillow.fromarray(pixels).transpose(Pillow.Transpose.ROTATE_90)
    frame = pd.DataFrame({"photo": [f"{n}.jpg" for n in range(10)]})
    frame["mask"] = [f"mask{n}.png" for n in range(10)]
    for n in range(10):
        tag = exif if n or upright else Pillow.Exif()
        side.save(folder / f"{n}.jpg", quality=100, exif=tag)
        mask = Pillow.fromarray(pixels[..., 0] // 255)
        if n == 9:  # a map that is on its side as well
            mask = mask.transpose(Pillow.Transpose.ROTATE_90)
        mask.save(folder / f"mask{n}.png", exif=exif if n == 9 else Pillow.Exif())
    mask = [kmtl.Segmentation("mask", classes=2)]
    return from_folder(folder, frame, mask, verbose=False, **options)


def test_photos_and_maps_are_turned_upright(tmp_path: Path) -> None:
    data = turned_files(tmp_path, True)
    assert data.input_shape == (24, 16, 3)
    for part in data.splits.values():
        np.testing.assert_array_equal(part.x[..., 0] > 127, part.y["mask"] > 0)


def test_maps_of_other_proportions_are_refused(tmp_path: Path) -> None:
    wrong = r"1 file .*\n.*mask0.png \(row 0, .*, 24 × 16 pixels.*0.jpg 16 × 24; "
    with pytest.raises(ValueError, match=wrong) as caught:
        turned_files(tmp_path, False, size=(16, 24))
    assert "or to 16 × 24 yourself" in str(caught.value)


@pytest.mark.parametrize("shape", [(12, 8), (4, 4), (5, 3), (72, 47)])
def test_maps_of_other_sizes(tmp_path: Path, shape: tuple[int, int]) -> None:
    """In the photo's proportions but for rounding, or in the model's size."""
    names = {"photo": [f"{n}.png" for n in range(10)], "mask": ["mask.npy"] * 10}
    for name in names["photo"]:
        Pillow.new("RGB", (16, 24)).save(tmp_path / name)
    np.save(tmp_path / "mask.npy", np.ones(shape, "uint8"))
    mask = [kmtl.Segmentation("mask", classes=2)]
    frame = pd.DataFrame(names)
    data = from_folder(tmp_path, frame, mask, size=(4, 4), verbose=False)
    assert data.train.y["mask"].shape[1:] == (4, 4)


def test_many_bad_files_are_counted(folder: Path) -> None:
    frame = pd.DataFrame({"image": [f"{n}.png" for n in range(30)], "y": [0, 1] * 15})
    with pytest.raises(ValueError, match=r"30 files.*\n(.*\n){20}  and 10 more"):
        from_folder(
            folder,
            frame,
            targets=["y"],
            inputs={"image": kmtl.inputs.Image((4, 4, 3))},
        )
    with pytest.raises(ValueError, match="30 files that cannot be used"):
        from_folder(folder, frame, targets=["y"])


def test_a_folder_per_class(tmp_path: Path) -> None:
    for kind in ("cat", "dog", "owl"):
        (tmp_path / kind).mkdir()
        for n in range(4):
            Pillow.fromarray(picture(n)).save(tmp_path / kind / f"{n}.png")
    # What file managers and notebooks leave there.
    for name in (".ipynb_checkpoints/0.png", "cat/.ipynb_checkpoints/0.png"):
        (tmp_path / name).parent.mkdir()
        Pillow.fromarray(picture(0)).save(tmp_path / name)
    (tmp_path / "owl" / "._0.png").write_bytes(b"no image")
    data = from_folder(tmp_path, verbose=False)
    assert data.tasks == [
        kmtl.Classification("label", labels=("cat", "dog", "owl")),
    ]
    assert sorted(len(part) for part in data.splits.values()) == [2, 2, 8]


def write(root: Path, *folders: str, images: int = 6) -> Path:
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for n in range(images):
            Pillow.fromarray(picture(10 * number + n)).save(root / folder / f"{n}.png")
    return root


def test_folders_of_parts_hold_folders_of_classes(tmp_path: Path) -> None:
    parts = {"Train": "train", "val": "validation", "TEST": "test"}
    folders = [f"{part}/{kind}" for part in parts for kind in ("cat", "dog")]
    data = from_folder(write(tmp_path, *folders), verbose=False)
    (task,) = data.tasks
    assert task == kmtl.BinaryClassification("label", labels=("cat", "dog"))
    for number, (folder, part) in enumerate(parts.items()):
        split = data.splits[part]
        assert len(split) == 12
        for kind in (0, 1):
            of_kind = split.x[split.y["label"].ravel() == kind]
            wanted = [picture(10 * (2 * number + kind) + n) for n in range(6)]
            assert sorted(x.tobytes() for x in of_kind) == sorted(
                x.tobytes() for x in wanted
            ), folder
    assert "split   split   not an input" in data.description
    # The user's own division of them all.
    data = from_folder(tmp_path, split=(0.5, 0.25, 0.25), verbose=False)
    assert [len(part) for part in data.splits.values()] == [18, 9, 9]


def test_validation_without_a_folder_is_of_the_training_images(tmp_path: Path) -> None:
    root = write(tmp_path, "train/cat", "train/dog", "test/cat", "test/dog", images=10)
    data = from_folder(root, verbose=False)
    assert [len(part) for part in data.splits.values()] == [17, 3, 20]
    assert "validation: 3 of the 20 training rows" in data.description


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (("cat/a", "dog/b", "owl"), ("cat", "dog", "owl")),
        (("cat/images", "dog/images", "owl/images"), ("cat", "dog", "owl")),
        (("train", "bus", "car"), ("bus", "car", "train")),
    ],
)
def test_deeper_folders_are_of_the_class_around_them(
    tmp_path: Path, folders: tuple[str, ...], classes: tuple[str, ...]
) -> None:
    data = from_folder(write(tmp_path, *folders), verbose=False)
    assert data.tasks[0].labels == classes
    deep = 6 * sum("/" in folder for folder in folders)
    assert (f"outermost folder of a class; {deep}" in data.description) == bool(deep)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train", "test"), "12 images in no class, such as test/0.png"),
        (("train/a", "train/b", "test"), "folder='.*train', and predict.* 6 images in"),
        (("train/a", "train/b"), "folder='.*train'. Received: train alone"),
        (("train/a", "test/a", "more/a"), "move others away.* more beside test, train"),
        (("images/a", "images/b"), "folder='.*images'. Received: 'images' alone"),
        (("train/x/a", "train/x/b", "test/x/a"), "move them out of 'x'"),
        (("a/train", "a/test", "b/train"), "Received: test, train in 'a'"),
        (("x/a", "x/b", "y/a", "y/b"), "Received: a, b in 'x' and in 'y'"),
    ],
)
def test_folders_that_do_not_say_the_class_are_refused(
    tmp_path: Path, folders: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        from_folder(write(tmp_path, *folders), verbose=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "folders of images, one for each class.*none in"),
        ({"targets": ["rom"]}, "no column 'rom'. Did you mean 'room'"),
        (
            {"tasks": [kmtl.Segmentation("mask", classes=3)]},
            "`tasks` must be columns of the table. There is no column 'mask'",
        ),
        ({"inputs": ["left"]}, "`inputs` must be a dict of kmtl.inputs objects"),
        ({"size": (4,)}, r"`size` must be \(height, width\)"),
        (
            {"labels": pd.DataFrame({"a": [1, 2], "room": ["x", "y"]})},
            "A column must name image files",
        ),
        (
            {"inputs": {"left": kmtl.inputs.Image((4, 4, 1)), "lft": 3}},
            "Received: 'lft': int",
        ),
    ],
)
def test_what_is_refused(folder: Path, tmp_path: Path, change: dict, message: str):
    options = {"labels": "labels.csv", "targets": ["room"], **change}
    root = tmp_path if options["labels"] is None else folder
    with pytest.raises((ValueError, TypeError), match=message):
        from_folder(root, options.pop("labels"), verbose=False, **options)


def test_images_of_several_sizes_need_a_size(folder: Path, tmp_path: Path) -> None:
    for n in range(20):
        Pillow.fromarray(picture(n)[: 4 + n % 2]).save(tmp_path / f"{n}.png")
    frame = pd.DataFrame({"image": [f"{n}.png" for n in range(20)], "y": [0, 1] * 10})
    with pytest.raises(ValueError, match="must have one size: give `size`"):
        from_folder(tmp_path, frame, targets=["y"], verbose=False)
    data = from_folder(tmp_path, frame, targets=["y"], size=(4, 4), verbose=False)
    assert data.input_shape == (4, 4, 3)
    with pytest.raises(FileNotFoundError, match="`folder` must be a folder"):
        from_folder(tmp_path / "gone", frame, targets=["y"])
