// Tables: sort and filter by column, and a hint where columns are out of sight.

const UNITS = { ms: 1e-3, s: 1, min: 60, h: 3600, B: 1, KiB: 1024, MiB: 1048576, GiB: 1073741824 };
const QUANTITY = /(-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)\s*(ms|min|s|h|KiB|MiB|GiB|B)?(?![\w/])/g;
const POWER = /(-?[\d.]+) × 10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)/;
const FEWEST_TO_FILTER = 4;
const MOST_ROWS = 150; // of a longer table the first rows are shown: a thousand take half a second to lay out

/** The number that a text stands for: "1 min 15 s" is 75, "8/255" a fraction; NaN where it is none. */
function quantity(text) {
  const power = POWER.exec(text);
  if (power) {
    const digits = [...power[2]].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹".indexOf(c));
    const exponent = digits.filter((d) => d > 0).reduce((sum, d) => 10 * sum + d - 1, 0);
    return Number(power[1]) * 10 ** (digits[0] === 0 ? -exponent : exponent);
  }
  const fraction = /^\s*(\d+)\s*\/\s*(\d+)\s*$/.exec(text);
  if (fraction) return Number(fraction[1]) / Number(fraction[2]);
  const found = [...text.matchAll(QUANTITY)];
  if (!found.length) return NaN;
  const number = (match) => Number(match[1].replaceAll(",", ""));
  if (!found[0][2]) return number(found[0]);
  return found.filter((match) => match[2]).reduce((sum, match) => sum + number(match) * UNITS[match[2]], 0);
}

/** The text of a table's cell that decides its place: the value without its interval. */
function valueText(cell) {
  const value = cell.querySelector(".seed, .again") || cell.querySelector(".value, .chip");
  return (value || cell).textContent.trim();
}

/** A table that sorts and filters. `key` names it in the address. */
class SortedTable {
  constructor(table, key) {
    this.table = table;
    this.key = key;
    this.body = table.tBodies[0];
    this.rows = [...this.body.rows];
    this.order = this.rows;
    this.heads = [...table.tHead.rows].at(-1).cells;
    this.names = [...this.heads].map((head) => head.dataset.name || head.textContent.trim());
    this.shown = "";
    this.repeatBlanks();
    this.addButtons();
    this.addTools();
  }

  /** In a group only the first row names the model. Sorted rows leave their group, so each gets the name. */
  repeatBlanks() {
    const grouped = this.rows.some((row) => row.classList.contains("start")) &&
      !this.rows.every((row) => row.classList.contains("start"));
    if (!grouped) return;
    let above = [];
    for (const row of this.rows) {
      const cells = [...row.cells];
      cells.forEach((cell, index) => {
        if (row.classList.contains("start") || cell.textContent.trim()) above[index] = cell.textContent.trim();
        else cell.append(element("span", { class: "again" }, above[index] || ""));
      });
    }
  }

  addButtons() {
    [...this.heads].forEach((head, index) => {
      const attributes = { type: "button", class: "sort", title: head.title || null };
      const name = this.names[index];
      if (name !== head.textContent.trim()) attributes["aria-label"] = name;
      const button = element("button", attributes, ...head.childNodes);
      button.addEventListener("click", () => this.turn(index));
      head.removeAttribute("title");
      head.append(button);
    });
  }

  addTools() {
    this.scroll = this.table.closest(".scroll");
    this.hint = element("p", { class: "more-columns", "aria-hidden": "true" });
    this.scroll.after(this.hint);
    const look = () => this.countHidden();
    this.scroll.addEventListener("scroll", look, { passive: true });
    const size = new ResizeObserver(look);
    size.observe(this.scroll);
    size.observe(this.table); // columns come and go with the choices
    if (this.rows.length < FEWEST_TO_FILTER) return;
    this.column = element("select", { "aria-label": "Column to filter by" }, element("option", { value: "" }, "any column"));
    this.names.forEach((name, index) => this.column.append(element("option", { value: index }, name)));
    this.text = element("input", { type: "search", placeholder: "filter rows", "aria-label": "Filter the rows of this table" });
    this.count = element("span", { class: "count", role: "status" });
    const filter = () => choose(`${this.key}f`, this.text.value ? `${this.column.value}:${this.text.value}` : "");
    this.text.addEventListener("input", filter);
    this.column.addEventListener("change", filter);
    const tools = element("div", { class: "tools" }, this.text, this.column, this.count);
    this.scroll.before(tools);
    if (this.rows.length <= MOST_ROWS) return;
    this.all = element("button", { type: "button" }, `show all ${this.rows.length} rows`);
    this.all.addEventListener("click", () => choose(`${this.key}n`, chosen(`${this.key}n`) ? "" : "all"));
    tools.append(this.all);
  }

  /** The next order by a column: numbers descend first, texts ascend first, then the other way, then as it was. */
  turn(index) {
    const first = this.heads[index].classList.contains("number") ? "d" : "a";
    const orders = [index + first, index + (first === "d" ? "a" : "d"), ""];
    choose(this.key, orders[(orders.indexOf(chosen(this.key)) + 1) % orders.length]);
  }

  show() {
    this.sort(chosen(this.key));
    this.filter(chosen(`${this.key}f`));
  }

  sort(order) {
    const wanted = /^\d+[ad]$/.test(order) && parseInt(order, 10) < this.heads.length ? order : "";
    const index = wanted ? parseInt(wanted, 10) : -1;
    [...this.heads].forEach((head, at) => {
      const direction = wanted.endsWith("a") ? "ascending" : "descending";
      head.setAttribute("aria-sort", at === index ? direction : "none");
    });
    this.body.classList.toggle("flat", index >= 0 || Boolean(chosen(`${this.key}f`)));
    const state = wanted + (wanted ? chosen("seed") : "");
    if (state === this.shown) return;
    this.shown = state;
    if (index < 0) {
      this.order = this.rows;
      this.body.append(...this.order);
      return;
    }
    const numeric = this.heads[index].classList.contains("number");
    const sign = wanted.endsWith("a") ? 1 : -1;
    const keyed = this.rows.map((row) => {
      const text = valueText(row.cells[index]);
      return [numeric ? quantity(text) : text, row];
    });
    const missing = ([value]) => (numeric ? Number.isNaN(value) : value === "" || value === "–");
    const compare = numeric ? (a, b) => a - b : new Intl.Collator("en", { numeric: true }).compare;
    keyed.sort((a, b) => missing(a) - missing(b) || (missing(a) ? 0 : sign * compare(a[0], b[0])));
    this.order = keyed.map(([, row]) => row);
    this.body.append(...this.order);
  }

  filter(wanted) {
    if (!this.text) return;
    const cut = wanted.indexOf(":");
    const column = wanted.slice(0, Math.max(0, cut));
    const text = wanted.slice(cut + 1);
    if (this.text.value !== text) this.text.value = text;
    if (wanted) this.column.value = this.names[column] === undefined ? "" : column;
    const sought = text.toLowerCase();
    const most = this.all && !chosen(`${this.key}n`) ? MOST_ROWS : Infinity;
    if (this.all) this.all.textContent = most === Infinity ? `show ${MOST_ROWS} rows` : `show all ${this.rows.length} rows`;
    let kept = 0;
    for (const row of this.order) {
      const place = column === "" ? row : row.cells[column] || row;
      const fits = !sought || place.textContent.toLowerCase().includes(sought);
      row.classList.toggle("filtered", !fits);
      row.classList.toggle("beyond", fits && kept >= most);
      if (fits && !row.classList.contains("unchosen")) kept += 1;
    }
    this.count.textContent = sought ? `${kept} of ${this.rows.length} rows` : "";
  }

  /** Say how many columns lie beyond the right edge. */
  countHidden() {
    const edge = this.scroll.getBoundingClientRect().right;
    const beyond = [...this.heads].filter((head) => {
      const box = head.getBoundingClientRect();
      return box.width > 0 && box.left + box.width / 2 > edge + 1;
    });
    this.hint.textContent = beyond.length ? `${beyond.length} more column${beyond.length > 1 ? "s" : ""} →` : "";
  }
}

function startTables() {
  const tables = [...document.querySelectorAll("table.sortable")].map((table, index) => new SortedTable(table, `t${index}`));
  const mine = (key) => key === undefined || key in AXES || /^t\d+[fn]?$/.test(key);
  follow((key) => {
    if (!mine(key)) return;
    for (const table of tables) {
      if (key === undefined || !key.startsWith("t") || [table.key, `${table.key}f`, `${table.key}n`].includes(key)) table.show();
    }
  });
}
