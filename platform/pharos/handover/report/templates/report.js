// Draws the figures in the colours of the page, again when those or its width change, and sorts the leaderboard.
"use strict";

(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 600px)");

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // The layout that Python made, with what depends on the theme and on the width laid over it.
  const layoutOf = (figure) => {
    const layout = structuredClone(figure.layout);
    const [paper, ink, quiet, line] = ["--paper", "--ink", "--quiet", "--line"].map(color);
    layout.paper_bgcolor = paper;
    layout.plot_bgcolor = paper;
    layout.font.color = ink;
    layout.hoverlabel = { ...layout.hoverlabel, bgcolor: color("--panel"), bordercolor: line, font: { color: ink } };
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: quiet, activecolor: ink };
    for (const name of ["xaxis", "yaxis"]) {
      layout[name] = { ...layout[name], gridcolor: line, linecolor: line, tickfont: { color: quiet } };
    }
    if (narrow.matches) {
      layout.font.size = 11;
      layout.margin = { ...layout.margin, l: Math.min(layout.margin.l, 40), r: Math.min(layout.margin.r, 28) };
      // The legend stands in one column there, above what is drawn.
      layout.height += 18 * figure.data.filter((trace) => trace.name && trace.showlegend !== false).length;
    }
    return layout;
  };

  const dataOf = (figure) =>
    figure.data.map((trace) => {
      if (trace.type !== "parcoords") return trace;
      const scale = trace.line.colorscale.map(([place, value]) => [place, place === 0 ? color("--last-rank") : value]);
      return {
        ...trace,
        line: { ...trace.line, colorscale: scale },
        unselected: { line: { color: color("--line"), opacity: 0.4 } },
      };
    });

  // Named one by one: plotly's own choice holds a button that sends the figure to a server.
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
    plotlyServerURL: "",
  };
  const places = [...document.querySelectorAll("[data-figure]")];

  const draw = async () => {
    for (const place of places) {
      const figure = figures[place.dataset.figure];
      const layout = layoutOf(figure);
      place.style.height = `${layout.height}px`;
      // Its buttons zoom, for which a finger and some figures have no use.
      const hasBar = !narrow.matches && !["coordinates", "importance"].includes(place.dataset.figure);
      await Plotly.react(place, dataOf(figure), layout, { ...config, displayModeBar: hasBar ? "hover" : false });
      place.dataset.drawn = "true";
    }
  };

  const sortBy = (table, column) => {
    const heading = table.tHead.rows[0].cells[column];
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    const key = (row) => {
      const cell = row.cells[column];
      return cell.dataset.sort === undefined ? cell.textContent : Number(cell.dataset.sort);
    };
    // Numbers before texts, which stand where there is none.
    const compare = (a, b) => {
      if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
      const order = typeof a === "number" ? a - b : a.localeCompare(b);
      return ascending ? order : -order;
    };
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => compare(a, b));
    table.tBodies[0].append(...rows.map(([, row]) => row));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((cell, column) =>
      cell.querySelector("button").addEventListener("click", () => sortBy(table, column)),
    );
  }

  dark.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
  draw();
})();
