"""A real Chromium, through Selenium: what a person sees and does in the dashboard.

Selenium's calls block, and the server under test runs in the event loop of the test. So a test calls a
method of `Browser`, and awaits it; it runs in a thread.
"""

from __future__ import annotations

import asyncio
import base64
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.limits import HANG

#: axe-core 4.14.1, which finds what people with a disability cannot use. Its licence is axe.LICENSE.
AXE = Path(__file__).with_name("axe.min.js")
#: Runs axe-core and hands over what is wrong, without the much longer list of what is right.
FIND_VIOLATIONS = """
const done = arguments[arguments.length - 1];
axe.run({resultTypes: ["violations"]}).then(({violations}) => done(violations));
"""
#: Returns the texts of the elements that a selector finds, as a person reads them. WebDriver's own way to
#: a text takes ten times as long, and tests read texts all the time.
READ_TEXTS = r"""
const read = (each) => {
    if (!each.checkVisibility()) return "";
    const text = each.matches("textarea, svg, svg *") ? each.textContent : each.innerText;
    if (getComputedStyle(each).whiteSpace.startsWith("pre")) return text;
    return text.trim().replace(/\n?\t\n|\n\t/g, "\n").replace(/\t/g, " ");
};
return [...document.querySelectorAll(arguments[0])].map(read);
"""
#: Programs that show pages; the first one that there is runs. The shell takes less of the processor, but it
#: shows all tabs at the same time. The script in `/usr/bin` would leave it running.
SHELL, BROWSERS = "/usr/lib/chromium/chromium-headless-shell", ("chromium", "google-chrome")
#: How long a page may take to show something, in seconds.
PATIENCE = HANG
#: Interval at which it is looked for, in seconds.
INTERVAL = 0.05
#: Widths and heights that pages are looked at: a phone, a laptop, and 4K.
SIZES = {"phone": (360, 760), "laptop": (1440, 900), "wide": (3840, 2160)}
_SERVER = re.compile(r"http://127\.0\.0\.1:\d+")


class Browser:
    """One browser with one window. Its methods run in a thread, one at a time."""

    def __init__(self, *programs: str) -> None:
        options = ChromeOptions()
        options.binary_location = next(filter(None, map(shutil.which, programs)), "")
        for each in ("--headless", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
            options.add_argument(each)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self._driver = Chrome(options, Service(shutil.which("chromedriver")))
        self._thread = ThreadPoolExecutor(1)
        self._base = ""

    async def run(self, work: Callable[[Chrome], Any]) -> Any:
        """Call something with the driver."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._driver)

    async def log_in_with_form(self, base: str, token: str) -> None:
        """Log in at a server, as a person does with a token. Later paths are of this server."""
        self._base = base
        await self.run(lambda driver: driver.delete_all_cookies())
        await self.open("/login")
        await self.fill("token", token)
        await self.press("Log in")

    async def log_in(self, base: str, token: str) -> None:
        """Log in at a server, and open no page: two pages less than with the form."""
        self._base = base
        async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
            answer = await client.post("/login", data={"token": token}, headers={"Origin": base})
        assert answer.status_code == 303, answer.text
        await self.command("Network.clearBrowserCookies")
        for name, value in answer.cookies.items():
            cookie = {"name": name, "value": value, "url": base, "httpOnly": True, "sameSite": "Strict"}
            assert (await self.command("Network.setCookie", cookie))["success"]

    async def open(self, path: str) -> None:
        """Go to a page of the server."""
        await self.run(lambda driver: driver.get(self._base + path))

    async def address(self) -> str:
        """Return the path and the query of the page."""
        return str(await self.run(lambda driver: driver.current_url)).removeprefix(self._base)

    async def text(self, css: str = "main") -> str:
        """Return the text of an element, once it is there."""
        return await self.until(css, lambda _: True)

    async def texts(self, css: str) -> Sequence[str]:
        """Return the texts of all elements that a selector finds now."""
        return list(await self.run(lambda driver: driver.execute_script(READ_TEXTS, css)))

    async def fill(self, name: str, value: str) -> None:
        """Write into a field of a form, or choose from its list."""

        def work(driver: Chrome) -> None:
            field = _found(driver, f'[name="{name}"]')
            if field.tag_name == "select":
                Select(field).select_by_value(value)
            else:
                field.clear()
                field.send_keys(value)

        await self.run(work)

    async def submit(self, name: str) -> None:
        """Press Enter in a field, and wait for the next page."""
        await self.run(lambda driver: _leave(driver, lambda: _found(driver, f'[name="{name}"]').submit()))

    async def type_keys(self, *keys: str) -> None:
        """Type keys on the page, not in a field."""
        await self.run(lambda driver: driver.find_element(By.TAG_NAME, "body").send_keys(*keys))

    async def press_key(self, *keys: str) -> None:
        """Type a text, or press a key such as `Enter` or `Escape`, wherever the focus is."""
        typed = [getattr(Keys, key.upper(), key) for key in keys]
        await self.run(lambda driver: driver.switch_to.active_element.send_keys(*typed))

    async def press(self, label: str, within: str = "body") -> None:
        """Press the button, or follow the link, that a person reads as `label`; wait for the next page."""

        def work(driver: Chrome) -> None:
            xpath = f".//*[self::button or self::a or self::summary][normalize-space()={_quoted(label)}]"
            place = _found(driver, within)
            found = _wait(driver).until(lambda _: place.find_elements(By.XPATH, xpath))[0]
            driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
            if found.tag_name == "summary":
                found.click()
            else:
                _leave(driver, found.click)

        await self.run(work)

    async def press_first(self, css: str) -> None:
        """Press an element that stays on the page, such as a summary or a radio button."""
        await self.run(lambda driver: _found(driver, css).click())

    async def until(self, css: str, condition: Callable[[str], bool]) -> str:
        """Wait until the text of an element satisfies a condition; return the text."""
        texts: list[str] = []

        def holds(driver: Chrome) -> bool:
            texts[:] = driver.execute_script(READ_TEXTS, css)[:1]
            return bool(texts) and condition(texts[0])

        def work(driver: Chrome) -> str:
            try:
                _wait(driver).until(lambda _: holds(driver))
            except TimeoutException:
                raise AssertionError(f"{css} has the text {texts}") from None
            return texts[0]

        return str(await self.run(work))

    async def messages(self) -> Sequence[str]:
        """Return what pages of the server logged since the last call: errors of scripts, refused sources."""
        logged = [each["message"] for each in await self.run(lambda driver: driver.get_log("browser"))]
        # The page of the last test may have logged that its server is gone.
        return [each for each in logged if self._base in each or not _SERVER.search(each)]

    async def set_size(self, name: str) -> None:
        """Give the window a size of SIZES."""
        width, height = SIZES[name]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": name == "phone"}
        await self.command("Emulation.setDeviceMetricsOverride", metrics)

    async def set_theme(self, theme: str) -> None:
        """Prefer `light` or `dark`, as the settings of the system do."""
        feature = {"name": "prefers-color-scheme", "value": theme}
        await self.command("Emulation.setEmulatedMedia", {"features": [feature]})

    def reset(self, *, javascript: bool = True) -> None:
        """Give the window the size and the theme that it has at first, and run scripts of pages or none."""
        width, height = SIZES["laptop"]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        for name, options in (
            ("Emulation.setDeviceMetricsOverride", metrics),
            ("Emulation.setEmulatedMedia", {"features": []}),
            ("Emulation.setScriptExecutionDisabled", {"value": not javascript}),
        ):
            self._thread.submit(self._driver.execute_cdp_cmd, name, options).result(PATIENCE)

    async def picture(self, path: Path, *, whole: bool = True) -> None:
        """Write a picture of the page, in WebP; the whole page, or the part in the window."""
        options = {"format": "webp", "quality": 80, "captureBeyondViewport": whole}
        answer = await self.command("Page.captureScreenshot", options)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))

    async def violations(self) -> Sequence[str]:
        """Return what axe-core finds on the page: the rule, and the first element."""

        def work(driver: Chrome) -> list[str]:
            found = driver.execute_async_script(AXE.read_text() + FIND_VIOLATIONS)
            return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]

        return list(await self.run(work))

    async def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(await self.run(lambda driver: driver.execute_script(script)))

    async def command(self, name: str, options: dict[str, Any] | None = None) -> Any:
        """Send a command of Chrome's DevTools protocol."""
        return await self.run(lambda driver: driver.execute_cdp_cmd(name, options or {}))

    def close(self) -> None:
        """End the browser."""
        self._driver.quit()
        self._thread.shutdown()


def _wait(driver: Chrome) -> WebDriverWait[Chrome]:
    return WebDriverWait(driver, PATIENCE, INTERVAL)


def _found(driver: Chrome, css: str) -> WebElement:
    found: list[WebElement] = _wait(driver).until(lambda _: driver.find_elements(By.CSS_SELECTOR, css))
    return found[0]


def _leave(driver: Chrome, act: Callable[[], None]) -> None:
    """Do something that leaves the page, and wait until another one is there."""
    page = driver.find_element(By.TAG_NAME, "html")
    act()

    def has_left(_: object) -> bool:
        try:
            return not page.is_enabled()
        except TimeoutException:
            raise
        except WebDriverException:  # stale, or "does not belong to the document" at the wrong moment
            return True

    _wait(driver).until(has_left)


def _quoted(text: str) -> str:
    return f'"{text}"' if '"' not in text else f"'{text}'"


ESCAPE, ENTER = Keys.ESCAPE, Keys.ENTER
