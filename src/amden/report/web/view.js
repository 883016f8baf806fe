// Structures to turn by hand: drag turns, the wheel zooms. 3Dmol.js draws.
(function () {
  "use strict";
  const structures = JSON.parse(document.getElementById("structures").textContent);
  const place = document.getElementById("view");
  if (!place || !structures.length) return;
  const canvas = document.createElement("canvas");
  if (!(canvas.getContext("webgl2") || canvas.getContext("webgl"))) {
    place.textContent = "This browser cannot draw in three dimensions (no WebGL).";
    return;
  }
  const viewer = $3Dmol.createViewer(place, { antialias: true });
  const paint = () => viewer.setBackgroundColor(getComputedStyle(place).backgroundColor, 1);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  const spin = document.getElementById("spin");
  const buttons = document.getElementById("choices");

  function corner(cell, i, j, k) {
    const at = (x) => i * cell[0][x] + j * cell[1][x] + k * cell[2][x];
    return { x: at(0), y: at(1), z: at(2) };
  }

  function show(number) {
    const s = structures[number];
    const atoms = s.positions.map((r, i) => ({
      elem: s.elements[i], x: r[0], y: r[1], z: r[2], bonds: [], bondOrder: [],
    }));
    for (const [i, j] of s.bonds) {
      atoms[i].bonds.push(j);
      atoms[i].bondOrder.push(1);
      atoms[j].bonds.push(i);
      atoms[j].bondOrder.push(1);
    }
    viewer.removeAllModels();
    viewer.removeAllShapes();
    viewer.addModel().addAtoms(atoms);
    viewer.setStyle({}, {
      sphere: { scale: 0.22, colorscheme: "Jmol" },
      stick: { radius: 0.11, colorscheme: "Jmol" },
    });
    for (const [a, b] of [[0, 1], [0, 2], [0, 4], [1, 3], [1, 5], [2, 3], [2, 6], [3, 7], [4, 5], [4, 6], [5, 7], [6, 7]]) {
      const [start, end] = [a, b].map((n) => corner(s.cell, n & 1, (n >> 1) & 1, n >> 2));
      viewer.addCylinder({ start, end, radius: 0.05, color: "#8a8a8a" });
    }
    viewer.zoomTo();
    viewer.rotate(20, "x");
    viewer.rotate(25, "y");
    viewer.render();
    [...buttons.children].forEach((b, i) => b.setAttribute("aria-pressed", String(i === number)));
    place.dataset.shown = String(number);
  }

  structures.forEach((s, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = s.title;
    button.addEventListener("click", () => show(number));
    buttons.append(button);
  });
  spin.addEventListener("change", () => viewer.spin(spin.checked ? "y" : false, 0.5));
  new ResizeObserver(() => viewer.resize()).observe(place);
  paint();
  show(0);
})();
