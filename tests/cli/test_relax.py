"""`amden analyze --relax`: the potential that belongs to the elements, or one line."""

import json
from pathlib import Path

import ase.build
import ase.io
import pytest

from amden.cli import main

GLASSES = Path(__file__).parents[1] / "data" / "glasses.extxyz"


def test_silica_is_relaxed_with_its_own_potential(tmp_path):
    glasses = list(ase.io.iread(GLASSES, "2:4"))
    ase.io.write(tmp_path / "silica.extxyz", glasses)
    main(["analyze", str(tmp_path / "silica.extxyz"), "--relax"])
    found = json.loads((tmp_path / "silica-analysis" / "analysis.json").read_text())
    energies = found["generated"]["energies_eV_per_atom"]
    assert energies["relaxed energy"] == pytest.approx([glass.info["ase_energy"] / 81 for glass in glasses], abs=1e-4)
    assert all(a > b for a, b in zip(energies["energy"], energies["relaxed energy"], strict=True))


def test_elements_without_a_potential(tmp_path, capsys):
    ase.io.write(tmp_path / "carbon.extxyz", ase.build.bulk("C", cubic=True) * (2, 2, 2))
    with pytest.raises(SystemExit) as stopped:
        main(["analyze", str(tmp_path / "carbon.extxyz"), "--relax"])
    assert stopped.value.code == 1
    assert "`--relax` needs a potential made for the elements; there is one for Si, Si-O" in capsys.readouterr().err
    assert not (tmp_path / "carbon-analysis").exists()
