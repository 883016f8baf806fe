"""The table of recipe keys in docs/own-data.md is that of the dataclasses; `python FILE` writes it anew."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from amden.config import load_config
from amden.recipe import Recipe

PAGE = Path(__file__).parents[2] / "docs" / "own-data.md"
BEGIN, END = "<!-- recipe keys: begin -->", "<!-- recipe keys: end -->"


def told(cls: type) -> dict[str, str]:
    """What stands below each field of a class."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    found, name = {}, None
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
        elif name and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            found[name], name = " ".join(str(statement.value.value).split()), None
    return found


def default_of(field: Field, within: object | None) -> Any:
    if within is not None:
        return getattr(within, field.name)
    return field.default_factory() if field.default_factory is not MISSING else field.default


def section(hint: Any) -> type | None:
    """The dataclass that may stand there."""
    return next((each for each in (hint, *get_args(hint)) if isinstance(each, type) and is_dataclass(each)), None)


def keys(cls: type, within: object | None, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Dotted path, default and meaning of every value."""
    hints, meanings = get_type_hints(cls), told(cls)
    for field in fields(cls):
        path, value = prefix + field.name, default_of(field, within)
        inner = section(hints[field.name])
        if inner is None or not isinstance(value, inner):
            yield path, value, meanings[field.name]
        if inner is not None:
            yield from keys(inner, value if isinstance(value, inner) else None, f"{path}.")


def shown(value: Any) -> str:
    if value is MISSING:
        return "needed"
    if isinstance(value, bool):
        return str(value).lower()
    return {"": "none", "()": "none", "None": "none"}.get(str(value), str(value))


def table() -> str:
    rows = (f"| `{path}` | {shown(value)} | {meaning} |" for path, value, meaning in keys(Recipe, Recipe()))
    return "\n".join(["| key | default | what it is |", "|---|---|---|", *rows])


def with_table(text: str) -> str:
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


def test_table_of_recipe_keys_is_that_of_the_code():
    text = PAGE.read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    assert text == with_table(text), "run `python tests/unit/test_documented_recipe.py`"


def test_recipe_of_the_page_is_valid(tmp_path):
    blocks = PAGE.read_text().split("```yaml\n")[1:]
    assert blocks
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block.split("```")[0])
        load_config(Recipe, path)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
