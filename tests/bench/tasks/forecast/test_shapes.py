"""Public data sets' shapes, made up small: read right, or refused with a hint which, followed, reads right."""

import shlex

import numpy as np
import pandas as pd
import pytest

from bench.grid.cases import ChoiceError
from bench.tasks.forecast import sheet
from bench.tasks.forecast.sheet import Reading

ROWS = 40
V = np.round(100 + np.cumsum(np.random.default_rng(0).normal(size=ROWS)), 2)
SEVERAL = ("where", "missing")


def read(text, column, reading):
    found = sheet.parse(text, "t.csv", reading)
    return found.columns([found.expect("--column", column)])


def monthly(form):
    return pd.date_range("1949-01-01", periods=ROWS, freq="MS").strftime(form)


def hourly(form):
    return pd.date_range("2010-01-01", periods=ROWS, freq="h").strftime(form)


def daily(form):
    return pd.date_range("1981-01-01", periods=ROWS).strftime(form)


def with_(cells, at, text):
    """Return numbers as texts, one of them another."""
    found = [f"{cell:.2f}" for cell in cells]
    found[at] = text
    return found


def paired(form, dates, cells):
    """Return lines of a date, which may be in several fields, and a number."""
    return [form.format(date, cell) for date, cell in zip(dates, cells, strict=True)]


AIR = [cell.replace(".", ",") for cell in with_(V, 7, "-200")]
NASA = with_(V, 7, "-999")
MELBOURNE = with_(V, 7, "?0.2")
PREAMBLE = (
    "-BEGIN HEADER-\nNASA/POWER CERES/MERRA2 Native Resolution Daily Data \nDates (month/day/year): 01/01/1981 through "
    "02/09/1981 \nLocation: Latitude  40.0   Longitude -105.0 \nThe value for missing source data that cannot be "
    "computed or is outside of the sources availability range: -999 \nParameter(s): \nT2M     MERRA-2 Temperature at "
    "2 Meters (C) \n-END HEADER-"
)
SILSO = [f"{1949 + m // 12};{m % 12 + 1:02};{1949 + (m + 0.5) / 12:.3f};{v:6};{9.5:5};{m};1" for m, v in enumerate(V)]
KAGGLE = [f"{n},{day},{v}" for n, (day, v) in enumerate(zip(daily("%Y-%m-%d"), V, strict=True))]
BEIJING = [
    f"{n + 1},{hour},{v},{('NW', 'SE')[n % 2]}"
    for n, (hour, v) in enumerate(zip(hourly("%Y,%-m,%-d,%-H"), with_(V, 7, "NA"), strict=True))
]
PAIRED = "--date-format '%d/%m/%Y "
TABLES = {  # the names, the lines, the column, the options that lead to it, the first date, the row that is missing
    "airline": ('"Month","Passengers"', paired('"{}",{}', monthly("%Y-%m"), V), "Passengers", [], "1949-01-01", None),
    "two digits": ("Month,v", paired("{},{}", monthly("%b-%y"), V), "v", [], "1949-01-01", None),
    "SILSO": ("", SILSO, "column 4", ["--date-column 'column 3' --date-format years"], "1949-01-16", None),
    "Kaggle's sunspots": (",Date,Sunspot Number", KAGGLE, "sunspot number", [], "1981-01-01", None),
    "Melbourne": (
        '"Date","Temp"',
        paired('"{}",{}', daily("%Y-%m-%d"), MELBOURNE),
        "Temp",
        ["--missing '?0.2'"],
        "1981-01-01",
        7,
    ),
    "ETT": ("date,HUFL,OT", paired("{},1.5,{}", hourly("%Y-%m-%d %H:%M:%S"), V), "OT", [], "2010-01-01", None),
    "Beijing": ("No,year,month,day,hour,pm2.5,cbwd", BEIJING, "pm2.5", [], "2010-01-01", 7),
    "household power": (
        "Date;Time;Power",
        paired("{};{}", hourly("%-d/%-m/%Y;%H:%M:%S"), with_(V, 7, "?")),
        "power",
        [f"{PAIRED}%H:%M:%S'"],
        "2010-01-01",
        7,
    ),
    "air quality": (
        "Date;Time;CO(GT);T;;",
        [*paired("{};{};1,5;;", hourly("%d/%m/%Y;%H.%M.%S"), AIR), ";;;;;"],
        "CO(GT)",
        [f"{PAIRED}%H.%M.%S'", "--missing -200"],
        "2010-01-01",
        7,
    ),
    "Jena": (
        '"Date Time","T (degC)"',
        paired("{},{}", hourly("%d.%m.%Y %H:%M:%S"), V),
        "T (degC)",
        ["--date-format '%d.%m.%Y %H:%M:%S'"],
        "2010-01-01",
        None,
    ),
    "NASA": (
        f"{PREAMBLE}\nYEAR,MO,DY,T2M",
        paired("{},{}", daily("%Y,%-m,%-d"), NASA),
        "T2M",
        ["--missing -999"],
        "1981-01-01",
        7,
    ),
    "a broker": (
        "<TICKER>,<PER>,<DATE>,<TIME>,<CLOSE>",
        paired("AAA,60,{},{}", hourly("%Y%m%d,%H%M%S"), V),
        "<CLOSE>",
        [],
        "2010-01-01",
        None,
    ),
    "MetaTrader": (
        "<DATE>\t<TIME>\t<CLOSE>\t<TICKVOL>",
        paired("{}\t{}\t7", hourly("%Y.%m.%d\t%H:%M:%S"), V),
        "<CLOSE>",
        [],
        "2010-01-01",
        None,
    ),
}


def followed(reading, hint):
    """Return a reading with the options of a hint, as a shell would take them."""
    words, changes = shlex.split(hint), reading._asdict()
    for name, value in zip(words[::2], words[1::2], strict=True):
        name = name.removeprefix("--").replace("-", "_")
        changes[name] = (*changes[name], value) if name in SEVERAL else value
    return Reading(**changes)


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_public_data_sets_are_read_right_with_what_is_printed(name, newest_first):
    names, rows, column, hints, first, missing = TABLES[name]
    text = "\n".join([*([names] if names else []), *(reversed(rows) if newest_first else rows)]) + "\n"
    reading = Reading()
    for hint in hints:
        with pytest.raises(ChoiceError) as caught:
            read(text, column, reading)
        assert hint in str(caught.value)
        reading = followed(reading, hint)
    found = read(text, column, reading)
    kept = np.arange(ROWS) != (-1 if missing is None else missing)
    np.testing.assert_array_equal(found.values[:, 0], V[kept])
    assert str(found.labels[0])[:10] == first
    assert (found.labels[1:] > found.labels[:-1]).all()
