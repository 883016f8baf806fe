"""Any ASE calculator in the place of the engine: the same trajectory, the same campaign, errors in one line."""

from dataclasses import replace

import numpy as np
import pytest
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT

from amden.dataset import load_dataset
from amden.io import to_ase
from amden.random import spawn_seeds
from amden.simulate.ase_engine import CalculatorEngine, load_calculator
from amden.simulate.calculator import PotentialCalculator
from amden.simulate.campaign import run_campaign
from amden.simulate.catalogue import find_protocol
from amden.simulate.potentials import StillingerWeber
from amden.simulate.runs import run_protocol
from amden.simulate.stages import Quench, Stage

MELT = replace(find_protocol("si-melt"), n_atoms=64, stages=(Stage(0.1, (2500.0, 1500.0), pressure=1.0),))
SEEDS = spawn_seeds(5, 2).tolist()


def silicon() -> PotentialCalculator:
    return PotentialCalculator(StillingerWeber())


class Silicon(PotentialCalculator):
    """Fails from its hundredth structure on."""

    def __init__(self) -> None:
        super().__init__(StillingerWeber())
        self.n = 0

    def calculate(self, *arguments, **keywords):
        self.n += 1
        if self.n > 100:
            raise RuntimeError("out of bounds")
        super().calculate(*arguments, **keywords)


class OnlyEnergy(Calculator):
    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3))}


def seven() -> int:
    return 7


def run(factory: str, protocol=MELT):
    return CalculatorEngine(f"test_ase_engine:{factory}").run(protocol, SEEDS, on_launch=lambda *_: None)


def test_with_the_built_in_potential_it_goes_the_way_of_the_engine():
    """50 steps with thermostat and barostat, float64 against float32: rounding has not grown yet."""
    ours, theirs = run("silicon"), run_protocol(MELT, SEEDS, device="cpu")
    assert (ours.kept, ours.failures) == (theirs.kept, theirs.failures)
    a, b = ours.structures, theirs.structures
    np.testing.assert_allclose(a.cell, b.cell, rtol=1e-5)
    apart = (a.positions.reshape(2, 64, 3) - b.positions.reshape(2, 64, 3)).double() @ a.cell.inverse()
    assert ((apart - apart.round()) @ a.cell).abs().max() < 2e-3
    for name, atol in {"potential_energy": 1e-4, "density": 1e-4, "temperature": 2.0}.items():
        np.testing.assert_allclose(a.properties[name], b.properties[name], atol=atol)


def test_quenches_to_a_minimum_and_goes_on():
    quench = Quench("variable", force_tolerance=0.05)
    melt, found = run("silicon").structures, run("silicon", replace(MELT, stages=(*MELT.stages, quench))).structures
    assert (found.properties["potential_energy"] < melt.properties["potential_energy"] - 0.2).all()
    for atoms in to_ase(found):
        atoms.calc = silicon()
        assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.051
    on = run("silicon", replace(MELT, stages=(*MELT.stages, quench, Stage(0.02, (300.0, 300.0)))))
    temperature = on.structures.properties["temperature"]  # half of it goes into vibrations
    assert ((temperature > 40.0) & (temperature < 260.0)).all()


def test_a_campaign(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("from test_ase_engine import silicon as make\n")
    monkeypatch.chdir(tmp_path)
    engine, short = CalculatorEngine("mine:make"), replace(MELT, stages=(Stage(0.01, (2500.0, 2500.0)),))
    done = run_campaign(short, n=2, seed=5, out="d", engine=engine)
    assert (len(load_dataset("d")), done.failures) == (2, {})
    with pytest.raises(ValueError, match="d: holds a campaign of engine ase mine:make, not amden"):
        run_campaign(short, n=2, seed=5, out="d", device="cpu")


def test_a_calculator_that_fails_on_the_way_costs_the_cell():
    ended = run("Silicon")
    assert ended.kept == (0,)
    assert ended.failures == {1: "the calculator failed: out of bounds"}


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("nonsense", "must be module:function, such as mymodule:make, got 'nonsense'"),
        ("no_such_module:make", "calculator 'no_such_module:make': No module named 'no_such_module'"),
        ("test_ase_engine:make", "the module has no function 'make'"),
        ("test_ase_engine:seven", "seven returned a int, no calculator"),
    ],
)
def test_what_is_no_calculator(factory, message):
    with pytest.raises(ValueError, match=message):
        load_calculator(factory)


def test_calculators_that_cannot_do_it():
    with pytest.raises(ValueError, match="the calculator has no stress"):
        run("OnlyEnergy")
    with pytest.raises(ValueError, match="the calculator cannot compute Si64: "):
        CalculatorEngine("ase.calculators.emt:EMT").run(MELT, SEEDS, on_launch=lambda *_: None)
    assert isinstance(load_calculator("ase.calculators.emt:EMT"), EMT)
