// Tables that show what is now are asked for again every few seconds, while somebody looks at them.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const shown = document.getElementById("tenant-q-live");
  if (!shown) {
    return;
  }
  const refresh = async () => {
    const isInUse = shown.contains(document.activeElement) || shown.matches(":active");
    if (document.hidden || isInUse) {
      return;
    }
    try {
      const answer = await fetch(shown.dataset.url, {headers: {"X-Requested-With": "XMLHttpRequest"}});
      if (answer.ok && !answer.redirected) {
        shown.innerHTML = await answer.text();
      }
    } catch {
      // The next one may come through.
    }
  };
  setInterval(refresh, 3000);
});
