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
  // While the script sends the slices, nobody needs the button that does.
  const hideButton = (isHidden) => {
    const button = next()?.querySelector("button");
    if (button) {
      button.hidden = isHidden;
    }
  };
  const send = async (form) => {
    try {
      const answer = await fetch(form.action, {
        method: "POST",
        body: new FormData(form),
        headers: {"X-Requested-With": "XMLHttpRequest"},
      });
      if (answer.ok && !answer.redirected) {
        shown.innerHTML = await answer.text();
        hideButton(true);
        return true;
      }
    } catch {
      // The button continues from here.
    }
    hideButton(false);
    return false;
  };
  const run = async () => {
    hideButton(true);
    for (let form = next(); form && (await send(form)); form = next()) {
      await pause();
    }
  };
  run();
});
