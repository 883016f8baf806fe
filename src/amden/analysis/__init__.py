"""Analysis of structures, wherever they come from: it knows nothing of the models.

`grid` and `histogram` count; `rdf` and `bonds` turn counts into observables; `reciprocal` sums waves, and `scattering`
turns them into structure factors (`faber_ziman`); `qn` has bridging atoms, `composition` masses and charges,
`experiment` what was measured on real glasses, `beside` that beside computed values; `validity` knows the impossible;
`observables` gathers those of a set; `rings` counts rings by four definitions; `elastic` has elastic constants from any
source of stresses; `noise` and `compare` put two sets beside their noise floor; `environments` and `similarity` tell
how alike structures are, `memorisation` finds copies; `parity` has targets and what came of them; `relaxation` gives
energies with any ASE calculator.
"""
