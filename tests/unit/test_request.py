from dataclasses import replace

import pytest
import torch

from amden.blank import cell_blank, cubic_blank, like_blank
from amden.diffusion.composition import Formula, Neutral, log_probabilities
from amden.diffusion.corruption import prior
from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.hmc import HMCConfig
from amden.diffusion.leaning import Leaning, constraint_rows, leaned
from amden.diffusion.sampler import euler_maruyama, time_grid
from amden.diffusion.schedule import Diffusion
from amden.diffusion.vocabulary import Vocabulary
from amden.generation import generate
from amden.model import Model, denoiser_of
from amden.nn.egnn import EGNNConfig
from amden.nn.embedding import PropertyScale
from amden.nn.score import ScoreConfig
from amden.random import Streams
from amden.recipe import GuidanceConfig
from amden.request import Guidance, Request
from amden.targets import read_request
from amden.testing import random_structures

KNOWN = Vocabulary((8, 14), ghosts=True)
SILICA = Formula({14: 1, 8: 2})
SCALES = {"x": PropertyScale(0.0, 1.0, None, (-2.0, 0.0, 2.0)), "y": PropertyScale(0.0, 1.0, None, (-1.0, 1.0))}


def untrained(*, properties=SCALES, energy=False, seed=0) -> Model:
    torch.manual_seed(seed)
    egnn = EGNNConfig(layers=1, hidden=16, channels=2, cutoff=4.0, n_norm=10.0)
    config = ScoreConfig(KNOWN, properties, egnn, energy=energy, ghost_density=0.1)
    denoiser = denoiser_of(config, Diffusion()).eval().requires_grad_(False)
    for p in denoiser.parameters():
        p.copy_(0.3 * torch.randn(p.shape))
    return Model(denoiser, Diffusion(), {"data": {"density": 2.2, "mean_mass": 20.03}})


def made(request: Request, *, model=None, n=2, **options):
    model = model or untrained()
    return generate(model, cubic_blank(model, n, atoms=40), request=request, n_steps=6, **options)


def test_ghosts_fill_the_cell_and_are_gone_at_the_end():
    model = untrained()
    volume = 40 * 20.03 * 1.66053906660 / 2.2
    blank = cubic_blank(model, 1, atoms=40)
    assert float(torch.linalg.det(blank.cell[0])) == pytest.approx(volume, rel=1e-4)
    assert blank.n_atoms.tolist() == [int(0.1 * volume)]
    assert cell_blank(model, 1, cell=10.0 * torch.eye(3)).n_atoms.tolist() == [100]
    with pytest.raises(ValueError, match="a model with ghosts decides on atoms and density"):
        cell_blank(model, 1, cell=10.0 * torch.eye(3), atoms=40)
    like = random_structures([9, 12], species=(8, 14))
    assert like_blank(model, like).n_atoms.tolist() == torch.floor(0.1 * like.volume).long().tolist()
    free = made(Request())
    assert (free.species > 0).all()
    assert (free.n_atoms < int(0.1 * volume)).all()
    assert set(free.properties) == {"charge_error"}


@pytest.mark.parametrize("composition", [SILICA, Neutral({8: -2, 14: 4})])
def test_every_structure_is_exactly_as_asked_for_and_tells_what_it_took(composition):
    glass = made(Request(composition=composition), n=3, batch_size=2)
    for one in (glass.select([i]) for i in range(3)):
        assert int((one.species == 8).sum()) == 2 * int((one.species == 14).sum()) > 0
    free = made(Request(), n=3, batch_size=2)
    assert torch.equal(free.properties["charge_error"], glass.properties["charge_error"])
    charge = [
        4.0 * (one.species == 14).sum() - 2.0 * (one.species == 8).sum() for one in map(free.select, ([0], [1], [2]))
    ]
    expected = torch.stack(charge).abs() / free.n_atoms
    torch.testing.assert_close(free.properties["charge_error"], expected.double())
    assert (glass.properties["changed_atoms"] > 0).all()


def test_targets_reach_the_network_and_come_with_the_structures():
    plain, asked = made(Request()), made(Request({"x": 1.5}, Guidance(weight=0.0)))
    assert (plain.cell == asked.cell).all()
    assert not torch.equal(plain.positions[:10], asked.positions[:10])
    assert asked.properties["target_x"].tolist() == [1.5, 1.5]
    each = made(Request({"x": torch.tensor([1.5, -1.0])}, Guidance(weight=0.0)), batch_size=1)
    n = int(asked.n_atoms[0])
    assert torch.equal(each.positions[:n], asked.positions[:n])
    assert each.properties["target_x"].tolist() == [1.5, -1.0]


def test_guidance_by_null_is_that_of_eq_16_and_by_another_model_too():
    """A guide that is the model itself gives what the null gives; w = 0 gives the plain conditional."""
    target = {"x": 1.5}
    null = made(Request(target, Guidance(0.7)))
    by_model = made(Request(target, Guidance(0.7, "model", untrained())))
    torch.testing.assert_close(null.positions, by_model.positions, rtol=0, atol=0)
    without = made(Request(target, Guidance(0.0)))
    icg = made(Request(target, Guidance(0.7, "icg")))
    for other in (without, icg):
        assert other.n_atoms.tolist() != null.n_atoms.tolist() or not torch.equal(other.positions, null.positions)
    above = [made(Request(target, Guidance(0.7, above=t))) for t in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(above[0].positions, null.positions, rtol=0, atol=0)
    torch.testing.assert_close(above[2].positions, without.positions, rtol=0, atol=0)
    for other in (null, without):
        assert other.n_atoms.tolist() != above[1].n_atoms.tolist() or not torch.equal(
            other.positions, above[1].positions
        )
    assert [Request(target, Guidance(0.7, above=0.5)).asked(t) for t in (0.6, 0.5, 0.4)] == [2, 2, 1]
    alone = generate(
        untrained(), cubic_blank(untrained(), 1, atoms=40), request=Request(target, Guidance(0.7, "icg")), n_steps=6
    )
    torch.testing.assert_close(alone.positions, icg.positions[: len(alone.positions)], rtol=0, atol=2e-4)


def test_guidance_is_as_the_recipe_says_where_nobody_does():
    sampling = {"guidance": {"weight": 0.25, "kind": "icg", "above": 0.2}}
    best = replace(untrained(), provenance={"recipe": {"sampling": sampling}})
    said = {}
    for name, options in {"recipe": {}, "weight": {"guidance": 0.5}, "kind": {"kind": "null", "above": 0.0}}.items():
        request, _ = read_request(best, targets=["x=1"], extrapolate=True, **options)
        said[name] = str(request.guidance)
    assert said == {
        "recipe": "w = 0.25 (icg) at t > 0.2",
        "weight": "w = 0.5 (icg) at t > 0.2",
        "kind": "w = 0.25 (null)",
    }
    assert str(read_request(untrained(), targets=["x=1"], extrapolate=True)[0].guidance) == "w = 1 (null)"
    for wrong in {"weight": -1.0}, {"above": 1.5}:
        with pytest.raises(ValueError, match="must"):
            GuidanceConfig(**wrong)


def test_energies_are_guided_in_hamiltonian_monte_carlo():
    model = untrained(energy=True)
    hmc = HMCConfig(n_verlet=2)
    found = [made(Request({"x": 1.5}, Guidance(w)), model=model, refine=hmc, n=1).positions for w in (0.0, 0.7)]
    assert all(torch.isfinite(x).all() for x in found)
    assert len(found[0]) != len(found[1]) or not torch.equal(*found)
    with pytest.raises(ValueError, match="needs a guide that is an energy model"):
        made(Request({"x": 1.5}, Guidance(0.7, "model", untrained())), model=model, refine=hmc)
    for told, given in ({"restarts": 1}, "`--restarts`"), ({"lean_below": 0.3}, "`--lean`"):
        with pytest.raises(ValueError, match=f"^{given}: not while samples are relaxed.*add `--plain`"):
            made(Request(composition=SILICA, **told), model=model, refine=hmc)


def test_a_model_of_one_element_makes_that_element():
    silicon = replace(untrained(), denoiser=denoiser_of(ScoreConfig(Vocabulary((14,))), Diffusion()))
    with pytest.raises(ValueError, match="SiO2 has O, the model knows Si"):
        made(Request(composition=SILICA), model=silicon)
    found = made(Request(composition=Formula({14: 1}), restarts=1, lean_below=0.3), model=silicon, n=1)
    assert found.species.unique().tolist() == [14]


def test_charge_errors_are_told_where_charges_of_both_signs_could_balance():
    config = replace(untrained().denoiser.config, vocabulary=Vocabulary((14, 32)), properties={}, ghost_density=None)
    alloy = replace(untrained(), denoiser=denoiser_of(config, Diffusion()))
    assert not made(Request(), model=alloy, n=1).properties


def test_what_the_model_cannot_do_is_said():
    other = replace(untrained(), denoiser=denoiser_of(ScoreConfig(Vocabulary((14,))), Diffusion()))
    with pytest.raises(ValueError, match="the guide knows Si, the model O, Si and ghosts"):
        made(Request({"x": 1.0}, Guidance(1.0, "model", other)))
    with pytest.raises(ValueError, match="the guide was trained with another diffusion process"):
        made(Request({"x": 1.0}, Guidance(1.0, "model", replace(untrained(), diffusion=Diffusion(t_max=0.9)))))
    vector = untrained(properties={"curve": PropertyScale(0.0, 1.0, size=3)})
    with pytest.raises(ValueError, match="no distribution is known of 'curve'"):
        made(Request({"curve": torch.zeros(2, 3)}, Guidance(1.0, "icg")), model=vector)


def test_a_vector_is_a_condition_too():
    model = untrained(properties={"curve": PropertyScale(0.0, 1.0, size=3)})
    glass = made(Request({"curve": torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]])}), model=model)
    assert glass.properties["target_curve"].shape == (2, 3)


def test_restarts_are_for_those_that_do_not_fit():
    """Structures that fit stay, others are new; with the composition exact in any case."""
    first = made(Request(composition=SILICA), n=2, batch_size=2)
    again = made(Request(composition=SILICA, restarts=1), n=2, batch_size=2)
    assert (first.properties["charge_error"] > 0).all(), "both are to be restarted"
    assert not torch.equal(first.positions[:5], again.positions[:5])
    assert int((again.species == 8).sum()) == 2 * int((again.species == 14).sum())


def constant_noise(sample: Sample, t: torch.Tensor) -> Noise:
    return Noise(sample.positions, torch.zeros_like(sample.elements))


@pytest.mark.parametrize("constraint", [SILICA, Neutral({8: -2, 14: 4})])
def test_leaning_meets_the_composition_on_average(constraint):
    generator = torch.Generator().manual_seed(1)
    e = torch.softmax(2 * torch.randn((50, 3), generator=generator, dtype=torch.float64), 1)
    n_atoms, diffusion = torch.tensor([20, 30]), Diffusion()
    sample = Sample(torch.zeros(50, 3, dtype=torch.float64), e, torch.eye(3).double().repeat(2, 1, 1), n_atoms)
    rows = constraint_rows(constraint, KNOWN)
    p = leaned(log_probabilities(e), rows, sample)
    for first, last in ((0, 20), (20, 50)):
        assert (p[first:last] @ rows.T).sum(0).abs().max() < 1e-6
        assert (e[first:last] @ rows.T).sum(0).abs().max() > 0.1
    lean = Leaning(constant_noise, rows, 0.3, diffusion)
    t = torch.tensor([0.2, 0.5], dtype=torch.float64)
    noise = lean(sample, t)
    assert noise.elements[20:].abs().max() == 0, "above the time"
    alpha, sigma = diffusion.elements.alpha(t[0]), diffusion.elements.sigma(t[0])
    clean = (e[:20] - sigma * noise.elements[:20]) / alpha
    moved = clean - e[:20] / alpha
    before = log_probabilities(e / alpha)
    torch.testing.assert_close(moved, (leaned(before, rows, sample) - before.exp())[:20], rtol=1e-6, atol=1e-9)


def test_leaning_brings_samples_near_the_composition():
    """Atoms that are each of a class by chance, too often oxygen: the exact denoiser of that keeps it so."""
    diffusion, n_atoms = Diffusion(), torch.tensor([300])
    share = torch.tensor([0.8, 0.15, 0.05], dtype=torch.float64)

    def chance(sample: Sample, t: torch.Tensor) -> Noise:
        alpha, sigma = (f(t)[sample.system, None] for f in (diffusion.elements.alpha, diffusion.elements.sigma))
        clean = torch.softmax(share.log() + alpha * sample.elements / sigma**2, 1)
        return Noise(torch.zeros_like(sample.positions), (sample.elements - alpha * clean) / sigma)

    cell, streams = 20.0 * torch.eye(3, dtype=torch.float64)[None], Streams.of(torch.tensor([5]), n_atoms)
    start = prior(cell, n_atoms, width=3, diffusion=diffusion, streams=streams)
    rows = constraint_rows(SILICA, KNOWN)

    def off(denoiser) -> float:
        times = time_grid(diffusion, n_steps=60)
        end = euler_maruyama(denoiser, start, diffusion=diffusion, times=times, streams=streams)
        return abs(float((end.elements @ rows.T).sum())) / 300

    assert off(chance) > 0.15
    assert off(Leaning(chance, rows, 1.0, diffusion)) < 0.02


def test_rows_of_three_elements_leave_absent_ones_out():
    rows = constraint_rows(SILICA, Vocabulary((3, 8, 14), ghosts=True))
    assert (rows @ torch.tensor([0.0, 4.0, 2.0, 7.0]).double()).abs().max() == 0
    assert (rows @ torch.tensor([1.0, 4.0, 2.0, 7.0]).double()).abs().max() > 0
