"""Glasses of many compositions: the verbs, and that random starts of ions never explode."""

import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from amden.cli import main
from amden.dataset import load_dataset
from amden.elements import FORMAL_CHARGES, symbol
from amden.io import write_structures
from amden.simulate import catalogue, runs
from amden.simulate.catalogue import find_protocol, with_glasses
from amden.simulate.oxides import FORMERS, MODIFIERS
from amden.simulate.runs import run_protocol
from amden.simulate.snapshot import Snapshot
from amden.simulate.stages import SoftStart, Stage

SOFT = find_protocol("meg").stages[0]
SIZE = 260
"""Atoms; fewer would not fill a cell of twice the reach of the contact term."""


def counts_of(structures):
    """Atoms of each element, cell by cell."""
    rows = (structures.select([i]).species.tolist() for i in range(len(structures)))
    return [Counter(symbol(z) for z in row) for row in rows]


@pytest.fixture
def fails(capsys):
    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        assert stopped.value.code == 1
        return capsys.readouterr().err.strip().splitlines()[-1].removeprefix("amden: error: ")

    return run


@pytest.fixture
def _short(monkeypatch):
    """Only the first steps of it."""
    stages = (replace(SOFT, duration=0.02), Stage(0.01, (300.0, 300.0)))
    short = replace(find_protocol("meg"), n_atoms=SIZE, stages=stages)
    monkeypatch.setattr(catalogue, "PROTOCOLS", {**catalogue.PROTOCOLS, "meg": short})


class Watch:
    """Notes the mean temperature of the hottest cell in each launch, by its stage."""

    def __init__(self) -> None:
        self.hottest: dict[int, list[float]] = {0: [], 1: []}

    def load(self) -> Snapshot | None:
        return None

    def offer(self, snapshot: Snapshot) -> None:
        self.keep(snapshot)

    def keep(self, snapshot: Snapshot) -> None:
        means = snapshot.measured["cells.temperature"] / snapshot.measured["cells.n_samples"]
        self.hottest[snapshot.stage if snapshot.step else snapshot.stage - 1].append(float(means.max()))


def numbers_with_all_elements():
    """Few cells of the grid that have all of its elements together."""
    glass, left, chosen = find_protocol("meg"), {*FORMERS, *MODIFIERS}, []
    for number in range(9240):
        fresh = left & set(glass.counts(number))
        if len(fresh) > min(2, len(left) - 1):
            left, chosen = left - fresh, [*chosen, number]
        if not left:
            return chosen
    raise AssertionError(left)


def test_random_starts_of_ions_never_explode(monkeypatch):
    """No step of the soft start is longer than 0.03 Å, which limits its temperature; afterwards all is calm at 2 fs."""
    monkeypatch.setattr(runs, "LAUNCH", {"cpu": 25})
    short = replace(find_protocol("meg"), n_atoms=SIZE, stages=(SOFT, Stage(0.1, (2200.0, 2200.0))))
    numbers = numbers_with_all_elements()
    assert isinstance(SOFT, SoftStart)
    watch = Watch()
    found = run_protocol(short, [*range(len(numbers))], numbers=numbers, device="cpu", keeper=watch)
    assert found.failures == {}
    soft, after = watch.hottest[0], watch.hottest[1]
    assert (len(soft), len(after)) == (16, 2)
    assert max(soft) < 7000.0
    assert soft[-1] < 700.0
    assert max(after) < 1500.0
    assert set().union(*counts_of(found.structures)) == {*FORMERS, *MODIFIERS, "O"}
    assert (found.structures.properties["potential_energy"] < -9.0).all()


@pytest.mark.usefixtures("_short")
def test_cells_follow_the_grid_whoever_runs_them(tmp_path, capsys):
    arguments = ["simulate", "meg", "--n", "4", "--seed", "3", "--device", "cpu"]
    main([*arguments, "--out", str(tmp_path / "whole"), "--batch-size", "3"])
    main([*arguments, "--out", str(tmp_path / "part"), "--shard", "2/2"])
    whole, part = load_dataset(tmp_path / "whole"), load_dataset(tmp_path / "part")
    assert counts_of(whole) == [Counter(find_protocol("meg").counts(k)) for k in range(4)]
    assert part.positions.equal(whole.select([2, 3]).positions)
    for counts in counts_of(whole):
        assert sum(FORMAL_CHARGES[name] * n for name, n in counts.items()) == 0

    shutil.copytree(tmp_path / "whole", tmp_path / "shared")
    main(["properties", str(tmp_path / "whole"), "--density", "--fractions"])
    told = capsys.readouterr().out
    main(["properties", str(tmp_path / "shared"), "--density", "--fractions", "--workers", "2"])
    assert capsys.readouterr().out.replace("shared", "whole") == told[told.index(f"{tmp_path}/whole: 4 structures\n") :]
    for name in ("manifest.json", *(path.name for path in (tmp_path / "whole").glob("*.safetensors"))):
        assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    measured = load_dataset(tmp_path / "whole").properties
    for name in ("Li", "O", "K"):
        wanted = [counts[name] / sum(counts.values()) for counts in counts_of(whole)]
        np.testing.assert_allclose(measured[f"{name.lower()}_fraction"].numpy(), wanted, rtol=1e-6)


@pytest.mark.usefixtures("_short")
def test_compositions_that_are_asked_for(tmp_path):
    arguments = ["simulate", "meg", "--n", "3", "--device", "cpu", "--out", str(tmp_path / "a")]
    main([*arguments, "--composition", "Li2O:15 SiO2:60 Al2O3:25", "--composition", "Si:1 O:2", "--atoms", "280"])
    lithium, silica = {"Li": 24, "Si": 48, "Al": 40, "O": 168}, {"Si": 93, "O": 186}
    made = load_dataset(tmp_path / "a")
    assert counts_of(made) == [lithium, silica, lithium]

    write_structures(tmp_path / "made.extxyz", made.select([1, 0]))
    like = ["--like", str(tmp_path / "made.extxyz"), "--atoms", "560"]
    main(["simulate", "meg", "--n", "2", "--device", "cpu", "--out", str(tmp_path / "b"), *like])
    assert [dict(c) for c in counts_of(load_dataset(tmp_path / "b"))] == [
        {"Si": 187, "O": 374},
        {name: 2 * n for name, n in lithium.items()},
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["si-melt", "--composition", "Si:1"], "the composition 'Si:1' is not neutral"),
        (["sio2", "--composition", "SiO2:1"], "protocol 'sio2' has one composition: only meg, meg-short take others"),
        (["meg", "--composition", "Na2O:1"], "element 'Na' of 'Na2O' is not among Si, O, P"),
        (["meg", "--composition", "SiO2:1", "--like", "x"], "`--composition` and `--like` exclude each other"),
        (["meg", "--like", "gone.extxyz"], "gone.extxyz: no such file"),
        (["meg", "--deck"], "protocol 'meg' adapts to its cells, which LAMMPS cannot do"),
        (["si-melt", "--atoms", "0"], "--atoms"),
    ],
)
def test_what_cannot_be_asked_for(fails, tmp_path, arguments, message):
    if "0" in arguments:
        with pytest.raises(SystemExit):
            main(["simulate", *arguments, "--n", "1", "--out", str(tmp_path / "d")])
        return
    assert message in fails("simulate", *arguments, "--n", 1, "--out", tmp_path / "d")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"composition": {"Si": 1.0}}, "`composition` and `compositions` exclude each other"),
        ({"n_atoms": (300, 400)}, r"`n_atoms` must be one number where there are `compositions`, got \(300, 400\)"),
        ({"density": 2.2}, "`density` and `min_distance` must be None where there are `compositions`"),
        ({"compositions": ()}, "`compositions` is empty"),
        ({"compositions": ({"Fe": 2.0, "O": 3.0},)}, "element 'Fe' is unknown to the potential 'bmp-shrm'"),
        ({"compositions": None}, "`density` and `min_distance` may be None only where there are `compositions`"),
        ({"potential": "tersoff-sio"}, "element 'P' is unknown to the potential 'tersoff-sio'"),
    ],
)
def test_bad_protocols_of_glasses(change, message):
    with pytest.raises(ValueError, match=message):
        replace(find_protocol("meg"), **change)


def test_the_order_of_the_grid_is_a_sample_of_it():
    """The first thousand have the mean amounts of all, and none comes twice before all have come."""
    glass = with_glasses(find_protocol("meg"), n_atoms=800)
    names = [tuple(sorted(glass.counts(k).items())) for k in range(1000)]
    assert len(set(names)) > 990  # some compositions are so near that their cells are the same
    lithium = np.array([dict(name).get("Li", 0) / sum(n for _, n in name) for name in names])
    assert lithium.mean() == pytest.approx(0.020, abs=0.003)
    assert lithium.std() == pytest.approx(0.031, abs=0.004)
    assert glass.counts(9240) == glass.counts(0)
