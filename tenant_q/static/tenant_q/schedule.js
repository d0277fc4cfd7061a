// The preview of a schedule's next fires, kept as the form is filled in. Without this script it is right once saved.
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
  const ask = async () => {
    const own = ++latest;
    try {
      const answer = await fetch(address.dataset.url, {method: "POST", body: new FormData(form)});
      const text = await answer.text();
      if (answer.ok && own === latest) {
        shown.innerHTML = text;
      }
    } catch {
      // Without an answer the preview stays as it was; saving shows what is wrong.
    }
  };
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(ask, 400);
  };
  form.addEventListener("input", soon);
  form.addEventListener("change", soon);
});
