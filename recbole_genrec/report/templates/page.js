"use strict";
(() => {
  // --- figures: drawn when they come near, in the colours of the page -------------------------
  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    const value = (name) => style.getPropertyValue(name).trim();
    return { text: value("--text"), muted: value("--muted"), grid: value("--grid"), card: value("--card"), rule: value("--rule") };
  };

  const dressed = (layout) => {
    const c = colours();
    const result = structuredClone(layout);
    result.paper_bgcolor = "rgba(0,0,0,0)";
    result.plot_bgcolor = "rgba(0,0,0,0)";
    result.font = { ...result.font, color: c.text, family: "system-ui, sans-serif" };
    result.hoverlabel = { ...result.hoverlabel, bgcolor: c.card, bordercolor: c.rule, font: { color: c.text } };
    for (const name of Object.keys(result)) {
      if (/^[xy]axis\d*$/.test(name)) {
        result[name] = { ...result[name], gridcolor: c.grid, linecolor: c.rule, zerolinecolor: c.rule, tickcolor: c.muted };
      }
    }
    for (const note of result.annotations || []) note.font = { ...note.font, color: c.text };
    result.autosize = true;
    delete result.width;
    return result;
  };

  const dressedTraces = (traces, narrow) => traces.map((trace) => {
    const result = { ...trace };
    if (trace.error_y) result.error_y = { ...trace.error_y, color: colours().text };
    // A narrow screen has no room for curves that are hidden at first.
    if (narrow && trace.visible === "legendonly") result.showlegend = false;
    return result;
  });

  const specs = new Map();
  const draw = (place) => {
    const spec = specs.get(place);
    const config = { responsive: true, displayModeBar: false };
    Plotly.react(place, dressedTraces(spec.data, place.clientWidth < 600), dressed(spec.layout), config);
    place.dataset.drawn = "yes";
  };

  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        watcher.unobserve(entry.target);
        draw(entry.target);
      }
    }
  }, { rootMargin: "1200px 0px" });

  for (const place of document.querySelectorAll(".figure")) {
    const content = place.querySelector("script");
    specs.set(place, JSON.parse(content.textContent));
    content.remove();
    watcher.observe(place);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const place of specs.keys()) if (place.dataset.drawn) draw(place);
  });

  // --- tables that sort by a click on a heading -----------------------------------------------
  const sortKey = (cell) => {
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(text);
    return text === "" || Number.isNaN(number) ? text.toLowerCase() : number;
  };
  const compare = (a, b) => {
    // Cells without a number stand last, whichever way the column is sorted.
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      heading.addEventListener("click", () => {
        const numeric = heading.classList.contains("number");
        const first = numeric ? "descending" : "ascending";
        const second = numeric ? "ascending" : "descending";
        const order = heading.getAttribute("aria-sort") === first ? second : first;
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", order);
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => [sortKey(row.cells[column]), row]);
        const isMissing = (key) => numeric && typeof key !== "number";
        rows.sort(([a], [b]) => {
          if (isMissing(a) !== isMissing(b)) return isMissing(a) ? 1 : -1;
          return order === "ascending" ? compare(a, b) : compare(b, a);
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  // --- the filter of a code tree ----------------------------------------------------------------
  const filter = (root, words) => {
    for (const leaf of root.querySelectorAll(".leaf")) {
      const text = leaf.textContent.toLowerCase();
      leaf.hidden = !words.every((word) => text.includes(word));
    }
    // Children come after their parents in the document, so the list is walked from its end.
    for (const node of [...root.querySelectorAll("details.node")].reverse()) {
      const shown = [...node.children].some((child) => child.matches(".leaf, .node") && !child.hidden);
      node.hidden = !shown;
      if (node.parentElement !== root) node.open = words.length > 0 && shown;
    }
  };
  for (const input of document.querySelectorAll("input[data-tree]")) {
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      filter(document.getElementById(input.dataset.tree), words);
    });
  }
})();
