"""What the site needs beside the pages: its front page, which is the README, and docstrings as Markdown.

MkDocs loads this file as a hook, griffe as an extension (`mkdocs.yml`).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from griffe import Attribute, Expr, ExprBinOp, ExprTuple, Extension, Function, Object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]

DOCTEST = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)
"""From a prompt to the next empty line."""
TABLE = re.compile(r"^=+(?: +=+)+ *\n(?:.*\n)*?^=+(?: +=+)+ *\n(?:.*\n)*?^=+(?: +=+)+ *$", re.MULTILINE)
"""Three rules of `=`, and what stands between."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The README as front page, its links from the root of the repository turned to those from `docs/`."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=text))
    return files


class Docstrings(Extension):
    """Fences around doctests and tables, which Markdown would take for quotations and headings."""

    def on_instance(self, *, obj: Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute."""
        for annotation in _annotations(obj):
            _quote_shapes(annotation)
        if obj.docstring is not None:
            text = DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
            obj.docstring.value = TABLE.sub(lambda found: f"```text\n{found[0]}\n```", text)


def _annotations(obj: Object) -> Iterator[Any]:
    if isinstance(obj, Attribute):
        yield obj.annotation
    elif isinstance(obj, Function):
        yield obj.returns
        yield from (parameter.annotation for parameter in obj.parameters)


def _quote_shapes(expression: Any) -> None:
    """A shape such as "systems *shape" is text, which griffe takes for a product."""
    if not isinstance(expression, Expr):
        return
    if isinstance(expression, ExprTuple):
        for place, element in enumerate(expression.elements):
            if isinstance(element, ExprBinOp) and element.operator == "*":
                expression.elements[place] = f"'{element.left} *{element.right}'"  # pyright: ignore[reportIndexIssue]
    for part in expression.iterate(flat=False):
        if part is not expression:
            _quote_shapes(part)
