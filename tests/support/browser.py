"""Drives the page in a real Chromium and prints what it saw as JSON.

usage: browser.py BASE TOKEN FOLDER FLOW [PATH...]

FLOW is `screens` (each PATH, light and dark, wide and phone), `live` (start a backup of the job page
PATH and follow it), `plain` (the same without JavaScript) or `keyboard`."""

import json
import sys

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

BASE, TOKEN, FOLDER, FLOW, *PATHS = sys.argv[1:]
SIZES = {"wide": (1280, 900), "phone": (390, 844)}
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
           "--disable-background-networking", "--disable-component-update"]
console = []


def opened(browser, **options):
    page = browser.new_context(base_url=BASE, **options).new_page()
    page.on("console", lambda said: said.type in ("warning", "error") and console.append(said.text))
    page.on("pageerror", lambda error: console.append(str(error)))
    return page


def log_in(page):
    page.goto("/")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Log out").wait_for()


def screens(browser):
    seen = []
    for scheme in ("light", "dark"):
        for name, (width, height) in SIZES.items():
            page = opened(browser, color_scheme=scheme, viewport={"width": width, "height": height})
            page.goto("/login")
            visited = [("/login", look(page, name, scheme, width))]
            log_in(page)
            for path in PATHS:
                page.goto(path)
                visited.append((path, look(page, name, scheme, width)))
            seen += [{"path": path, "size": name, "scheme": scheme, **what} for path, what in visited]
    return {"screens": seen}


def look(page, size, scheme, width):
    shot = page.url.removeprefix(BASE).strip("/").replace("/", "_") or "overview"
    page.screenshot(path=f"{FOLDER}/{shot}-{size}-{scheme}.png", full_page=True)
    violations = Axe().run(page).response["violations"]
    return {
        "title": page.title(),
        "heading": page.locator("h1").inner_text(),
        "too_wide": page.evaluate("document.documentElement.scrollWidth") - width,
        "violations": [f'{v["id"]}: {v["nodes"][0]["html"]}' for v in violations],
    }


def live(browser):
    page = opened(browser)
    log_in(page)
    page.goto(PATHS[0])
    page.get_by_role("button", name="Back up now").click()
    page.wait_for_url("**/runs/*")
    url, arrivals = page.url, []
    page.on("framenavigated", lambda frame: arrivals.append(frame.url))
    progress, lines = [], []
    badge = page.locator("#state .badge").first
    for _ in range(600):
        if badge.inner_text() in ("succeeded", "partial", "failed"):
            break
        # Asked for at once: a moment later the run may be over, and its bar gone.
        progress += page.locator("#state progress").evaluate_all("all => all.map(one => Number(one.getAttribute('value')))")
        lines.append(len(page.locator("#log").inner_text().splitlines()))
        page.wait_for_timeout(100)
    return {"url": url, "state": badge.inner_text(), "arrivals": arrivals, "progress": progress,
            "lines": lines, "log": page.locator("#log").inner_text()}


def plain(browser):
    page = opened(browser, java_script_enabled=False)
    log_in(page)
    sentence = page.locator("h1").inner_text()
    page.goto(PATHS[0])
    page.get_by_role("button", name="Back up now").click()
    page.wait_for_url("**/runs/*")
    begun = page.locator("#state .badge").first.inner_text()
    # It asks again by itself.
    page.locator("#state .badge", has_text="succeeded").wait_for(timeout=60_000)
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.goto("/")
    return {"sentence": sentence, "begun": begun, "left": page.url.removeprefix(BASE)}


def keyboard(browser):
    page = opened(browser)
    log_in(page)
    page.goto("/")
    page.keyboard.press("Tab")
    skip = page.evaluate("document.activeElement.textContent")
    seen = page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    inside = page.evaluate("document.querySelector('main').contains(document.activeElement)")
    named = [element.get_attribute("aria-label") for element in page.locator("svg[role=img]").all()]
    return {"skip": skip, "seen": seen, "inside": inside, "pictures": named}


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=OPTIONS)
    seen = {"screens": screens, "live": live, "plain": plain, "keyboard": keyboard}[FLOW](browser)
    browser.close()
print(json.dumps({**seen, "console": console}))
