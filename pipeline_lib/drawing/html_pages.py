"""Self-contained HTML pages from templates: every value escaped, an undefined one an error."""

from __future__ import annotations

import functools

import jinja2


@functools.cache
def page_template(package: str, name: str, **filters: object) -> jinja2.Template:
    """The template `name` in the folder `template` of a package, with filters of its own."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "template"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(name)
