"""Text that stands for dates or numbers is named, with what to do, which works."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest

import kmtl
from kmtl.data.targets import infer
from kmtl.inputs.cells import read
from kmtl.inputs.spelling import spelling_of

DAYS = pd.Series(pd.date_range("2024-01-02", periods=60, freq="D"))
MONEY = pd.Series(np.arange(60) * 117.25)
TIMES = pd.Series(pd.date_range("2024-01-02 00:07", periods=60, freq="23min"))
DRAW = np.random.default_rng(0)
PHONES = DRAW.integers(601_000_000, 799_999_999, 60)


def made(texts: pd.Series) -> Any:
    """What the remedy makes of a column."""
    found = spelling_of(read(texts, "texts"))
    assert found is not None
    code = found.parsed("texts").partition(", or ")[0]
    return eval(code, {"pandas": pd, "frame": {"texts": texts}})


@pytest.mark.parametrize(
    "form",
    [
        *("%d.%m.%Y", "%m/%d/%Y", "%d/%m/%y", "%Y/%m/%d", "%d %b %Y", "%B %d, %Y"),
        "%d-%m-%Y %H:%M",
    ],
)
def test_dates_are_read_as_they_are_meant(form: str) -> None:
    pd.testing.assert_series_equal(
        made(DAYS.dt.strftime(form)), DAYS, check_dtype=False
    )


def test_whether_days_come_first_is_left_open_where_nothing_says_so() -> None:
    found = spelling_of(read(["01/02/2024", "03/04/2024"], "texts"))
    assert found is not None
    assert "'%d/%m/%Y'), or pandas.to_datetime({column}, format='%m" in found.remedy
    assert found.remedy.endswith(" if months come first")


@pytest.mark.parametrize(
    "texts",
    [
        MONEY.map("${:,.2f}".format),
        MONEY.map("{:,.2f}".format),
        MONEY.map("{:.2f} %".format),
        MONEY.map("{} km/h".format),
        MONEY.map("{:,.2f} €".format).str.translate(str.maketrans(",.", ".,")),
        MONEY.map("{:,.2f}".format).str.replace(",", " "),
    ],
)
def test_numbers_are_read_as_they_are_meant(texts: pd.Series) -> None:
    np.testing.assert_allclose(made(texts), MONEY)


@pytest.mark.parametrize(
    ("form", "scale"),
    [
        ("{:.3f} kg", 1e3),  # some below 1
        ("{:.3f} kg", 1.0),  # some above 1000, without a mark
        ("{:,.3f} kg", 1.0),
        ("{:,.3f}", 1.0),
        ("{:,.0f} kg", 1.0),
        ("{:,.2f} kg", 1.0),
    ],
)
@pytest.mark.parametrize("marks", [",.", ".,", " ,", "'."])
def test_three_digits_behind_a_mark(form: str, scale: float, marks: str) -> None:
    values = MONEY / scale + 0.375 * (scale == 1.0) * (".3" in form)
    texts = values.map(form.format).str.translate(str.maketrans(",.", marks))
    exact = 0.5 if ".0" in form else 0.006
    np.testing.assert_allclose(made(texts), values, atol=exact)


@pytest.mark.parametrize(("mark", "name"), [(".", "points"), (",", "commas")])
def test_whether_decimals_follow_is_left_open_where_nothing_says_so(
    mark: str, name: str
) -> None:
    texts = pd.Series([f"{n}{mark}{n * 7 % 1000:03} kg" for n in range(100, 160)])
    found = spelling_of(read(texts, "texts"))
    assert found is not None
    usual, _, other = found.remedy.partition(", or ")
    assert other.endswith(f" if {name} stand before decimals")
    codes = (usual, other.partition(" if ")[0])
    made_of = [
        eval(code.format(column="texts"), {"pandas": pd, "texts": texts})[1]
        for code in codes
    ]
    assert made_of == [101_707, 101.707]
    found = spelling_of(read(["99 kg", *texts], "texts"))
    assert found is not None
    assert found.remedy == usual


def test_dates_in_several_forms() -> None:
    some, rest = DAYS.index % 3 == 0, DAYS.index % 3 == 1
    for first, second in [
        ("%d.%m.%Y", "%d.%m.%Y %H:%M"),
        ("%d.%m.%Y", "%d.%m.%y"),
        ("%d/%m/%Y", "%d-%m-%Y"),
        ("%m/%d/%Y", "%d %b %Y"),
    ]:
        texts = DAYS.dt.strftime(first).where(some | rest, DAYS.dt.strftime(second))
        for turned in (texts, texts[::-1]):  # pandas looks at the first one
            made_of = made(turned).sort_index()
            pd.testing.assert_series_equal(made_of, DAYS, check_dtype=False)


FORMS = (
    *("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y"),
    *("%d-%m-%Y %H:%M", "%Y/%m/%d", "%Y.%m.%d", "%d %b %Y", "%d-%b-%y", "%B %d, %Y"),
)
#: Nobody can tell these apart, column by column.
EITHER = {"%d/%m/%Y", "%m/%d/%Y"}
#: Are read as they are.
ISO = set(FORMS[:2])


@pytest.mark.parametrize(("size", "zone"), [(2, ""), (3, ""), (2, "Z"), (2, "+02:00")])
def test_dates_in_all_mixes_of_forms(size: int, zone: str) -> None:
    """With dayfirst=True, pandas takes 2024-02-01 for 2 January."""
    for forms in itertools.combinations(FORMS, size):
        if set(forms) >= EITHER or set(forms) <= ISO:
            continue
        which = DAYS.index % 7 % size  # a few texts of one form, many of another
        texts = pd.Series([DAYS[i].strftime(forms[n]) for i, n in enumerate(which)])
        timed = texts.str.contains(":")
        if zone and not timed.any():
            continue
        expected = DAYS.dt.tz_localize("UTC") if zone else DAYS
        hours = pd.to_timedelta(2 * timed.astype(int) * ("2" in zone), unit="h")
        turned = texts.where(~timed, texts + zone)[::-1]
        for column in (turned, pd.concat([turned, pd.Series([None])])):
            found = made(column).dropna().sort_index()
            pd.testing.assert_series_equal(
                found, expected - hours, check_dtype=False, obj=f"{forms} {zone}"
            )


def test_what_is_no_date_among_dates_is_missing() -> None:
    texts = DAYS.dt.strftime("%d.%m.%Y")
    texts[7], texts[1::2] = "soon", DAYS.dt.strftime("%Y-%m-%d")[1::2]
    texts[4] = "soon"
    made_of = made(texts)
    assert made_of.isna().sum() == 1
    assert (made_of.drop(4) == DAYS.drop(4)).all()


def test_days_and_months_that_both_come_first_are_named() -> None:
    texts = pd.Series([day.strftime(f) for day in DAYS for f in sorted(EITHER)])
    found = spelling_of(read(texts, "texts"))
    assert found is not None
    assert "nobody can tell" in found.remedy
    assert "(13/01/2024 and 01/13/2024)" in found.remedy


@pytest.mark.parametrize("odd", ["31.12.2023", "soon"])
@pytest.mark.parametrize("few", [False, True])
def test_a_few_other_texts_among_iso_dates_are_told_what_works(
    odd: str, few: bool
) -> None:
    days = DAYS.where(DAYS.index < 2, DAYS[0]) if few else DAYS
    frame = pd.DataFrame({"d": days.dt.strftime("%Y-%m-%d")})
    frame.loc[3, "d"] = odd
    with pytest.raises(ValueError, match="one format, such as") as caught:
        kmtl.inputs.Table().fit(frame)
    code = str(caught.value).partition(" = ")[2].partition(", or say")[0]
    found = eval(code, {"pandas": pd, "frame": frame})
    day = pd.Timestamp(2023, 12, 31)
    found = found.dt.tz_localize(None)
    assert found[3] is pd.NaT if odd == "soon" else found[3] == day
    assert (found.drop(3) == days.drop(3)).all()


def test_months_by_name_in_the_order_of_a_year() -> None:
    """pandas alone takes the first for a form that they all have."""
    days = pd.Series(pd.date_range("2024-05-02", periods=60, freq="W"))
    made_of = made(days.dt.strftime("%d %b %Y"))
    pd.testing.assert_series_equal(made_of, days, check_dtype=False)


@pytest.mark.parametrize("form", ["%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M%p"])
def test_minutes_are_made_of_times_of_day(form: str) -> None:
    minutes = TIMES.dt.hour * 60.0 + TIMES.dt.minute
    np.testing.assert_allclose(made(TIMES.dt.strftime(form)), minutes)


def test_times_of_day_in_several_forms() -> None:
    minutes = TIMES.dt.hour * 60.0 + TIMES.dt.minute
    texts = TIMES.dt.strftime("%H:%M").where(TIMES.index % 3 > 0, None)
    mixed = texts.fillna(TIMES.dt.strftime("%H:%M:%S")).str.replace(
        "^0", "", regex=True
    )
    np.testing.assert_allclose(made(mixed), minutes)
    halves = TIMES.dt.strftime("%I:%M %p").str.replace("AM", "a.m.")
    np.testing.assert_allclose(made(halves.str.replace("PM", "p.m.")), minutes)


@pytest.mark.parametrize(
    "texts",
    [
        [
            f"{price:,}".replace(",", " ")
            for price in range(1_500_000, 9_000_000, 125_000)
        ],
        [f"{n:,.0f}".replace(",", " ") for n in 10 ** DRAW.uniform(3, 8, 60)],
        [f"{n:,}" for n in PHONES],
        [f"{n / 7:.1f}A" for n in range(60)],
        [f"{n}m" for n in range(60)],
        [f"{n}GB" for n in range(60)],
        [f"{n} SEK" for n in range(60)],
        [f"{n}K" for n in range(60)],
    ],
)
def test_numbers_that_are_near_codes(texts: list[str]) -> None:
    found = spelling_of(read(texts, "texts"))
    assert found is not None
    assert found.what == "numbers"


@pytest.mark.parametrize(
    "texts",
    [
        [f"{month}.{day}.24" for month in (1, 2, 3) for day in range(1, 12)]
        + ["13.1.24"],
        [f"0{month}.{day}.24" for month in (1, 2, 3) for day in range(1, 12)],
        [f"2001-{month:02}" for month in range(1, 13)],
        [f"{year}-{month:02}" for year in (2001, 2002) for month in (2, 3)],
    ],
)
def test_dates_that_are_near_versions_and_seasons(texts: list[str]) -> None:
    found = spelling_of(read(texts, "texts"))
    assert found is not None
    assert found.what == "dates"


@pytest.mark.parametrize(
    "texts",
    [
        [f"{n:,}".replace(",", " ") for n in PHONES],
        [f"{n:,}".replace(",", ".") for n in PHONES],
        [f"+420 {n:,}".replace(",", " ") for n in PHONES],
        [f"{n // 1000:,}.{n % 10000:04}".replace(",", ".") for n in PHONES],
        ["112", *(f"{n:,}".replace(",", " ") for n in PHONES)],
        [f"{n}A" for n in range(100, 160)],
        [f"{n} B" for n in range(100, 160)],
        [f"{n}{'A' if n % 2 else ''}" for n in range(100, 160)],
        [f"{n}XB" for n in range(100, 160)],
        [f"1.{minor}.{patch}" for minor in range(1, 7) for patch in range(10, 20)],
        [f"{year}-{year % 100 + 1:02}" for year in range(2000, 2012)],
        ["08:00", "16:00", "00:00"] * 20,  # shifts
        [f"{n}:{n % 7}" for n in range(60)],
        [f"{n}:70" for n in range(60)],
        ["5 km", "10 km"] * 30,  # two classes
        [f"Q{i}" for i in range(60)],
        [f"{i} {'Elm' if i % 3 else 'Oak'} {i % 5}" for i in range(60)],
        [f"030 {i} 456" for i in range(100, 160)],
        [f"1.{i}.0" for i in range(60)],
        [f"{i}-{i + 1}" for i in range(60)],
        [f"0{n}" for n in range(1234, 1294)],  # postal codes
        ["01234", *(f"{n}" for n in range(60))],
        [f"{n}" for n in PHONES],
        [f"+420{n}" for n in PHONES],
        [f"{n // 10_000}" for n in PHONES],
        ["0.5", "1.5", "2.5"] * 20,
        [f"{i / 7:.3f}".replace(".", ",") for i in range(60)],
        ["2024-05-01", "2024-05-02"],
        ["red", "green"],
    ],
)
def test_other_text_is_left_alone(texts: list[str]) -> None:
    assert spelling_of(read(texts, "texts")) is None


@pytest.mark.parametrize(
    "texts",
    [
        MONEY.map("{:.3f}".format),
        (MONEY / 1e6).map(str),  # some as 1e-05
        MONEY.map("{:.0f}".format),
        pd.Series([f"{52_000 + 500 * n}" for n in range(60)]),  # one length, but round
        pd.Series([f"{year}" for year in range(1950, 2010)]),
        pd.Series([f"{centimetres}" for centimetres in range(140, 200)]),
        pd.Series([f"{n - 30}" for n in range(60)]),
    ],
)
def test_plain_numbers_that_were_read_as_text(texts: pd.Series) -> None:
    pd.testing.assert_series_equal(made(texts), texts.astype(float), check_dtype=False)
    pd.testing.assert_series_equal(
        made(pd.concat([texts, pd.Series([None])])).dropna(),
        texts.astype(float),
        check_dtype=False,
    )


@pytest.mark.parametrize(("times", "kind"), [(1, "ignored"), (3, "categorical")])
def test_plain_numbers_as_inputs_are_named(
    times: int, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    texts = np.tile(MONEY.map("{:.2f}".format), times)
    frame = pd.DataFrame({"usd": texts, "y": np.arange(60 * times) / 7})
    frame["rooms"] = frame.index % 7
    with caplog.at_level(logging.WARNING, "kmtl"):
        data = kmtl.data.from_dataframe(frame, targets=["y"], verbose=False)
    assert data.inputs["table"].kinds["usd"] == kind
    (message,) = caplog.messages
    assert message.startswith("Column 'usd' holds numbers that are written as text")
    assert message.endswith("frame['usd'] = pandas.to_numeric(frame['usd'])")


def test_inputs_are_named_in_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.DataFrame(
        {
            "built": DAYS.sample(120, replace=True, random_state=0).dt.strftime(
                "%d.%m.%Y"
            ),
            "usd": np.tile(MONEY.map("${:,.2f}".format), 2),
            "own": [f"{i} kg" for i in range(120)],
            "y": np.arange(120) / 7,
        }
    )
    with caplog.at_level(logging.WARNING, "kmtl"):
        data = kmtl.data.from_dataframe(frame, targets=["y"], verbose=False)
    assert data.inputs["table"].kinds["built"] == "categorical"
    assert data.inputs["table"].kinds["own"] == "ignored"
    built, usd, own = sorted(record.getMessage() for record in caplog.records)
    assert built.startswith("Column 'built' holds dates that are written as text")
    assert "category of its own" in built
    assert (
        "frame['built'] = pandas.to_datetime(frame['built'], format='%d.%m.%Y')"
        in built
    )
    assert "'own' holds numbers" in usd
    assert "it is left out" in usd
    assert "'usd' holds numbers" in own


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (
            TIMES.dt.strftime("%H:%M"),
            r"make minutes of its text: frame\['y'\] = pandas\.to_timedelta.*"
            r"Received: times of day as text, such as '00:07'",
        ),
        (MONEY.map("${:,.2f}".format), r"frame\['y'\] = pandas\.to_numeric.*'\$0\.00'"),
        (
            MONEY.map("{:.2f}".format),
            r"frame\['y'\] = pandas\.to_numeric\(frame\['y'\]\); if these are cl",
        ),
        (DAYS.dt.strftime("%d.%m.%Y"), r"numbers of these .*%d\.%m\.%Y.*'01\.02\.2"),
    ],
)
def test_targets_are_refused(texts: pd.Series, told: str) -> None:
    """They became as many classes as there are amounts."""
    with pytest.raises(ValueError, match=told):
        infer("y", pd.concat([texts, texts]))


def test_numbers_with_commas_are_not_left_out_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Thousands or decimals, nobody knows: another in every row, they were prose."""
    prices = [f"{price},878" for price in range(121, 181)]
    frame = pd.DataFrame({"price": prices, "rooms": [1, 2, 3] * 20, "y": MONEY})
    with caplog.at_level(logging.WARNING, "kmtl"):
        data = kmtl.data.from_dataframe(frame, targets=["y"], verbose=False)
    assert data.inputs["table"].kinds["price"] == "ignored"
    assert "it is left out" in caplog.messages[0]
    assert "thousands=','" in caplog.messages[0]


def test_times_of_day_are_named_in_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    times = pd.concat([TIMES, TIMES, TIMES]).dt.strftime("%I:%M %p")
    frame = pd.DataFrame({"seen": times, "y": np.arange(180) / 7}).reset_index()
    with caplog.at_level(logging.WARNING, "kmtl"):
        data = kmtl.data.from_dataframe(frame, targets=["y"], verbose=False)
    assert data.inputs["table"].kinds["seen"] == "categorical"
    (message,) = caplog.messages
    assert "'seen' holds times of day that are written as text, such as" in message
    assert "each is a category of its own. Make minutes of them first: frame" in message
    made_of_it = eval(message.partition(" = ")[2], {"pandas": pd, "frame": frame})
    again = frame.assign(seen=made_of_it)
    again = kmtl.data.from_dataframe(again, targets=["y"], verbose=False)
    assert again.inputs["table"].kinds["seen"] == "numeric"


def test_all_cells_are_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    """The first hundred of these might be telephone numbers."""
    amounts = [f"{n:,}".replace(",", " ") for n in [*PHONES, *PHONES, 5, 70, 1200, 93]]
    amounts += [f"{n:,}".replace(",", " ") for n in DRAW.integers(0, 99_999, 60)]
    found = spelling_of(read(amounts, "texts"))
    assert found is not None
