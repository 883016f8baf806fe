"""Denoisers that are known exactly, to test samplers against, and one that keeps the contract of a network.

Data x_0 and noise ε of independent normal coordinates have the posterior mean E[ε | x_t] = σ (x_t - α μ)/v with
v = α² s² + σ²; a mixture averages that over its components. Positions have no drift: their noise and spread are those
of coordinates relative to the centre of mass, so a variance over n atoms is (1 - 1/n) of what it would be.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from amden import cell as lattice
from amden.diffusion.corruption import gaussian_noise
from amden.diffusion.denoiser import Noise, Sample
from amden.diffusion.schedule import Diffusion, Schedule
from amden.random import Streams
from amden.segment import centred, segment_sum


@dataclass(frozen=True)
class GaussianOracle:
    """Exact for data in which every coordinate about the centre of mass is N(0, s²), every element channel N(m, s_E²).

    Systems may have any number of atoms. Cells play no part: they are taken to be huge.
    """

    diffusion: Diffusion
    spread: float = 0.3
    """s in Å."""
    element_mean: tuple[float, ...] = ()
    """m of each class."""
    element_spread: float = 0.2
    """s_E."""

    def __call__(self, sample: Sample, t: Float[Tensor, " systems"]) -> Noise:
        """E[ε | x_t]."""
        _, sigma, v = _marginal(self.diffusion.positions, t, self.spread)
        alpha_e, sigma_e, v_e = _marginal(self.diffusion.elements, t, self.element_spread)
        about = centred(sample.positions, sample.system, n_systems=len(sample))
        mean = sample.elements.new_tensor(self.element_mean)
        system = sample.system
        return Noise(
            (sigma / v)[system, None] * about,
            (sigma_e / v_e)[system, None] * (sample.elements - alpha_e[system, None] * mean),
        )

    def energy_and_noise(self, sample: Sample, t: Float[Tensor, " systems"]) -> tuple[Float[Tensor, " systems"], Noise]:
        """-ln p_t(x) up to a constant, and the noise: an `EnergyDenoiser`."""
        *_, v = _marginal(self.diffusion.positions, t, self.spread)
        alpha_e, _, v_e = _marginal(self.diffusion.elements, t, self.element_spread)
        system, mean = sample.system, sample.elements.new_tensor(self.element_mean)
        about = centred(sample.positions, system, n_systems=len(sample)).double()
        each = about.square().sum(1) / v.double()[system]
        off = (sample.elements - alpha_e[system, None] * mean).double()
        each = each + off.square().sum(1) / v_e.double()[system]
        return 0.5 * segment_sum(each, system, n_systems=len(sample)), self(sample, t)

    def drawn(self, sample: Sample, t: Float[Tensor, " systems"], streams: Streams, *, draw: int = 0) -> Sample:
        """Positions and elements replaced by an exact draw of p_t."""
        *_, v = _marginal(self.diffusion.positions, t, self.spread)
        alpha, _, v_e = _marginal(self.diffusion.elements, t, self.element_spread)
        xi = gaussian_noise(sample, streams, draw=draw)
        mean = alpha[sample.system, None] * sample.elements.new_tensor(self.element_mean)
        return replace(
            sample,
            positions=v.sqrt()[sample.system, None] * xi.positions,
            elements=mean + v_e.sqrt()[sample.system, None] * xi.elements,
        )


@dataclass(frozen=True, eq=False)
class MixtureOracle:
    """Exact for systems of n atoms that are, as a whole, in one of several configurations, each with a spread.

    Component k has weight w_k, positions about the centre of mass N(R_k, s²) and elements N(m_k, s_E²): positions and
    elements are correlated through k. With r_k(x_t) ∝ w_k N(x_t; α R_k, v) N(e_t; α_E m_k, v_E) the noise is the mean
    of the components' under r.
    """

    diffusion: Diffusion
    weights: Float[Tensor, " components"]
    sites: Float[Tensor, "components n 3"]
    """R_k in Å."""
    elements: Float[Tensor, "components n classes"]
    """m_k."""
    spread: float = 0.1
    """s in Å."""
    element_spread: float = 0.1
    """s_E."""

    def __call__(self, sample: Sample, t: Float[Tensor, " systems"]) -> Noise:
        """E[ε | x_t]."""
        (x, scale_x), (e, scale_e) = self._deviations(sample, t)
        r = self.responsibilities(sample, t)[:, :, None, None]
        return Noise(
            (scale_x[:, None, None] * (r * x).sum(1)).flatten(0, 1),
            (scale_e[:, None, None] * (r * e).sum(1)).flatten(0, 1),
        )

    def energy_and_noise(self, sample: Sample, t: Float[Tensor, " systems"]) -> tuple[Float[Tensor, " systems"], Noise]:
        """-ln p_t(x) up to a constant, and the noise: an `EnergyDenoiser`."""
        return -self._log_weights(sample, t).logsumexp(1).double(), self(sample, t)

    def responsibilities(self, sample: Sample, t: Float[Tensor, " systems"]) -> Float[Tensor, "systems components"]:
        """Probability r_k of each component given the sample at time `t`."""
        return self._log_weights(sample, t).softmax(1)

    def _log_weights(self, sample: Sample, t: Tensor) -> Tensor:
        """ln w_k N_k(x), up to a constant, [systems components]."""
        log_r = torch.log(self.weights.to(sample.positions))[None]
        schedules = (self.diffusion.positions, self.spread), (self.diffusion.elements, self.element_spread)
        for (deviation, _), (schedule, spread) in zip(self._deviations(sample, t), schedules, strict=True):
            *_, v = _marginal(schedule, t, spread)
            log_r = log_r - 0.5 * deviation.square().sum((2, 3)) / v[:, None]
        return log_r

    def drawn(self, sample: Sample, t: Float[Tensor, " systems"], streams: Streams, *, draw: int = 0) -> Sample:
        """Positions and elements replaced by an exact draw of p_t; uses this draw and the next."""
        first = streams.index == 0
        u = streams.uniform((1,), draw=draw)[first, 0].to(sample.positions)
        edges = torch.cumsum(self.weights, 0).to(u)[:-1]
        k = torch.bucketize(u, edges)
        xi = gaussian_noise(sample, streams, draw=draw + 1)
        alpha, _, v = _marginal(self.diffusion.positions, t, self.spread)
        alpha_e, _, v_e = _marginal(self.diffusion.elements, t, self.element_spread)

        def placed(means: Tensor, a: Tensor, variance: Tensor, noise: Tensor) -> Tensor:
            means = means.to(noise)[k]
            return (a[:, None, None] * means + variance.sqrt()[:, None, None] * noise.reshape(means.shape)).flatten(
                0, 1
            )

        return replace(
            sample,
            positions=placed(_about(self.sites), alpha, v, xi.positions),
            elements=placed(self.elements, alpha_e, v_e, xi.elements),
        )

    def _deviations(self, sample: Sample, t: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Deviation from each component, [systems components n channels], and σ/v; for positions and elements."""
        s, n = len(sample), self.sites.shape[1]
        alpha, sigma, v = _marginal(self.diffusion.positions, t, self.spread)
        alpha_e, sigma_e, v_e = _marginal(self.diffusion.elements, t, self.element_spread)
        x = _about(sample.positions.reshape(s, 1, n, 3)) - alpha[:, None, None, None] * _about(self.sites).to(t)
        e = sample.elements.reshape(s, 1, n, -1) - alpha_e[:, None, None, None] * self.elements.to(t)
        return (x, sigma / v), (e, sigma_e / v_e)


@dataclass(frozen=True)
class PairDenoiser:
    """The smallest denoiser that keeps the contract: pair forces and element sums of neighbours within `cutoff` (Å).

    Every pair of atoms and images is looked at, so it suits small cells. With f(r) = (1 - r/cutoff)^power, c = Σ
    conditions and e the elements:

        ε_X,i = Σ_j f(r_ij) (1 + t + tanh(c + e_i · e_j)) r_ij,   ε_E,i = t e_i + Σ_j f(r_ij) e_j
    """

    cutoff: float = 4.0
    power: int = 2
    """2 and above is smooth at the cutoff; 1 has a kink and 0 a jump, which break the contract."""

    def __call__(self, sample: Sample, t: Float[Tensor, " systems"]) -> Noise:
        """Noise of all systems."""
        atom, other, vector = self._pairs(sample)
        r = vector.norm(dim=1, keepdim=True)
        f = (1.0 - r / self.cutoff) ** self.power
        e, system = sample.elements, sample.system
        asked = torch.stack([torch.zeros_like(t), *(torch.nan_to_num(c) for c in sample.conditions.values())]).sum(0)
        overlap = (e[atom] * e[other]).sum(1) + asked[system[atom]]
        strength = (1.0 + t[system[atom]] + torch.tanh(overlap))[:, None]
        forces = segment_sum(f * strength * vector, atom, n_systems=len(system))
        return Noise(
            centred(forces, system, n_systems=len(sample)),
            t[system, None] * e + segment_sum(f * e[other], atom, n_systems=len(system)),
        )

    def _pairs(self, sample: Sample) -> tuple[Int[Tensor, " edges"], Int[Tensor, " edges"], Float[Tensor, "edges 3"]]:
        """Atom, neighbour and vector between them, system after system."""
        found, first = [], 0
        for cell, n in zip(sample.cell, sample.n_atoms.tolist(), strict=True):
            x = lattice.wrap(sample.positions[first : first + n], cell.expand(n, 3, 3))
            reach = torch.ceil(self.cutoff / lattice.heights(cell)).int().tolist()
            shifts = torch.cartesian_prod(*(torch.arange(-m, m + 1, device=x.device) for m in reach)).to(x) @ cell
            vectors = x[None, :, None] + shifts - x[:, None, None]
            r = vectors.norm(dim=-1)
            i, j, image = torch.nonzero((r > 0) & (r < self.cutoff), as_tuple=True)
            found.append((i + first, j + first, vectors[i, j, image]))
            first += n
        atom, other, vector = zip(*found, strict=True)
        return torch.cat(atom), torch.cat(other), torch.cat(vector)


def _marginal(schedule: Schedule, t: Tensor, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    """α, σ and v = α² s² + σ² at time `t`."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return alpha, sigma, (alpha * spread).square() + sigma.square()


def _about(positions: Tensor) -> Tensor:
    """Positions [..., n, 3] about their mean over n."""
    return positions - positions.mean(-2, keepdim=True)
