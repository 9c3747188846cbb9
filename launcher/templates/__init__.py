"""Pages, figures, and the files of engines: the templates beside this module, all of them ours, filled by jinja2."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def write(name: str, **values: object) -> str:
    """The text of a template; what it is given is escaped as HTML unless the template says that it is HTML.

    Raises:
        jinja2.TemplateError: no such template, or a value that it needs is missing: a mistake of ours.
    """
    return _environment().get_template(name).render(values)


def module(name: str) -> object:
    """The macros of a template, as attributes."""
    return _environment().get_template(name).module


@cache
def _environment() -> Environment:
    # Not at the top: a command that writes no page starts without it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    made.trim_blocks = made.lstrip_blocks = made.keep_trailing_newline = True
    made.filters |= {"px": "{:.1f}".format, "g": "{:g}".format}
    return made
