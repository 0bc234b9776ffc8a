"""The status page in a real Chromium, in states with values that stand still."""

from __future__ import annotations

from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from tests.integration.statuspages import (
    REFERENCES,
    SIZES,
    Stage,
    look,
    shrunk,
)
from tests.integration.statusvalues import NOW, STATES

pytestmark = pytest.mark.slow

MEAN_LIMIT = 3.0
"""Mean difference of two pictures that show the same, of 255: another version of a font moves
letters, but neither blocks nor colours."""

BLOCK = 12
"""Side of a block of a small picture, pixels: a line of the page is about half as high."""

NEARBY = 3
"""So far up and down is a block looked for, pixels of the small picture."""

BLOCK_LIMIT = 24.0
"""Mean difference of the block that differs most."""

HEIGHT_SHARE = 0.04
"""By so much may the page be longer or shorter: lines break elsewhere with another font."""

WORDS = {
    "well": ("good", "All well", ""),
    "lost": ("warn", "Degraded", "camera gate"),
    "recovery": ("warn", "No camera", "configuration has a mistake"),
    "updating": ("good", "All well", ""),
    "rejected": ("good", "All well", ""),
    "away": ("warn", "Degraded", "18,452 messages are kept"),
    "hot": ("warn", "Degraded", "94.5 °C"),
    "stalled": ("bad", "In trouble", "model main makes no progress"),
}

OVERFLOWING = """
[...document.querySelectorAll('body *')].filter((e) => {
  const box = e.getBoundingClientRect();
  // Pictures and plots are cut on purpose.
  const cut = e.clientWidth && e.scrollWidth > e.clientWidth + 1 && !e.closest('svg, button');
  return box.width && (cut || box.right > innerWidth + 0.5 || box.left < -0.5);
}).map((e) => e.tagName + '.' + e.className).concat(
  document.documentElement.scrollWidth > innerWidth ? ['the page'] : [])
"""

UNNAMED = """
[...document.querySelectorAll('button, a, input, img, progress, section, dialog, article')]
  .filter((e) => !(e.hasAttribute('alt') || e.getAttribute('aria-label')
    || e.getAttribute('aria-labelledby') || e.textContent.trim()))
  .map((e) => e.outerHTML.slice(0, 80))
"""

CONTRAST = """
(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), poor = [];
  for (let node; (node = walker.nextNode());) {
    const e = node.parentElement;
    if (!node.data.trim() || !e.checkVisibility() || e.closest('noscript')) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color).slice(0, 3)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(node.data.slice(0, 30) + ': ' + ratio.toFixed(2));
  }
  return poor;
})()
"""


@pytest.fixture(scope="module")
def stages():
    """Each state, served as long as this module runs."""
    opened: dict[str, Stage] = {}

    def of(state: str) -> Stage:
        if state not in opened:
            opened[state] = Stage(state)
        return opened[state]

    yield of
    for stage in opened.values():
        stage.close()


@pytest.fixture
def see(chromium, stages):
    """Opens a state on a screen; closed at the end."""
    pages = []

    def of(state: str, size=SIZES["desktop"], *, dark=False):
        page = look(chromium, stages(state), size, dark=dark)
        pages.append(page)
        return page

    yield of
    for page in pages:
        page.close()


def differences(seen: np.ndarray, wanted: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Mean and block that differs most, of 255, and the picture of the differences."""
    height, width = (min(a, b) for a, b in zip(seen.shape[:2], wanted.shape[:2], strict=True))
    seen, wanted = seen[:height, :width], wanted[:height, :width]
    # Lines of another height move all that is below: each block is looked for nearby.
    gaps = [cv2.absdiff(np.roll(seen, by, axis=0), wanted) for by in range(-NEARBY, NEARBY + 1)]
    size = (width // BLOCK, height // BLOCK)
    blocks = np.min(
        [
            cv2.resize(g.max(axis=2).astype(np.float32), size, interpolation=cv2.INTER_AREA)
            for g in gaps
        ],
        axis=0,
    )
    return float(blocks.mean()), float(blocks.max()), gaps[NEARBY]


def alike(seen: np.ndarray, wanted: np.ndarray) -> bool:
    mean, block, _ = differences(seen, wanted)
    longer = abs(seen.shape[0] - wanted.shape[0]) / wanted.shape[0]
    return (
        seen.shape[1] == wanted.shape[1]
        and longer <= HEIGHT_SHARE
        and mean <= MEAN_LIMIT
        and block <= BLOCK_LIMIT
    )


def reference(state: str, screen: str) -> np.ndarray:
    wanted = cv2.imread(str(REFERENCES / f"{state}-{screen}.png"))
    assert wanted is not None, (
        "python -m tests.integration.statuspages tests/integration/references"
    )
    return wanted


@pytest.mark.parametrize("screen", sorted(SIZES))
@pytest.mark.parametrize("state", sorted(STATES))
def test_a_state_looks_as_it_did(see, state, screen, tmp_path):
    seen = shrunk(see(state, SIZES[screen]).picture())
    wanted = reference(state, screen)
    if not alike(seen, wanted):
        mean, block, gap = differences(seen, wanted)
        for name, picture in (("seen", seen), ("wanted", wanted), ("differs", gap)):
            cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
        pytest.fail(
            f"{state} on a {screen} looks otherwise: mean {mean:.1f}, worst block {block:.1f}, "
            f"size {seen.shape[1::-1]} instead of {wanted.shape[1::-1]}; pictures in {tmp_path}"
        )


@pytest.mark.parametrize("screen", sorted(SIZES))
def test_states_that_differ_look_different(screen):
    pictures = {state: reference(state, screen) for state in STATES}
    same = [
        (one, other)
        for one in pictures
        for other in pictures
        if one < other and alike(pictures[one], pictures[other])
    ]
    assert same == []


@pytest.mark.parametrize("state", sorted(STATES))
def test_how_the_device_is_stands_on_top_in_words(see, state):
    page = see(state, SIZES["phone"])
    kind, word, reason = WORDS[state]
    assert page.ask("document.getElementById('state').textContent") == word
    assert page.ask("document.getElementById('verdict').className") == f"verdict {kind}"
    assert reason in page.ask("document.getElementById('reasons').textContent")
    assert page.ask("document.title").startswith(word)
    # Without scrolling, on a small phone.
    assert page.ask("document.getElementById('verdict').getBoundingClientRect().bottom") < 400


@pytest.mark.parametrize("state", sorted(STATES))
def test_nothing_is_wider_than_the_screen(see, state):
    page = see(state)
    page.ask("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    for width in (320, 360, 768, 1280):
        page.resize(width, 800)
        assert (width, page.ask(OVERFLOWING)) == (width, [])


def test_a_page_asks_nobody_but_its_device_and_makes_no_mistakes(see, stages):
    page = see("lost")
    hosts = {urlsplit(address).netloc for address in page.asked if not address.startswith("blob:")}
    assert hosts == {urlsplit(stages("lost").address).netloc}
    assert page.problems == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("state", sorted(STATES))
def test_text_can_be_read(see, state, dark):
    page = see(state, dark=dark)
    ground = page.ask("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(15, 21, 20)" if dark else "rgb(244, 245, 243)")
    assert page.ask(CONTRAST) == []


@pytest.mark.parametrize("state", ["lost", "recovery", "updating"])
def test_everything_has_a_name_for_who_does_not_see(see, state):
    page = see(state)
    assert page.ask(UNNAMED) == []
    assert page.ask("document.getElementById('verdict').getAttribute('role')") == "status"
    assert page.ask("document.documentElement.lang") == "en"
    levels = page.ask("[...document.querySelectorAll('main h2, main h3')].map((h) => h.tagName)")
    assert levels[0] == "H2"


FOCUSED = (
    "(document.activeElement.getAttribute('aria-label') || document.activeElement.textContent)"
)


def test_the_keyboard_reaches_everything_and_keeps_its_place(see):
    page = see("rejected")
    visited = []
    for _ in range(6):
        page.press("Tab", 9)
        visited.append(page.ask(FOCUSED))
        assert page.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert visited[:3] == ["Enlarge belt", "Enlarge dock", "Enlarge gate"]
    assert visited[3:] == ["gate report of the engine", "gate report", "gate report"]
    page.press(" ", 32, " ")
    page.until("document.activeElement.parentElement.open")
    # The page is drawn anew every two seconds; what was unfolded and has the focus stays.
    page.ask("globalThis.before = document.activeElement; turns = 0; ask = ((old) => (path) => "
             "{ turns += path === '/api/status'; return old(path); })(ask); 1")  # fmt: skip
    page.until("turns > 1")
    assert page.ask("document.activeElement === before && before.parentElement.open")


def test_a_picture_is_enlarged_and_closed_by_the_keyboard(see):
    page = see("well")
    page.press("Tab", 9)
    page.press("Enter", 13, "\r")
    page.until("document.getElementById('large').open")
    page.until("document.getElementById('large-picture').naturalWidth > 0")
    assert page.ask("document.getElementById('large-picture').alt") == "Live picture of belt, large"
    page.resize(1280, 700)
    bottom = "document.getElementById('large-picture').getBoundingClientRect().bottom"
    assert page.ask(f"{bottom} <= innerHeight")
    page.press("Escape", 27)
    page.until("!document.getElementById('large').open")
    assert page.ask(FOCUSED) == "Enlarge belt"


def test_the_gate_report_of_a_rejected_model_can_be_read(see):
    page = see("rejected")
    text = page.ask("document.getElementById('history').textContent")
    assert "its map50_95 is 0.7132; at least 0.9 is asked" in text
    assert "gate active score0.9312" in text


def test_an_agent_that_ends_is_told_as_that(chromium):
    stage = Stage("well")
    page = look(chromium, stage, SIZES["phone"])
    stage.close()
    page.until("document.getElementById('state').textContent === 'Agent does not answer'")
    assert page.ask("document.getElementById('verdict').className") == "verdict bad"
    page.close()


def test_a_person_with_the_token_is_let_in_and_stays(chromium):
    token = "a token of sixteen or more"
    stage = Stage("well", token=token)
    page = chromium.page((360, 640), now=NOW)
    try:
        page.open(stage.address)
        page.until("document.querySelector('input[name=token]')")
        assert page.ask(OVERFLOWING) == []
        page.ask(f"document.querySelector('input').value = {token!r}")
        page.ask("document.querySelector('form').requestSubmit()")
        page.until("document.body && document.body.dataset.shown")
        page.until("document.querySelector('.picture img:not([hidden])')")
        # Neither the address nor what scripts can read has the token.
        assert page.ask("location.search + document.cookie") == ""
    finally:
        page.close()
        stage.close()


def test_what_a_device_says_is_never_read_as_a_page(chromium):
    poison = "<img src=x onerror='document.title=1'><b>bold</b>"
    event = {"ts": NOW, "kind": poison, "severity": "error", "what": poison}
    camera = {"state": poison, "reason": poison, "model": poison}
    changed = {"events": [event], "cameras": {poison: camera}, "troubles": [poison]}
    stage = Stage("well", changed)
    try:
        page = look(chromium, stage, SIZES["desktop"])
        assert page.ask("document.querySelectorAll('b:not(figure b), img[src=x]').length") == 0
        assert page.ask("document.querySelector('h3').textContent") == poison
        assert page.ask("document.title").startswith("No camera online")
        assert page.problems == []
        page.close()
    finally:
        stage.close()
