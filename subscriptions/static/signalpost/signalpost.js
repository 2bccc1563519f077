// What a page does more where scripts run. Nothing needs it.
"use strict";

// The reader's zone, for the server's times.
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
if (zone && !document.cookie.includes("signalpost_zone=")) {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `signalpost_zone=${encodeURIComponent(zone)}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
}

// <button data-copy="id">: copies the text of the element with that id.
// <a data-copy-from="address">: copies what that address answers. Browsers
// copy only over HTTPS and on localhost; elsewhere the link is followed.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy], [data-copy-from]");
  if (!button || !navigator.clipboard) return;
  event.preventDefault();
  const text = await copied(button);
  if (text === null) location.assign(button.href);
  else {
    await navigator.clipboard.writeText(text);
    say(button, button.dataset.copied || "Copied");
  }
});
async function copied(button) {
  if (button.dataset.copy) {
    const source = document.getElementById(button.dataset.copy);
    return "value" in source ? source.value : source.textContent;
  }
  const answer = await fetch(button.dataset.copyFrom);
  return answer.ok && !answer.redirected ? answer.text() : null;
}
function say(button, word) {
  if (!button.dataset.before) button.dataset.before = button.textContent;
  button.textContent = word;
  setTimeout(() => { button.textContent = button.dataset.before; }, 1500);
}

// <button data-opens="id">: opens a <dialog>; without scripts it is a link to a page that asks.
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-opens]");
  const dialog = opener && document.getElementById(opener.dataset.opens);
  if (!dialog) return;
  event.preventDefault();
  dialog.showModal();
});

// A double click does one thing.
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) event.preventDefault();
  else if (event.target.method === "post" && !event.target.hasAttribute("data-again")) event.target.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// A menu closes when the reader looks elsewhere.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

// On a narrow screen, the section that the page belongs to can be seen.
const section = document.querySelector(".sections [aria-current]");
if (section) section.parentElement.scrollLeft = section.offsetLeft - (innerWidth - section.offsetWidth) / 2;

// CSRF for htmx: the token of the page, from a cookie that scripts may read.
document.addEventListener("htmx:configRequest", (event) => {
  const found = document.cookie.match(/(?:^|; )csrftoken=([^;]+)/);
  if (found) event.detail.headers["X-CSRFToken"] = found[1];
});

// A part that cannot be had is asked for as a whole page, which says what is
// wrong. What asks by itself asks again anyway.
function askForAll(event) {
  const from = event.detail.elt;
  if (from.tagName === "A") location.assign(from.href);
  else if (from.tagName === "FORM") from.submit();
}
document.addEventListener("htmx:responseError", askForAll);
document.addEventListener("htmx:sendError", askForAll);

// Create and edit a subscription: the grid of topics.
document.documentElement.classList.add("scripts");
const grid = document.getElementById("grid");
const find = document.getElementById("grid-find");

function filterGrid() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const body of grid.tBodies) {
    let any = false;
    for (const row of body.querySelectorAll(".grid-model")) {
      row.hidden = !words.every((word) => row.dataset.words.includes(word));
      any ||= !row.hidden;
      shown += !row.hidden;
    }
    body.hidden = !any;
  }
  document.querySelector(".grid-none").hidden = shown > 0;
  for (const single of document.querySelectorAll(".grid-singles .check")) {
    single.hidden = !words.every((word) => single.dataset.words.includes(word));
  }
}

if (grid && find) {
  find.addEventListener("input", filterGrid);
  find.addEventListener("search", filterGrid);
  find.addEventListener("keydown", (event) => {
    if (event.key === "Enter") event.preventDefault();
  });
  // The button is for those without scripts; Enter in another field must not press it.
  for (const button of document.querySelectorAll("[data-only-without-scripts]")) button.type = "button";

  // Beside the grid, the body of the topic that is looked at.
  const sample = document.getElementById("sample");
  let shownTopic = "";
  let waiting = 0;
  const show = (input) => {
    const topic = input.name === "changed" ? input.value.split(":")[0] : input.value;
    if (topic.endsWith("*") || topic === shownTopic) return;
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      shownTopic = topic;
      htmx.ajax("GET", `${sample.dataset.topics}${topic}/`, { target: "#sample", swap: "innerHTML" });
    }, 150);
  };
  // How much is chosen, which the box around the grid hides.
  const topics = document.getElementById("id_topics");
  const chosen = document.getElementById("chosen");
  const lines = document.getElementById("id_others");
  const count = () => {
    const written = lines.value.split("\n").filter((line) => line.trim()).length;
    const ticked = topics.querySelectorAll('[name="topic"]:checked').length + written;
    if (topics.querySelector("#grid-everything:checked")) chosen.textContent = chosen.dataset.everything;
    else if (ticked < 2) chosen.textContent = ticked ? chosen.dataset.one : chosen.dataset.none;
    else chosen.textContent = chosen.dataset.many.replace("%s", ticked);
  };
  count();
  topics.addEventListener("input", count);
  const firstTicked = grid.querySelector("input:checked");
  if (firstTicked) {
    const box = grid.closest(".grid-box");
    box.scrollTop = firstTicked.closest("tr").offsetTop - box.clientHeight / 3;
  }

  topics.addEventListener("focusin", (event) => {
    if (event.target.matches('input[type="checkbox"]')) show(event.target);
  });
  topics.addEventListener("change", (event) => {
    if (!event.target.matches('input[type="checkbox"]')) return;
    show(event.target);
    const only = event.target.closest(".grid-only");
    if (!only) return;
    const names = [...only.querySelectorAll("input:checked")].map((input) => input.value.split(":")[1]);
    const said = only.querySelector("summary strong");
    said.textContent = names.join(", ") || said.dataset.any;
  });
}

// The check of a URL says at its field what is wrong with it.
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.target.id !== "id_url_said") return;
  const input = document.getElementById("id_url");
  if (event.target.querySelector(".errorlist")) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
});

// <a data-closes>: closes the dialog that it is in; elsewhere it is a link.
document.addEventListener("click", (event) => {
  const closer = event.target.closest("dialog [data-closes]");
  if (!closer) return;
  event.preventDefault();
  closer.closest("dialog").close();
});

// What is too much for one request goes on by itself.
for (const form of document.querySelectorAll("form[data-goes-on]")) form.requestSubmit();
