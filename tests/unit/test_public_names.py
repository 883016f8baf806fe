"""The names that `amden` offers: they resolve, type checkers see the same ones, and they cost nothing unasked."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import amden
from amden.model import Model


def test_type_checkers_see_the_names_that_there_are():
    tree = ast.parse(Path(amden.__file__).read_text())
    seen = {
        alias.asname: f"{statement.module}.{alias.name}"
        for statement in ast.walk(tree)
        if isinstance(statement, ast.ImportFrom) and statement.module and statement.module.startswith("amden.")
        for alias in statement.names
    }
    assert sorted(seen) == sorted(set(amden.__all__) - {"__version__"})
    for name, home in seen.items():
        module, _, original = home.rpartition(".")
        assert name == original
        assert getattr(amden, name) is getattr(sys.modules[module], name)


def test_every_name_is_told_by_dir():
    assert set(amden.__all__) <= set(dir(amden))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'amden' has no attribute 'beauty'"):
        _ = amden.beauty  # pyright: ignore[reportAttributeAccessIssue]


def test_import_loads_nothing():
    code = "import sys, amden; print(sorted({'torch', 'numpy', 'ase', 'numba'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_load_model_takes_a_name_or_a_path(tmp_path):
    path = tmp_path / "mine.safetensors"
    path.write_bytes((Path(amden.__file__).parent / "models" / "si-melt.safetensors").read_bytes())
    models = [amden.load_model(which) for which in ("si-melt", path, str(path))]
    assert all(isinstance(model, Model) for model in models)
    assert len({model.provenance["steps"] for model in models}) == 1


def test_load_model_names_what_there_is():
    with pytest.raises(ValueError, match=r"unknown model 'si-mel': neither a file nor one of the shipped models \(.*"):
        amden.load_model("si-mel")


def test_no_module_of_amden_takes_the_shortcut():
    """The import contract does not see through it."""
    source = Path(amden.__file__).parent
    for path in source.rglob("*.py"):
        for statement in ast.walk(ast.parse(path.read_text())):
            if isinstance(statement, ast.ImportFrom) and statement.module == "amden":
                assert not {alias.name for alias in statement.names} & {*amden.__all__} - {"__version__"}, path


def test_the_reference_lists_every_name():
    page = (Path(__file__).parents[2] / "docs" / "api" / "index.md").read_text()
    listed = set(re.findall(r"`(\w+)`", page.split("|---|---|")[1]))
    assert listed == set(amden.__all__) - {"__version__"}
