"""The page in a real browser: sorting, filtering, choices, curves, images, cells, links, phone, print, no scripts."""

from __future__ import annotations

import os

import factory
import numpy as np
import pytest
from browser import chromium, opened

from epsbench.harness.findings import Finding
from epsbench.harness.records import Metric, Part, pack_bits
from epsbench.harness.records.predictions import Answers, Predictions
from epsbench.harness.report.build import FORMATS, report
from epsbench.harness.report.content import Content
from epsbench.harness.report.results.loading import Results

full = pytest.mark.skipif(not os.environ.get("EPSBENCH_FULL"), reason="set EPSBENCH_FULL=1")
N = 200
CLEAN = np.arange(N) < 190
LABELS, SURE = np.arange(N) % 10, np.random.default_rng(0).uniform(0.2, 1, (2, N))
RTL = "שלום-עולם"
NAMES = (
    "<img src=x onerror=alert(1)>\"'&</script><!--",
    "\\textbf{a_b}^2%$#~{}",
    "long" * 50,
    RTL,
    "=cmd|' /C calc'!A0]]>",
    "🤖é",
    "&lt;b&gt; &#x202e;",
)


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


def pictures(k: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    original = rng.random((k, 1, 8, 8), dtype=np.float32)
    fooled = np.arange(k) > 1
    return {
        "original": original, "adversarial": np.clip(original + 0.03, 0, 1), "labels": np.arange(k),
        "predicted": np.arange(k) + fooled, "fooled": fooled,
        "scores_before": rng.random((k, 10)), "scores_after": rng.random((k, 10)),
    }  # fmt: skip


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    records, kept = [], {}
    for index, (model, keeps) in enumerate((("smallcnn", 150), ("resnet18", 120), ("mlp", 9))):
        for seed in (0, 1):
            for eps, lost in (("2/255", 0), ("8/255", 60)):
                robust = CLEAN & (np.arange(N) < max(0, keeps - lost - 10 * seed))
                records.append(
                    factory.robustness(
                        CLEAN, robust, model={"name": model}, eps=eps, seed=seed, images_per_second=100.0 * (index + 1)
                    )
                )
    robust = CLEAN.copy()
    robust[2:10] = False
    in_second_table = {"norm": "l2", "eps": "1.0", "attack": {"name": "autoattack"}, "started": "2026-01-02"}
    ensemble = factory.robustness(
        CLEAN, robust, model={"name": "smallcnn"}, **in_second_table, pictures=True,
        findings=(Finding(code="masked", severity="warning", message="look at this", evidence={"moved": 3}),),
    )  # fmt: skip
    after = Metric(value=float(robust.mean()), low=0.8, high=0.95, n=N)
    ensemble = ensemble.model_copy(
        update={
            "parts": (
                Part(name="apgd-ce", robust_accuracy=after, attacked=190, fooled=pack_bits(np.arange(N) == 2)),
                Part(name="square", robust_accuracy=after, attacked=189, fooled=pack_bits(~robust & CLEAN)),
            )
        }
    )
    kept[ensemble.id] = pictures()
    hostile = [factory.robustness(CLEAN, CLEAN, model={"name": name}, **in_second_table) for name in NAMES]
    factory.write(folder, *records, ensemble, *hostile, pictures=kept)
    out = tmp_path_factory.mktemp("page") / "report.html"
    report(folder, "html", out)
    return out


def models(page, board: int = 0) -> list[str]:
    return page.locator("table.board").nth(board).locator("tbody tr:visible .model").all_inner_texts()


def test_a_column_sorts_both_ways_and_back_by_mouse_and_key(browser, page_file):
    with opened(browser, page_file) as page:
        head = page.locator("table.board").first.locator("th[data-name='worst case, ε 2/255']")
        first = models(page)
        assert first == ["smallcnn", "resnet18", "mlp"]
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert models(page) == first
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        assert models(page) == first[::-1]
        assert "t0=" in page.url
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") == "none"
        assert models(page) == first


def test_durations_and_sizes_sort_by_what_they_mean(browser, page_file):
    with opened(browser, page_file) as page:
        page.locator("#cost th:has-text('images/s') button").first.click()
        cells = page.locator("#cost table").first.locator("td[data-label='images/s'] .value")
        speeds = [int(text.replace(",", "")) for text in cells.all_inner_texts()]
        assert len(speeds) > 3
        assert speeds == sorted(speeds, reverse=True)


def test_rows_filter_by_a_column_and_are_counted(browser, page_file):
    with opened(browser, page_file) as page:
        tools = page.locator("#cost .tools").first
        tools.locator("select").select_option(label="model")
        tools.locator("input").fill("RESNET")
        assert page.locator("#cost table").first.locator("tbody tr:visible").count() == 1
        assert tools.locator(".count").inner_text().startswith("1 of ")
        link = page.url
    with opened(browser, page_file, link.partition("report.html")[2]) as again:
        assert again.locator("#cost table").first.locator("tbody tr:visible").count() == 1


def test_choices_of_eps_norm_and_seed(browser, page_file):
    with opened(browser, page_file) as page:
        page.locator("#choose-norm").select_option("linf")
        assert page.locator("table.board:visible").count() == 1
        page.locator("#choose-eps").select_option("2/255")
        board = page.locator("table.board:visible")
        assert set(board.locator("thead tr:last-child th[data-eps]:visible").all_inner_texts()) == {"2/255"}
        assert "ε = 2/255" in page.locator(".answer:visible").inner_text()
        mean = board.locator("tbody tr").first.locator("td.worst:visible").inner_text()
        page.locator("#choose-seed").select_option("1")
        alone = board.locator("tbody tr").first.locator("td.worst:visible").inner_text()
        assert mean.startswith("72.5 %")
        assert alone.startswith("70.0 %")
        link = page.url.partition("report.html")[2]
    with opened(browser, page_file, link) as again:
        assert again.locator("table.board:visible").locator("td.worst:visible").first.inner_text() == alone


def test_the_answer_comes_first_and_says_how_certain_it_is(browser, page_file):
    with opened(browser, page_file) as page:
        answer = page.locator(".answer[data-norm=linf]:visible")
        text = answer.inner_text()
        for part in ("smallcnn", "ε = 8/255", "42.5 %", "+15.0 points", "certain", "pgd", "training"):
            assert part in text
        assert answer.bounding_box()["y"] < 900


def test_a_curve_shows_its_value_under_the_pointer_and_hides(browser, page_file):
    with opened(browser, page_file) as page:
        figure = page.locator("figure.has-live").first
        figure.locator("svg.live").focus()
        page.keyboard.press("ArrowRight")
        tip = figure.locator(".tip")
        assert "95.0 %" in tip.inner_text()
        dot = figure.locator("svg.live circle.dot").nth(1).bounding_box()
        page.mouse.move(dot["x"] + 2, dot["y"] + 2)
        assert "2/255" in tip.inner_text()
        assert "[" in tip.inner_text()
        lines = figure.locator("polyline").count()
        button = figure.locator(".legend button").first
        button.click()
        assert button.get_attribute("aria-pressed") == "false"
        assert figure.locator("polyline").count() == lines - 1
        assert "h0=0" in page.url


def test_the_image_browser_names_the_attack_that_fooled_and_the_scores(browser, page_file):
    with opened(browser, page_file) as page:
        browsing = page.locator("#images")
        assert "robust: class 0" in browsing.locator(".verdict").inner_text()
        browsing.locator(".strip button").nth(2).click()
        assert browsing.locator(".verdict").inner_text() == "fooled by apgd-ce: class 2 is seen as 3"
        browsing.locator(".strip button").nth(3).click()
        assert "by square" in browsing.locator(".verdict").inner_text()
        assert browsing.locator(".scores tr").count() == 11
        assert browsing.locator(".browser img").count() == 3
        for image in browsing.locator(".browser img").all():
            assert image.evaluate("image => image.complete && image.naturalWidth === 64")


def test_findings_lead_to_cells_and_cells_to_everything_known(browser, page_file):
    with opened(browser, page_file) as page:
        page.locator("#findings a[data-cells]").first.click()
        dialog = page.locator("dialog[open]")
        text = dialog.inner_text()
        for part in ("look at this", "moved 3", "weights_sha256", "apgd-ce", "NVIDIA H200", "gradients_per_image"):
            assert part in text
        link = page.url.partition("report.html")[2]
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0
        page.wait_for_url(lambda url: "cell=" not in url)
        page.locator("table.board").first.locator("a.cell").first.click()
        assert page.locator("dialog[open] [role=group] button").count() == 2  # its two seeds
    with opened(browser, page_file, link) as again:
        assert again.locator("dialog[open]").inner_text() == text


def test_hostile_names_are_shown_as_they_are(browser, page_file):
    with opened(browser, page_file) as page:
        shown = models(page, 1)
        dialogs = []
        for name in NAMES:
            assert name in shown
        for link in page.locator("table.board").nth(1).locator("a.cell").all():
            link.click()
            dialogs.append(page.locator("#cell-name").text_content())
            page.keyboard.press("Escape")
        for name in NAMES:
            assert any(name in text for text in dialogs)
        assert any(NAMES[0] in text for text in page.locator(".legend button").all_text_contents())
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 1280


def test_without_scripts_the_page_reads_whole(browser, page_file):
    with opened(browser, page_file, scripts=False) as page:
        assert models(page) == ["smallcnn", "resnet18", "mlp"]
        assert page.locator("figure.chart picture:visible").count() > 1
        assert page.locator(".tools, .choices:visible, .sort").count() == 0
        assert page.locator("#words dt").count() > 10
        assert page.locator("table.board th[title]").count() > 3
        assert page.locator(".answer:visible").count() == 2  # one a norm


def test_on_a_phone_nothing_covers_a_number_and_hidden_columns_are_announced(browser, page_file):
    with opened(browser, page_file, width=390) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        covered = page.evaluate(
            """() => [...document.querySelectorAll("table.board tbody td.number .value")].filter((value) => {
                 value.closest("tr").scrollIntoView({ block: "center" });
                 const box = value.getBoundingClientRect(), scroll = value.closest(".scroll").getBoundingClientRect();
                 if (box.left < scroll.left || box.right > scroll.right) return false;
                 const top = document.elementFromPoint((box.left + box.right) / 2, (box.top + box.bottom) / 2);
                 return !(top === value || value.contains(top) || top.contains(value));
               }).map((value) => value.textContent)"""
        )
        assert covered == []
        assert (
            "more column" in page.locator("table.board").first.locator("xpath=../following-sibling::p[1]").inner_text()
        )


def test_print_shows_all_columns_and_the_static_figures(browser, page_file):
    with opened(browser, page_file, width=1040) as page:  # the width of a landscape A4 page
        page.emulate_media(media="print")
        cut = page.evaluate(
            """() => [...document.querySelectorAll("table")].filter((table) => table.offsetWidth
                 && table.scrollWidth > table.closest(".scroll, section").clientWidth + 2).length"""
        )
        assert cut == 0
        assert page.locator("figure.has-live picture:visible").count() > 1
        assert page.locator("svg.live:visible, .tools:visible, .choices:visible").count() == 0
        # Chromium paints no button in a head that it repeats on the next sheet, but its contents.
        displays = page.locator("th .sort").evaluate_all("(all) => all.map((one) => getComputedStyle(one).display)")
        assert set(displays) == {"contents"}
        assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def thousand(folder, *, pictured: bool):
    """Four models at ten ε with 25 seeds each: 1,000 cells."""
    records, image = [], pictures(8)
    for index in range(1000):
        robust = CLEAN & (np.arange(N) < index % 191)
        model, eps, seed = {"name": "smallcnn", "width": index % 4 + 1}, f"{index // 4 % 10 + 1}/255", index // 40
        record = factory.robustness(CLEAN, robust, model=model, eps=eps, seed=seed, pictures=pictured)
        answers = Answers(LABELS, *(np.where(bits, LABELS, (LABELS + 1) % 10) for bits in (CLEAN, robust)), *SURE)
        record = record.model_copy(update={"predictions": Predictions.pack(answers, 10)})
        records.append(record)
        if pictured:
            shifted = image | {"adversarial": np.roll(image["adversarial"], index, axis=3)}
            factory.write(folder, record, pictures={record.id: shifted})
    return Results(folder, tuple(records), ())


def processor_seconds(page, script: str) -> float:
    """The processor time that a script, the styles and the layout take: other programs do not make it longer."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> float:
        metrics = {metric["name"]: metric["value"] for metric in devtools.send("Performance.getMetrics")["metrics"]}
        return sum(metrics[f"{name}Duration"] for name in ("Script", "Layout", "RecalcStyle"))

    before = spent()
    page.evaluate(script)
    return spent() - before


# With pictures, each of a thousand files is flushed to the disk, which takes long.
@pytest.mark.parametrize("pictured", [False, pytest.param(True, marks=full)])
def test_a_page_of_a_thousand_cells_is_small_and_sorts_at_once(browser, tmp_path, pictured):
    page_text = FORMATS["html"](Content(thousand(tmp_path, pictured=pictured)))
    assert len(page_text.encode()) <= 5_000_000
    out = tmp_path / "page.html"
    out.write_text(page_text, encoding="utf-8")
    with opened(browser, out) as page:
        page.locator("#details summary").nth(1).click()
        sort = """() => {
            const table = document.querySelectorAll("#details table")[1];
            table.querySelectorAll("th button")[3].click();
            table.offsetHeight;  // the browser has laid it out
        }"""
        spent = [processor_seconds(page, sort) for _ in range(5)]
        assert min(spent) <= 0.1
        rows = page.locator("#details table").nth(1).locator("tbody tr:visible")
        assert rows.count() == 150
        page.get_by_role("button", name="show all 1000 rows").click()
        assert rows.count() == 1000
