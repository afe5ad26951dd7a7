// The choice of data, norm, ε and seed, for leaderboards, figures, images and the tables of cells.

const AXES = { data: "data", norm: "norm", eps: "ε", seed: "seed" };

/** Whether something with these data, norm, ε and seed is chosen; an axis that it lacks does not matter. */
function fits(values, axes) {
  return axes.every((axis) => !chosen(axis) || !values[axis] || values[axis] === chosen(axis));
}

function startChoices() {
  const bar = document.getElementById("choices");
  const selects = new Map();
  for (const [axis, values] of Object.entries(data.choices)) {
    const every = axis === "seed" ? "all (mean)" : "all";
    const select = element("select", { id: `choose-${axis}` }, element("option", { value: "" }, every));
    for (const value of values) {
      const name = axis === "norm" ? data.norms[value] || value : value;
      select.append(element("option", { value }, name));
    }
    select.addEventListener("change", () => choose(axis, select.value));
    selects.set(axis, select);
    bar.append(element("label", { for: select.id }, AXES[axis], " "), select);
  }
  if (!selects.size) return;
  const reset = element("button", { type: "button" }, "show all");
  reset.addEventListener("click", () => [...selects.keys()].forEach((axis) => choose(axis, "")));
  const spoken = element("p", { class: "unseen", role: "status" });
  bar.append(reset, spoken);
  bar.hidden = false;
  const boards = [...document.querySelectorAll("table.board")].map((table) => new ChosenBoard(table));
  follow((key) => {
    if (key !== undefined && !(key in AXES)) return;
    for (const [axis, select] of selects) {
      if (!data.choices[axis].includes(chosen(axis))) view.values.delete(axis); // an address by hand, or of another page
      select.value = chosen(axis);
    }
    reset.disabled = ![...selects.keys()].some((axis) => chosen(axis));
    for (const part of document.querySelectorAll(".of, figure.chart, .answer")) {
      part.classList.toggle("unchosen", !fits(part.dataset, ["data", "norm"]));
    }
    showAnswers();
    for (const board of boards) board.show();
    showRows();
    if (key !== undefined) spoken.textContent = spokenAnswers();
  });
}

/** The answer at the chosen ε, else at the one that the leaderboard is sorted by. */
function showAnswers() {
  for (const answer of document.querySelectorAll(".answer")) {
    const siblings = [...document.querySelectorAll(".answer")].filter(
      (other) => other.dataset.data === answer.dataset.data && other.dataset.norm === answer.dataset.norm,
    );
    const atChosen = siblings.some((other) => other.dataset.eps === chosen("eps"));
    answer.hidden = atChosen ? answer.dataset.eps !== chosen("eps") : !("ranked" in answer.dataset);
  }
}

/** The answers that are shown, in a line for those who cannot see what a choice changes. */
function spokenAnswers() {
  const shown = [...document.querySelectorAll(".answer:not(.unchosen)")].filter((answer) => !answer.hidden);
  const texts = shown.map((answer) => [...answer.querySelectorAll("dt, dd")].slice(0, 4).map((part) => part.textContent.trim()));
  return texts.map(([best, name, worst, value]) => `${best}: ${name}, ${worst} ${value}.`).join(" ");
}

/** Rows of the tables of findings and of cells: those of the chosen cells. */
function showRows() {
  for (const row of document.querySelectorAll("#findings tbody tr, #details tbody tr")) {
    const cells = [...row.querySelectorAll("a[data-cells]")].map((link) => cellOf.get(link.dataset.cells)).filter(Boolean);
    row.classList.toggle("unchosen", cells.length > 0 && !cells.some((cell) => fits(cell, Object.keys(AXES))));
  }
}

/** A leaderboard, of which one ε or one seed is shown. */
class ChosenBoard {
  constructor(table) {
    this.table = table;
    this.rows = [...table.tBodies[0].rows];
    this.seeds = data.seeds[table.dataset.board] || [];
    this.groups = [];
    let column = 0;
    for (const head of table.tHead.rows[0].cells) {
      const heads = [...table.tHead.rows[1].cells].slice(column, column + head.colSpan);
      this.groups.push([head, heads]);
      column += head.colSpan;
    }
  }

  show() {
    const here = [...this.table.querySelectorAll("thead [data-eps]")].some((head) => head.dataset.eps === chosen("eps"));
    for (const cell of this.table.querySelectorAll("[data-eps]")) {
      cell.classList.toggle("unchosen", here && cell.dataset.eps !== chosen("eps"));
    }
    for (const [group, heads] of this.groups) {
      const visible = heads.filter((head) => !head.classList.contains("unchosen")).length;
      group.classList.toggle("unchosen", !visible);
      group.colSpan = visible || 1;
    }
    this.rows.forEach((row, index) => this.showSeed(row, (this.seeds[index] || {})[chosen("seed")]));
  }

  /** The numbers of one seed in place of the mean over seeds. */
  showSeed(row, texts) {
    const cells = [...row.querySelectorAll("td[data-label]")];
    cells.forEach((cell, index) => {
      const before = cell.querySelector(":scope > .seed");
      if (before) before.remove();
      cell.classList.toggle("one-seed", Boolean(texts));
      if (texts) cell.append(element("span", { class: "seed" }, texts[index]));
    });
  }
}
