// The view: what the reader has chosen, kept in the address after "#", so that a link shows the same view.
// "#cost?eps=8/255&t0=3d" is the section, then the choices.

const data = JSON.parse(document.getElementById("data").textContent);
const cellOf = new Map(data.cells.map((cell) => [cell.id, cell]));
const view = { section: "", values: new Map() };
const listeners = [];

/** A new element. Texts are set as texts, never as markup, so that names are shown as they are. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** A choice of the view; an empty text where the reader has not chosen. */
function chosen(key) {
  return view.values.get(key) || "";
}

/** Choose a value, keep it in the address, and show it. An empty value takes the choice back. */
function choose(key, value) {
  if (chosen(key) === value) return;
  if (value) view.values.set(key, value);
  else view.values.delete(key);
  history.replaceState(null, "", address());
  for (const listener of listeners) listener(key);
}

/** Call a function now and whenever a choice changes, with the key of the choice (nothing: all may have changed). */
function follow(listener) {
  listeners.push(listener);
  listener();
}

function address() {
  const query = new URLSearchParams([...view.values]).toString();
  return "#" + encodeURIComponent(view.section) + (query ? "?" + query : "");
}

function readAddress() {
  const [section, query = ""] = location.hash.slice(1).split("?", 2);
  try {
    view.section = decodeURIComponent(section);
  } catch {
    view.section = ""; // an address that was cut inside an escape
  }
  view.values = new Map(new URLSearchParams(query));
  const id = view.section.startsWith("cell-") ? view.section.slice("cell-".length) : "";
  if (cellOf.has(id)) {
    view.section = "details";
    view.values.set("cell", id);
  }
}

function scrollToSection() {
  const target = view.section && document.getElementById(view.section);
  if (target) target.scrollIntoView();
}

/** Follow links inside the page without losing the choices. */
function keepChoices(event) {
  const link = event.target.closest('a[href^="#"]');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  if (link.dataset.cells) {
    choose("cell", seedFirst(link.dataset.cells.split(" ")).join(" "));
    return;
  }
  view.section = link.getAttribute("href").slice(1);
  history.pushState(null, "", address());
  scrollToSection();
  const heading = document.querySelector(`#${CSS.escape(view.section)} h2`);
  if (heading) {
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }
}

/** The ids of cells, those of the chosen seed first. */
function seedFirst(ids) {
  const wanted = (id) => (cellOf.get(id) || {}).seed === chosen("seed");
  return [...ids.filter(wanted), ...ids.filter((id) => !wanted(id))];
}
