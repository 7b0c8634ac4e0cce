"""Independent networks: the control."""

from __future__ import annotations

import pytest
from column_tools import assert_same, cnn, data, mlp, outputs, survives, train, value

pytestmark = [pytest.mark.backend, pytest.mark.thorough(on="jax")]


@pytest.mark.parametrize("build", [mlp, cnn])
def test_it_is_hard_sharing_at_depth_0(build, tmp_path) -> None:
    model = build(sharing="independent", normalization="batch")
    hard = build(sharing_depth=0, normalization="batch")
    assert [v.path for v in model.weights] == [v.path for v in hard.weights]
    x, _ = data(model)
    assert_same(model, hard, x)
    assert model.seam is None
    survives(model, tmp_path)


def test_a_task_has_no_say_in_another() -> None:
    model = mlp(sharing="independent")
    x, y = data(model)
    before = outputs(model, x)["size"]
    model.compile("sgd")
    model.set_task_weights({"kind": 1.0, "size": 0.0})
    model.fit(x, y, verbose=0)
    assert (outputs(model, x)["size"] == before).all()
    train(mlp(sharing="independent"))


def test_there_is_nothing_to_balance() -> None:
    with pytest.raises(ValueError, match="this model shares none"):
        mlp(sharing="independent").compile("sgd", weighting="pcgrad")


def test_one_task_is_a_single_task_model() -> None:
    tasks = [t for t in mlp().tasks if t.name == "size"]
    model = mlp(sharing="independent", tasks=tasks)
    single = mlp(tasks=tasks)
    x, _ = data(model)
    assert_same(model, single, x)
    assert value(model.get_layer("size_block1_dense").kernel).shape == (5, 4)
