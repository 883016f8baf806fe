"""Random numbers inside compiled code, as pure functions of (seed, step, purpose): nothing is stored or shared.

Philox4x32-10 (Salmon et al., SC'11, doi 10.1145/2063384.2063405), the generator of `amden.random`, for Numba on CPU and
CUDA. The counter is (index, step low, step high, purpose), the key the seed of the system.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

THERMOSTAT, BAROSTAT = np.int64(0x80000000), np.int64(0x80000001)
"""What a number is for: the last word of the counter, beyond the draws of `amden.random.Streams`. No plain int: Numba
would compile everything anew for each constant."""

FIRST = np.int64(0)
"""The index where only one number is needed."""

_U32 = np.uint32
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
_TWO_PI = 2.0 * math.pi


def stream(jit: Callable[[Callable], Any]) -> tuple[Any, Any]:
    """The compiled functions `normals` and `chi_squared`.

    `normals(seed, step, index, purpose)` gives two standard normal numbers and one uniform in (0, 1),
    `chi_squared(degrees, seed, step, purpose)` the sum of `degrees` ≥ 2 squared normal numbers, by
    Marsaglia and Tsang (doi 10.1145/358407.358414) with index 1, 2, … for its attempts.
    """

    def philox(seed, step, index, purpose):
        k0, k1 = _U32(seed & 0xFFFFFFFF), _U32((seed >> 32) & 0xFFFFFFFF)
        c0, c1, c2, c3 = _U32(index), _U32(step & 0xFFFFFFFF), _U32((step >> 32) & 0xFFFFFFFF), _U32(purpose)
        for _ in range(10):
            a, b = _M0 * np.uint64(c0), _M1 * np.uint64(c2)
            c0, c2 = _U32(b >> _SHIFT) ^ c1 ^ k0, _U32(a >> _SHIFT) ^ c3 ^ k1
            c1, c3 = _U32(b & _LOW), _U32(a & _LOW)
            k0, k1 = _U32(k0 + _W0), _U32(k1 + _W1)
        return c0, c1, c2

    philox = jit(philox)

    def uniforms(seed, step, index, purpose):
        a, b, c = philox(seed, step, index, purpose)
        return (a + 0.5) * 2.0**-32, (b + 0.5) * 2.0**-32, (c + 0.5) * 2.0**-32

    uniforms = jit(uniforms)

    def normals(seed, step, index, purpose):
        a, b, c = uniforms(seed, step, index, purpose)
        radius = math.sqrt(-2.0 * math.log(a))
        return radius * math.cos(_TWO_PI * b), radius * math.sin(_TWO_PI * b), c

    normals = jit(normals)

    def chi_squared(degrees, seed, step, purpose):
        d = 0.5 * degrees - 1.0 / 3.0
        c = 1.0 / math.sqrt(9.0 * d)
        for attempt in range(1, 1000):
            x, _, u = normals(seed, step, attempt, purpose)
            v = (1.0 + c * x) ** 3
            if v > 0.0 and math.log(u) < 0.5 * x * x + d * (1.0 - v + math.log(v)):
                return 2.0 * d * v
        return 2.0 * d

    return normals, jit(chi_squared)
