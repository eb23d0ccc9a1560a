"""Fill a template and write the page: one file, which loads nothing and runs without a server."""

import time
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from csl.errors import printable
from csl.machine.files import replacing, strict_json
from csl.report.classes import Column, plain


@cache
def _environment():
    environment = Environment(
        loader=PackageLoader("csl.report", "pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "json": partial(htmlsafe_json_dumps, dumps=strict_json),
        "line": lambda text: printable(str(text)),
    }
    source = environment.loader.get_source
    environment.globals["inlined"] = lambda name: Markup(source(environment, name)[0])  # our own style and script
    return environment


def table(columns: list[Column], **drawn: Any) -> dict[str, Any]:
    """What the script of a page makes its table of: the columns, and by name what it draws of a class on demand.

    A column after the first is left out where nothing is known of it for any class.
    """
    rows = [{"title": c.title, "help": c.help, "kind": c.kind, "values": plain(c.values)} for c in columns]
    there = [row for row in rows[1:] if any(value is not None for value in row["values"])]
    return {"columns": rows[:1] + there, **drawn}


def write_page(path: str | Path, template: str, **content: Any) -> Path:
    """Write the page of a template with its content, whole or not at all; every text in it is escaped."""
    columns = content.pop("columns")
    drawn = {name: content.pop(name) for name in ("curves", "diagrams") if name in content}
    text = (
        _environment()
        .get_template(template)
        .render(table=table(columns, **drawn), made=time.strftime("%Y-%m-%d %H:%M"), **content)
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return Path(path)
