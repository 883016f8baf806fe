"""`Structures`: the frozen flat batch of periodic systems that every part of amden passes around.

Atoms of all systems are concatenated; `n_atoms` tells where one ends. Nothing here reads files, knows of neighbours or
of noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from amden import cell as lattice
from amden.elements import GHOST, MASSES, formula
from amden.segment import first_atom, segment_sum, system_index
from amden.units import AMU_PER_A3_IN_G_PER_CM3


@dataclass(frozen=True, eq=False)
class Structures:
    """A batch of periodic structures.

    Errors: `ValueError` for shapes that do not fit together. What a file or user may bring (NaN, empty cells) is found
    by `validate`.
    """

    positions: Float[Tensor, "atoms 3"]
    """Cartesian, in Å; not necessarily inside the cell."""
    species: Int[Tensor, " atoms"]
    """Atomic numbers; 0 is a ghost."""
    cell: Float[Tensor, "systems 3 3"]
    """Lattice vectors as rows, in Å; periodic in all three directions."""
    n_atoms: Int[Tensor, " systems"]
    properties: Mapping[str, Float[Tensor, "systems *shape"]] = field(default_factory=dict)
    """Named quantities of each system, a number or an array a system; NaN where unknown."""

    def __post_init__(self) -> None:
        n = self.positions.shape[:1].numel()
        if self.positions.shape != (n, 3) or self.species.shape != (n,):
            raise ValueError(
                f"`positions` and `species` must be [atoms, 3] and [atoms], "
                f"got {tuple(self.positions.shape)} and {tuple(self.species.shape)}"
            )
        if self.n_atoms.ndim != 1:
            raise ValueError(f"`n_atoms` must be [systems], got {tuple(self.n_atoms.shape)}")
        if self.cell.shape != (len(self.n_atoms), 3, 3):
            raise ValueError(f"`cell` must be [{len(self.n_atoms)}, 3, 3], got {tuple(self.cell.shape)}")
        if self.n_atoms.device.type == "cpu" and int(self.n_atoms.sum()) != n:
            raise ValueError(f"`n_atoms` adds up to {int(self.n_atoms.sum())}, but there are {n} positions")
        for name, values in self.properties.items():
            if values.ndim == 0:
                raise ValueError(f"property {name!r} is one number, not one for each of {len(self.n_atoms)} systems")
            if len(values) != len(self.n_atoms):
                raise ValueError(f"property {name!r} has {len(values)} values for {len(self.n_atoms)} systems")

    def __len__(self) -> int:
        return len(self.n_atoms)

    def __repr__(self) -> str:
        kinds = formula(self.species.unique().tolist()) if len(self.positions) else "empty"
        return f"Structures({len(self)} systems, {len(self.positions)} atoms, elements {kinds})"

    @cached_property
    def system(self) -> Int[Tensor, " atoms"]:
        """System of each atom."""
        return system_index(self.n_atoms, total=len(self.positions))

    @cached_property
    def first(self) -> Int[Tensor, " systems"]:
        """First atom of each system."""
        return first_atom(self.n_atoms)

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.positions.device

    @cached_property
    def volume(self) -> Float[Tensor, " systems"]:
        """Signed volume of each cell in Å³."""
        return lattice.volume(self.cell)

    @cached_property
    def density(self) -> Float[Tensor, " systems"]:
        """Mass density in g/cm³."""
        masses = torch.as_tensor(MASSES, dtype=self.cell.dtype, device=self.device)[self.species]
        return segment_sum(masses, self.system, n_systems=len(self)) / self.volume * AMU_PER_A3_IN_G_PER_CM3

    def to(self, device: torch.device | str | None = None, *, dtype: torch.dtype | None = None) -> "Structures":
        """The batch on another device, floating-point arrays in another precision."""
        move = {f.name: _moved(getattr(self, f.name), device, dtype) for f in fields(self) if f.name != "properties"}
        return replace(self, **move, properties={k: _moved(v, device, dtype) for k, v in self.properties.items()})

    def wrapped(self) -> "Structures":
        """The same structures with every atom inside its cell."""
        return replace(self, positions=lattice.wrap(self.positions, self.cell.to(self.positions.dtype)[self.system]))

    def select(self, systems: Int[Tensor, " chosen"] | Sequence[int]) -> "Structures":
        """The chosen systems, in the order given; a system may come twice."""
        chosen = torch.as_tensor(systems, dtype=torch.long, device=self.device)
        n_atoms = self.n_atoms[chosen]
        offset = self.first[chosen] - first_atom(n_atoms)
        system = system_index(n_atoms)
        atoms = torch.arange(len(system), device=self.device) + offset[system]
        return Structures(
            self.positions[atoms],
            self.species[atoms],
            self.cell[chosen],
            n_atoms,
            {k: v[chosen] for k, v in self.properties.items()},
        )

    def without_ghosts(self) -> "Structures":
        """The structures with every ghost atom removed."""
        real = self.species != GHOST
        kept = torch.zeros_like(self.n_atoms).index_add(0, self.system, real.to(self.n_atoms.dtype))
        return replace(self, positions=self.positions[real], species=self.species[real], n_atoms=kept)


def _moved(values: Tensor, device: torch.device | str | None, dtype: torch.dtype | None) -> Tensor:
    return values.to(device=device, dtype=dtype if values.is_floating_point() else None)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on another device, without waiting for a GPU to finish its work."""
    waits = device.type == "cuda" and values.device.type == "cpu"
    return values.pin_memory().to(device, non_blocking=True) if waits else values.to(device)


def concatenate(batches: Sequence[Structures]) -> Structures:
    """One batch of all systems; properties that some batches lack are NaN there.

    Errors: `ValueError` for no batches, or a property that has one shape in some and another in others.

    >>> one = Structures(torch.zeros(1, 3), torch.tensor([14]), torch.eye(3)[None], torch.tensor([1]))
    >>> len(concatenate([one, one]))
    2
    """
    if not batches:
        raise ValueError("`batches` is empty: nothing to concatenate")
    names = {name: values for batch in batches for name, values in batch.properties.items()}
    for name, like in names.items():
        shapes = {tuple(b.properties.get(name, like).shape[1:]) for b in batches}
        if len(shapes) > 1:
            raise ValueError(f"property {name!r} has shapes that do not fit together: {sorted(shapes)} a system")
    properties = {
        name: torch.cat([b.properties.get(name, like.new_full((len(b), *like.shape[1:]), torch.nan)) for b in batches])
        for name, like in names.items()
    }
    return Structures(
        torch.cat([b.positions for b in batches]),
        torch.cat([b.species for b in batches]),
        torch.cat([b.cell for b in batches]),
        torch.cat([b.n_atoms for b in batches]),
        properties,
    )


def validate(structures: Structures, *, source: str = "structures") -> None:
    """Raise `ValueError` for the first structure that cannot be worked with, naming it by `source` and index.

    Found: no atoms, NaN or infinite numbers, a cell of vanishing or negative volume. Overlapping atoms are found by
    `neighbors.check_overlaps`.
    """
    if len(structures) == 0:
        raise ValueError(f"{source}: no structures")
    checks = {
        "has no atoms": structures.n_atoms == 0,
        "has NaN or infinite positions": _any_bad(structures),
        "has a NaN or infinite cell": ~torch.isfinite(structures.cell).flatten(1).all(1),
        "has a cell with vanishing volume": _flat(structures.cell),
        "has a left-handed cell (negative volume); swap two lattice vectors": structures.volume < 0,
    }
    for what, bad in checks.items():
        if bad.any():
            raise ValueError(f"{source}: structure {int(bad.nonzero()[0])} {what}")


def _any_bad(structures: Structures) -> Tensor:
    bad = (~torch.isfinite(structures.positions)).any(1).to(structures.n_atoms.dtype)
    return torch.zeros_like(structures.n_atoms).index_add(0, structures.system, bad) > 0


def _flat(cell: Float[Tensor, "systems 3 3"]) -> Tensor:
    """True where the volume is below 1e-6 of the product of edge lengths (or those vanish)."""
    edges = cell.norm(dim=-1).prod(-1)
    return (edges == 0) | (lattice.volume(cell).abs() <= 1e-6 * edges)
