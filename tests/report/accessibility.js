// What of a page cannot be read or reached, as lists of texts: evaluated in the page by test_accessible.py.
(() => {
  const channels = (text) => (text.match(/[\d.]+/g) || []).map(Number);
  const luminance = (rgb) => {
    const linear = rgb.slice(0, 3).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ratio = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = channels(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const shown = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;
  const name = (element) => `${element.tagName.toLowerCase()}.${element.getAttribute("class") || ""} ${element.textContent.trim().slice(0, 40)}`;
  const pale = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !shown(element) || element.closest("script, style, :disabled, option")) continue;
    const style = getComputedStyle(element);
    const colour = channels(element.closest("svg") ? style.fill : style.color);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const seen = ratio(colour, ground(element));
    if (seen < (large ? 3 : 4.5)) pale.add(`${seen.toFixed(2)} ${name(element)}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].filter(shown).map((head) => Number(head.tagName[1]));
  return {
    pale: [...pale],
    twice: ids.filter((id, index) => ids.indexOf(id) !== index),
    "labels of nothing": [...document.querySelectorAll("label")].filter((label) => !label.control).map(name),
    "pictures without a text": [...document.querySelectorAll("img:not([alt]), img[alt='']")].map((image) => image.src.slice(0, 60)),
    "heads without a scope": [...document.querySelectorAll("table th:not([scope])")].filter((head) => head.textContent.trim()).map(name),
    "heading levels left out": levels.filter((level, index) => level > (levels[index - 1] || 0) + 1),
    "not one of each": ["main", "h1", "title", "html[lang]"].filter((what) => document.querySelectorAll(what).length !== 1),
    "small targets": [...document.querySelectorAll("button, select, input, summary")].filter(shown)
      .map((element) => [element.getBoundingClientRect(), element])
      .filter(([box]) => box.height < 24 || box.width < 24).map(([box, element]) => `${Math.round(box.width)} × ${Math.round(box.height)} ${name(element)}`),
  };
})()
