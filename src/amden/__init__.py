"""amden: design of amorphous materials with targeted properties.

The names below are what most programs need; each is loaded from its module when it is first asked for, so `import
amden` costs nothing. The modules themselves, and who may import whom, are told in docs/architecture.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from amden.analysis.compare import analyze as analyze
    from amden.blank import Blank as Blank
    from amden.blank import cell_blank as cell_blank
    from amden.blank import cubic_blank as cubic_blank
    from amden.blank import like_blank as like_blank
    from amden.dataset import load_dataset as load_dataset
    from amden.diffusion.composition import Formula as Formula
    from amden.diffusion.hmc import HMCConfig as HMCConfig
    from amden.diffusion.langevin import LangevinConfig as LangevinConfig
    from amden.generation import generate as generate
    from amden.io import from_ase as from_ase
    from amden.io import read_structures as read_structures
    from amden.io import to_ase as to_ase
    from amden.io import write_structures as write_structures
    from amden.model import Model as Model
    from amden.pretrained import load_model as load_model
    from amden.pretrained import model_names as model_names
    from amden.properties import at_rest as at_rest
    from amden.request import Guidance as Guidance
    from amden.request import Request as Request
    from amden.simulate.calculator import PotentialCalculator as PotentialCalculator
    from amden.simulate.potentials import POTENTIALS as POTENTIALS
    from amden.simulate.relaxation import relax_structures as relax_structures
    from amden.structure import Structures as Structures
    from amden.structure import concatenate as concatenate
    from amden.targets import read_request as read_request

__version__ = "0.1.0"

_HOMES: Final = {
    "POTENTIALS": "simulate.potentials",
    "Blank": "blank",
    "Formula": "diffusion.composition",
    "Guidance": "request",
    "HMCConfig": "diffusion.hmc",
    "LangevinConfig": "diffusion.langevin",
    "Model": "model",
    "PotentialCalculator": "simulate.calculator",
    "Request": "request",
    "Structures": "structure",
    "analyze": "analysis.compare",
    "at_rest": "properties",
    "cell_blank": "blank",
    "concatenate": "structure",
    "cubic_blank": "blank",
    "from_ase": "io",
    "generate": "generation",
    "like_blank": "blank",
    "load_dataset": "dataset",
    "load_model": "pretrained",
    "model_names": "pretrained",
    "read_request": "targets",
    "read_structures": "io",
    "relax_structures": "simulate.relaxation",
    "to_ase": "io",
    "write_structures": "io",
}
"""The module of each public name."""

__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """A public name, from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
