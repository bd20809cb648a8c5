#!/usr/bin/env python3
"""Opens reports in headless Chromium: how long until all is drawn, what fails, what is asked of others, and pictures.

open-report.py PAGE.html... [--pictures FOLDER] [--limit SECONDS]

Prints a line a page and ends with status 1 where one takes longer than the limit (3 s), throws, asks for anything, is
wider than its window, or does not answer its keys. Needs Chromium (Debian: chromium), nothing else.
"""

import argparse
import base64
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

KEYS = ["ArrowRight", "ArrowRight", "ArrowDown", "End", "Home", "n", "j", "l", "m", "w", "t", "a"]
FACTS = """JSON.stringify({
  load: performance.timing.loadEventEnd - performance.timing.navigationStart,
  elements: document.querySelectorAll("*").length,
  isWide: document.documentElement.scrollWidth > innerWidth,
  token: state.token, said: element("spoken").textContent})"""


class Browser:
    """Chromium, spoken to over its DevTools pipe: JSON messages that end with a zero byte."""

    def __init__(self, folder):
        # The browser reads from descriptor 3 and writes to 4.
        (its_input, self.output), (self.input, its_output) = os.pipe(), os.pipe()
        command = [
            "sh", "-c", f'exec "$@" 3<&{its_input} 4>&{its_output}', "sh", "chromium", "--headless=new", "--no-sandbox",
            "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(
            command, pass_fds=(its_input, its_output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(its_input)
        os.close(its_output)
        self.rest, self.number, self.events, self.session = b"", 0, [], None

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.output, data):]
        while True:
            while b"\0" not in self.rest:
                part = os.read(self.input, 1 << 20)
                if not part:
                    sys.exit("chromium ended")
                self.rest += part
            one, self.rest = self.rest.split(b"\0", 1)
            answer = json.loads(one)
            if answer.get("id") == self.number:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        return result["result"].get("value")

    def frame(self):
        self.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 30)))")


def visit(browser, page, width, height, theme):
    """Opens a page in a window of its own; the seconds until it has drawn everything."""
    browser.session = None
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    browser.events = []
    for domain in ["Page", "Runtime", "Network", "Log"]:
        browser.call(domain + ".enable")
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    start = time.monotonic()
    browser.call("Page.navigate", url=page.resolve().as_uri())
    while browser.evaluate("document.documentElement.dataset.state") != "ready":
        if time.monotonic() - start > 60:
            sys.exit(f"{page}: not drawn after 60 s")
        time.sleep(0.01)
    return time.monotonic() - start


def faults(browser):
    """What went wrong on a page, and what it asked for beyond itself."""
    found = []
    for event in browser.events:
        details = event.get("params", {})
        if event["method"] == "Runtime.exceptionThrown":
            found.append(details["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        elif event["method"] == "Log.entryAdded" and details["entry"]["level"] == "error":
            found.append(details["entry"]["text"])
        elif event["method"] == "Page.javascriptDialogOpening":
            found.append("a dialog: " + details["message"])
        elif event["method"] == "Network.requestWillBeSent" and details.get("type") != "Document":
            found.append("asks for " + details["request"]["url"][:100])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="+", type=pathlib.Path)
    parser.add_argument("--pictures", type=pathlib.Path, help="a folder for screenshots and the printed page")
    parser.add_argument("--limit", type=float, default=3, help="seconds until a page has drawn everything")
    options = parser.parse_args()
    is_good = True
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(folder)
        for page in options.pages:
            for width, height in [(1280, 900), (390, 844)]:
                for theme in ["light", "dark"]:
                    seconds = visit(browser, page, width, height, theme)
                    before = json.loads(browser.evaluate(FACTS))
                    for key in KEYS:
                        browser.evaluate(
                            'element("text").dispatchEvent(new KeyboardEvent("keydown", '
                            f'{{key: "{key}", bubbles: true, cancelable: true}}))')
                        browser.frame()
                    # Back to the theme that was asked for.
                    browser.evaluate("turnTheme()")
                    browser.frame()
                    after = json.loads(browser.evaluate(FACTS))
                    wrong = faults(browser)
                    if seconds > options.limit:
                        wrong.append(f"more than {options.limit} s")
                    if before["isWide"] or after["isWide"]:
                        wrong.append("wider than its window")
                    if after["token"] is None or not after["said"]:
                        wrong.append("no answer to keys")
                    print(
                        f"{page.name}, {width} wide, {theme}: {page.stat().st_size / 1e6:.2f} MB, drawn after "
                        f"{seconds:.2f} s, {before['elements']} elements" + "".join(f"; {fault}" for fault in wrong))
                    is_good = is_good and not wrong
                    if options.pictures:
                        options.pictures.mkdir(parents=True, exist_ok=True)
                        name = f"{page.stem}-{width}-{theme}"
                        shot = browser.call("Page.captureScreenshot", format="png")["data"]
                        (options.pictures / f"{name}.png").write_bytes(base64.b64decode(shot))
                        if (width, theme) == (1280, "light"):
                            paper = browser.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"]
                            (options.pictures / f"{page.stem}.pdf").write_bytes(base64.b64decode(paper))
                    browser.call("Page.close")
        browser.session = None
        browser.call("Browser.close")
        browser.process.wait(timeout=30)
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
