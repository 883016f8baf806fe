from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest

from amden.config import from_dict, to_dict
from amden.simulate import protocol
from amden.simulate.potentials import StillingerWeber
from amden.simulate.protocol import PROTOCOLS, Protocol, Stage, find_protocol


def test_the_silicon_protocols_are_those_of_the_measured_facts():
    melt, quench = find_protocol("si-melt"), find_protocol("si-quench")
    assert (melt.n_atoms, melt.duration, melt.n_steps) == (256, 20.0, 10_000)
    assert (quench.duration, quench.n_steps) == (30.0, 15_000)
    assert quench.stages[0] == melt.stages[0] == Stage(20.0, (2500.0, 2500.0), pressure=0.0)
    assert quench.stages[1].temperature == (300.0, 300.0)
    assert all(stage.timestep == 0.002 for stage in quench.stages)


def test_the_start_has_the_density_asked_for():
    # 256 atoms of 28.085 amu; 1 amu/Å³ is 1.66053907 g/cm³
    assert find_protocol("si-melt").volume == pytest.approx(256 * 28.085 * 1.66053907 / 2.4)


def test_atoms_follow_the_composition():
    small = replace(find_protocol("si-melt"), n_atoms=64, composition={"Si": 2.0})
    assert small.species.tolist() == [0] * 64
    assert small.atomic_numbers.tolist() == [14] * 64
    assert small.species.dtype == np.uint8


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_are_data(name):
    assert from_dict(Protocol, to_dict(PROTOCOLS[name])) == PROTOCOLS[name]
    assert asdict(PROTOCOLS[name])["name"] == name


def test_an_unknown_name_gets_the_choices():
    with pytest.raises(ValueError, match="unknown protocol 'si-melts': expected one of si-melt, si-quench"):
        find_protocol("si-melts")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"potential": "lennard-jones"}, "unknown potential 'lennard-jones': expected one of stillinger-weber-si"),
        ({"n_atoms": 0}, "`n_atoms` must be positive, got 0"),
        ({"density": -1.0}, "`density` must be positive, got -1.0"),
        ({"stages": ()}, "`stages` is empty"),
        (
            {"composition": {"Si": 1.0, "O": 2.0}},
            "element 'O' is unknown to the potential 'stillinger-weber-si', which has Si",
        ),
        ({"composition": {}}, "`composition` must hold positive amounts"),
        ({"composition": {"Si": 0.0}}, "`composition` must hold positive amounts"),
    ],
)
def test_bad_protocols(change, message):
    with pytest.raises(ValueError, match=message):
        replace(find_protocol("si-melt"), **change)


@dataclass(frozen=True)
class Mixture(StillingerWeber):
    """Two kinds of atoms that differ in name alone."""

    @property
    def symbols(self) -> tuple[str, ...]:
        return ("O", "Si")


def test_compositions_of_several_elements(monkeypatch):
    monkeypatch.setattr(protocol, "POTENTIALS", {"mixture": Mixture()})
    silica = replace(find_protocol("si-melt"), potential="mixture", n_atoms=6, composition={"Si": 1.0, "O": 2.0})
    assert silica.species.tolist() == [1, 1, 0, 0, 0, 0]
    assert silica.atomic_numbers.tolist() == [14, 14, 8, 8, 8, 8]
    with pytest.raises(ValueError, match="`n_atoms` 7 cannot have the composition"):
        replace(silica, n_atoms=7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"duration": 0.0}, "`duration` must be a whole number of time steps of 0.002 ps, got 0.0 ps"),
        ({"duration": 0.003}, "`duration` must be a whole number of time steps"),
        ({"timestep": 0.0}, "`duration` must be a whole number of time steps of 0.0 ps"),
        ({"temperature": (0.0, 300.0)}, "`temperature` must be positive"),
        ({"tau_T": -1.0}, "`tau_T` must be positive, got -1.0"),
    ],
)
def test_bad_stages(options, message):
    with pytest.raises(ValueError, match=message):
        Stage(**{"duration": 1.0, "temperature": (300.0, 300.0), **options})
