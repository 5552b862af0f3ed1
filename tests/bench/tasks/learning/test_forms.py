import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import pytest

from bench.grid.cases import ChoiceError
from bench.tasks.learning.forms import later, read


class Pair(NamedTuple):
    name: str
    size: float


@dataclass
class Form:
    count: int
    pairs: list[Pair]
    by_name: dict[str, list[float]]
    colour: Literal["red", "blue"]
    limit: float | None
    loud: Annotated[bool, "said so"]
    rest: dict
    whatever: Any

    def __post_init__(self):
        if self.count > 9:
            raise ValueError("count: expected at most 9")


JSON: dict = {
    "count": 3,
    "pairs": [["a", 1], ["b", 2.5]],
    "by_name": {"x": [0.5, float("nan")]},
    "colour": "red",
    "limit": None,
    "loud": True,
    "rest": {"deep": [1]},
    "whatever": [None],
}


def test_what_has_the_form_is_read_as_its_types():
    found = read(Form, JSON, "file")
    assert found.pairs == [Pair("a", 1.0), Pair("b", 2.5)]
    assert type(found.pairs[0].size) is float
    assert (found.count, found.limit, found.loud, found.rest) == (3, None, True, {"deep": [1]})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"count": "3"}, "file: count: expected a whole number, got '3'"),
        ({"count": True}, "file: count: expected a whole number, got True"),
        ({"count": 10}, "file: count: expected at most 9"),
        ({"pairs": [["a", 1], ["b"]]}, "file: pairs[1]: expected name, size, got ['b']"),
        ({"pairs": {"a": 1}}, "file: pairs: expected a list, got {'a': 1}"),
        ({"by_name": {"x": [0.5, None]}}, "file: by_name: x[1]: expected a number, got None"),
        ({"colour": "green\n"}, "file: colour: expected red or blue, got 'green\\n'"),
        ({"colour": ["red"]}, "file: colour: expected red or blue, got ['red']"),
        ({"limit": 10**400}, "file: limit: expected a number, got 1000"),
        ({"loud": 1}, "file: loud: expected true or false, got 1"),
        ({"rest": []}, "file: rest: expected a table, got []"),
        ({"more": 1}, "file: expected count, pairs, by_name, colour, limit, loud, rest, whatever, got 'count, "),
    ],
)
def test_what_has_another_form_is_named_in_one_line(changed, message):
    with pytest.raises(ChoiceError, match=f"^{re.escape(message)}") as raised:
        read(Form, JSON | changed, "file")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 200


def test_what_came_later_has_its_default_where_it_is_missing():
    @dataclass
    class Grown:
        old: int = 3
        new: int = later(7)

    assert read(Grown, {"old": 1}, "file") == Grown(1, 7)
    assert read(Grown, {"old": 1, "new": 2}, "file") == Grown(1, 2)
    with pytest.raises(ChoiceError, match=r"^file: new: expected a whole number, got '2'$"):
        read(Grown, {"old": 1, "new": "2"}, "file")
    with pytest.raises(ChoiceError, match=r"^file: expected old, new, got new$"):
        read(Grown, {"new": 2}, "file")


def test_what_is_missing_is_named():
    with pytest.raises(ChoiceError, match=r"^file: expected count, .*, got "):
        read(Form, {name: value for name, value in JSON.items() if name != "count"}, "file")
    with pytest.raises(ChoiceError, match=r"^file: expected a table, got \[\]$"):
        read(Form, [], "file")
