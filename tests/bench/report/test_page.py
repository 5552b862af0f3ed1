"""Whatever a page is told is text on it: no function turns what it is given into HTML, but Markup."""

from html.parser import HTMLParser

import pandas as pd
import pytest
from markupsafe import Markup

from bench.report import charts, page

EVIL = "\"'></pre></script><img src=x onerror=a()>`<b>`&lt;"


def drawing(axes):
    axes.plot([1, 2], [3, 4], **charts.line(EVIL))
    axes.set_title(EVIL)


@pytest.mark.parametrize(
    "block",
    [
        lambda text: page.section(text, text),
        lambda text: page.paragraph(text, text),
        lambda text: page.quote(f"{text}\n\n    {text}\n\n- `{text}"),
        lambda text: page.preformatted(text),
        lambda text: page.heading(text),
        lambda text: page.copyable(text, text),
        lambda text: page.charts({text: charts.sheet([drawing])}, [text, text]),
        lambda text: page.table(
            pd.DataFrame({text: [text, (text, text)], "b": [1, 2]}),
            text,
            text,
            ["b"],
            [{"fields": {text: text}, "rounds": [], "errors": {text: [text, text]}}] * 2,
        ),
        lambda text: Markup(page.render(text, [text], text)),
    ],
    ids=["section", "paragraph", "quote", "preformatted", "heading", "copyable", "charts", "table", "page"],
)
def test_a_text_is_no_html(block):
    found, plain = (elements(block(text)) for text in (EVIL, "some `words` & `more`"))
    assert found - {"path", "use"} == plain - {"path", "use"}
    assert isinstance(block(EVIL), Markup)


def elements(html):
    """Return the elements and the attributes of HTML."""
    found = set()

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.update([tag, *(f"{tag} {name}" for name, _ in attrs)])

    Parser().feed(html)
    return {name for name in found if not name.startswith(("path ", "use "))}


def test_code_is_set_as_code_within_its_paragraph():
    assert page.quote("a `b`\nc `d\n\ne` f") == ("<blockquote><p>a <code>b</code> c `d</p>\n<p>e` f</p></blockquote>")


@pytest.mark.parametrize("value", [EVIL, Markup("<b>bold</b>")])
def test_markup_alone_stays_as_it_is(value):
    assert (str(value) in page.paragraph(value)) == isinstance(value, Markup)
