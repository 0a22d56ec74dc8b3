# SPDX-License-Identifier: MIT
"""The report in a browser without a head: it draws its plots, says no error, and asks no network for anything."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.tools.bench_runs import results, runs
from ustack.tools.bench import html

BROWSER = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), "")
# What goes wrong in the page is written into the page, before any of its own scripts run.
WATCH = """<script>
window.wrong = [];
window.addEventListener("error", event => wrong.push(event.message));
document.addEventListener("securitypolicyviolation", event => wrong.push("asked for " + event.blockedURI));
window.addEventListener("load", () => setTimeout(() => {
    const said = document.createElement("p");
    said.id = "said";
    said.textContent = "wrong: " + JSON.stringify(window.wrong)
        + " bars: " + document.querySelectorAll(".plot .bars .point").length;
    document.body.append(said);
}, 0));
</script>"""

pytestmark = [
    pytest.mark.skipif(not BROWSER, reason="no chromium (apt-get install chromium)"),
    pytest.mark.timeout(240),
]


def shown(tmp_path: Path, text: str, *options: str) -> str:
    """The page as it is after its scripts have run."""
    (tmp_path / "report.html").write_text(text)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=20000"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,1600", *options]
    # No name resolves and no address is reached: what the page wanted from outside could not come.
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9"]
    done = subprocess.run(
        [*command, f"file://{tmp_path / 'report.html'}"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def page() -> str:
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    made = runs(ustack_veth=[200, 220, 240], nginx=[100] * 3, broken=[None] * 3)
    return html.page(results(made, ustack_veth={"kind": "ustack"}))


def test_the_report_draws_its_plots_without_an_error(tmp_path: Path) -> None:
    text = shown(tmp_path, page().replace("<head>", "<head>" + WATCH, 1), "--dump-dom")
    said = re.search(r'<p id="said">(.*?)</p>', text)
    assert said is not None
    assert said.group(1) == "wrong: [] bars: 2"


def test_a_page_with_an_error_is_found_out(tmp_path: Path) -> None:
    """The test of the test: one script that fails, one image that the policy forbids."""
    broken = '<script>nothing.at.all()</script><img src="http://example.invalid/x.png">'
    made = page().replace("<head>", "<head>" + WATCH, 1).replace("</h1>", "</h1>" + broken, 1)
    said = re.search(r'<p id="said">(.*?)</p>', shown(tmp_path, made, "--dump-dom"))
    assert said is not None
    assert "nothing is not defined" in said.group(1)
    assert "asked for http://example.invalid/x.png" in said.group(1)


def test_a_screenshot_is_more_than_paper(tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    shown(tmp_path, page(), f"--screenshot={picture}")
    octets = picture.read_bytes()
    assert octets.startswith(b"\x89PNG")
    assert len(octets) > 20_000
