from dataclasses import replace

import pytest
import torch

from amden.blank import Blank, cell_blank, cubic_blank, like_blank
from amden.diffusion.hmc import HMCConfig
from amden.generation import automatic_batch_size, generate, memory_share
from amden.model import denoiser_of
from amden.structure import Structures
from amden.testing import diamond, random_structures


def test_cubes_have_the_density_asked_for(tiny_model):
    for density in (None, 2.1):
        blank = cubic_blank(tiny_model, 3, atoms=50, density=density)
        structures = Structures(torch.zeros(150, 3), torch.full((150,), 14), blank.cell, blank.n_atoms)
        torch.testing.assert_close(structures.density, torch.full((3,), density or 2.4), rtol=1e-5, atol=0)


def test_cell_takes_the_atoms_of_its_volume(tiny_model):
    cell = torch.tensor([[10.0, 0.0, 0.0], [2.0, 11.0, 0.0], [1.0, -2.0, 12.0]])
    blank = cell_blank(tiny_model, 2, cell=cell, density=2.33)
    assert blank.n_atoms.tolist() == [66, 66]  # 8 atoms in 5.431³ Å³ are 2.33 g/cm³: 1320 Å³ hold 65.9
    assert cell_blank(tiny_model, 1, cell=cell, atoms=7).n_atoms.tolist() == [7]


def test_same_seed_same_structure_whatever_the_batch(tiny_model):
    blank = cubic_blank(tiny_model, 3, atoms=20)
    alone = generate(tiny_model, cubic_blank(tiny_model, 1, atoms=20), seed=5, n_steps=5)
    one_by_one = generate(tiny_model, blank, seed=5, n_steps=5, batch_size=1)
    together = generate(tiny_model, blank, seed=5, n_steps=5, batch_size=3)
    torch.testing.assert_close(one_by_one.positions, together.positions, rtol=0, atol=2e-4)
    torch.testing.assert_close(alone.positions, one_by_one.positions[:20], rtol=0, atol=0)
    other = generate(tiny_model, blank, seed=6, n_steps=5, batch_size=3)
    assert (other.positions - together.positions).abs().max() > 1.0


def test_mixed_sizes_and_atoms_inside_their_cells(tiny_model):
    like = random_structures([5, 11, 8], species=(14,), seed=3)
    made = generate(tiny_model, like_blank(tiny_model, like, n=4), n_steps=3, batch_size=2)
    assert made.n_atoms.tolist() == [5, 11, 8, 5]
    s = torch.einsum("ai,aij->aj", made.positions, torch.linalg.inv(made.cell)[made.system])
    assert s.min() > -1e-9
    assert s.max() < 1 + 1e-9


def test_halves_the_batch_when_memory_runs_out(tiny_model, monkeypatch):
    blank = cubic_blank(tiny_model, 5, atoms=10)
    expected = generate(tiny_model, blank, n_steps=2, batch_size=1)
    forward, sizes = tiny_model.denoiser.forward, []

    def stingy(sample, t, **options):
        sizes.append(len(sample))
        if len(sample) > 2:
            raise torch.OutOfMemoryError("no memory for so many")
        return forward(sample, t, **options)

    monkeypatch.setattr(tiny_model.denoiser, "forward", stingy)
    made = generate(tiny_model, blank, n_steps=2, batch_size=5)
    assert max(sizes) == 5
    torch.testing.assert_close(made.positions, expected.positions, rtol=0, atol=2e-4)


def test_out_of_memory_for_a_single_structure_is_told(tiny_model, monkeypatch):
    def never(*_, **__):
        raise torch.OutOfMemoryError("no memory at all")

    monkeypatch.setattr(tiny_model.denoiser, "forward", never)
    with pytest.raises(torch.OutOfMemoryError, match="no memory at all"):
        generate(tiny_model, cubic_blank(tiny_model, 2, atoms=10), n_steps=2)


def test_progress_and_frames(tiny_model):
    steps, frames = [], []
    blank = cubic_blank(tiny_model, 3, atoms=10)
    report = {"on_step": lambda systems, step: steps.append((systems, step)), "on_frame": frames.append}
    generate(tiny_model, blank, n_steps=4, batch_size=2, **report)
    assert sum(systems for systems, _ in steps) == 3 * 5
    assert [float(f.properties["t"]) for f in frames] == pytest.approx([0.745, 0.5, 0.255, 0.01, 0.0])
    assert all(len(f) == 1 and len(f.positions) == 10 for f in frames)


def test_batches_on_a_cpu_are_single(tiny_model):
    assert automatic_batch_size(cubic_blank(tiny_model, 9, atoms=10), torch.device("cpu")) == 1


@pytest.mark.parametrize(
    ("layers", "fused", "share", "size"),
    [(4, False, 12, 77), (6, False, 18, 53), (6, True, 1, 1000), (8, True, 2, 500)],
)
def test_energy_models_need_memory_for_their_gradients_unless_kernels_keep_nothing(
    tiny_model, monkeypatch, layers, fused, share, size
):
    config = tiny_model.denoiser.config
    config = replace(config, energy=True, egnn=replace(config.egnn, layers=layers))
    model = replace(tiny_model, denoiser=denoiser_of(config, tiny_model.diffusion))
    monkeypatch.setattr("amden.nn.egnn.fused.fused_available", lambda **_: fused)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (8_000_000_000, 8_000_000_000))
    gpu, blank = torch.device("cuda"), cubic_blank(tiny_model, 1000, atoms=10)
    assert memory_share(tiny_model, gpu) == 1
    assert memory_share(model, gpu) == share
    assert memory_share(model, torch.device("cpu")) == 3 * layers
    assert automatic_batch_size(blank, gpu, share=share) == size


def test_errors(tiny_model):
    with pytest.raises(ValueError, match="`atoms` must be at least 1, got 0"):
        cubic_blank(tiny_model, 1, atoms=0)
    with pytest.raises(ValueError, match="`n` must be at least 1, got 0"):
        cubic_blank(tiny_model, 0, atoms=1)
    with pytest.raises(ValueError, match=r"`density` must be positive and less than 25 g/cm³, got -1"):
        cubic_blank(tiny_model, 1, atoms=1, density=-1.0)
    with pytest.raises(ValueError, match="`cell` has a vanishing volume"):
        cell_blank(tiny_model, 1, cell=torch.ones(3, 3))
    with pytest.raises(ValueError, match=r"`cell` has a negative volume \(left-handed\)"):
        cell_blank(tiny_model, 1, cell=-9.0 * torch.eye(3))
    with pytest.raises(ValueError, match="element C is unknown to this model, which knows Si"):
        like_blank(tiny_model, diamond(species=6))
    nameless = type(tiny_model)(tiny_model.denoiser, tiny_model.diffusion)
    with pytest.raises(ValueError, match="`density` must be given"):
        cubic_blank(nameless, 1, atoms=8)


def test_a_cell_without_neighbours(tiny_model):
    blank = cubic_blank(tiny_model, 1, atoms=10, density=0.01)
    with pytest.raises(
        ValueError, match=r"structure 0 is too dilute: within the model's cutoff of 4\.0 Å an atom has 0\.057"
    ):
        generate(tiny_model, blank)


def test_blank_knows_its_length():
    assert len(Blank(torch.eye(3).expand(2, 3, 3), torch.tensor([1, 1]))) == 2


def test_hmc_refines_with_an_energy_model(tiny_model):
    """Every batch reports its chains; the structures differ from those of plain denoising and not with the batch."""
    torch.manual_seed(0)
    config = replace(tiny_model.denoiser.config, energy=True)
    denoiser = denoiser_of(config, tiny_model.diffusion)
    model = replace(tiny_model, denoiser=denoiser.eval().requires_grad_(False))
    blank, hmc, records = cubic_blank(model, 3, atoms=12), HMCConfig(n_verlet=2, step=0.05), []
    refined = generate(model, blank, n_steps=8, refine=hmc, batch_size=2, on_record=records.append)
    assert [record.energy.shape for record in records] == [(9, 2), (9, 1)]
    assert records[0].probability.nanmean() > 0.5
    alone = generate(model, cubic_blank(model, 1, atoms=12), n_steps=8, refine=hmc)
    torch.testing.assert_close(alone.positions, refined.positions[:12], rtol=0, atol=2e-4)
    plain = generate(model, blank, n_steps=8, batch_size=2)
    assert (plain.positions - refined.positions).abs().max() > 1e-3
    with pytest.raises(ValueError, match="needs an energy model"):
        generate(tiny_model, blank, n_steps=2, refine=hmc)
