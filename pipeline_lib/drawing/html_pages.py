"""HTML pages from templates, in one style: every value escaped, an undefined one an error."""

from __future__ import annotations

import functools
import re
from typing import Any

import jinja2
from markupsafe import Markup

STYLED = "pipeline_lib.drawing"
_PER_CENT = re.compile(r"<pre>.*?</pre>|(?<=\d) %", re.DOTALL)


class _Page(jinja2.Template):
    """Keeps a number and its % in one line, but where text is kept as it is, to be copied."""

    def render(self, *args: Any, **kwargs: Any) -> str:
        page = super().render(*args, **kwargs)
        return _PER_CENT.sub(lambda found: "\u00a0%" if found[0] == " %" else found[0], page)


@functools.cache
def page_template(package: str, name: str, **filters: object) -> jinja2.Template:
    """The template `name` in the folder `template` of a package, with filters of its own.

    What that folder lacks, such as style.css, is looked for in this package's own.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name, "template") for name in (package, STYLED)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.template_class = _Page
    environment.filters.update(filters, words=_words)
    return environment.get_template(name)


def _words(text: str) -> Markup:
    """Each word an element, so that a style may keep it in one line: browsers break AUC-sPRO at its hyphen."""
    return Markup(" ").join(Markup("<span>{}</span>").format(word) for word in text.split(" "))
