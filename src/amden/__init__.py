"""amden: design of amorphous materials with targeted properties.

The floors, from the ground up: `units`, `elements`, `cell`, `segment`, `random`; `structure`; `neighbors` and `io`;
`diffusion`, `nn`, `analysis` and `simulate`; `dataset` and `checkpoint`; `training`, `generation` and `pretrained`;
`config` and `report`; `cli`. A module imports only from floors below its own.
"""

__version__ = "0.1.0"
