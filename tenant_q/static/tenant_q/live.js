// Refresh a table of live data every few seconds while its page is visible and not in use.
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
      // The next request may succeed.
    }
  };
  setInterval(refresh, 3000);
});
