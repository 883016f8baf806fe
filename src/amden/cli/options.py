"""Options that several verbs share, and what those of one kind together ask for."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from amden.refinement import Asked

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]
Seed = Annotated[int, typer.Option(help="Seed of the random numbers; the same seed gives the same structures.", min=0)]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if there is one.")]

Conditional = Annotated[
    str, typer.Argument(help="A conditional model: name of a shipped one, checkpoint, or run folder.")
]
Cell = Annotated[str | None, typer.Option(help="Cell in Å, instead of a cube: 1, 3 or 9 numbers, e.g. '17,17,20'.")]
Density = Annotated[float | None, typer.Option(help="Density in g/cm³.  \\[default: that of the training]")]
Composition = Annotated[
    str | None,
    typer.Option(
        "--composition",
        "--formula",
        help="Exact elements: SiO2, 'Si:1 O:2', neutral, or free.  \\[default: neutral where charges are known]",
    ),
]
Weight = Annotated[
    float | None,
    typer.Option(help="Weight w of guidance by targets.  \\[default: as the model's recipe says: 1]", min=0),
]
Kind = Annotated[
    str | None,
    typer.Option(
        help="Unconditional noise: null, model (by --guide) or icg.  \\[default: as the model's recipe says: null]"
    ),
]
GuidanceAbove = Annotated[
    float | None,
    typer.Option(
        help="Guide at diffusion times above this only, and relax unguided below.  "
        "\\[default: as the model's recipe says: 0]",
        min=0,
        max=1,
    ),
]
Guide = Annotated[str | None, typer.Option(help="Unconditional model for guidance (name or path).")]
Extrapolate = Annotated[
    bool, typer.Option("--extrapolate", help="Allow targets outside the training data or at odds with each other.")
]
Steps = Annotated[
    int | None,
    typer.Option(
        help="Denoising steps.  \\[default: as the model's recipe says: 200, more with --hmc or --langevin on a GPU]",
        min=1,
    ),
]
Hmc = Annotated[
    bool, typer.Option("--hmc", help="Relax while denoising, by Hamiltonian Monte Carlo; needs an energy model.")
]
HmcSettings = Annotated[
    list[str] | None,
    typer.Option("--hmc-set", help="A setting of --hmc: t_max=0.4, n_verlet=30, step=0.2, acceptance=null …"),
]
HmcEnergy = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Take the energies of --hmc from this energy model, and denoise with the model itself (name or path).",
    ),
]
Langevin = Annotated[
    bool, typer.Option("--langevin", help="Relax while denoising, by Langevin dynamics; any model will do.")
]
LangevinSettings = Annotated[
    list[str] | None,
    typer.Option("--langevin-set", help="A setting of --langevin: n_steps=90, t_max=0.2, step=0.4, friction=2 …"),
]
Requench = Annotated[
    str | None,
    typer.Option(
        metavar="PROTOCOL",
        help="Melt-quench the compositions anew by this protocol (meg-short, sio2 …) and measure them beside.",
    ),
]
Plain = Annotated[
    bool, typer.Option("--plain", help="Standard denoising, also with a model that is relaxed by default.")
]
BatchSize = Annotated[
    int | None, typer.Option(help="Structures at a time, on each GPU.  \\[default: fits memory]", min=1)
]


def refinement(
    hmc: bool,
    hmc_set: list[str] | None,
    langevin: bool = False,
    langevin_set: list[str] | None = None,
    plain: bool = False,
) -> "Asked | None":
    """The refinement that these options ask for; None where it is left to the model.

    Errors: `ValueError` where they ask for several.
    """
    from amden.refinement import Asked

    asked = [
        Asked(kind, tuple(settings or ()))
        for kind, wanted, settings in (
            ("hmc", hmc, hmc_set),
            ("langevin", langevin, langevin_set),
            ("none", plain, None),
        )
        if wanted or settings
    ]
    if len(asked) > 1:
        raise ValueError("choose one of --hmc, --langevin and --plain")
    return asked[0] if asked else None


def check_guidance_kind(kind: str | None) -> None:
    """`ValueError` for an unconditional noise of another name."""
    if kind not in (None, "null", "model", "icg"):
        raise ValueError(f"`--guidance-kind` must be null, model or icg, got {kind!r}")
