// The page of the service: a history is clicked together, and the list follows it.

import { get, post } from "./api.js";
import { by, element } from "./elements.js";
import { drawTree, sentence } from "./tree.js";

const MATCHES = 12;
const history = []; // {item, title}, oldest first
let about = null;
let newest = null; // the item that was added last
let asked = 0; // number of the latest question; older answers are dropped

function showFailure(error) {
  by("failure").textContent = error.message;
  by("failure").hidden = false;
}

function hideFailure() {
  by("failure").hidden = true;
}

// --- searching titles ----------------------------------------------------------------------------

let searches = 0;

async function search() {
  const number = ++searches;
  const query = by("search").value.trim();
  try {
    const path = `items?limit=${MATCHES}&query=${encodeURIComponent(query)}`;
    const { items } = await get(path);
    if (number !== searches) {
      return;
    }
    const rows = items.map((item) => {
      const press = () => choose(item);
      const text = element("span", { textContent: item.title });
      const button = element("button", { type: "button", onclick: press, title: item.item }, text);
      button.dataset.item = item.item;
      return element("li", {}, button);
    });
    by("matches").replaceChildren(...rows);
    by("match-count").textContent = counted(items.length, query);
  } catch (error) {
    showFailure(error);
  }
}

function counted(count, query) {
  if (!query) {
    return "The first items of the catalogue:";
  }
  if (!count) {
    return "No title has these words.";
  }
  if (count === MATCHES) {
    return `The first ${MATCHES} items:`;
  }
  return count === 1 ? "1 item:" : `${count} items:`;
}

function moveInMatches(event) {
  const buttons = [...by("matches").querySelectorAll("button")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) {
    return;
  }
  event.preventDefault();
  const next = buttons.indexOf(document.activeElement) + step;
  (buttons[next] ?? by("search")).focus();
}

// --- the history ---------------------------------------------------------------------------------

function choose(item) {
  history.push(item);
  update();
}

function showHistory() {
  const rows = history.map((item, place) => {
    const remove = element("button", {
      type: "button",
      textContent: "×",
      "aria-label": `Remove ${item.title}`,
      onclick: () => {
        history.splice(place, 1);
        update();
      },
    });
    return element("li", {}, element("span", { textContent: item.title }), remove);
  });
  by("chosen").replaceChildren(...rows);
  by("chosen-empty").hidden = history.length > 0;
  by("clear").disabled = history.length === 0;
}

// --- the list ------------------------------------------------------------------------------------

function question() {
  return {
    history: history.map((item) => item.item),
    k: Number(by("length").value),
    exclude_seen: by("exclude").checked,
  };
}

async function update() {
  showHistory();
  const number = ++asked;
  if (!history.length) {
    by("list").replaceChildren();
    by("list-note").textContent = "Add an item to the history to see a list.";
    by("walk").hidden = true;
    return;
  }
  try {
    const path = about.has_walk ? "trace" : "recommend";
    const body = about.has_walk ? { ...question(), shown: 6 } : question();
    const answer = await post(path, body);
    if (number !== asked) {
      return;
    }
    hideFailure();
    showList(answer.items);
    if (about.has_walk) {
      showWalk(answer);
    }
  } catch (error) {
    if (number === asked) {
      showFailure(error);
    }
  }
}

function showList(rows) {
  by("list").replaceChildren(...rows.map(listRow));
  by("list-note").textContent = listNote(rows);
}

function listNote(rows) {
  if (!rows.length) {
    return "There is nothing to recommend.";
  }
  if (rows.every((row) => row.certified === null)) {
    return "Every item of the catalogue was scored.";
  }
  const proven = rows.filter((row) => row.certified).length;
  if (proven === rows.length) {
    return "Proven: no other item of the catalogue is more probable.";
  }
  return `Proven up to place ${proven}: below, an item that the search dropped may be better.`;
}

function listRow(row) {
  const facts = element("span", { className: "facts" });
  if (row.codes) {
    facts.append(element("span", { className: "codes", textContent: `codes ${row.codes.join("-")}` }));
  }
  facts.append(element("span", { className: "score", textContent: `score ${row.score.toFixed(3)}` }));
  if (row.certified !== null) {
    const name = row.certified ? "proven" : "open";
    const text = row.certified ? "proven" : "not proven";
    facts.append(element("span", { className: name, textContent: text }));
  }
  const add = element("button", {
    type: "button",
    textContent: "+",
    "aria-label": `Add ${row.title} to the history`,
    title: "Add to the history",
    onclick: () => choose({ item: row.item, title: row.title }),
  });
  const made = element(
    "li",
    { className: row.item === newest ? "fresh" : "" },
    element("span", { className: "rank", textContent: row.rank }),
    element("span", { className: "title", textContent: row.title, title: row.text }),
    facts,
    add,
  );
  made.dataset.item = row.item;
  return made;
}

function showWalk(answer) {
  by("walk").hidden = answer.items.length === 0;
  by("drawing").replaceChildren(drawTree(answer.levels, answer.items));
  const sentences = answer.levels.map((level, index) =>
    element("li", { textContent: sentence(level, index + 1) }),
  );
  by("levels").replaceChildren(...sentences);
}

// --- new products --------------------------------------------------------------------------------

async function addProduct(event) {
  event.preventDefault();
  const note = by("new-note");
  const body = { text: by("new-text").value };
  if (by("new-id").value.trim()) {
    body.item = by("new-id").value.trim();
  }
  note.textContent = "Adding …";
  try {
    const item = await post("items", body);
    newest = item.item;
    const codes = item.codes ? ` with the codes ${item.codes.join("-")}` : "";
    note.textContent = `${item.item} is in the catalogue${codes}.${await placeOf(item.item)}`;
    by("new-form").reset();
    by("search").value = item.title;
    await search();
    await loadAbout();
    await update();
  } catch (error) {
    note.textContent = error.message;
  }
}

async function placeOf(item) {
  if (!history.length) {
    return " It is the first match of the search now.";
  }
  const k = Math.min(about.max_k, about.n_items);
  const { items } = await post("recommend", { ...question(), k });
  const row = items.find((candidate) => candidate.item === item);
  if (row) {
    return ` For this history it stands at place ${row.rank}.`;
  }
  return ` For this history it is not among the first ${items.length}.`;
}

// --- start ---------------------------------------------------------------------------------------

async function loadAbout() {
  about = await get("health");
  const items = about.n_items.toLocaleString("en");
  by("about").textContent = `${about.model} on ${about.dataset}, ${items} items`;
  document.title = `${about.model} on ${about.dataset}`;
  by("new-item").hidden = !about.takes_new_items;
  by("new-text").placeholder = `Like ${about.example_text}`;
}

async function start() {
  try {
    await loadAbout();
  } catch (error) {
    by("about").textContent = "";
    showFailure(error);
    return;
  }
  by("exclude").checked = true;
  let timer = 0;
  by("search").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(search, 120);
  });
  by("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      by("matches").querySelector("button")?.click();
    }
  });
  document.querySelector(".history").addEventListener("keydown", moveInMatches);
  by("clear").addEventListener("click", () => {
    history.length = 0;
    update();
  });
  by("exclude").addEventListener("change", update);
  by("length").addEventListener("change", update);
  by("new-form").addEventListener("submit", addProduct);
  await search();
  document.body.dataset.ready = "yes";
}

start();
