"""HTML pages from templates, in one style: every value escaped, an undefined one an error."""

from __future__ import annotations

import functools

import jinja2

STYLED = "pipeline_lib.drawing"


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
    environment.filters.update(filters)
    return environment.get_template(name)
