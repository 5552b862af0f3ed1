"""The ways in which people's tables say when: names of columns, and forms of dates in one column or in several."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

DAYS = ("daily", "working", "weekly", "monthly", "quarterly")
HOURS = ("hourly", "minutes")
FREQUENCIES = {
    "yearly": "YS",
    "quarterly": "QS",
    "monthly": "MS",
    "weekly": "W-MON",
    "daily": "D",
    "working": "B",
    "hourly": "h",
    "minutes": "5min",
}
MOST_ROWS = {"yearly": 300, "quarterly": 340}

NAMES = (
    *("date", "Date", "DATE", "datetime", "timestamp", "time", "Tag", "when", "Datum", "<DATE>", "unix", "open_time"),
    *("TIME_PERIOD", "Week", "dt", "fecha", "日期", "ds", "Day", "Month", "year", "Period", "Quarter", "data", "t"),
    *("Zeitpunkt", "observation_date", "Trade Date", "date_utc", "Gmt time", "MESS_DATUM", "Jour", "дата", "날짜", "x"),
    *("REF_DATE", "Timestamp [ms]", "time_local", "epoch", "created_at", "Stand", "DateTime (UTC)", "Obs"),
    *("Unnamed: 0", "index", "päivä", "MTU", "", "Período", "dia", "at", "As of", "Settled?", "it's", "$date", "or"),
    "Date, local",
)


class Form(NamedTuple):
    """How a date is written in a cell, or in the cells of several columns."""

    paces: Sequence[str]  # of rows that it can tell apart
    write: Callable[[datetime], list[str]]  # a text for each column; of a UTC date
    told: str | None = None  # the --date-format of the whole; None if none can say it
    names: tuple[str, ...] = ("",)  # of the columns; "" is any
    parts: tuple[str, ...] = ()  # the --date-format of each of several columns
    unit: str = ""  # it says no more than this: day, week, month, quarter or year; else the moment
    standard: bool = True  # it is ISO's or a common one, or an option can say it


def _texts(form: str, short: bool = False, upper: bool = False) -> Callable[[datetime], list[str]]:
    """Return a writer of strftime's form: `short` without zeros before day, month and hour, as spreadsheets have it."""
    pattern = re.sub("%([dmIHj])", r"%-\1", form) if short else form
    return lambda at: [at.strftime(pattern).upper() if upper else at.strftime(pattern)]


def _zoned(form: str, zone: str) -> Callable[[datetime], list[str]]:
    """Return a writer by a clock that has its offset written behind it."""

    def write(at: datetime) -> list[str]:
        text = at.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).strftime(form)
        return [re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", text)]

    return write


def _counted(unit: float, form: str = "{:.0f}", begin: datetime = datetime(1970, 1, 1)) -> Callable:
    return lambda at: [form.format((at - begin).total_seconds() * unit)]


def _quarter(form: str) -> Callable[[datetime], list[str]]:
    return lambda at: [form.format(y=at.year, q=(at.month + 2) // 3)]


_MONATE = ("Jan", "Feb", "Mär", "Apr", "Mai", "Jun", "Jul", "Aug", "Sep", "Okt", "Nov", "Dez")


def _interval(at: datetime) -> list[str]:
    return [f"{at:%d.%m.%Y %H:%M} - {at + timedelta(hours=1):%d.%m.%Y %H:%M}"]


def _ending(at: datetime) -> list[str]:
    """Return a day and the hour that ends, 1 to 24, as of electricity."""
    return [f"{at:%Y-%m-%d}", str(at.hour + 1)]


_OF_A_DAY = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%m/%d/%y", "%d-%m-%Y"),
    *("%Y%m%d", "%d-%b-%Y", "%d-%b-%y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%a %d %b %Y", "%A, %d. %B %Y"),
    *("%y%m%d", "%d%m%Y", "%Y-%j", "%Y%j", "%Y_%m_%d", "%d/%b/%Y", "%Y-%b-%d", "%y/%m/%d", "%d %b %y"),
    *("%Y-%m-%d 00:00:00", "%Y-%m-%dT00:00:00", "%d.%m.%Y 00:00", "%m/%d/%Y 12:00:00 AM", "%Y%m%d000000"),
    *("%Y-%m-%d 16:00", "%m/%d/%Y 4:00:00 PM", "%Y%m%d 0000"),
)
_SHORT_DAYS = ("%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%Y-%m-%d", "%Y/%m/%d", "%d. %m. %Y", "%B %d, %Y")
_MOMENTS = (
    *("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%y %H:%M", "%m/%d/%Y %I:%M:%S %p"),
    *("%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%Y%m%d %H%M%S", "%Y%m%d%H%M", "%Y%m%d%H%M%S", "%a %b %d %H:%M:%S %Y"),
    *("%d/%b/%Y:%H:%M:%S", "%Y-%m-%d-%H.%M.%S", "%d %b %Y %I:%M %p", "%Y.%m.%d %H:%M", "%Y-%m-%d %H:%M:%S.%f"),
    *("%Y-%m-%d_%H:%M", "%H:%M %d/%m/%Y", "%Y-%m-%d %I:%M %p", "%y%m%d%H%M", "%m/%d/%y %H:%M", "%d-%b-%Y %H:%M:%S"),
)
_MONTHS = ("%Y-%m", "%b-%Y", "%B %Y", "%b-%y", "%m/%Y", "%Y%m", "%YM%m", "%b %Y", "%Y/%m", "%m-%Y", "%Y %b", "%b/%y")
_IN_TWO = (  # names, their forms, whether zeros are left out
    (("Date", "Time"), ("%d/%m/%Y", "%H.%M.%S"), False),
    (("Date", "Time"), ("%m/%d/%Y", "%I:%M %p"), False),
    (("Date", "Time"), ("%m/%d/%Y", "%I:%M:%S %p"), True),
    (("<DATE>", "<TIME>"), ("%Y%m%d", "%H%M%S"), False),
    (("<DATE>", "<TIME>"), ("%Y.%m.%d", "%H:%M:%S"), False),
    (("date", "time"), ("%Y-%m-%d", "%H:%M"), False),
    (("Datum", "Uhrzeit"), ("%d.%m.%Y", "%H:%M"), False),
    (("Datum", "von"), ("%d.%m.%y", "%H:%M"), False),
    (("day", "hour"), ("%Y-%m-%d", "%H"), False),
    (("Fecha", "Hora"), ("%d/%m/%y", "%H:%M:%S"), False),
    (("date", "hhmm"), ("%Y%m%d", "%H%M"), False),
    (("tradingDay", "at"), ("%d-%b-%Y", "%H:%M:%S.%f"), False),
    (("", "clock"), ("%Y-%m-%d", "%H:%M:%S"), False),
)
_IN_PARTS = (
    (("year", "month", "day", "hour"), ("%Y", "%m", "%d", "%H"), ("hourly",)),
    (("Year", "Month", "Day"), ("%Y", "%m", "%d"), DAYS),
    (("YEAR", "MO", "DY", "HR"), ("%Y", "%m", "%d", "%H"), ("hourly",)),
    (("YEAR", "MO", "DY"), ("%Y", "%m", "%d"), DAYS),
    (("YEAR", "DOY"), ("%Y", "%j"), DAYS),
    (("year", "day"), ("%Y", "%j"), ("daily",)),
    (("year", "month"), ("%Y", "%m"), ("monthly", "quarterly")),
    (("Jahr", "Monat"), ("%Y", "%m"), ("monthly",)),
    (("Jahr", "Monat", "Tag", "Stunde"), ("%Y", "%m", "%d", "%H"), ("hourly",)),
    (("yr", "mon", "dy", "hr", "min"), ("%Y", "%b", "%d", "%H", "%M"), HOURS),
    (("Day", "Month", "Year"), ("%d", "%m", "%Y"), DAYS),
    (("Year", "Month"), ("%Y", "%B"), ("monthly", "quarterly")),
    (("MM", "DD", "YYYY"), ("%m", "%d", "%Y"), DAYS),
)

_ZONED = (
    *(Form(DAYS, _texts(form)) for form in ("%Y-%m-%dT00:00:00Z", "%Y-%m-%dT00:00:00.000Z", "%Y-%m-%d 00:00:00+00:00")),
    Form(DAYS, _texts("%Y-%m-%d 00:00:00 UTC"), "%Y-%m-%d %H:%M:%S UTC"),
    *(Form(HOURS, _texts(form)) for form in ("%Y-%m-%dT%H:%MZ", "%Y-%m-%d %H:%M:%S+00:00", "%Y-%m-%dT%H:%M:%S.%fZ")),
    *(
        Form(HOURS, _zoned(form, zone))
        for form in ("%Y-%m-%d %H:%M:%S%z", "%Y-%m-%dT%H:%M%z")
        for zone in ("America/New_York", "Europe/Berlin", "Asia/Kolkata")
    ),
    Form(HOURS, _texts("%d/%b/%Y:%H:%M:%S +0000"), "%d/%b/%Y:%H:%M:%S %z"),
    Form(HOURS, _texts("%d.%m.%Y %H:%M:%S.000 GMT+0000"), "%d.%m.%Y %H:%M:%S.%f GMT%z"),
)
_COUNTED = (
    Form((*DAYS, *HOURS), _counted(1), "seconds"),
    Form(HOURS, _counted(1, "{:.1f}"), "seconds"),
    Form((*DAYS, *HOURS), _counted(1e3), "milliseconds"),
    Form((*DAYS, *HOURS), _counted(1e6), "microseconds"),
    Form(DAYS, _counted(1 / 86400, begin=datetime(1899, 12, 30)), "excel"),
    Form(HOURS, _counted(1 / 86400, "{:.6f}", begin=datetime(1899, 12, 30)), "excel"),
)
_OF_PERIODS = (
    Form(("weekly",), _texts("%G-W%V"), unit="week"),
    Form(("weekly",), _texts("%GW%V"), unit="week"),
    Form(("weekly",), _texts("%G-W%V-1"), "%G-W%V-%u", unit="week"),
    *(Form(("quarterly",), _quarter(form), unit="quarter") for form in ("{y}Q{q}", "{y}-Q{q}", "Q{q} {y}", "{y} Q{q}")),
    *(Form(("monthly", "quarterly"), _texts(form), form, unit="month") for form in _MONTHS),
    Form(("yearly",), _texts("%Y"), "%Y", unit="year"),
)
_BEYOND = (  # no option says them
    Form(("monthly",), lambda at: [f"{at.year + (at.month - 0.5) / 12:.3f}"], unit="month", standard=False),
    Form(("daily",), lambda at: [f"{at.day}. {_MONATE[at.month - 1]} {at.year}"], standard=False),
    Form(("monthly",), lambda at: [f"{_MONATE[at.month - 1]} {at.year}"], unit="month", standard=False),
    Form(("hourly",), _interval, standard=False),
    Form(("hourly",), _ending, names=("Date", "HE"), parts=("%Y-%m-%d", "%H"), standard=False),
    Form(("weekly",), _texts("KW %V/%G"), unit="week", standard=False),
    Form(("monthly",), _texts("%Y.%m"), unit="month", standard=False),
    Form(("quarterly",), lambda at: [str(at.year), str((at.month + 2) // 3)], names=("year", "qtr"), standard=False),
    Form(("hourly",), lambda at: _texts("%Y %m %d %H")(at)[0].split(), names=("#YY", "MM", "DD", "hh"), standard=False),
)


def _in_columns() -> list[Form]:
    def write(parts: tuple[str, ...], short: bool) -> Callable[[datetime], list[str]]:
        writers = [_texts(part, short) for part in parts]
        return lambda at: [text for writer in writers for text in writer(at)]

    forms = [
        Form(HOURS, write(parts, short), " ".join(parts), names, parts)
        for names, parts, short in _IN_TWO
        if "%H" not in parts or not short
    ]
    for names, parts, paces in _IN_PARTS:
        forms += [
            Form(paces, write(parts, short), " ".join(parts), names, parts)
            for short in (True, False)
            if short or "%b" not in parts
        ]
    return [form._replace(paces=("hourly",)) if form.parts[-1] == "%H" else form for form in forms]


def _time_filled(form: str) -> str:
    """Return the form that strptime needs for a day whose time is written out."""
    for text, told in (
        ("000000", "%H%M%S"),
        ("00:00:00", "%H:%M:%S"),
        ("12:00:00 AM", "%I:%M:%S %p"),
        ("4:00:00 PM", "%I:%M:%S %p"),
        ("16:00", "%H:%M"),
        ("00:00", "%H:%M"),
        ("0000", "%H%M"),
    ):
        if text in form:
            return form.replace(text, told)
    return form


FORMS = {
    "days": [
        *(Form(DAYS, _texts(form), _time_filled(form), unit="day") for form in _OF_A_DAY),
        *(Form(DAYS, _texts(form, short=True), form) for form in _SHORT_DAYS),
        Form(DAYS, _texts("%d%b%Y", upper=True), "%d%b%Y"),
    ],
    "moments": [
        *(Form(HOURS, _texts(form), form) for form in _MOMENTS),
        *(Form(HOURS, _texts(form, short=True), form) for form in ("%m/%d/%Y %I:%M:%S %p", "%d.%m.%Y %H:%M")),
        Form(("hourly",), _texts("%Y%m%d%H"), "%Y%m%d%H"),
        Form(("hourly",), _texts("%Y-%m-%d %I-%p"), "%Y-%m-%d %I-%p"),
    ],
    "zoned": list(_ZONED),
    "counted": list(_COUNTED),
    "periods": list(_OF_PERIODS),
    "columns": _in_columns(),
    "beyond": list(_BEYOND),
}
