// Refresh the preview of a schedule's next runs while the form is filled in. Without this script it shows the saved schedule.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const shown = document.getElementById("tenant-q-upcoming");
  const address = document.getElementById("tenant-q-preview-url");
  const form = document.getElementById("schedule_form");
  if (!shown || !address || !form) {
    return;
  }
  let timer;
  let latest = 0;
  const refresh = async () => {
    const own = ++latest;
    try {
      const answer = await fetch(address.dataset.url, {method: "POST", body: new FormData(form)});
      const text = await answer.text();
      if (answer.ok && own === latest) {
        shown.innerHTML = text;
      }
    } catch {
      // Without an answer the preview stays as it is. Saving the form shows what is wrong.
    }
  };
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(refresh, 400);
  };
  form.addEventListener("input", soon);
  form.addEventListener("change", soon);
});
