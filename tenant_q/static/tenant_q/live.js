// Refresh live data every few seconds while its page is visible and not in use, until the data says that it has ended.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const shown = document.getElementById("tenant-q-live");
  if (!shown) {
    return;
  }
  for (const frame of shown.querySelectorAll(".tenant-q-graph-frame")) {
    frame.scrollLeft = (frame.scrollWidth - frame.clientWidth) / 2; // the first steps are in the middle
  }
  let last;
  const scrolled = () => [...shown.querySelectorAll("[data-keep-scroll]")];
  const offerAll = () => shown.querySelectorAll("[data-select-all]").forEach((box) => { box.hidden = false; });
  offerAll();
  shown.addEventListener("change", (event) => {
    if (event.target.matches("[data-select-all]")) {
      shown.querySelectorAll("input[name=id]").forEach((box) => { box.checked = event.target.checked; });
    }
  });
  const replace = (text) => {
    const places = scrolled().map((one) => [one.scrollLeft, one.scrollTop]);
    const focused = scrolled().indexOf(document.activeElement);
    shown.innerHTML = text;
    offerAll();
    scrolled().forEach((one, number) => {
      [one.scrollLeft, one.scrollTop] = places[number] || [0, 0];
    });
    scrolled()[focused]?.focus({preventScroll: true});
  };
  const hasEnded = () => shown.querySelector("[data-live-ended]") !== null;
  const isInUse = () => {
    const selection = getSelection();
    const isSelected = !selection.isCollapsed && shown.contains(selection.anchorNode);
    const isFocused = shown.contains(document.activeElement) && !scrolled().includes(document.activeElement);
    const isChosen = shown.querySelector("input:checked") !== null;
    return isFocused || shown.matches(":active") || isSelected || isChosen;
  };
  const refresh = async () => {
    if (document.hidden || isInUse() || hasEnded()) {
      return;
    }
    try {
      const answer = await fetch(shown.dataset.url, {headers: {"X-Requested-With": "XMLHttpRequest"}});
      if (answer.ok && !answer.redirected) {
        const text = await answer.text();
        if (text !== last && !isInUse()) {
          replace(text);
          last = text;
        }
      }
    } catch {
      // The next request may succeed.
    }
  };
  setInterval(refresh, 3000);
});
