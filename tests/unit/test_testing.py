from dataclasses import replace

import pytest
import torch

from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.schedule import Diffusion
from amden.random import Streams, spawn_seeds
from amden.segment import centred, segment_mean, system_index
from amden.testing import (
    GaussianOracle,
    MixtureOracle,
    PairDenoiser,
    check_denoiser,
    contract,
    diamond,
    random_sample,
    random_structures,
    supercell,
)

PAIR = PairDenoiser(cutoff=4.0)
SAMPLE = random_sample([3, 1, 6], width=2, conditions=["modulus"])
T = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [0, 3])
def test_the_pair_denoiser_keeps_the_contract(width, dtype):
    sample = random_sample([1, 4, 9], width=width, conditions=["modulus", "density"], dtype=dtype)
    check_denoiser(PAIR, sample, cutoff=4.0 if dtype == torch.float64 else None)


def broken(change):
    """The pair denoiser with `change(noise, sample, t)` made to its noise."""

    def denoiser(sample: Sample, t: torch.Tensor) -> Noise:
        return change(PAIR(sample, t), sample, t)

    return denoiser


def about_centre(values: torch.Tensor, sample: Sample) -> torch.Tensor:
    return centred(values, sample.system, n_systems=len(sample))


def misses_an_atom(noise, sample, t):
    return Noise(noise.positions[1:], noise.elements[1:])


def loses_precision(noise, sample, t):
    return replace(noise, elements=noise.elements.float())


def divides_by_zero(noise, sample, t):
    return replace(noise, elements=noise.elements / 0.0)


def predicts_nothing(noise, sample, t):
    return replace(noise, positions=0.0 * noise.positions)


def rolls_dice(noise, sample, t):
    return replace(noise, elements=noise.elements + torch.rand_like(noise.elements))


def drifts(noise, sample, t):
    return replace(noise, positions=noise.positions + 0.01)


def knows_the_origin(noise, sample, t):
    return replace(noise, elements=noise.elements + torch.sin(sample.positions[:, :2]))


def knows_up(noise, sample, t):
    return replace(noise, positions=noise.positions * torch.tensor([1.0, 1.0, 1.1]).double())


def knows_left(noise, sample, t):
    other = PairDenoiser(cutoff=5.0)(sample, t).positions
    return replace(noise, positions=noise.positions + about_centre(torch.linalg.cross(noise.positions, other), sample))


def knows_the_first(noise, sample, t):
    first = torch.arange(len(noise.elements)) == 0
    return replace(noise, elements=noise.elements * (1.0 + first[:, None]))


def knows_the_cell_wall(noise, sample, t):
    inside = PairDenoiser(cutoff=4.0)(replace(sample, cell=100.0 * sample.cell), t)
    return Noise(noise.positions + inside.positions, noise.elements)


def counts_atoms(noise, sample, t):
    return replace(noise, elements=noise.elements * sample.n_atoms[sample.system, None])


def talks_across(noise, sample, t):
    mean = segment_mean(sample.elements, sample.system, n_systems=len(sample)).mean(0)
    return replace(noise, elements=noise.elements + mean)


def knows_its_place(noise, sample, t):
    place = torch.arange(len(sample))[sample.system, None]
    return replace(noise, elements=noise.elements * (1 + place))


@pytest.mark.parametrize(
    ("check", "change", "message"),
    [
        (contract.check_output, misses_an_atom, "positions noise has shape"),
        (contract.check_output, loses_precision, "elements noise has dtype torch.float32, expected torch.float64"),
        (contract.check_output, divides_by_zero, "elements noise has NaN or infinite values"),
        (contract.check_output, predicts_nothing, "position noise is zero everywhere: nothing can be checked"),
        (contract.check_output, rolls_dice, "noise of elements changes asked a second time"),
        (contract.check_drift, drifts, "position noise has a mean over a system"),
        (contract.check_translation, knows_the_origin, "noise of elements changes under translation"),
        (contract.check_rotation, knows_up, "noise of positions changes under rotation"),
        (contract.check_reflection, knows_left, "noise of positions changes under reflection"),
        (contract.check_permutation, knows_the_first, "noise of elements changes under permutation"),
        (contract.check_wrapping, knows_the_cell_wall, "noise of positions changes when atoms move by lattice vectors"),
        (contract.check_supercell, counts_atoms, "noise of elements changes in a supercell"),
        (contract.check_batching, talks_across, "noise of elements changes with system 0 alone"),
        (contract.check_batching, knows_its_place, "noise of elements changes with system 1 alone"),
    ],
)
def test_every_breach_is_found_by_its_check(check, change, message):
    check(PAIR, SAMPLE, T)
    with pytest.raises(AssertionError, match=message):
        check(broken(change), SAMPLE, T)
    with pytest.raises(AssertionError):
        check_denoiser(broken(change), SAMPLE, T)


def test_a_handed_denoiser_passes_all_but_the_mirror():
    denoiser = broken(knows_left)
    for check in contract.CHECKS:
        if check is not contract.check_reflection:
            check(denoiser, SAMPLE, T)


@pytest.mark.parametrize("power", [0, 1])
def test_a_kink_and_a_jump_at_the_cutoff_are_found(power):
    with pytest.raises(AssertionError, match=r"noise is not smooth where atoms of system 0 cross the cutoff of 4\.0"):
        contract.check_smoothness(PairDenoiser(cutoff=4.0, power=power), SAMPLE, T, cutoff=4.0)


@pytest.mark.parametrize("power", [2, 3])
def test_a_kink_in_the_curvature_is_allowed(power):
    contract.check_smoothness(PairDenoiser(cutoff=4.0, power=power), SAMPLE, T, cutoff=4.0)


def test_smoothness_needs_double_precision():
    sample = random_sample([3], dtype=torch.float32)
    with pytest.raises(ValueError, match=r"finite differences in float64, got torch\.float32"):
        check_denoiser(PAIR, sample, cutoff=4.0)


def test_a_tolerance_can_be_given():
    def off(noise, sample, t):
        return replace(noise, positions=noise.positions + 1e-3)

    contract.check_drift(broken(off), SAMPLE, T, tolerance=1e-2)
    with pytest.raises(AssertionError, match="allowed=1e-05"):
        contract.check_drift(broken(off), SAMPLE, T, tolerance=1e-5)


def gaussian_log_density(oracle: GaussianOracle, sample: Sample, t: torch.Tensor) -> torch.Tensor:
    d, system = oracle.diffusion, sample.system
    v = (oracle.spread**2 + d.positions.sigma(t) ** 2)[system, None]
    alpha, sigma = d.elements.alpha(t)[system, None], d.elements.sigma(t)[system, None]
    mean = alpha * torch.tensor(oracle.element_mean, dtype=torch.float64)
    scale = torch.sqrt(alpha**2 * oracle.element_spread**2 + sigma**2)
    log_e = torch.distributions.Normal(mean, scale).log_prob(sample.elements).sum()
    return log_e - 0.5 * (about_centre(sample.positions, sample) ** 2 / v).sum()


def mixture() -> MixtureOracle:
    return MixtureOracle(
        Diffusion(),
        weights=torch.tensor([0.3, 0.7]),
        sites=torch.tensor([[[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]], [[0.0, 0.6, 0.3], [0.0, -0.6, -0.3]]]),
        elements=torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.0, 1.0]]]),
        spread=0.2,
        element_spread=0.3,
    )


def mixture_log_density(oracle: MixtureOracle, sample: Sample, t: torch.Tensor) -> torch.Tensor:
    """Term by term, for systems of two atoms."""
    d, total = oracle.diffusion, torch.zeros(()).double()
    for i in range(len(sample)):
        x, e = sample.positions[2 * i : 2 * i + 2], sample.elements[2 * i : 2 * i + 2]
        vx = oracle.spread**2 + d.positions.sigma(t[i]) ** 2
        ve = (d.elements.alpha(t[i]) * oracle.element_spread) ** 2 + d.elements.sigma(t[i]) ** 2
        density = torch.zeros(()).double()
        for w, r, m in zip(oracle.weights.double(), oracle.sites.double(), oracle.elements.double(), strict=True):
            bond = (x[0] - x[1]) - (r[0] - r[1])
            # |x - R|² about the centre of mass of two atoms is half the bond's.
            exponent = 0.5 * bond.square().sum() / vx + (e - d.elements.alpha(t[i]) * m).square().sum() / ve
            density = density + w * torch.exp(-0.5 * exponent)
        total = total + torch.log(density)
    return total


@pytest.mark.parametrize(
    ("oracle", "log_density"),
    [
        (GaussianOracle(Diffusion(), element_mean=(0.3, 0.7)), gaussian_log_density),
        (mixture(), mixture_log_density),
    ],
)
def test_oracles_predict_the_gradient_of_the_log_density(oracle, log_density):
    """ε = -σ ∇ ln p_t."""
    plain = random_sample([2, 2, 2], width=2)
    sample = replace(
        plain, positions=plain.positions.requires_grad_(True), elements=plain.elements.requires_grad_(True)
    )
    grad_x, grad_e = torch.autograd.grad(log_density(oracle, sample, T), (sample.positions, sample.elements))
    noise = oracle(sample, T)
    sigma = (
        schedule.sigma(T)[sample.system, None] for schedule in (oracle.diffusion.positions, oracle.diffusion.elements)
    )
    for got, grad, s in zip((noise.positions, noise.elements), (grad_x, grad_e), sigma, strict=True):
        assert torch.allclose(got, -s * grad, rtol=1e-9, atol=1e-12)


def test_the_gaussian_oracle_draws_from_its_marginal():
    oracle = GaussianOracle(Diffusion(), spread=0.3, element_mean=(0.3, 0.7), element_spread=0.2)
    template = random_sample([4000], width=2)
    streams = Streams.of(spawn_seeds(0, 1), template.n_atoms)
    drawn = oracle.drawn(template, torch.tensor([0.4]).double(), streams)
    v = 0.09 + 0.6**2
    assert drawn.positions.var().item() == pytest.approx(v, rel=5 * (2 / 12000) ** 0.5)
    alpha = oracle.diffusion.elements.alpha(torch.tensor(0.4)).item()
    sigma = oracle.diffusion.elements.sigma(torch.tensor(0.4)).item()
    scale = ((0.2 * alpha) ** 2 + sigma**2) ** 0.5
    assert drawn.elements.mean(0).tolist() == pytest.approx([0.3 * alpha, 0.7 * alpha], abs=5 * scale / 4000**0.5)
    assert drawn.elements.std(0).tolist() == pytest.approx([scale] * 2, rel=5 / 8000**0.5)


def test_the_mixture_draws_its_components_by_weight():
    oracle = mixture()
    n_atoms = torch.full((4000,), 2)
    zeros = torch.zeros(8000, 3).double(), torch.zeros(8000, 2).double()
    template = Sample(*zeros, torch.eye(3).double().expand(4000, 3, 3), n_atoms)
    t = torch.zeros(4000).double()
    drawn = oracle.drawn(template, t, Streams.of(spawn_seeds(1, 4000), n_atoms))
    share = oracle.responsibilities(drawn, t).mean(0)
    assert share.tolist() == pytest.approx([0.3, 0.7], abs=5 * (0.21 / 4000) ** 0.5)
    first = oracle.responsibilities(drawn, t)[:, 0] > 0.5
    bond = drawn.positions[0::2] - drawn.positions[1::2]
    assert bond[first].mean(0).tolist() == pytest.approx([2.0, 0.0, 0.0], abs=0.05)
    assert bond[~first].mean(0).tolist() == pytest.approx([0.0, 1.2, 0.6], abs=0.05)
    assert drawn.elements[1::2].mean(0).tolist() == pytest.approx([0.0, 1.0], abs=0.05)


def test_random_structures_have_no_overlaps_and_right_handed_cells():
    structures = random_structures([1, 8, 30, 100], species=(8, 14), seed=3)
    assert (structures.volume > 0).all()
    assert set(structures.species.tolist()) == {8, 14}
    larger = supercell(structures, (3, 3, 3))
    for x in larger.positions.split(larger.n_atoms.tolist()):
        assert torch.nn.functional.pdist(x).min() > 1.0


def test_seeds_make_structures():
    one, again, other = (random_structures([7], seed=s).positions for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


def test_diamond_has_four_neighbours():
    crystal = diamond((3, 3, 3))
    assert len(crystal.positions) == 216
    assert crystal.density.item() == pytest.approx(2.329, abs=0.002)
    x = crystal.positions
    d = x[:, None] - x
    d = d - 3 * 5.431 * torch.round(d / (3 * 5.431))
    r = d.norm(dim=-1)
    assert ((r > 0) & (r < 2.5)).sum(1).tolist() == [4] * 216
    assert r[(r > 0) & (r < 2.5)].mean().item() == pytest.approx(5.431 * 3**0.5 / 4)


def test_supercells_keep_the_order_of_systems():
    structures = random_structures([2, 3], species=(8, 14))
    larger = supercell(structures, (2, 1, 3))
    assert larger.n_atoms.tolist() == [12, 18]
    assert torch.allclose(larger.volume, 6 * structures.volume)
    assert torch.allclose(larger.density, structures.density)
    system = system_index(larger.n_atoms)
    assert torch.equal(larger.species[system == 1], structures.species[2:].repeat(6))
