"""Radial distribution function and running coordination, total and by pair of elements."""

from collections.abc import Collection
from dataclasses import dataclass
from math import pi

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d

from amden.analysis.grid import kinds
from amden.analysis.histogram import distance_counts
from amden.elements import atomic_number, symbol
from amden.structure import Structures


@dataclass(frozen=True)
class RDF:
    """Radial distribution function of every system of a set."""

    edges: Float[np.ndarray, " edges"]
    """Borders of the bins in Å."""
    per_system: Float[np.ndarray, "systems bins"]
    """g(r) of each system; NaN for a system without such a pair of elements."""
    number_density: Float[np.ndarray, " systems"]
    """Atoms that can be neighbours, per Å³."""

    @property
    def r(self) -> Float[np.ndarray, " bins"]:
        """Centres of the bins in Å."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    @property
    def g(self) -> Float[np.ndarray, " bins"]:
        """Mean over the systems, each of the same weight."""
        return np.nanmean(self.per_system, axis=0)

    @property
    def running_coordination(self) -> Float[np.ndarray, " bins"]:
        """Mean number of neighbours closer than the upper border of each bin, n(r) = ∫ 4π r² ρ g dr."""
        of_bins = self.per_system * self.number_density[:, None] * _shells(self.edges)
        return np.nanmean(np.cumsum(of_bins, axis=1), axis=0)

    @property
    def peak(self) -> float:
        """Position of the first peak in Å: the highest bin of the first shell.

        A shell begins where g(r) exceeds 1 and a third of its highest value and ends where it has fallen by a fifth
        of its peak, both of the mean smoothed by a Gaussian of 0.1 Å. The highest bin of all where there is no shell.
        """
        g = np.nan_to_num(self.g)
        smooth = gaussian_filter1d(g, 0.1 / (self.edges[1] - self.edges[0]), mode="nearest")
        high = np.flatnonzero(smooth > max(1.0, smooth.max() / 3.0))
        if len(high) == 0:
            return float(self.r[np.argmax(g)])
        shell = smooth[high[0] :]
        falls = np.flatnonzero(shell < 0.8 * np.maximum.accumulate(shell))
        end = high[0] + falls[0] if len(falls) else len(g)
        return float(self.r[high[0] + np.argmax(g[high[0] : end])])

    def first_minimum(self, *, smoothing: float = 0.1, rise: float = 0.1) -> float:
        """Where the first shell ends: the first minimum of g(r) after its first peak, in Å.

        The mean g(r) is smoothed by a Gaussian of standard deviation `smoothing` in Å. A peak is a maximum above 1
        that g(r) falls from by `rise`, a minimum is followed by as much of a rise, so that noise makes neither; where
        g(r) is flat, as 0 between the shells of a strong bond, it is the middle of the flat part.

        Errors: `ValueError` if there is no such peak, or the range ends before the rise.
        """
        g = gaussian_filter1d(np.nan_to_num(self.g), smoothing / (self.edges[1] - self.edges[0]), mode="nearest")
        high = np.maximum.accumulate(g)
        falls = np.flatnonzero((high > 1.0) & (g < high - rise))
        if len(falls) == 0:
            raise ValueError(f"`rdf` has no first peak below {self.edges[-1]:g} Å: too few atoms, or no order")
        after = g[falls[0] :]
        low = np.minimum.accumulate(after)
        rises = np.flatnonzero(after > low + rise)
        if len(rises) == 0:
            raise ValueError(f"`rdf` has no minimum between two shells below {self.edges[-1]:g} Å: take a longer range")
        flat = np.flatnonzero(after[: rises[0]] < low[rises[0]] + 0.01)
        return float(self.r[falls[0] + flat].mean())


def rdf(structures: Structures, *, r_max: float = 7.0, bin_width: float = 0.05) -> RDF:
    """Radial distribution function of all atoms, whatever their element.

        g(r_k) = n_k / (N ρ v_k),  v_k = (4π/3) (r_{k+1}³ - r_k³),  ρ = N / V

    ========= ====================================================================
    n_k       `counts`: ordered pairs with a distance in bin k, all images included
    N, V, ρ   atoms, volume and number density of that very system
    v_k       volume of the shell
    ========= ====================================================================

    An atom's own images count, so that g → 1 in any cell; below half of the cell's height, where there are none, an
    ideal gas has g = 1 - 1/N.

    Errors: `ValueError` if `r_max` is not positive or not a whole number of bins.

    >>> import torch
    >>> chain = Structures(torch.zeros(1, 3), torch.tensor([14]), 3.0 * torch.eye(3)[None], torch.tensor([1]))
    >>> rdf(chain, r_max=4.0).running_coordination[-1].item()  # 6 images at 3 Å; 12 at 4.2 Å are too far
    6.0
    """
    edges = _edges(r_max, bin_width)
    counts = distance_counts(structures, r_max=r_max, n_bins=len(edges) - 1).sum(axis=(1, 2))
    n = structures.n_atoms.cpu().numpy()
    return _normalised(counts, edges, n, n, structures)


def partial_rdf(structures: Structures, *, r_max: float = 7.0, bin_width: float = 0.05) -> dict[str, RDF]:
    """Partial radial distribution functions by pair of elements: `"O-Si"` is the silicon around an oxygen.

        g_ab(r_k) = n_k / (N_a ρ_b v_k),  ρ_b = N_b / V

    Both orders are there: g_ab = g_ba, but the running coordinations differ. A pair that no system has is left out.

    >>> import torch
    >>> cscl = torch.tensor([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]])
    >>> cell = Structures(cscl, torch.tensor([55, 17]), 4.0 * torch.eye(3)[None], torch.tensor([2]))
    >>> {pair: g.running_coordination[-1].item() for pair, g in partial_rdf(cell, r_max=3.8).items()}
    {'Cl-Cl': 0.0, 'Cl-Cs': 8.0, 'Cs-Cl': 8.0, 'Cs-Cs': 0.0}
    """
    edges = _edges(r_max, bin_width)
    counts = distance_counts(structures, r_max=r_max, n_bins=len(edges) - 1)
    numbers, system = structures.species.cpu().numpy(), structures.system.cpu().numpy()
    n = {z: np.bincount(system[numbers == z], minlength=len(structures)) for z in kinds(structures)}
    return {
        f"{symbol(a)}-{symbol(b)}": _normalised(counts[:, i, j], edges, n[a], n[b], structures)
        for i, a in enumerate(n)
        for j, b in enumerate(n)
        if np.any((n[a] > 0) & (n[b] > 0))
    }


def first_minima(
    structures: Structures, *, pairs: Collection[str] | None = None, r_max: float = 6.0
) -> dict[str, float]:
    """Bond lengths by pair of elements from the `first_minimum` of each g_ab, `{"O-Si": 2.3, …}`, lighter first.

    Of the `pairs` asked for, in either order, or of all that occur; a form that `coordination` and `qn` take.

    Errors: `ValueError`, naming the pair, where g_ab has no first shell within `r_max` Å.
    """
    wanted = None if pairs is None else {frozenset(pair.split("-")) for pair in pairs}
    found = {}
    for pair, g in partial_rdf(structures, r_max=r_max).items():
        a, _, b = pair.partition("-")
        if atomic_number(a) > atomic_number(b) or (wanted is not None and frozenset((a, b)) not in wanted):
            continue
        try:
            found[pair] = g.first_minimum()
        except ValueError as error:
            raise ValueError(f"{pair}: {error}") from None
    return found


def _edges(r_max: float, bin_width: float) -> Float[np.ndarray, " edges"]:
    if not (r_max > 0 and bin_width > 0):
        raise ValueError(f"`r_max` and `bin_width` must be positive, got {r_max} and {bin_width}")
    n_bins = round(r_max / bin_width)
    if n_bins < 1 or abs(n_bins * bin_width - r_max) > 1e-6 * r_max:
        raise ValueError(f"`r_max` must be a whole number of bins, got {r_max} with `bin_width` {bin_width}")
    return np.linspace(0.0, r_max, n_bins + 1)


def _shells(edges: Float[np.ndarray, " edges"]) -> Float[np.ndarray, " bins"]:
    return 4.0 * pi / 3.0 * np.diff(edges**3)


def _normalised(
    counts: Int[np.ndarray, "systems bins"],
    edges: Float[np.ndarray, " edges"],
    n_a: Int[np.ndarray, " systems"],
    n_b: Int[np.ndarray, " systems"],
    structures: Structures,
) -> RDF:
    density = n_b / structures.volume.cpu().double().numpy()
    ideal = (n_a * density)[:, None] * _shells(edges)
    return RDF(edges, np.where(ideal > 0, counts / np.where(ideal > 0, ideal, 1.0), np.nan), density)
