"""What any denoiser must do, whatever it is made of: one check a property, and all of them in `check_denoiser`.

A check raises `AssertionError` with the quantity that broke. Deviations are compared with the largest component of the
noise, so `tolerance` is relative; it defaults to what rounding allows in the sample's precision. Conditions are taken
to be scalars that a rotation leaves alone.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from amden import cell as lattice
from amden.diffusion.denoiser import Denoiser, Noise, Sample
from amden.segment import first_atom, segment_mean
from amden.testing.builders import rotation, sample_supercell

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}

Time = Float[Tensor, " systems"]


def check_denoiser(
    denoiser: Denoiser,
    sample: Sample,
    t: Time | None = None,
    *,
    cutoff: float | None = None,
    tolerance: float | None = None,
) -> None:
    """Every check below on `sample`; that of smoothness only if `cutoff` is given, which needs a float64 sample.

    The sample should have several systems of different sizes, without symmetry. `t` defaults to values spread over
    (0, 1).

    >>> from amden.testing import PairDenoiser, random_sample
    >>> check_denoiser(PairDenoiser(cutoff=4.0), random_sample([3, 5], width=2), cutoff=4.0)
    """
    if t is None:
        t = torch.linspace(0.1, 0.9, len(sample)).to(sample.positions)
    for check in CHECKS:
        check(denoiser, sample, t, tolerance=tolerance)
    if cutoff is not None:
        check_smoothness(denoiser, sample, t, cutoff=cutoff)


def check_output(denoiser: Denoiser, sample: Sample, t: Time, *, tolerance: float | None = None) -> None:
    """Noise of the sample's shape, precision and device; finite, the same when asked again, and not all zero."""
    noise = _noise(denoiser, sample, t)
    for name in ("positions", "elements"):
        got, like = getattr(noise, name), getattr(sample, name)
        for what in ("shape", "dtype", "device"):
            if getattr(got, what) != getattr(like, what):
                raise AssertionError(f"{name} noise has {what} {getattr(got, what)}, expected {getattr(like, what)}")
        if not bool(torch.isfinite(got).all()):
            raise AssertionError(f"{name} noise has NaN or infinite values")
    if not bool((noise.positions != 0).any()):
        raise AssertionError("position noise is zero everywhere: nothing can be checked")
    _compare("asked a second time", _noise(denoiser, sample, t), noise, tolerance)


def check_drift(denoiser: Denoiser, sample: Sample, t: Time, *, tolerance: float | None = None) -> None:
    """The mean position noise of every system vanishes."""
    noise = _noise(denoiser, sample, t).positions
    mean = segment_mean(noise, sample.system, n_systems=len(sample))
    _within("position noise has a mean over a system", mean.abs().max(), noise.abs().max(), tolerance)


def check_translation(denoiser: Denoiser, sample: Sample, t: Time, *, tolerance: float | None = None) -> None:
    """Moving each system as a whole changes nothing."""
    shift = 5.0 * torch.randn((len(sample), 3), generator=_generator(), dtype=torch.float64).to(sample.positions)
    moved = replace(sample, positions=sample.positions + shift[sample.system])
    _compare("under translation", _noise(denoiser, moved, t), _noise(denoiser, sample, t), tolerance)


def check_rotation(denoiser: Denoiser, sample: Sample, t: Time, *, tolerance: float | None = None) -> None:
    """Rotating cells and positions rotates the position noise and leaves that of the elements."""
    _check_orthogonal("under rotation", rotation(_generator()), denoiser, sample, t, tolerance)


def check_reflection(denoiser: Denoiser, sample: Sample, t: Time, *, tolerance: float | None = None) -> None:
    """A mirror image has the mirrored noise."""
    _check_orthogonal("under reflection", rotation(_generator(), reflected=True), denoiser, sample, t, tolerance)


def check_permutation(denoiser: Denoiser, sample: Sample, t: Time, *, tolerance: float | None = None) -> None:
    """Reordering the atoms of each system reorders their noise."""
    key = torch.rand((len(sample.positions),), generator=_generator(), dtype=torch.float64)
    order = torch.argsort(sample.system.double() + key.to(sample.positions.device))
    shuffled = replace(sample, positions=sample.positions[order], elements=sample.elements[order])
    expected = _rows(_noise(denoiser, sample, t), order)
    _compare("under permutation", _noise(denoiser, shuffled, t), expected, tolerance)


def check_wrapping(denoiser: Denoiser, sample: Sample, t: Time, *, tolerance: float | None = None) -> None:
    """Moving any atom by lattice vectors changes nothing."""
    shift = torch.randint(-2, 3, (len(sample.positions), 3), generator=_generator()).to(sample.positions)
    moved = replace(sample, positions=sample.positions + lattice.cartesian(shift, sample.cell[sample.system]))
    _compare("when atoms move by lattice vectors", _noise(denoiser, moved, t), _noise(denoiser, sample, t), tolerance)


def check_supercell(denoiser: Denoiser, sample: Sample, t: Time, *, tolerance: float | None = None) -> None:
    """Every copy of an atom in a doubled cell has the noise of the atom; for each axis."""
    expected = _noise(denoiser, sample, t)
    for repeat in ((2, 1, 1), (1, 2, 1), (1, 1, 2)):
        larger, source = sample_supercell(sample, repeat)
        _compare(f"in a supercell {repeat}", _noise(denoiser, larger, t), _rows(expected, source), tolerance)


def check_batching(denoiser: Denoiser, sample: Sample, t: Time, *, tolerance: float | None = None) -> None:
    """A system's noise depends neither on what else is in the batch nor on where in the batch it is."""
    together = _noise(denoiser, sample, t)
    for i in range(len(sample)):
        one, atoms = _selected(sample, [i])
        _compare(f"with system {i} alone", _noise(denoiser, one, t[[i]]), _rows(together, atoms), tolerance)
    order = list(reversed(range(len(sample))))
    turned, atoms = _selected(sample, order)
    _compare("in another order", _noise(denoiser, turned, t[order]), _rows(together, atoms), tolerance)


def check_smoothness(denoiser: Denoiser, sample: Sample, t: Time, *, cutoff: float, step: float = 1e-4) -> None:
    """Value and slope of the noise are continuous where a pair of atoms crosses `cutoff`.

    The slopes of the noise on both sides, D(h) = |f(h) - 2 f(0) + f(-h)|/h at distance cutoff + h, differ by O(h) if
    the noise is smooth, by a constant if the slope jumps, by O(1/h) if the value does: D(h/10) must be well below D(h).
    """
    if sample.positions.dtype != torch.float64:
        raise ValueError(f"smoothness is checked by finite differences in float64, got {sample.positions.dtype}")
    for system in range(len(sample)):
        one, _ = _selected(sample, [system])
        if len(one.positions) < 2:
            continue
        at = _crossing(one, cutoff)
        kinks = [_kink(denoiser, at, t[[system]], h) for h in (step, step / 10)]
        scale = max(1.0, *(float(n.abs().max()) for n in _channels(_noise(denoiser, at(0.0), t[[system]]))))
        if kinks[1] > 0.3 * kinks[0] + 1e-14 / step * 100 * scale:
            raise AssertionError(
                f"noise is not smooth where atoms of system {system} cross the cutoff of {cutoff} Å: "
                f"its slope jumps by {kinks[0]:.2g} and {kinks[1]:.2g} over {step:.0e} and {step / 10:.0e} Å"
            )


CHECKS = (
    check_output,
    check_drift,
    check_translation,
    check_rotation,
    check_reflection,
    check_permutation,
    check_wrapping,
    check_supercell,
    check_batching,
)
"""What `check_denoiser` runs on any sample."""


def _check_orthogonal(
    how: str, q: Tensor, denoiser: Denoiser, sample: Sample, t: Time, tolerance: float | None
) -> None:
    q = q.to(sample.positions)
    turned = replace(sample, positions=sample.positions @ q, cell=sample.cell @ q)
    noise = _noise(denoiser, sample, t)
    expected = replace(noise, positions=noise.positions @ q)
    _compare(how, _noise(denoiser, turned, t), expected, tolerance)


def _crossing(one: Sample, cutoff: float) -> Callable[[float], Sample]:
    """The system with its pair nearest to the cutoff (over images) moved to that distance plus a given one."""
    x, cell = one.positions, one.cell[0]
    shifts = torch.tensor(list(product((-1.0, 0.0, 1.0), repeat=3))).to(x) @ cell
    vectors = x[None, :, None] + shifts - x[:, None, None]
    gap = (vectors.norm(dim=-1) - cutoff).abs()
    gap[torch.arange(len(x)), torch.arange(len(x))] = torch.inf
    i, j, image = torch.unravel_index(gap.argmin(), gap.shape)
    vector = vectors[i, j, image]
    direction = vector / vector.norm()

    def at(distance: float) -> Sample:
        moved = x.clone()
        moved[j] = x[j] - vector + (cutoff + distance) * direction
        return replace(one, positions=moved)

    return at


def _kink(denoiser: Denoiser, at: Callable[[float], Sample], t: Time, h: float) -> float:
    """Largest difference between the noise's slopes above and below the cutoff."""
    below, here, above = (_channels(_noise(denoiser, at(d), t)) for d in (-h, 0.0, h))
    return max(float((a - 2 * b + c).abs().max()) / h for a, b, c in zip(below, here, above, strict=True))


def _channels(noise: Noise) -> list[Tensor]:
    return [x for x in (noise.positions, noise.elements) if x.numel()]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@torch.no_grad()
def _noise(denoiser: Denoiser, sample: Sample, t: Time) -> Noise:
    return denoiser(sample, t)


def _rows(noise: Noise, atoms: Int[Tensor, " chosen"]) -> Noise:
    return Noise(noise.positions[atoms], noise.elements[atoms])


def _selected(sample: Sample, systems: list[int]) -> tuple[Sample, Int[Tensor, " chosen"]]:
    """Some systems of a sample, and their atoms' indices."""
    start = first_atom(sample.n_atoms).tolist()
    counts = sample.n_atoms.tolist()
    atoms = torch.cat([torch.arange(start[i], start[i] + counts[i]) for i in systems]).to(sample.positions.device)
    chosen = Sample(
        sample.positions[atoms],
        sample.elements[atoms],
        sample.cell[systems],
        sample.n_atoms[systems],
        {name: values[systems] for name, values in sample.conditions.items()},
    )
    return chosen, atoms


def _compare(how: str, got: Noise, expected: Noise, tolerance: float | None) -> None:
    for name in ("positions", "elements"):
        a, b = getattr(got, name), getattr(expected, name)
        if b.numel():
            _within(f"noise of {name} changes {how}", (a - b).abs().max(), b.abs().max(), tolerance)


def _within(what: str, error: Tensor, scale: Tensor, tolerance: float | None) -> None:
    allowed = _TOLERANCE[error.dtype] if tolerance is None else tolerance
    if not bool(error <= allowed * scale):
        raise AssertionError(f"{what}: by {float(error):.2g} where its largest is {float(scale):.2g} ({allowed=})")
