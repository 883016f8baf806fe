from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest

from amden.config import from_dict, to_dict
from amden.simulate import protocol
from amden.simulate.catalogue import PROTOCOLS, find_protocol, with_counts
from amden.simulate.folder import origin_of
from amden.simulate.oxides import neutral_counts, shuffled_grid, with_oxygen
from amden.simulate.potentials import StillingerWeber
from amden.simulate.protocol import FEWER, Protocol
from amden.simulate.runs import random_start
from amden.simulate.stages import Adapted, Evaporation, Quench, Relative, SoftStart, Stage

HOT, TRIAL = Stage(1.0, (2500.0, 2500.0)), Evaporation(1.0, (2500.0, 9000.0), stretch=2.0)
OWN, QUENCHED = Adapted((Relative(0.75), Relative(0.5)), duration=1.0), Quench("fixed", force_tolerance=0.1)

EARLY = replace(OWN, least_displacement=1.0, until_displaced=True, typical_duration=0.2)


def test_the_silicon_protocols_are_those_of_the_measured_facts():
    melt, quench = find_protocol("si-melt"), find_protocol("si-quench")
    assert (melt.n_atoms, melt.duration, melt.n_steps) == (256, 20.0, 10_000)
    assert (quench.duration, quench.n_steps) == (30.0, 15_000)
    assert quench.stages[0] == melt.stages[0] == Stage(20.0, (2500.0, 2500.0), pressure=0.0)
    assert quench.stages[1].temperature == (300.0, 300.0)
    anneal = find_protocol("si-anneal")
    assert (anneal.duration, anneal.n_steps) == (2230.0, 1_115_000)
    assert anneal.stages[0] == melt.stages[0]
    assert anneal.stages[1].temperature == (2500.0, 300.0)
    assert (2500.0 - 300.0) / anneal.stages[1].duration == 1.0
    assert anneal.stages[2] == quench.stages[1]
    assert all(stage.timestep == 0.002 for stage in (*quench.stages, *anneal.stages))


def test_the_silica_protocol_is_that_of_the_paper():
    melt, quench, hold = find_protocol("sio2").stages
    assert (melt.duration, melt.temperature, melt.pressure) == (200.0, (3500.0, 3500.0), 0.0)
    assert quench == Quench("variable", force_tolerance=0.05)
    assert (hold.duration, hold.temperature, hold.pressure) == (10.0, (300.0, 300.0), 0.0)
    assert find_protocol("sio2").n_steps == 410_000
    assert find_protocol("sio2").duration == 210.0


def test_sizes_are_even_and_a_matter_of_the_seed():
    silica = find_protocol("sio2")
    seeds = list(range(5700))
    sizes = silica.sizes(seeds)
    np.testing.assert_array_equal(sizes[100:110], silica.sizes(seeds[100:110]))
    counts = np.bincount((sizes - 81) // 3)
    assert set(sizes.tolist()) == set(range(81, 250, 3))
    assert np.abs(counts - 100).max() < 5 * 10
    assert set(find_protocol("si-melt").sizes(seeds[:9]).tolist()) == {256}


def test_the_start_has_the_density_asked_for():
    # 256 atoms of 28.085 amu; 1 amu/Å³ is 1.66053907 g/cm³
    silicon, silica, glass = (find_protocol(name) for name in ("si-melt", "sio2", "meg"))
    assert silicon.volume_of(silicon.species_of(256)) == pytest.approx(256 * 28.085 * 1.66053907 / 2.4)
    volume = silica.volume_of(silica.species_of(3))
    assert volume == pytest.approx((28.085 + 2 * 15.999) * 1.66053907 / 2.2, rel=1e-6)
    assert glass.volume_of(glass.species(seed=1, number=0)) == pytest.approx(400 / 0.065)


def test_atoms_follow_the_composition():
    small = replace(find_protocol("si-melt"), n_atoms=64, composition={"Si": 2.0})
    assert small.species_of(64).tolist() == [0] * 64
    assert small.species_of(64).dtype == np.uint8
    silica = find_protocol("sio2")
    assert silica.elements[silica.species_of(6)].tolist() == [14, 14, 8, 8, 8, 8]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_are_data(name):
    assert from_dict(Protocol, to_dict(PROTOCOLS[name])) == PROTOCOLS[name]
    assert asdict(PROTOCOLS[name])["name"] == name


def test_an_unknown_name_gets_the_choices():
    with pytest.raises(
        ValueError, match="unknown protocol 'si-melts': expected one of si-melt, si-quench, si-anneal, sio2, meg"
    ):
        find_protocol("si-melts")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"potential": "lennard-jones"}, "unknown potential 'lennard-jones': expected one of stillinger-weber-si"),
        ({"n_atoms": 0}, "`n_atoms` must be positive, got 0"),
        ({"n_atoms": (0, 9)}, r"`n_atoms` must be positive, got \(0, 9\)"),
        ({"n_atoms": (9, 8)}, r"`n_atoms` \(9, 8\) cannot have the composition"),
        ({"density": -1.0}, "`density` must be positive, got -1.0"),
        ({"stages": ()}, "`stages` is empty"),
        ({"stages": (Quench("fixed", force_tolerance=0.1),)}, "`stages` must begin with molecular dynamics"),
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
    silica = replace(find_protocol("si-melt"), potential="mixture", n_atoms=36, composition={"Si": 1.0, "O": 2.0})
    assert silica.species_of(6).tolist() == [1, 1, 0, 0, 0, 0]
    assert silica.elements.tolist() == [8, 14]
    with pytest.raises(ValueError, match="`n_atoms` 37 cannot have the composition"):
        replace(silica, n_atoms=37)


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


def test_the_glass_protocol_is_that_of_the_paper():
    """Ramp from 0.75 Te - 500 K in 200 ps, 400 ps at 0.75 Te, 5 K/ps, 300 ps at 300 K; for Te = 4000 K here."""
    soft, start, trial, ramp, melt, quench, hold = find_protocol("meg").stages
    assert isinstance(soft, SoftStart)
    assert (start.temperature, start.pressure) == ((2200.0, 2200.0), 0.0)
    assert (trial.temperature, trial.duration, trial.stretch) == ((2200.0, 9000.0), 120.0, 2.0)
    for stage, temperature, n_steps in (
        (ramp, (2500.0, 3000.0), 100_000),
        (melt, (3000.0, 3000.0), 200_000),
        (quench, (3000.0, 300.0), 270_000),
    ):
        segment = stage.segment(4000.0)
        assert (segment.temperature, segment.n_steps, segment.pressure) == (temperature, n_steps, 0.0)
    assert (ramp.least_displacement, melt.least_displacement, melt.until_displaced) == (0.0, 20.0, False)
    assert (hold.duration, hold.temperature) == (300.0, (300.0, 300.0))
    assert {stage.timestep for stage in (start, trial, ramp, melt, quench, hold)} == {0.002}


def test_the_short_one_takes_a_third_of_the_time():
    """Ramps follow one another, and the slow one is the published rate."""
    *_, ramp, melt, fast, slow, last, _ = find_protocol("meg-short").stages
    ends = [(stage.segment(4000.0).temperature, stage.rate) for stage in (ramp, melt, fast, slow, last)]
    assert ends == [
        ((2500.0, 3000.0), None),
        ((3000.0, 3000.0), None),
        ((3000.0, 1800.0), 20.0),
        ((1800.0, 800.0), 5.0),
        ((800.0, 300.0), 20.0),
    ]
    assert (melt.least_displacement, melt.until_displaced) == (20.0, True)
    assert 0.25 < find_protocol("meg-short").n_steps / find_protocol("meg").n_steps < 0.36


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((HOT, TRIAL), "`stages` must end with what is the same for all cells"),
        ((HOT, OWN, HOT), "`stages` must have an evaporation before temperatures that refer to it"),
        ((TRIAL, HOT), "`stages` must have a melt before an evaporation"),
        ((HOT, QUENCHED, TRIAL, HOT), "`stages` must have a melt before an evaporation"),
    ],
)
def test_bad_orders_of_stages(stages, message):
    with pytest.raises(ValueError, match=message):
        replace(find_protocol("si-melt"), stages=stages)


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        (TRIAL, {"stretch": 1.0}, "`stretch` must be above 1, got 1.0"),
        (TRIAL, {"temperature": (2000.0, 2000.0)}, "`temperature` must rise"),
        (TRIAL, {"duration": 0.001}, "`duration` must be a whole number of time steps"),
        (OWN, {"rate": 5.0}, "a stage takes either a `duration` or a `rate`"),
        (OWN, {"duration": None}, "a stage takes either a `duration` or a `rate`"),
        (OWN, {"duration": None, "rate": 0.0}, "`rate` must be positive, got 0.0"),
        (OWN, {"least_displacement": -1.0}, "`least_displacement` must not be negative, got -1.0"),
        (OWN, {"until_displaced": True}, "`until_displaced` needs a `least_displacement`"),
        (OWN, {"typical_duration": 0.5}, "`typical_duration` needs `until_displaced` and a `duration`"),
        (EARLY, {"duration": None, "rate": 5.0}, "`typical_duration` needs `until_displaced` and a `duration`"),
        (EARLY, {"typical_duration": 1.5}, "`typical_duration` must be positive and at most 1.0 ps, got 1.5"),
        (EARLY, {"typical_duration": 0.0}, "`typical_duration` must be positive and at most 1.0 ps, got 0.0"),
        (OWN, {"temperature": (Relative(0.1, -500.0), Relative(0.5))}, "`temperature` must be positive"),
        (SoftStart(0.1, (300.0, 300.0), 0.03), {"max_displacement": 0.0}, "`max_displacement` must be positive"),
    ],
)
def test_bad_stages_of_glasses(stage, options, message):
    with pytest.raises(ValueError, match=message):
        replace(stage, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"force_tolerance": 0.0}, "`force_tolerance` must be positive, got 0.0"),
        ({"max_steps": 0}, "`max_steps` must be at least 1, got 0"),
    ],
)
def test_bad_quenches(options, message):
    with pytest.raises(ValueError, match=message):
        Quench(**{"cell": "fixed", "force_tolerance": 0.05, **options})


def test_cells_of_just_these_atoms():
    """Numbers of atoms are taken as they are; sizes, charges and order may be any."""
    glass = with_counts(find_protocol("meg"), [{"Li": 4, "Si": 2, "O": 6}, {"Si": 50, "O": 101}])
    assert [glass.counts(i) for i in range(3)] == [
        {"Li": 4, "Si": 2, "O": 6},
        {"Si": 50, "O": 101},
        {"Li": 4, "Si": 2, "O": 6},
    ]
    assert glass.elements[glass.species(seed=1, number=0)].tolist() == [3] * 4 + [14] * 2 + [8] * 6
    assert glass.size == "12 to 151"
    assert from_dict(Protocol, to_dict(glass)) == glass
    silicon = with_counts(find_protocol("si-melt"), [{"Si": 10}])
    assert (silicon.size, silicon.density, silicon.min_distance) == ("10", 2.4, 2.0)
    assert len(silicon.species(seed=1, number=7)) == 10


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("si-melt", {}, "`n_atoms` may be None only where `compositions` are numbers of atoms"),
        ("meg", {}, "`n_atoms` may be None only where `compositions` are numbers of atoms"),
        ("meg", {"compositions": ()}, "`n_atoms` may be None only where `compositions` are numbers of atoms"),
        ("meg", {"compositions": ({"Si": 1.5},)}, r"`compositions` must be whole numbers of atoms, got {'Si': 1.5}"),
        ("meg", {"compositions": ({},)}, "`compositions` must be whole numbers of atoms, got {}"),
        ("meg", {"compositions": ({"Xe": 1.0},)}, "element 'Xe' is unknown to the potential"),
        ("meg", {"compositions": ({"Si": 1.0},), "density": 2.0}, "`density` and `min_distance` must both be given"),
    ],
)
def test_numbers_of_atoms_that_are_none(name, change, message):
    with pytest.raises(ValueError, match=message):
        replace(find_protocol(name), n_atoms=None, **change)


def test_stages_that_end_early_are_told_as_they_typically_are():
    """The melt of `meg-short` is held for 60 ps of its 400, as a rule."""
    stages = find_protocol("meg-short").stages
    (melt,) = (stage for stage in stages if isinstance(stage, Adapted) and stage.until_displaced)
    plain = (replace(stage, typical_duration=None) if stage is melt else stage for stage in stages)
    whole = replace(find_protocol("meg-short"), stages=tuple(plain))
    assert whole.duration - find_protocol("meg-short").duration == pytest.approx(340.0)
    assert whole.n_steps - find_protocol("meg-short").n_steps == 170_000
    assert melt.segment(4000.0).n_steps == 200_000


def test_what_is_only_told_does_not_make_another_campaign():
    glass = find_protocol("meg-short")
    assert "typical_duration" not in str(origin_of(glass, 1, "amden"))


@pytest.mark.parametrize(
    ("n_atoms", "compositions", "message"),
    [
        (180, "multi-element", "must be at least 181 for bmp-shrm, got 180: a random start of 178 atoms"),
        (
            5,
            "multi-element",
            "must be at least 181 for bmp-shrm, got 5: a random start of 3 atoms is narrower than 14 Å",
        ),
        (176, ({"Si": 1.0, "O": 2.0},), "must be at least 179 for bmp-shrm, got 176: a random start of 177 atoms"),
        (8, ({"Si": 1.0, "O": 2.0},), r"`n_atoms` \(--atoms\) must be at least 179 for bmp-shrm, got 8"),
    ],
)
def test_cells_that_the_potential_does_not_fit_into(n_atoms, compositions, message):
    with pytest.raises(ValueError, match=message):
        replace(find_protocol("meg"), n_atoms=n_atoms, compositions=compositions)


def test_the_least_number_of_atoms_is_enough():
    """Of the grid; 180 would not be, as composition 405 shows; of 181, composition 188 makes the smallest cells."""
    fractions = with_oxygen(shuffled_grid()[405].cations)
    assert sum(neutral_counts(fractions, n_atoms=180).values()) == 180 - FEWER
    glass = replace(find_protocol("meg"), n_atoms=181)
    assert sum(glass.counts(188).values()) == 181 - FEWER
    assert random_start(glass, [1], [188]).n_systems == 1


@pytest.mark.parametrize(
    ("name", "n_atoms", "message"),
    [
        ("si-quench", 16, r"`n_atoms` \(--atoms\) must be at least 23 for stillinger-weber-si, got 16: a random start"),
        ("si-melt", 22, "a random start of 22 atoms is narrower than 7.542 Å"),
        ("sio2", (9, 249), r"must be at least \d+ for tersoff-sio, got \(9, 249\): a random start of 9 atoms"),
    ],
)
def test_cells_of_a_density_that_the_potential_does_not_fit_into(name, n_atoms, message):
    with pytest.raises(ValueError, match=message):
        replace(find_protocol(name), n_atoms=n_atoms)


@pytest.mark.parametrize("name", ["si-quench", "sio2"])
def test_the_engine_takes_the_least_number_of_atoms_of_a_density(name):
    with pytest.raises(ValueError, match="must be at least") as told:
        replace(find_protocol(name), n_atoms=3)
    least = int(str(told.value).split("at least ")[1].split()[0])
    smallest = replace(find_protocol(name), n_atoms=least)
    assert smallest.possible_sizes == (least,)
    thermal = random_start(smallest, [1], [0])
    assert thermal.n_atoms.tolist() == [least]
