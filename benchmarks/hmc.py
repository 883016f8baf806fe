"""What relaxing while denoising is worth: `python benchmarks/hmc.py [MODEL REFERENCE SETTING …]`.

A setting is `steps=500,n_verlet=15,t_max=0.5,…`: denoising steps, and fields of `HMCConfig`; with `langevin=1` those of
`LangevinConfig`, as in `steps=500,langevin=1,n_steps=45`; `steps=200,hmc=0` is standard denoising, always the first
line. For each, structures in the reference's cells are generated and relaxed with their cells; the table has what that
cost and how much of the gap between standard denoising and the reference it closes.
With `--out FOLDER` the structures are kept, a setting that is there is not run again, and one that was cut goes
on (its seconds are then those of the last part). On an H200 64 cells of 256 atoms take minutes a setting.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from amden.analysis.rdf import rdf
from amden.blank import like_blank
from amden.commands import pick_device
from amden.config import from_dict
from amden.dataset import load_dataset
from amden.diffusion.hmc import HMCConfig, HMCRecord
from amden.diffusion.langevin import LangevinConfig
from amden.generation import generate
from amden.model import Model, load_model
from amden.parts import Parts
from amden.pretrained import model_path
from amden.properties import at_rest
from amden.refinement import Refine, evaluations
from amden.shard import load_shard, save_shard
from amden.structure import Structures


@dataclass(frozen=True)
class Setting:
    """A line of the table."""

    text: str
    steps: int
    refine: Refine | None

    @staticmethod
    def of(text: str) -> "Setting":
        """From `steps=500,n_verlet=15`."""
        fields: dict[str, Any] = {}
        for part in text.split(","):
            name, _, value = part.partition("=")
            fields[name] = float(value) if "." in value else int(value)
        steps, wanted = int(fields.pop("steps")), bool(fields.pop("hmc", 1))
        kind = LangevinConfig if fields.pop("langevin", 0) else HMCConfig
        return Setting(text, steps, from_dict(kind, fields) if wanted else None)


def made(
    model: Model, reference: Structures, setting: Setting, seed: int, folder: Path | None
) -> tuple[Structures, float, float]:
    """Relaxed structures, seconds and mean acceptance; from the folder if they are there."""
    path = None if folder is None else folder / f"{setting.text.replace(',', '_')}.safetensors"
    if path is not None and path.exists():
        shard = load_shard(path)
        return shard.structures, shard.provenance["seconds"], shard.provenance["acceptance"]
    records: list[HMCRecord] = []
    device, began = pick_device("auto"), time.monotonic()
    parts = None if path is None else Parts(path, {"setting": setting.text, "seed": seed})
    found = generate(
        model,
        like_blank(model, reference),
        seed=seed,
        n_steps=setting.steps,
        refine=setting.refine,
        device=device,
        compiled=device.type == "cuda",
        parts=parts,
        on_record=records.append,
    )
    seconds = time.monotonic() - began
    acceptance = float(torch.cat([r.probability.flatten() for r in records]).nanmean()) if records else np.nan
    relaxed = at_rest(found, [])
    if path is not None:
        save_shard(path, relaxed, provenance={"seconds": seconds, "acceptance": acceptance, "seed": seed})
    if parts is not None:
        parts.remove()
    return relaxed, seconds, acceptance


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", default="si-melt")
    parser.add_argument("reference", nargs="?", default="examples/si-melt-reference.extxyz")
    parser.add_argument("settings", nargs="*", default=["steps=40,langevin=1,n_steps=3"])
    parser.add_argument("--n", type=int, default=64 if torch.cuda.is_available() else 2, help="structures")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    model = load_model(model_path(options.model))
    reference = load_dataset(options.reference, dtype=torch.float64)
    reference = reference.select(range(min(options.n, len(reference))))
    target = at_rest(reference, [])
    known, g = target.properties["potential_energy"].nanmean().item(), rdf(target).g
    table = Table(
        "setting", "evaluations", "s a structure", "acceptance", "eV/atom", "± meV", "gap closed", "g(r) RMSD"
    )
    standard = np.nan
    for text in dict.fromkeys(["steps=200,hmc=0", *options.settings]):
        setting = Setting.of(text)
        found, seconds, acceptance = made(model, reference, setting, options.seed, options.out)
        energy = found.properties["potential_energy"].double()
        energy = energy[energy.isfinite()]
        mean, error = energy.mean().item(), 1000.0 * energy.std().item() / len(energy) ** 0.5
        standard = mean if np.isnan(standard) else standard
        work = sum(evaluations(model, n_steps=setting.steps, refine=setting.refine))
        numbers = f"{work}", f"{seconds / len(found):.2f}", f"{acceptance:.2f}", f"{mean:.4f}", f"{error:.1f}"
        closed = (standard - mean) / (standard - known)
        table.add_row(text, *numbers, f"{closed:.2f}", f"{np.sqrt(np.mean((rdf(found).g - g) ** 2)):.3f}")
    table.add_row("reference", "", "", "", f"{known:.4f}", "", "", "")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
