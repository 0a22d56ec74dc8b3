# SPDX-License-Identifier: MIT
"""One look for every drawing: what matplotlib is set to, and SVG that reads on a light page and on a dark one alike.

Text stays text, two colours are variables of a style sheet in the file, and it has no date and no random names, so that
the same figures give the same bytes.

Above: traceplot, sim.plots, tools.bench.plot. Below: nothing of ustack; matplotlib is the caller's to import.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

# Stand-ins in what matplotlib draws, which become the style sheet's variables. A colour nobody else has.
INK, PAPER = "#010203", "#fdfefd"
DPI = 110
STYLE = """<style>
:root { --ink: #24292f; --paper: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #d7dde3; --paper: #0d1117; } }
</style>"""


def settings(salt: str = "ustack") -> dict[str, Any]:
    """For matplotlib.rc_context. salt: of the names within an SVG; figures on one page have one each."""
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }


def plain(axes: Any) -> None:
    """Axes that take the paper's colour, with faint lines across and no frame."""
    axes.set_facecolor("none")
    axes.grid(color="#8a949e", alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def svg_of(figure: Any, title: str) -> str:
    """The whole file. title: for those who do not see it."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, facecolor=PAPER)
    return styled(out.getvalue(), title)


def png_of(figure: Any) -> bytes:
    """The whole file, dark on white."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return out.getvalue()


def save(figure: Any, path: Path, title: str) -> None:
    """As a file of the kind that its name ends with. Raises OSError, ValueError for one that matplotlib does not
    know."""
    kind = path.suffix.lower()
    if kind == ".svg":
        path.write_text(svg_of(figure, title), encoding="utf-8")
    elif kind == ".png":
        path.write_bytes(png_of(figure))
    else:
        figure.savefig(path, dpi=DPI, facecolor="white")


def styled(text: str, title: str) -> str:
    """With the two colours as variables, the title, and no line that names a network."""
    head, _, rest = text.partition("<defs>")
    start = head.index("<svg")
    opening, _, inside = head[start:].partition(">")
    whole = f"{opening}>\n<title>{escaped(title)}</title>\n{STYLE}\n{without_metadata(inside)}<defs>{rest}"
    return whole.replace(INK, "var(--ink)").replace(PAPER, "var(--paper)").replace("\r", "")


def without_metadata(text: str) -> str:
    """What matplotlib says of itself stays away."""
    before, _, rest = text.partition("<metadata>")
    return before + rest.partition("</metadata>")[2] if rest else text


def escaped(text: str) -> str:
    """For the inside of an element."""
    return text.replace("&", "&amp;").replace("<", "&lt;")
