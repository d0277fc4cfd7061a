// Send slice after slice of an act on failures, and show its progress. Without this script "Continue" sends the next one.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const shown = document.getElementById("tenant-q-acting");
  if (!shown) {
    return;
  }
  const pause = () => new Promise((resolve) => setTimeout(resolve, 100));
  // The form of the next slice is there until all is done, an error has happened or this script has failed.
  const next = () => shown.querySelector("form[data-next-slice]");
  const send = async (form) => {
    const button = form.querySelector("button");
    const fields = new FormData(form);
    button.hidden = true; // the script sends what the button would send
    try {
      const answer = await fetch(form.action, {
        method: "POST",
        body: fields,
        headers: {"X-Requested-With": "XMLHttpRequest"},
      });
      if (answer.ok && !answer.redirected) {
        shown.innerHTML = await answer.text();
        return true;
      }
    } catch {
      // The button continues from here.
    }
    button.hidden = false;
    return false;
  };
  const run = async () => {
    for (let form = next(); form && (await send(form)); form = next()) {
      await pause();
    }
  };
  run();
});
