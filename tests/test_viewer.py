"""tz.view.backprop: its numbers are the engine's, on the page of a real browser too; drawings; errors."""

import html
import json
import re
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import tinygrad_zen as tz
import tinygrad_zen.nn as nn
import tinygrad_zen.nn.functional as F
from tinygrad_zen.view.layout import layers
from tinygrad_zen.view.viewer import amount, picture


def leaf(value):
    return tz.tensor(value, requires_grad=True, dtype="float64")


def scalar_graph():
    """(b is used twice, c is a constant's partner) -> the result, and the named Tensors."""
    a, b = leaf(2.0), leaf(-3.0)
    s = a * b
    y = (s + 0.5 * b).tanh() * a
    return y, {"a": a, "b": b, "s": s, "y": y}


def digits_network():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    (x, labels), _ = tz.data.digits()
    return net, F.cross_entropy(net(tz.tensor(x[:8])), labels[:8])


def data_of(viewer):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', viewer.page())[1]
    return json.loads(text)


def test_the_gradients_are_the_engines():
    y, named = scalar_graph()
    viewer = tz.view.backprop(y, **named)
    assert named["a"].grad is None  # looking leaves no trace
    values = {v.name: v for v in viewer.values if v.name}
    found = tz.grad(y, list(named.values()))
    for name, g in zip(named, found, strict=True):
        assert values[name].grad == g.item()
        assert values[name].data == named[name].item()
        if name != "y":
            assert sum(float(s) for _, s in values[name].shares) == pytest.approx(g.item())
    assert len(values["b"].shares) == 2  # used twice: added up


def test_the_graph_can_still_be_used():
    y, named = scalar_graph()
    tz.view.backprop(y)
    y.backward()
    assert named["a"].grad is not None
    with pytest.raises(
        RuntimeError, match=r"backprop: the graph through mul was let go by backward"
    ):
        tz.view.backprop(y)


def test_steps_go_forward_in_order_and_back_newest_first():
    y, named = scalar_graph()
    data = data_of(tz.view.backprop(y, **named))
    phases = [s["phase"] for s in data["steps"]]
    assert phases == ["start", *["forward"] * 5, "seed", *["backward"] * 5]
    forward = [s["value"] for s in data["steps"] if s["phase"] == "forward"]
    back = [s["value"] for s in data["steps"] if s["phase"] == "backward"]
    assert forward == sorted(back) and back == forward[::-1]
    last = [s for s in data["steps"] if s["phase"] == "backward"][-1]
    shares = {data["values"][s["to"]]["name"]: s for s in last["shares"]}
    before, share, whole = (float(shares["b"][k]) for k in ("before", "share", "sum"))
    assert before + share == pytest.approx(whole, rel=1e-3)


def test_rules_are_the_source():
    y, named = scalar_graph()
    data = data_of(tz.view.backprop(y, **named))
    facts = {v["name"]: v for v in data["values"]}
    assert facts["s"]["rules"] == ["g * y", "g * x"]
    assert facts["tanh"]["rules"] == ["be.kernels.tanh_grad(g, y)"]
    assert "return g * (1 - y * y)" in facts["tanh"]["kernels"]["tanh_grad"]


def test_the_rule_of_an_op_of_ones_own():
    @tz.op
    def both(be, x, y):
        def grads(g):
            return g * 2, g * 3

        return 2 * x + 3 * y, grads

    data = data_of(tz.view.backprop(both(leaf(1.0), leaf(2.0))))
    rule = "def grads(g):\n    return g * 2, g * 3"
    assert data["values"][-1]["rules"] == [rule, rule]
    made = tz.op(eval("lambda be, x: (x + 1, (lambda g: g,))"))
    assert data_of(tz.view.backprop(made(leaf(1.0))))["values"][-1]["rules"] == ["no source"]


def test_broadcast_shares_are_summed():
    x, b = leaf(np.ones((3, 4))), leaf(np.ones(4))
    viewer = tz.view.backprop((x * b).sum(), b=b)
    (share,) = (s for v in viewer.values if v.name == "b" for _, s in v.shares)
    np.testing.assert_array_equal(share, [3.0] * 4)


def test_a_network_folds_by_layer():
    net, loss = digits_network()
    viewer = tz.view.backprop(loss, net)
    titles = [b.title for b in viewer._boxes]
    assert titles[1:3] == ["0 Conv2d", "1 BatchNorm2d"] and titles[-2] == "5 Linear"
    # the input and six ops, of which batch norm and ReLU are one; weights and labels are inside
    assert len(titles) == 7
    assert len(tz.view.backprop(loss)._boxes) > 12
    loss.backward()
    found = {(v.name, v.data.shape): v.grad for v in viewer.values if v.learned}
    for name, p in net.named_parameters():
        key = name.rpartition(".")[2], p.shape
        if key != ("bias", (4,)):  # of which there are two
            np.testing.assert_array_equal(found[key], p.grad.numpy())


def test_ops_of_one_layer_share_a_box():
    net = nn.Sequential(nn.Linear(3, 4), nn.GroupNorm(2, 4))
    out = net(tz.tensor(np.random.default_rng(0).normal(size=(5, 3))))
    titles = [b.title for b in tz.view.backprop(out.sum(), net)._boxes]
    assert titles.count("1 GroupNorm") == 1


def test_the_picture_is_an_svg_with_all_numbers():
    y, named = scalar_graph()
    viewer = tz.view.backprop(y, **named)
    root = ET.fromstring(viewer._repr_svg_())
    text = " ".join(root.itertext())
    for g in tz.grad(y, list(named.values())):
        assert f"{g.item():.4g}" in text
    boxes = [e for e in root.iter() if e.get("class") == "box"]
    assert len(boxes) == len(viewer._boxes)


def test_the_page_needs_nothing_else(tmp_path):
    y, _ = scalar_graph()
    viewer = tz.view.backprop(y)
    viewer.save(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page == viewer.page()
    assert not re.findall(r"(?:src|href)=|https?://(?!www\.w3\.org/2000/svg)|@import|fetch\(", page)
    assert html.escape(page, quote=True) in viewer._repr_html_()
    assert repr(viewer) == "<backprop of 5 ops in 8 boxes>"


def test_layers_go_to_the_right_without_needless_crossings():
    edges = [(0, 3), (1, 2), (2, 4), (3, 4), (0, 4)]
    columns, routes = layers(5, edges)
    place = {box: x for x, column in enumerate(columns) for box in column}
    assert all(place[a] < place[b] for a, b in edges)
    assert [r[0] for r in routes] == [a for a, _ in edges]
    assert all(place[b] - place[a] == 1 for r in routes for a, b in zip(r, r[1:], strict=False))
    assert len(routes[4]) == 3  # a long edge has a place of its own on its way
    columns, _ = layers(4, [(0, 3), (1, 2)])
    above = columns[0].index(0) < columns[0].index(1)
    assert above == (columns[1].index(3) < columns[1].index(2))


def test_amounts_and_pictures():
    assert amount(np.float32(0.123456)) == "0.1235" and amount(np.array([[2.0]])) == "2"
    assert amount(np.array([3.0, 4.0])) == "rms 3.536" and amount(np.zeros(0)) == "empty"
    assert picture(np.array(1.0)) is None and picture(np.zeros(2)) == [[0, 0]]
    assert picture(np.array([[1.0, -4.0]])) == [[25, -100]]
    assert np.shape(picture(np.ones((2, 3, 100, 30)))) == (13, 10)


def test_errors():
    with pytest.raises(ValueError, match=r"backprop: no op was recorded for this Tensor"):
        tz.view.backprop(leaf(1.0))
    with pytest.raises(TypeError, match=r"backprop: a must be a Tensor; got float"):
        tz.view.backprop(scalar_graph()[0], a=1.0)
    x = leaf(1.0)
    y = x
    for _ in range(300):
        y = y * x
    with pytest.raises(
        ValueError,
        match=r"has 301 boxes; at most 300 can be shown: fold it by layer with backprop\(loss, net\)",
    ):
        tz.view.backprop(y)


# in a browser

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --window-size=1250,760"
).split()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium; a test that needs one is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


@pytest.fixture
def page(browser, tmp_path):
    """Opens a viewer's page and gives access to what stands on it."""

    def open_page(viewer, embedded=False):
        path = tmp_path / "page.html"
        if embedded:  # as a notebook embeds it
            path.write_text(f"<html><body>{viewer._repr_html_()}</body></html>", encoding="utf-8")
        else:
            viewer.save(path)
        browser.get(path.as_uri())
        if embedded:
            browser.switch_to.frame(0)
        return Page(browser)

    return open_page


class Page:
    def __init__(self, browser):
        self.browser = browser

    def find(self, css):
        return self.browser.find_elements("css selector", css)

    def click(self, name):
        self.find(f"#{name}")[0].click()

    def shown(self, kind):
        """{index of the value: the text on the screen} of all data or gradients in sight."""
        spans = self.find(f"#graph tspan.{kind}")
        return {int(s.get_attribute("data-value")): s.text for s in spans if s.is_displayed()}

    @property
    def step(self):
        return int(self.find("body")[0].get_attribute("data-step"))


def test_a_browser_walks_through_a_graph(page):
    y, named = scalar_graph()
    viewer = tz.view.backprop(y, **named)
    on = page(viewer)
    gradients = tz.grad(y, list(named.values()))
    index = {v.name: v.index for v in viewer.values if v.name}
    assert set(on.shown("data")) == {v.index for v in viewer.values if v.node is None}
    assert on.shown("grad") == {}

    seen = []  # what is on the screen after each step
    while True:
        seen.append((on.shown("data"), on.shown("grad")))
        before = on.step
        on.click("next")
        if on.step == before:
            break
    assert len(seen) == 12
    for earlier, later in zip(seen, seen[1:], strict=False):  # a step adds, nothing goes away
        assert set(earlier[0]) <= set(later[0]) and set(earlier[1]) <= set(later[1])
    assert seen[5][1] == {} and seen[6][1] == {index["y"]: "1"}

    data, grads = seen[-1]
    for (name, t), g in zip(named.items(), gradients, strict=True):
        assert float(data[index[name]]) == pytest.approx(t.item(), rel=1e-3)
        assert float(grads[index[name]]) == pytest.approx(g.item(), rel=1e-3)
    # b is used twice: a part of its gradient stood there before the whole
    parts = {grads[index["b"]] for _, grads in seen if index["b"] in grads}
    assert len(parts) == 2
    assert "make" in on.find("td.sum")[-1].text

    on.click("first")
    assert on.step == 0 and on.shown("grad") == {}
    on.click("last")
    assert on.shown("grad") == grads
    on.click("back")
    assert on.step == 10 and on.shown("grad") == seen[10][1]
    assert [e.text for e in on.find("pre.rule")] == ["to b: g * x"]


def test_a_browser_shows_a_network(page):
    net, loss = digits_network()
    viewer = tz.view.backprop(loss, net)
    on = page(viewer, embedded=True)
    on.click("last")
    loss.backward()
    grads = on.shown("grad")
    learned = [v for v in viewer.values if v.learned]
    assert len(learned) == len(list(net.parameters()))
    for value in learned:
        rms = float(np.sqrt(np.mean(value.tensor.grad.numpy().astype(float) ** 2)))
        assert float(grads[value.index].removeprefix("rms ")) == pytest.approx(rms, rel=1e-3)
    assert on.find("#pictures .picture i")
    on.find("#box1")[0].click()
    assert any("conv2d_grad_w" in rule.text for rule in on.find("pre.rule"))
