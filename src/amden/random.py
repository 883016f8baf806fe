"""One stream of random numbers a system: the same numbers whatever else is in the batch, on CPU and GPU.

A counter-based generator (Philox4x32-10; Salmon et al., SC'11, doi 10.1145/2063384.2063405): a number is a pure
function of (seed of the system, draw, index within the system), so nothing needs to be stored, skipped or shared.
"""

from dataclasses import dataclass
from math import pi, prod

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85


def _mulhilo(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a · b; int64 wraps around, the masked bits are those of the unsigned product."""
    product = a * b
    return (product >> 32) & _MASK, product & _MASK


def philox(counter: Int[Tensor, "4 *n"], key: Int[Tensor, "2 *n"]) -> Int[Tensor, "4 *n"]:
    """Ten rounds of Philox4x32: four 32-bit words (in int64) from a 128-bit counter and a 64-bit key.

    >>> zeros = torch.zeros(4, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    >>> [hex(w) for w in philox(*zeros).tolist()]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = counter.unbind(0)
    k0, k1 = key.unbind(0)
    for _ in range(10):
        hi0, lo0 = _mulhilo(_M0, c0)
        hi1, lo1 = _mulhilo(_M1, c2)
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return torch.stack([c0, c1, c2, c3])


def spawn_seeds(seed: int, n: int, *, first: int = 0) -> Int[Tensor, " n"]:
    """Seeds of systems `first` to `first + n` of a run: independent of how many systems the run has.

    >>> spawn_seeds(1, 4)[2:].tolist() == spawn_seeds(1, 2, first=2).tolist()
    True
    """
    if seed < 0:
        raise ValueError(f"`seed` must not be negative, got {seed}")
    states = [np.random.SeedSequence([seed, i]).generate_state(2, np.uint32) for i in range(first, first + n)]
    words = np.array(states, dtype=np.uint64).reshape(n, 2)
    return torch.from_numpy(((words[:, 0] << np.uint64(31)) ^ words[:, 1]).astype(np.int64))


@dataclass(frozen=True)
class Streams:
    """Random numbers of a batch, each system from its own seed.

    `normal` and `uniform` take a `draw` number: the same draw gives the same numbers, so every use counts its own.
    """

    seeds: Int[Tensor, " systems"]
    """One non-negative 63-bit seed a system."""
    system: Int[Tensor, " atoms"]
    """System of each atom, sorted."""
    index: Int[Tensor, " atoms"]
    """Index of each atom within its system."""

    @staticmethod
    def of(seeds: Int[Tensor, " systems"], n_atoms: Int[Tensor, " systems"]) -> "Streams":
        """Streams for a batch of systems of `n_atoms` atoms each."""
        system = torch.repeat_interleave(torch.arange(len(n_atoms), device=n_atoms.device), n_atoms)
        start = torch.cumsum(n_atoms, 0) - n_atoms
        index = torch.arange(len(system), device=n_atoms.device) - start[system]
        return Streams(seeds.to(n_atoms.device), system, index)

    def uniform(self, shape: tuple[int, ...], *, draw: int) -> Float[Tensor, "atoms *shape"]:
        """Float32 numbers in (0, 1), `shape` for each atom."""
        n = prod(shape)
        words = self._words(-(-n // 4), draw)
        # 23 bits: with 24 the half would be rounded away and the largest number would be 1
        values = ((words[:, :n] >> 9).to(torch.float32) + 0.5) * 2.0**-23
        return values.reshape(len(self.index), *shape)

    def normal(self, shape: tuple[int, ...], *, draw: int) -> Float[Tensor, "atoms *shape"]:
        """Float32 standard normal numbers, `shape` for each atom (Box-Muller)."""
        n = prod(shape)
        pairs = self.uniform((-(-n // 2), 2), draw=draw)
        radius = torch.sqrt(-2.0 * torch.log(pairs[..., 0]))
        angle = 2.0 * pi * pairs[..., 1]
        values = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], -1)
        return values.flatten(1)[:, :n].reshape(len(self.index), *shape)

    def _words(self, blocks: int, draw: int) -> Int[Tensor, "atoms words"]:
        seed = self.seeds[self.system, None].expand(-1, blocks)
        block = torch.arange(blocks, device=seed.device).expand(len(self.index), -1)
        counter = torch.stack(
            [
                self.index[:, None].expand(-1, blocks),
                block,
                torch.full_like(block, draw & _MASK),
                torch.full_like(block, draw >> 32),
            ]
        )
        words = philox(counter, torch.stack([seed & _MASK, (seed >> 32) & _MASK]))
        return words.permute(1, 2, 0).flatten(1)
