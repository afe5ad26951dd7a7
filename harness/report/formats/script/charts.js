// Curves that answer to the pointer: they are drawn from the numbers behind a figure, in its place.

const SVG = "http://www.w3.org/2000/svg";
const BOX = { width: 640, height: 380, left: 64, right: 16, top: 30, bottom: 46 };
const DASHES = ["", "7 3", "2 2.5", "8 3 2 3", "12 4"];
const NEAR = 40; // pixels of the drawing between the pointer and a point that it shows

function shape(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** At most about six round numbers from low to high. */
function roundTicks(low, high) {
  const rough = (high - low) / 5 || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((size) => size >= rough);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-6; tick += step) ticks.push(tick);
  return ticks;
}

/** Round numbers on a logarithmic axis: powers of ten, or 1, 2, 5 where few powers lie on it. */
function logTicks(low, high) {
  const ticks = [];
  const digits = Math.log10(high / low) > 2.5 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    ticks.push(...digits.map((digit) => digit * 10 ** power));
  }
  return ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
}

const plain = (value) => Number(value.toPrecision(4)).toLocaleString("en");
const percent = (value) => `${(100 * value).toFixed(1)} %`;

class Chart {
  constructor(figure, plot, key) {
    this.figure = figure;
    this.plot = plot;
    this.key = key;
    this.spell = plot.percent ? percent : plain;
    this.at = -1;
    const title = figure.querySelector("figcaption").textContent;
    this.svg = shape("svg", {
      viewBox: `0 0 ${BOX.width} ${BOX.height}`, class: "live", tabindex: "0", // arrow keys reach an application only
      role: "application", "aria-roledescription": "chart", "aria-label": `${title}. Arrow keys read the points.`,
    });
    this.tip = element("p", { class: "tip", "aria-hidden": "true", hidden: true });
    this.spoken = element("p", { class: "unseen", role: "status" });
    this.legend = element("div", { class: "legend", role: "group", "aria-label": "Curves shown" });
    const stage = element("div", { class: "stage" }, this.svg, this.tip, this.spoken);
    figure.querySelector("picture").after(stage, this.legend);
    figure.classList.add("has-live");
    this.buttons = plot.series.map((series, index) => this.button(series, index));
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.release());
    this.svg.addEventListener("blur", () => this.release());
    this.svg.addEventListener("keydown", (event) => this.step(event));
  }

  button(series, index) {
    const stroke = { "stroke-dasharray": DASHES[series.dash % DASHES.length], "stroke-width": series.strong ? 3 : 1.8 };
    const drawn = series.line
      ? shape("line", { x1: 1, y1: 5, x2: 23, y2: 5, ...stroke, class: `line c${series.colour}` })
      : shape("circle", { cx: 12, cy: 5, r: 4.5, class: `dot c${series.colour}` });
    const sample = shape("svg", { width: 24, height: 10, "aria-hidden": "true" }, drawn);
    const button = element("button", { type: "button" }, sample, series.label);
    button.addEventListener("click", () => {
      const hidden = this.hidden();
      if (!hidden.delete(index)) hidden.add(index);
      choose(this.key, [...hidden].sort((a, b) => a - b).join("."));
    });
    this.legend.append(button);
    return button;
  }

  /** The indices of the curves that the reader has hidden. */
  hidden() {
    const indices = chosen(this.key).split(".").filter((text) => /^\d+$/.test(text)).map(Number);
    return new Set(indices.filter((index) => index < this.plot.series.length));
  }

  show() {
    const hidden = this.hidden();
    this.buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(!hidden.has(index))));
    const shown = this.plot.series.filter((_, index) => !hidden.has(index));
    this.scale(this.plot.series);
    const parts = [...this.axes(), ...shown.flatMap((series) => this.curve(series))];
    this.marker = shape("circle", { r: 6, class: "marker", visibility: "hidden" });
    this.svg.replaceChildren(...parts, this.marker);
    this.points = shown.flatMap((series) => series.points.map((point) => ({ series, point })));
    this.points.sort((a, b) => a.point[0] - b.point[0] || b.point[1] - a.point[1]);
  }

  scale(all) {
    const points = all.flatMap((series) => series.points);
    const xs = [...points.map((point) => point[0]), ...this.plot.ticks.map(([place]) => place)];
    const ys = points.flatMap(([, y, low, high]) => [y, low, high].filter((value) => value !== null));
    this.xlog = this.plot.xlog && Math.min(...xs) > 0;
    this.ylog = this.plot.ylog && Math.min(...ys) > 0 && Math.max(...ys) > 4 * Math.min(...ys);
    this.x = this.axis(Math.min(...xs), Math.max(...xs), this.xlog, BOX.left, BOX.width - BOX.right);
    let [low, high] = this.plot.percent ? [0, 1] : [Math.min(...ys), Math.max(...ys)];
    if (!this.plot.percent && !this.ylog) [low, high] = [low - 0.05 * (high - low), high + 0.05 * (high - low)];
    this.y = this.axis(low, high, this.ylog, BOX.height - BOX.bottom, BOX.top);
  }

  /** From a value to a place on the drawing. */
  axis(low, high, logarithmic, from, to) {
    const place = logarithmic ? Math.log : Number;
    const [start, end] = [place(low), place(high)];
    const scale = (value) => (end === start ? (from + to) / 2 : from + ((place(value) - start) / (end - start)) * (to - from));
    return Object.assign(scale, { low, high });
  }

  axes() {
    const { left, right, top, bottom, width, height } = BOX;
    const xs = this.plot.ticks.length
      ? this.plot.ticks
      : (this.xlog ? logTicks(this.x.low, this.x.high) : roundTicks(this.x.low, this.x.high)).map((tick) => [tick, plain(tick)]);
    const ys = this.ylog ? logTicks(this.y.low, this.y.high) : roundTicks(this.y.low, this.y.high);
    const label = (x, y, anchor, text, kind = "tick") => shape("text", { x, y, "text-anchor": anchor, class: kind }, text);
    let free = -Infinity;
    const named = [];
    for (const [place, name] of xs) {
      const x = this.x(place);
      if (x - 4 * name.length < free) continue;
      named.push(label(x, height - bottom + 18, "middle", name));
      free = x + 4 * name.length;
    }
    return [
      ...ys.map((tick) => shape("line", { x1: left, x2: width - right, y1: this.y(tick), y2: this.y(tick), class: "grid" })),
      ...ys.map((tick) => label(left - 8, this.y(tick) + 4, "end", this.plot.percent ? `${Math.round(100 * tick)} %` : plain(tick))),
      ...named,
      label(left, 14, "start", this.plot.y, "title"),
      label((left + width - right) / 2, height - 6, "middle", this.plot.x, "title"),
    ];
  }

  curve(series) {
    const places = series.points.map(([x, y]) => [this.x(x), this.y(y)]);
    const clamp = (value) => this.y(Math.min(this.y.high, Math.max(this.y.low, value)));
    const banded = series.points.filter(([, , low, high]) => low !== null && high !== null);
    const upper = banded.map(([x, , , high]) => `${this.x(x)},${clamp(high)}`);
    const lower = banded.map(([x, , low]) => `${this.x(x)},${clamp(low)}`).reverse();
    const colour = `c${series.colour}`;
    const parts = [];
    if (banded.length > 1 && series.line) {
      parts.push(shape("polygon", { points: [...upper, ...lower].join(" "), class: `band ${colour}` }));
    } else {
      for (const [x, , low, high] of banded) {
        parts.push(shape("line", { x1: this.x(x), x2: this.x(x), y1: clamp(low), y2: clamp(high), class: `line ${colour}` }));
      }
    }
    if (series.line) {
      const stroke = { "stroke-dasharray": DASHES[series.dash % DASHES.length], "stroke-width": series.strong ? 3 : 1.6 };
      const corners = places.flatMap(([x, y], index) => (series.steps && index ? [[x, places[index - 1][1]], [x, y]] : [[x, y]]));
      if (series.steps && corners.length) corners.push([BOX.width - BOX.right, corners.at(-1)[1]]);
      parts.push(shape("polyline", { points: corners.map((place) => place.join(",")).join(" "), class: `line ${colour}`, ...stroke }));
    }
    if (places.length < 30) parts.push(...places.map(([x, y]) => shape("circle", { cx: x, cy: y, r: series.line ? 2.6 : 5, class: `dot ${colour}` })));
    return parts;
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const scale = BOX.width / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    let nearest = -1;
    let best = NEAR;
    this.points.forEach(({ point }, index) => {
      const distance = Math.hypot(this.x(point[0]) - x, this.y(point[1]) - y);
      if (distance < best) [nearest, best] = [index, distance];
    });
    if (nearest < 0) this.release();
    else this.mark(nearest);
  }

  step(event) {
    const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (event.key === "Escape") this.release();
    if (!(event.key in moves) || !this.points.length) return;
    event.preventDefault();
    const next = this.at < 0 && moves[event.key] < 0 ? this.points.length - 1 : this.at + moves[event.key];
    this.mark((next + this.points.length) % this.points.length);
    this.spoken.textContent = this.tip.textContent;
  }

  /** Show a point's curve, value and interval. */
  mark(index) {
    this.at = index;
    const { series, point } = this.points[index];
    const [x, y, low, high, label] = point;
    const tick = this.plot.ticks.find(([place]) => Math.abs(place - x) < 1e-6 * (1 + Math.abs(x)));
    const where = label || `${this.plot.x}: ${tick ? tick[1] : plain(x)}`;
    const interval = low === null || high === null ? "" : ` [${this.spell(low)}, ${this.spell(high)}]`;
    this.tip.replaceChildren(element("strong", {}, series.label), ` ${where}: `, element("b", {}, this.spell(y)), interval);
    this.tip.hidden = false;
    this.marker.setAttribute("cx", this.x(x));
    this.marker.setAttribute("cy", this.y(y));
    this.marker.setAttribute("class", `marker c${series.colour}`);
    this.marker.setAttribute("visibility", "visible");
    const scale = this.svg.getBoundingClientRect().width / BOX.width;
    const room = this.svg.getBoundingClientRect().width - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(this.x(x) * scale + 12, room))}px`;
    this.tip.style.top = `${this.y(y) * scale + 14}px`;
  }

  release() {
    this.at = -1;
    this.spoken.textContent = "";
    this.tip.hidden = true;
    this.marker.setAttribute("visibility", "hidden");
  }
}

function startCharts() {
  const charts = [...document.querySelectorAll("figure[data-plot]")]
    .filter((figure) => data.plots[figure.dataset.plot].series.length)
    .map((figure) => new Chart(figure, data.plots[figure.dataset.plot], `h${figure.dataset.plot}`));
  follow((key) => charts.filter((chart) => key === undefined || key === chart.key).forEach((chart) => chart.show()));
}
