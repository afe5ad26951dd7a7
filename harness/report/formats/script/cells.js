// A cell in full: everything known of it, in a dialog that has its own address.

function startCells() {
  const dialog = element("dialog", { class: "cell-view", "aria-labelledby": "cell-name" });
  document.body.append(dialog);
  dialog.addEventListener("close", () => choose("cell", ""));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  follow((key) => {
    if (key !== undefined && key !== "cell") return;
    const cells = chosen("cell").split(" ").map((id) => cellOf.get(id)).filter(Boolean);
    if (!cells.length) {
      if (dialog.open) dialog.close();
      return;
    }
    dialog.replaceChildren(...describe(cells[0], cells));
    dialog.scrollTop = 0;
    if (!dialog.open) dialog.showModal();
  });
  function describe(cell, cells) {
    const close = element("button", { type: "button", class: "close", "aria-label": "Close" }, "×");
    close.addEventListener("click", () => dialog.close());
    const parts = [close, element("h2", { id: "cell-name" }, cell.name)];
    if (cells.length > 1) parts.push(otherSeeds(cell, cells));
    parts.push(...cell.remarks.map(remark));
    if (data.images.some((images) => images.id === cell.id)) {
      const show = element("button", { type: "button" }, "Show its images");
      show.addEventListener("click", () => {
        dialog.close();
        choose("image", `${cell.id}.0`);
        document.getElementById("images").scrollIntoView();
      });
      parts.push(element("p", {}, show));
    }
    return [...parts, ...facts(cell)];
  }
}

function otherSeeds(cell, cells) {
  const group = element("p", { role: "group", "aria-label": "Seeds" }, "seed ");
  for (const one of cells) {
    const button = element("button", { type: "button", "aria-pressed": String(one === cell) }, one.seed);
    const rest = cells.filter((other) => other !== one);
    button.addEventListener("click", () => choose("cell", [one, ...rest].map(({ id }) => id).join(" ")));
    group.append(button, " ");
  }
  return group;
}

function remark([kind, text, more]) {
  const shown = element("div", { class: "remark" }, element("span", { class: `chip ${kind}` }, kind), " ", text);
  if (more) shown.append(element(kind === "failed" ? "pre" : "p", { class: "detail" }, more));
  return shown;
}

function facts(cell) {
  const groups = new Map();
  for (const index of cell.facts) {
    const [group, key, value] = data.facts[index];
    if (value === "") continue;
    if (!groups.has(group)) groups.set(group, element("dl", { class: "known" }));
    groups.get(group).append(element("div", {}, element("dt", {}, key), element("dd", {}, value)));
  }
  const id = element("p", { class: "detail" }, `record ${cell.id}`);
  return [id, ...[...groups].flatMap(([group, list]) => [element("h3", {}, group), list])];
}
