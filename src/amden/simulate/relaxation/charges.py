"""The charges of a `LongRanged` potential while a system relaxes: summed over the neighbour list itself.

Most neighbours have no other term, so no vector is stored for them. On the CPU the sum is over several neighbours at a
time, which takes a sum that may be in any order; whoever cuts a descent into launches must keep its lists, then.
"""

from typing import Any

import numpy as np

from amden.simulate.potentials.pair_sums import COULOMB, LongRanged, coulomb_kernels
from amden.simulate.potentials.potential import Potential, Tools
from amden.simulate.relaxation import lists
from amden.simulate.relaxation import workspace as w


def charger(machine: w.Machine, potential: Potential, tools: Tools) -> Any:
    """`charges(i, work)`: the force on atom i in eV/Å, its energy in eV with its own term, and Σ r ⊗ ∂E/∂r; zeros for
    other potentials."""
    if not isinstance(potential, LongRanged):
        return tools.jit(lambda i, work: (0.0, 0.0, 0.0, 0.0, (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)))
    sums, index, rsqrt = potential.pair_sums, tools.index, machine.rsqrt
    push, value = coulomb_kernels(sums, tools)
    charge, alone, cutoff2 = np.array(sums.charges), np.array(sums.self_energies), sums.cutoff**2
    decoded, image = lists.decoder(tools.jit), lists.imager(tools.jit)

    def charges(i, work):
        place, cell, listed, species = work.place, work.frames[w.CELL], work.listed, work.species
        own = COULOMB * charge[species[i]]
        fx = fy = fz = energy = xx = yy = zz = yz = xz = xy = 0.0
        for k in range(work.counts[0, i]):
            j = index(listed[0, k, i])
            a, b, c = decoded(listed[1, k, i])
            x, y, z = image(place, cell, i, j, a, b, c)
            r2 = x * x + y * y + z * z
            over_r = rsqrt(r2)
            q = own * charge[index(species[j])] if r2 < cutoff2 else 0.0
            slope = -q * push(r2, over_r)
            energy += q * value(r2, over_r)
            gx, gy, gz = slope * x, slope * y, slope * z
            fx += gx
            fy += gy
            fz += gz
            xx += x * gx
            yy += y * gy
            zz += z * gz
            yz += y * gz
            xz += x * gz
            xy += x * gy
        return fx, fy, fz, alone[species[i]] + 0.5 * energy, (xx, yy, zz, yz, xz, xy)

    return machine.jit_sum(charges)
