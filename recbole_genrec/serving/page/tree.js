// A drawing of how the beams walked the tree of items: a column for each level of codes.

import { drawn, shortened } from "./elements.js";

const NODE_WIDTH = 108;
const LEAF_WIDTH = 300;
const ROW = 34;
const GAP = 56;
const TOP = 58;

// The nodes of each level in the order in which they stand below their parents.
function ordered(levels) {
  let places = new Map([[0, 0]]);
  return levels.map((level) => {
    const nodes = [...level.nodes].sort((one, other) => {
      const parents = (places.get(one.parent) ?? 1e9) - (places.get(other.parent) ?? 1e9);
      return parents || (other.score ?? -1e9) - (one.score ?? -1e9);
    });
    places = new Map(nodes.map((node, place) => [node.node, place]));
    return nodes;
  });
}

function label(node, isLast, titles) {
  const places = node.ranks.map((rank) => `${rank}. ${titles.get(rank)}`);
  if (isLast && places.length) {
    return places.join(" · ");
  }
  return node.items === 1 ? "1 item" : `${node.items} items`;
}

function drawNode(node, x, y, width, text) {
  const limit = width === LEAF_WIDTH ? 36 : 14;
  const place = { class: node.ranks.length ? "node on" : "node" };
  const name = drawn("title");
  name.textContent = `code ${node.code}: ${text}`;
  if (node.score !== null) {
    name.textContent += `, log-probability ${node.score.toFixed(3)}`;
  }
  const code = drawn("text", { x: x + 8, y: y + 5 });
  code.textContent = node.code;
  const small = drawn("text", { x: x + 8 + 9 * String(node.code).length + 8, y: y + 5 });
  small.setAttribute("class", "small");
  small.textContent = shortened(text, limit);
  const box = drawn("rect", { x, y: y - 13, width, height: 26, rx: 6 });
  return drawn("g", place, name, box, code, small);
}

function drawEdge(from, to, isOn) {
  const middle = (from.x + to.x) / 2;
  const path = `M${from.x} ${from.y}C${middle} ${from.y} ${middle} ${to.y} ${to.x} ${to.y}`;
  return drawn("path", { class: isOn ? "edge on" : "edge", d: path });
}

function drawHeading(x, number, level) {
  const heading = drawn("text", { x, y: 18, class: "heading" });
  heading.textContent = `Code ${number}`;
  const small = drawn("tspan", { x, dy: 18, class: "small" });
  small.textContent = followed(level);
  heading.append(small);
  return heading;
}

function followed(level) {
  const possible = level.possible.toLocaleString("en");
  return level.followed === null ? `${possible} paths` : `${level.followed} of ${possible} followed`;
}

export function sentence(level, number) {
  const possible = level.possible.toLocaleString("en");
  if (level.followed === null) {
    return `Code ${number}: the catalogue has ${possible} paths of this length.`;
  }
  return `Code ${number}: ${level.followed} of ${possible} beginnings were followed.`;
}

export function drawTree(levels, rows) {
  const titles = new Map(rows.map((row) => [row.rank, row.title]));
  const columns = ordered(levels);
  const height = TOP + ROW * Math.max(...columns.map((nodes) => nodes.length)) + 8;
  const svg = drawn("svg", { role: "img", "aria-label": "Tree of codes from the left to the items" });
  const root = { x: 34, y: TOP + (height - TOP) / 2 - 8 };
  let parents = new Map([[0, root]]);
  let x = 34 + GAP;
  const edges = drawn("g");
  const nodes = drawn("g");
  columns.forEach((column, index) => {
    const isLast = index === columns.length - 1;
    const width = isLast ? LEAF_WIDTH : NODE_WIDTH;
    const step = (height - TOP) / column.length;
    const ends = new Map();
    nodes.append(drawHeading(x, index + 1, levels[index]));
    column.forEach((node, place) => {
      const y = TOP + step * (place + 0.5) - 8;
      const from = parents.get(node.parent);
      if (from) {
        const edge = drawEdge(from, { x, y }, node.ranks.length > 0);
        edges[node.ranks.length ? "append" : "prepend"](edge);
      }
      nodes.append(drawNode(node, x, y, width, label(node, isLast, titles)));
      ends.set(node.node, { x: x + width, y });
    });
    parents = ends;
    x += width + GAP;
  });
  nodes.append(drawn("circle", { class: "root", cx: 26, cy: root.y, r: 8 }));
  const width = x - GAP + 4;
  svg.setAttribute("width", width);
  svg.setAttribute("height", height);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.append(edges, nodes);
  return svg;
}
