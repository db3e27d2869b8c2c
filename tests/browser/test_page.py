"""The status page as people have it: by eye, by keyboard, by screen reader, on a telephone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from healthmw import Health
from tests.browser.shops import Shops, shop
from tests.programs import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.browser.conftest import Browser

STATES = ("green", "degraded", "red")
SIZES = (1, 12, 200)
VERDICTS = {"green": "OKAY", "degraded": "OKAY, degraded", "red": "FAILED"}
WITHIN = 30.0


@pytest.fixture(scope="module")
def shops() -> Shops:
    found = Shops()
    for size in SIZES:
        for state in STATES:
            found.serve(f"{state}-{size}", shop(size, state))
    for show in ("summary", "names"):
        found.serve(f"red-12-{show}", shop(12, "red"), show)
    return found


@pytest.fixture(scope="module")
def site(shops: Shops) -> Iterator[str]:
    with served(shops) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def page(browser: Browser, site: str) -> Callable[..., Browser]:
    """Return a function that opens a page that stands still."""
    browser.complaints()

    def opened(name: str, **dress: Any) -> Browser:
        browser.dress(**dress)
        browser.driver.get(f"{site}/{name}/?format=html&refresh=0")
        return browser

    return opened


def violations(browser: Browser, axe: str) -> list[str]:
    """Return what axe-core has against the page, in all of its rules but the experimental ones."""
    browser.run(f"{axe};\nwindow.axe = axe;")
    browser.driver.set_script_timeout(60)
    found: dict[str, Any] = browser.driver.execute_async_script(
        "const done = arguments[0]; axe.run(document).then(done, e => done({error: String(e)}))"
    )
    assert "error" not in found, found
    assert found["passes"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
        for one in found["violations"]
    ]


@pytest.mark.parametrize(
    ("name", "width", "dark"),
    [
        ("red-12", 1200, False),
        ("red-12", 390, True),
        ("degraded-12", 390, False),
        ("degraded-12", 1200, True),
        ("green-1", 1200, False),
        ("green-1", 1200, True),
        ("red-12-names", 1200, False),
        ("red-12-summary", 390, True),
    ],
)
def test_axe_finds_nothing(
    page: Callable[..., Browser], axe: str, name: str, width: int, *, dark: bool
) -> None:
    browser = page(name, width=width, height=844, dark=dark)
    # So that what is folded is looked at, too.
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")

    assert violations(browser, axe) == []
    assert browser.complaints() == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("state", STATES)
def test_the_verdict_is_what_is_seen_first(
    page: Callable[..., Browser], state: str, size: int
) -> None:
    browser = page(f"{state}-{size}")
    heading = browser.driver.find_element(By.TAG_NAME, "h1")

    assert heading.text == VERDICTS[state]
    assert browser.driver.title.startswith(f"{VERDICTS[state]}: ready")
    assert heading.rect["y"] < 100
    assert heading.rect["height"] > 40
    assert browser.complaints() == []


@pytest.mark.parametrize(("width", "height"), [(1200, 900), (390, 844)])
@pytest.mark.parametrize("size", SIZES)
def test_what_is_red_is_seen_without_scrolling(
    page: Callable[..., Browser], size: int, width: int, height: int
) -> None:
    browser = page(f"red-{size}", width=width, height=height)

    first, *_ = browser.driver.find_elements(By.CSS_SELECTOR, "main li")
    assert first.text.split()[:2] == ["database", "Failed"]
    assert "refused" in first.text
    why = first.find_element(By.CLASS_NAME, "why")
    assert why.rect["y"] + why.rect["height"] < height
    links = browser.driver.find_elements(By.CSS_SELECTOR, ".lead a")
    assert links[0].text == "database"
    assert all(link.rect["y"] < height for link in links)


@pytest.mark.parametrize("width", [320, 1200])
@pytest.mark.parametrize("name", ["red-12", "green-200", "degraded-12", "red-12-names"])
def test_nothing_sticks_out(page: Callable[..., Browser], name: str, width: int) -> None:
    browser = page(name, width=width)
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")

    assert browser.run("return document.documentElement.scrollWidth") <= width


def test_it_goes_by_keyboard(page: Callable[..., Browser]) -> None:
    driver = page("red-12").driver

    def focused() -> Any:
        return driver.switch_to.active_element

    def press(key: str) -> None:
        focused().send_keys(key)

    press(Keys.TAB)
    assert focused().text == "database"
    style = driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert style == "solid"
    press(Keys.ENTER)
    assert driver.current_url.endswith("#check-database")
    while focused().tag_name != "summary":
        press(Keys.TAB)
        assert focused().tag_name in {"a", "summary"}, "the keyboard is stuck"
    details = focused().find_element(By.XPATH, "..")
    assert details.get_attribute("open") is None
    press(Keys.ENTER)
    assert details.get_attribute("open") is not None
    assert "Runs 30" in details.text.replace("\n", " ")


def test_a_screen_reader_is_told_it_all(page: Callable[..., Browser]) -> None:
    driver = page("red-12").driver
    nodes: list[dict[str, Any]] = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]

    def named(role: str) -> list[str]:
        return [
            node["name"]["value"]
            for node in nodes
            if not node["ignored"] and node["role"]["value"] == role
        ]

    headings = named("heading")
    assert headings[:3] == ["FAILED", "Failed 2", "Passing 10"]  # level by level
    assert headings[3:5] == ["database", "queue"]
    assert len(headings) == 15
    assert {"main", "banner", "contentinfo"} <= {
        node["role"]["value"] for node in nodes if not node["ignored"]
    }
    pictures = named("image")
    assert len(pictures) == 12  # the sparklines, and no icon
    assert all(one.startswith("Last 30 runs: median ") for one in pictures)
    assert sum("8 not passing" in one for one in pictures) == 2
    # What is passing says so in words, though eyes are shown a mark only.
    assert named("StaticText").count("Okay") == 10


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_follows_the_readers_own_scheme(page: Callable[..., Browser], *, dark: bool) -> None:
    browser = page("red-12", dark=dark)
    colour = browser.run("return getComputedStyle(document.body).backgroundColor")
    red, green, blue = (int(part) for part in colour[4:-1].split(","))

    assert (red + green + blue < 150) is dark


def test_the_policy_lets_no_script_run(page: Callable[..., Browser]) -> None:
    browser = page("red-12")
    browser.run(
        "const one = document.createElement('script'); one.textContent = 'window.ran = 1';"
        "document.body.append(one);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"/x.png\">')"
    )

    assert browser.run("return window.ran") is None
    complaints = browser.complaints()
    assert any("script-src" in one or "default-src" in one for one in complaints), complaints
    assert any("img-src" in one for one in complaints), complaints


def test_it_turns_red_by_itself(browser: Browser, shops: Shops, site: str) -> None:
    broken = [False]

    def probe() -> None:
        if broken[0]:
            raise OSError("no route to host")

    health = Health(max_age=0)
    health.add("database", probe)
    shops.serve("turning", health)
    browser.dress()
    # It is reloaded by what the server says, and by no script.
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.driver.get(f"{site}/turning/?format=html")
        assert browser.driver.title == "OKAY: ready"
        broken[0] = True
        deadline = time.monotonic() + WITHIN
        while browser.driver.title != "FAILED: ready":
            assert time.monotonic() < deadline, "it was not refreshed"
            time.sleep(0.1)
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "no route to host" in browser.driver.find_element(By.TAG_NAME, "main").text


def test_it_can_be_made_to_stand_still(browser: Browser, site: str) -> None:
    browser.dress()
    browser.driver.get(f"{site}/red-12/?format=html")
    browser.driver.find_element(By.LINK_TEXT, "Pause").click()

    assert "Updates are paused." in browser.driver.find_element(By.TAG_NAME, "footer").text
    assert browser.driver.current_url.endswith("/red-12/?format=html&refresh=0")
    browser.driver.find_element(By.LINK_TEXT, "Resume").click()
    assert (
        "Updates itself every 5 seconds" in browser.driver.find_element(By.TAG_NAME, "footer").text
    )


def test_a_browser_is_shown_the_page_without_asking(browser: Browser, site: str) -> None:
    browser.driver.get(f"{site}/red-12/")

    assert browser.driver.find_element(By.TAG_NAME, "h1").text == "FAILED"
