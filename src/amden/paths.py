"""The noise energy along the ways between order and noise (fig. 3e of the paper).

Data noised forward are drawn from p_t, so their energy is what a sampler should have at t. Denoised samples whose
energy lies above are less likely than they should be; Hamiltonian Monte Carlo brings them down.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from amden.blank import like_blank
from amden.denoising import OnStep
from amden.diffusion.corruption import add_ghosts, corrupt, encode, gaussian_noise
from amden.diffusion.hmc import HMCConfig, HMCRecord
from amden.diffusion.sampler import time_grid
from amden.generation import automatic_batch_size, generate, memory_share
from amden.model import Model
from amden.nn.energy import EnergyModel
from amden.random import Streams, spawn_seeds
from amden.structure import Structures

FORWARD, STANDARD, HMC = "forward noising", "standard denoising", "HMC denoising"
"""The ways."""


@dataclass(frozen=True, eq=False)
class EnergyPath:
    """Noise energy of some systems along one way."""

    t: Float[Tensor, " times"]
    energy: Float[Tensor, "times systems"]
    """E for each atom, k_B T = 1."""

    @property
    def mean(self) -> Float[Tensor, " times"]:
        """Over the systems."""
        return self.energy.mean(1)

    @property
    def error(self) -> Float[Tensor, " times"]:
        """Standard error of the mean; NaN for one system."""
        n = self.energy.shape[1]
        return self.energy.std(1) / n**0.5 if n > 1 else torch.full_like(self.energy[:, 0], torch.nan)


def energy_paths(
    model: Model,
    reference: Structures,
    *,
    n_steps: int = 200,
    hmc: HMCConfig | None = None,
    hmc_steps: int = 2000,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
    compiled: bool = False,
    on_step: OnStep = lambda *_: None,
) -> Mapping[str, EnergyPath]:
    """Energies of forward noising of the reference, of standard denoising in its cells, and with `hmc` of that too.

    Forward noising adds σ(t) ε with one ε a structure, at the times of standard denoising. `compiled` is that of
    `generate`. Errors: `ValueError` for a model without energy.
    """
    if not isinstance(model.denoiser, EnergyModel):
        raise ValueError("noise energies need an energy model, this one predicts the noise alone")
    blank = like_blank(model, reference)
    where = torch.device(device)
    size = batch_size or automatic_batch_size(blank, where, share=memory_share(model, where))
    how = {"n_steps": n_steps, "seed": seed, "device": device, "batch_size": size}
    paths = {FORWARD: _forward(model, reference, **how, on_step=on_step)}
    for name, steps, config in ((STANDARD, n_steps, None), (HMC, hmc_steps, hmc)):
        if name == HMC and hmc is None:
            continue
        records: list[HMCRecord] = []
        generate(
            model,
            blank,
            seed=seed,
            n_steps=steps,
            refine=config,
            energies=True,
            device=device,
            batch_size=batch_size,
            compiled=compiled,
            on_step=on_step,
            on_record=records.append,
        )
        energy = torch.cat([record.energy for record in records], 1)
        paths[name] = EnergyPath(records[0].t, energy / blank.n_atoms)
    return paths


@torch.no_grad()
def _forward(
    model: Model,
    reference: Structures,
    *,
    n_steps: int,
    seed: int,
    device: torch.device | str,
    batch_size: int,
    on_step: OnStep,
) -> EnergyPath:
    assert isinstance(model.denoiser, EnergyModel)
    denoiser, device = model.denoiser.to(device), torch.device(device)
    times, columns = time_grid(model.diffusion, n_steps=n_steps)[:-1], []
    for chosen in torch.arange(len(reference)).split(batch_size):
        seeds = spawn_seeds(seed, len(chosen), first=int(chosen[0])).to(device)
        given = reference.select(chosen).to(device, dtype=torch.float32)
        if denoiser.config.ghost_density is not None:
            given = add_ghosts(given, denoiser.config.ghost_density, Streams.of(seeds, given.n_atoms))
        part = encode(given, denoiser.config.vocabulary)
        noise, found = gaussian_noise(part, Streams.of(seeds, part.n_atoms)), []
        for t in times.tolist():
            at = part.positions.new_full((len(part),), t)
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=device.type == "cuda"):
                energy, _ = denoiser.energy_and_noise(corrupt(part, at, noise, model.diffusion), at)
            found.append(energy / part.n_atoms)
            on_step(len(part), None)
        columns.append(torch.stack(found).cpu())
    return EnergyPath(times, torch.cat(columns, 1))
