// Start: read the view from the address, build every part, and follow the address when it changes.

readAddress();
document.documentElement.classList.add("scripted");
startChoices();
startTables();
startCharts();
startImages();
startCells();
document.addEventListener("click", keepChoices);
addEventListener("hashchange", () => {
  readAddress();
  for (const listener of listeners) listener();
  scrollToSection();
});
addEventListener("beforeprint", () => document.querySelectorAll("#details details").forEach((part) => (part.open = true)));
scrollToSection();
