// Keeps a page up to date. Everything works without it; nothing is made here that the server did not
// write.
"use strict";

const parse = (text) => new DOMParser().parseFromString(text, "text/html");

// What the address says now, or nothing when it can't be had: then the page stays as it was.
async function fetched() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (answer.redirected) location.assign(answer.url);
  return answer.ok ? parse(await answer.text()) : null;
}

function replace(selector, fresh) {
  const [old, next] = [document.querySelector(selector), fresh.querySelector(selector)];
  if (old && next && old.innerHTML !== next.innerHTML && !old.contains(document.activeElement)) {
    old.replaceChildren(...next.childNodes);
  }
}

const main = document.querySelector("main[data-refresh]");
if (main) {
  const refresh = async () => {
    if (document.hidden) return;
    const fresh = await fetched().catch(() => null);
    if (fresh) {
      replace("main", fresh);
      replace("footer", fresh);
      document.title = fresh.title;
    }
  };
  setInterval(refresh, Number(main.dataset.refresh) * 1000);
  document.addEventListener("visibilitychange", refresh);
}

const run = document.querySelector("[data-run]");
if (run) {
  const log = document.querySelector("#log");
  const events = new EventSource(`/api/v1/runs/${run.dataset.run}/events`);
  const state = async () => {
    const fresh = await fetched().catch(() => null);
    if (fresh) replace("#state", fresh);
    return fresh;
  };
  let waiting = false;
  // Several events at once are one look.
  const look = () => {
    if (waiting) return;
    waiting = true;
    setTimeout(async () => {
      waiting = false;
      await state();
    }, 500);
  };
  let first = true;
  events.addEventListener("log", (event) => {
    // The stream begins with the whole log.
    if (first) log.textContent = "";
    first = false;
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(`${event.data}\n`);
    if (atEnd) log.scrollTop = log.scrollHeight;
  });
  events.addEventListener("progress", look);
  events.addEventListener("end", () => {
    events.close();
    run.removeAttribute("data-run");
    state();
  });
}
