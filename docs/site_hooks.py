"""What the site needs beside the pages: its front page, which is the README, and docstrings as Markdown.

MkDocs loads this file as a hook, griffe as an extension (`mkdocs.yml`).
"""

import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object
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
        if obj.docstring is not None:
            text = DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
            obj.docstring.value = TABLE.sub(lambda found: f"```text\n{found[0]}\n```", text)
