"""The figure of glasses side by side, looked at as Matplotlib has it."""

from dataclasses import replace

import numpy as np
import torch

from amden.io import write_structures
from amden.panels import Panels, Row, SetFile, measure
from amden.report.panels import panels_figure
from amden.structure import Structures
from amden.testing import diamond


def shaken(width: float) -> Structures:
    cells = diamond().select([0] * 6).to(dtype=torch.float64)
    moves = torch.randn(cells.positions.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return replace(cells, positions=cells.positions + width * moves)


def test_a_peak_higher_than_the_reference_is_not_cut_off(tmp_path):
    write_structures(tmp_path / "broad.extxyz", shaken(0.3))
    write_structures(tmp_path / "sharp.extxyz", shaken(0.05))
    row = Row(SetFile(str(tmp_path / "broad.extxyz")), {"sharp": SetFile(str(tmp_path / "sharp.extxyz"))})
    wanted = Panels({"crystal": row}, quantities=("g(r)",), relaxed=False)
    page = panels_figure(dict(measure(wanted)), wanted.quantities)
    (axes,) = page.axes
    broad, sharp = (float(np.max(line.get_ydata())) for line in axes.get_lines())
    assert sharp > 1.15 * broad
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > sharp
