"""Series and sounds: scales, padding, and what is refused."""

from __future__ import annotations

import logging

import keras
import numpy as np
import pytest
from keras import ops

import kmtl
from kmtl.inputs import Audio, Series, Tokens
from kmtl.inputs.audio import FLOOR
from kmtl.layers import LayerMaker

pytestmark = pytest.mark.backend
RNG = np.random.default_rng(0)
ROWS = [RNG.normal(3, 2, (n, 2)) for n in (4, 2, 5)]
CLIPS = [RNG.uniform(-0.5, 0.5, n).astype("float32") for n in (800, 500, 1000)]
SOUND = Audio(4000, bands=8).fit(CLIPS)


def encoded(spec, x) -> tuple[np.ndarray, np.ndarray]:
    """What trunks get, and where it is padded."""
    inputs = keras.Input(spec.shape, dtype=spec.dtype)
    make = LayerMaker("x")
    outputs = [spec.encode(inputs, make), spec.mask(inputs, make)]
    model = keras.Model(inputs, outputs)
    return tuple(map(ops.convert_to_numpy, model(spec.prepare(x, "`x`"))))


def test_series_are_standardized_over_steps_that_are_there() -> None:
    spec = Series().fit(ROWS)
    assert (spec.length, spec.channels) == (5, 2)
    x, mask = encoded(spec, ROWS)
    assert mask.sum(axis=1).tolist() == [4, 2, 5]
    steps = np.concatenate(ROWS)
    z = (steps - steps.mean(0)) / steps.std(0)
    np.testing.assert_allclose(x[mask > 0], z, rtol=1e-4, atol=1e-5)
    assert (x[mask == 0] == 0).all()


def test_series_of_every_form() -> None:
    spec = Series(scale=None).fit(ROWS)
    expected = spec.prepare(ROWS, "`x`")
    padded = np.full((3, 7, 2), np.nan)
    for place, row in zip(padded, ROWS, strict=True):
        place[: len(row)] = row
    objects = np.empty(3, object)
    objects[:] = ROWS
    for given in (padded, padded[:, :5].tolist(), objects, expected):
        np.testing.assert_array_equal(spec.prepare(given, "`x`"), expected)
    one = Series().fit([[1.0, 2.0], [3.0]])
    assert one.shape == (2, 2)


def test_padding_in_front_is_said_once(caplog) -> None:
    spec = Tokens().fit([[0, 0, 4, 5], [1, 2, 0, 3]])
    with caplog.at_level(logging.WARNING, "kmtl"):
        spec.prepare([[1, 0, 2, 0], [0, 0]], "`x`")
        assert not caplog.records
        found = [spec.prepare([[0, 0, 4, 5]], "`x`").tolist() for _ in range(2)]
    assert found == [[[0, 0, 4, 5]]] * 2  # labels of steps stay at theirs
    (record,) = caplog.records
    assert "`x` holds rows that begin with 0, the padding" in record.getMessage()


def test_what_is_too_long_is_said_once(caplog) -> None:
    for spec, rows, unit in (
        (Series(3).fit(ROWS), ROWS, "2 series of more than 3 steps"),
        (Audio(4000, seconds=0.2, bands=8).fit(CLIPS), CLIPS, "1 clips of more than"),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "kmtl"):
            spec.prepare(rows, "`x`")
            spec.prepare(rows, "`x`")
        (record,) = caplog.records
        assert unit in record.getMessage()


def test_log_mel_by_hand() -> None:
    """From the definition of the transform and of the bands, in NumPy."""
    rows = [CLIPS[2]]
    spec = SOUND
    x, mask = encoded(spec, rows)
    window, step, size = 100, 40, 256
    assert x.shape == (1, 25, 8)
    assert mask.sum() == 25
    wave = np.pad(CLIPS[2].astype("float64"), (size // 2, size))
    wave[: size // 2] = CLIPS[2][1 : size // 2 + 1][::-1]  # reflected
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    frame = np.pad(hann, ((size - window) // 2, (size - window + 1) // 2))
    power = np.stack(
        [
            np.abs(np.fft.rfft(wave[i * step : i * step + size] * frame)) ** 2
            for i in range(25)
        ]
    )

    def mel(hertz):
        return 1127.0 * np.log(1 + np.asarray(hertz) / 700)

    edges = np.linspace(mel(20.0), mel(2000.0), 10)
    bins = mel(np.linspace(0, 2000, size // 2 + 1))[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bands = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    bands = np.maximum(bands, 0)
    bands[0] = 0
    log = np.log(power @ bands + FLOOR)
    center, factor = (np.array(spec.statistics[k]) for k in ("center", "factor"))
    np.testing.assert_allclose(x[0], (log - center) * factor, rtol=1e-2, atol=1e-2)


def test_a_clip_does_not_depend_on_its_neighbours_or_padding() -> None:
    together, mask = encoded(SOUND, CLIPS)
    alone, _ = encoded(SOUND, CLIPS[1:2])
    np.testing.assert_allclose(alone[0], together[1], rtol=1e-4, atol=1e-4)
    assert mask.sum(axis=1).tolist() == [20, 13, 25]
    assert (together[mask == 0] == 0).all()
    longer, _ = encoded(SOUND.replace(samples=1400), CLIPS)
    np.testing.assert_allclose(longer[:, :25], together, rtol=1e-4, atol=1e-4)
    present = together[mask > 0]
    np.testing.assert_allclose(present.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(present.std(axis=0), 1, rtol=1e-3)


def test_waves_of_every_form() -> None:
    expected = SOUND.prepare([np.round(c * 32767) / 32768 for c in CLIPS], "`x`")
    whole = [np.round(c * 32767).astype("int16") for c in CLIPS]
    np.testing.assert_allclose(SOUND.prepare(whole, "`x`"), expected, atol=1e-6)
    np.testing.assert_array_equal(SOUND.prepare(expected, "`x`"), expected)
    assert encoded_map().shape == (None, 25, 8, 1)


def encoded_map():
    spec = SOUND.replace(give="map")
    inputs = keras.Input(spec.shape)
    assert spec.mask(inputs, LayerMaker("x")) is None
    return spec.encode(inputs, LayerMaker("x"))


def test_a_served_series_refuses_what_predict_refuses() -> None:
    tf = pytest.importorskip("tensorflow")
    spec = Series(2, scale=None).fit(ROWS)
    nan = np.nan
    good = [[[1.0, 2.0], [nan, nan]], [[1.0, 2.0], [3.0, 4.0]]]
    served = spec.serve({"x": tf.constant(good)}).numpy()
    np.testing.assert_array_equal(served, spec.prepare(good, "`x`"))
    for bad in (
        [[1.0, nan], [3.0, 4.0]],
        [[nan, nan], [3.0, 4.0]],
        [[1.0, 2.0], [np.inf, 4.0]],
        [[1.0, 2.0], [nan, nan], [5.0, 6.0]],  # also behind what is kept
    ):
        with pytest.raises(ValueError, match="fill the gaps"):
            spec.prepare([bad], "`x`")
        with pytest.raises(tf.errors.InvalidArgumentError, match="fill the gaps"):
            spec.serve({"x": tf.constant([bad])})


def test_a_served_sound_refuses_what_predict_refuses() -> None:
    tf = pytest.importorskip("tensorflow")
    good = CLIPS[0][None]
    np.testing.assert_array_equal(
        SOUND.serve({"x": tf.constant(good)}).numpy(), SOUND.prepare(good, "`x`")
    )
    for bad in (good * 32768, np.full((1, 1200), np.nan), np.full((1, 9), -np.inf)):
        with pytest.raises(ValueError, match=r"`x` must (be finite|hold floats)"):
            SOUND.prepare(bad, "`x`")
        with pytest.raises(tf.errors.InvalidArgumentError, match="'x' must hold finit"):
            SOUND.serve({"x": tf.constant(bad, "float32")})


def test_one_clip_is_one_row_with_an_axis_of_channels_too() -> None:
    model = kmtl.build(
        inputs=SOUND, backbone="rnn", tasks=[kmtl.Regression("y")], seed=0
    )
    expected = model.predict(CLIPS[:1], verbose=0)["y"]
    for x in ([CLIPS[0][:, None]], [CLIPS[0][None]], [[CLIPS[0]]]):
        np.testing.assert_allclose(model.predict(x, verbose=0)["y"], expected)
    two = model.predict([[CLIPS[0][:, None], CLIPS[1][:, None]]], verbose=0)["y"]
    assert two.shape == (2, 1)


def test_a_fitted_sound_takes_another_length() -> None:
    spec = SOUND.replace(seconds=0.1)
    assert spec.shape == (400,)
    np.testing.assert_array_equal(
        spec.prepare(CLIPS, "`x`"), SOUND.prepare(CLIPS, "`x`")[:, :400]
    )


def test_refusals() -> None:
    series = Series().fit(ROWS)
    hole = [np.array([[1.0, 2.0], [np.nan, 2.0]])]
    for call, message in (
        (
            lambda: series.prepare([[[1.0]]], "`x`"),
            r"Row 0 of `x` must have 2 channels",
        ),
        (lambda: series.prepare(hole, "`x`"), r"Row 0 of `x` must be finite.*fill"),
        (lambda: series.prepare([["a"]], "`x`"), r"Row 0 of `x` must hold numbers"),
        (lambda: series.prepare(np.ones(3), "`x`"), r"must be a sequence of arrays"),
        (lambda: Series().fit([[], []]), r"must hold steps.*2 rows without any"),
        (lambda: SOUND.prepare(["a.wav"], "`x`"), r"must be a waveform.*'a\.wav'"),
        (lambda: SOUND.prepare([np.ones((5, 2))], "`x`"), r"must be one channel"),
        (lambda: SOUND.prepare([np.ones(5) * 900], "`x`"), r"divide 16-bit samples"),
        (lambda: SOUND.prepare([np.ones(5, "int64")], "`x`"), r"16-bit integers"),
        (
            lambda: SOUND.prepare(np.full((2, 1000), -900, "float32"), "`x`"),
            r"`x` must hold floats within -1 and 1: divide 16-bit.*up to 900",
        ),
        (lambda: Audio(4000).fit([np.zeros(9)]), r"1 clips of zeros alone"),
        (lambda: Audio(4000, highest=3000), r"`highest` must be"),
        (lambda: Audio(4000, give="waves"), r"`give` must be"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()
    with pytest.raises(ValueError, match=r"must be fitted.*Audio\(\.\.\.\)\.fit"):
        kmtl.build(
            inputs={"sound": Audio(4000)},
            backbone="rnn",
            tasks=[kmtl.Regression("y")],
        )


@pytest.mark.parametrize(
    "way", ["mmoe", "ple", "ensemble", "fusion", "fused experts", "one fused"]
)
def test_longer_padding_changes_no_prediction(way: str) -> None:
    net = kmtl.backbones.RNN(units=(3,))
    other = {"more": kmtl.inputs.Array((2,), scale=None)}
    other = other if way in ("fusion", "fused experts") else {}
    backbone: dict | kmtl.backbones.Backbone = net
    if way == "ensemble":
        backbone = kmtl.backbones.Ensemble(backbone=net, members=2)
    elif way == "one fused":
        backbone = {"x": net}
    elif other:
        backbone = {"x": net, "more": kmtl.backbones.MLP(units=(2,))}
    plain = way in ("ensemble", "fusion")
    found = []
    for kind in (SOUND, SOUND.replace(samples=1400)):
        model = kmtl.build(
            backbone=backbone,
            inputs={"x": kind, **other},
            tasks=[kmtl.Regression("a"), kmtl.Regression("b")],
            sharing="hard" if plain else "ple" if way == "ple" else "mmoe",
            seed=0,
        )
        x = kind.prepare(CLIPS, "`x`")
        x = {"x": x, "more": np.eye(3, 2, dtype="float32")} if other else x
        found.append(ops.convert_to_numpy(model(x)["a"]))
    assert np.ptp(found[0]) > 1e-3
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-5)
