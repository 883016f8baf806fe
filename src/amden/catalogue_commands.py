"""What `amden models` does. See `commands` for the other verbs."""

import sys

from rich.console import Console
from rich.table import Table

from amden.model import load_model
from amden.pretrained import model_path, shipped_models
from amden.targets import model_table


def run_models(name: str | None = None) -> None:
    """Body of `amden models`."""
    if name is not None:
        Console(file=sys.stdout).print(model_table(name, load_model(model_path(name))))
        return
    table = Table("model", "kind", "trained on", "steps", "density g/cm³", "conditions")
    table.columns[0].no_wrap = True
    for model in shipped_models():
        data = model.provenance.get("data", {})
        trained_on = f"{data.get('structures', '?')} × {data.get('source', '?')}"
        table.add_row(
            model.name,
            "energy" if model.provenance.get("recipe", {}).get("energy") else "score",
            trained_on,
            str(model.provenance.get("steps", "?")),
            f"{data.get('density', float('nan')):.3f}",
            ", ".join(model.provenance.get("recipe", {}).get("properties", [])) or "none",
        )
    Console(file=sys.stdout).print(table)
