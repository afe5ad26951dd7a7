// The browser of kept images: original, adversarial image and difference, of any cell that kept some.

const SIDE = 168; // pixels that an image is enlarged to at least
const THUMB = 44;

/** One image of a sheet that has several side by side. */
function crop(cell, kind, index, side, alt) {
  const scale = Math.max(1, Math.round(side / Math.max(cell.width, cell.height)));
  const image = element("img", { src: data.sheets[cell[kind]], alt });
  image.style.width = `${scale * cell.width * cell.labels.length}px`;
  image.style.marginLeft = `${-scale * cell.width * index}px`;
  const window = element("span", { class: "crop" }, image);
  window.style.width = `${scale * cell.width}px`;
  window.style.height = `${scale * cell.height}px`;
  return window;
}

/** What a class is called: its name, where that is known. */
function classOf(cell, number, before = "class ") {
  return cell.names[number] ?? `${before}${number}`;
}

/** What the attack did to an image, in one line. */
function verdict(cell, index) {
  const [label, predicted] = [classOf(cell, cell.labels[index]), classOf(cell, cell.predicted[index], "")];
  if (!cell.fooled[index]) return `robust: ${label} before and after the attack`;
  const by = cell.parts[index] ? ` by ${cell.parts[index]}` : "";
  return `fooled${by}: ${label} is seen as ${predicted}`;
}

function scores(cell, index) {
  if (!cell.scores.length) return "";
  const [before, after] = cell.scores[index];
  const table = element("table", { class: "scores" }, element("caption", {}, "Scores of the classes"));
  const row = (head, ...texts) => element("tr", {}, element("th", { scope: "row" }, head), ...texts.map((text) => element("td", { class: "number" }, text)));
  const top = [...before.keys()].sort((a, b) => Math.max(before[b], after[b]) - Math.max(before[a], after[a])).slice(0, 10);
  table.append(element("tr", {}, element("td", {}), element("th", { scope: "col" }, "before"), element("th", { scope: "col" }, "after")));
  table.append(...top.map((name) => row(classOf(cell, name), before[name].toFixed(2), after[name].toFixed(2))));
  return table;
}

function startImages() {
  const section = document.getElementById("images");
  if (!section || !data.images.length) return;
  const select = element("select", { id: "image-cell" });
  const strip = element("div", { class: "strip", role: "group", "aria-label": "Images of the cell" });
  const stage = element("div", { class: "browser" });
  const spoken = element("p", { class: "unseen", role: "status" });
  section.append(
    element("h2", {}, "Kept images"),
    element("div", { class: "tools" }, element("label", { for: "image-cell" }, "cell"), select),
    strip,
    stage,
    spoken,
  );
  if (data.images_left_out) {
    const left = `The images of ${data.images_left_out} more cells have no room on this page; they are in the folder pictures of the results.`;
    section.append(element("p", { class: "note" }, left));
  }
  section.hidden = false;
  const link = element("a", { href: "#images" }, "Kept images");
  document.querySelector("nav").insertBefore(link, document.querySelector('nav a[href="#findings"], nav a[href="#details"]'));
  select.addEventListener("change", () => choose("image", `${select.value}.0`));

  follow((key) => {
    if (key !== undefined && key !== "image" && !(key in AXES)) return;
    const offered = data.images.filter(({ id }) => fits(cellOf.get(id), Object.keys(AXES)));
    const wanted = data.images.find(({ id }) => id === chosen("image").split(".")[0]);
    const cell = wanted || offered[0];
    section.classList.toggle("unchosen", !cell);
    if (!cell) return;
    const listed = offered.includes(cell) ? offered : [cell, ...offered];
    select.replaceChildren(...listed.map(({ id }) => element("option", { value: id }, cellOf.get(id).name)));
    select.value = cell.id;
    const index = Math.min(Number(chosen("image").split(".")[1]) || 0, cell.labels.length - 1);
    strip.replaceChildren(...cell.labels.map((label, at) => {
      const image = crop(cell, "adversarial", at, THUMB, `image ${at + 1}: ${verdict(cell, at)}`);
      const button = element("button", { type: "button", "aria-pressed": String(at === index), class: cell.fooled[at] ? "fooled" : "robust" }, image);
      button.addEventListener("click", () => {
        choose("image", `${cell.id}.${at}`);
        strip.children[at].focus();
      });
      return button;
    }));
    if (key === "image") spoken.textContent = `image ${index + 1}: ${verdict(cell, index)}`;
    const shown = [
      ["original", `original: ${classOf(cell, cell.labels[index])}`],
      ["adversarial", `adversarial: seen as ${classOf(cell, cell.predicted[index], "")}`],
      ["difference", `difference × ${cell.factor}`],
    ];
    stage.replaceChildren(
      ...shown.map(([kind, text]) => element("figure", {}, crop(cell, kind, index, SIDE, text), element("figcaption", {}, text))),
      element("div", { class: "about" },
        element("p", { class: `verdict ${cell.fooled[index] ? "fooled" : "robust"}` }, verdict(cell, index)),
        scores(cell, index),
        element("p", {}, element("a", { href: `#cell-${cell.id}`, "data-cells": cell.id }, "Everything known of this cell"))),
    );
  });
}
