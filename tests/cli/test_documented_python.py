"""The code of docs/python.md and of the README runs, and prints what the comments beside it say."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def test_code_of_the_python_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = blocks("docs/python.md")
    assert len(found) > 5
    names: dict = {}
    for block in found:
        exec(compile(block, "docs/python.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "Structures(2 systems, 80 atoms, elements Si)" in printed
    assert "[24.0, 30.0]" in printed
    assert names["steps"] == 200
    assert (names["best"].n_steps, names["best"].t_max) == (45, 0.2)
    assert names["found"].energy[0] / 64 == pytest.approx(-4.3366, abs=1e-4)
    assert names["found"].structures.volume.item() ** (1 / 3) == pytest.approx(10.86, abs=0.01)
    assert names["measured"].properties["shear_modulus"].item() == pytest.approx(56.4, rel=0.1)
    silicon, oxygen = ((names["asked"].species == z).sum() for z in (14, 8))
    assert oxygen == 2 * silicon
    assert len(names["asked"].species) == 3 * silicon
    assert (tmp_path / "report" / "index.html").is_file()


def test_code_of_the_readme_runs(monkeypatch):
    import amden

    generate = amden.generate
    monkeypatch.setattr(
        amden, "generate", lambda model, blank, seed: generate(model, blank, seed=seed, n_steps=2), raising=False
    )
    names: dict = {}
    for block in blocks("README.md"):
        exec(compile(block, "README.md", "exec"), names)
    assert [len(atoms) for atoms in names["atoms"]] == [64, 64]
