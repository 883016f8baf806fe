"""What a training run writes down: losses by noise level, as rows of a CSV file and, if asked, for TensorBoard."""

import csv
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from amden.diffusion.loss import Losses
from amden.storage import replacing

N_LEVELS = 10
"""Bins of t in which losses are logged."""


class Tally:
    """Sums of losses by bin of t, kept on the device until a row is asked for."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, N_LEVELS, device=device)
        self.systems = 0

    def add(self, losses: Losses, t: Float[Tensor, " systems"]) -> None:
        """Count the losses of a batch."""
        level = (t * N_LEVELS).long().clamp(0, N_LEVELS - 1)
        values = torch.stack([losses.positions, losses.elements, torch.ones_like(t)]).detach().float()
        self._sums = self._sums.index_add(1, level, values)
        self.systems += len(t)

    def row(self, name: str) -> dict[str, float]:
        """Mean losses: positions (`name`), elements (`name_elements`), positions by noise level (`name_t0.3`: t from
        0.3 to 0.4); NaN where nothing was counted."""
        positions, elements, counts = self._sums.double().cpu()
        total = counts.sum()
        levels = {f"{name}_t{i / N_LEVELS:.1f}": float(x) for i, x in enumerate(positions / counts)}
        return {
            name: float(positions.sum() / total),
            f"{name}_elements": float(elements.sum() / total),
            **levels,
        }


class MetricsLog:
    """`metrics.csv`, a row now and then; a run that goes on appends to it."""

    def __init__(self, path: Path, *, enabled: bool = True, tensorboard: bool = False) -> None:
        self._path, self._enabled = path, enabled
        self._board: Any = None
        if tensorboard and enabled:
            self._board = _tensorboard(path.parent)

    def cut(self, step: int) -> None:
        """Leave out the rows after `step`, which a run that goes on from there writes again."""
        if not self._enabled or not self._path.exists():
            return
        with self._path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row[COLUMNS[-1]] is not None and int(row["step"]) <= step]
        with replacing(self._path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def write(self, row: dict[str, float | int]) -> None:
        """Append a row; columns it lacks stay empty."""
        if not self._enabled:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = not self._path.exists()
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            if new:
                writer.writeheader()
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Write out what TensorBoard still holds back."""
        if self._board is not None:
            self._board.close()


def _columns() -> list[str]:
    losses = [
        f"{name}{suffix}"
        for name in ("loss", "validation")
        for suffix in ("", "_elements", *(f"_t{i / N_LEVELS:.1f}" for i in range(N_LEVELS)))
    ]
    return ["step", "learning_rate", "samples_per_second", *losses]


COLUMNS = _columns()
"""Columns of `metrics.csv`."""


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError("TensorBoard logs need `pip install 'amden[tensorboard]'`") from None
    return SummaryWriter(str(folder))
