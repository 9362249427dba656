"""What the reports share: an HTML page without scripts or links, and the look of its pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

_LIGHT = """--ink: #1b1f24; --soft: #66707c; --line: #d9dee4; --page: #fff; --card: #f5f7f9;
  --bar: #2f6fb5; --weak: #c8501e; --cut: #c8501e; --rest: #b9cde4"""
_COLORS = f""":root {{ {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e6e9ed; --soft: #98a2ad; --line: #333a43;
  --page: #15181c; --card: #1d2126; --bar: #6aa5e3; --weak: #ee8358; --cut: #ee8358;
  --rest: #35506e }} }}
"""
_PICTURE_STYLE = """
svg text { font: 12px system-ui, sans-serif; fill: var(--ink) } svg .soft { fill: var(--soft) }
svg .bar { fill: var(--bar) } svg .weak { fill: var(--weak) } svg .rest { fill: var(--rest) }
svg .line { stroke: var(--line) } svg .cut { stroke: var(--cut); stroke-width: 1.5 }
"""
_PAGE_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--ink); background: var(--page) }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
p.note { color: var(--soft); max-width: 46rem }
.facts, .grid { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)) }
.grid { grid-template-columns: repeat(auto-fill, minmax(14.5rem, 1fr)) }
.facts div, figure { background: var(--card); border-radius: 6px; padding: .6rem .8rem; margin: 0 }
.facts b { display: block; font-size: 1.25rem; font-weight: 600 }
.facts span, figcaption { color: var(--soft); font-size: .8rem }
figcaption b { color: var(--ink); font-weight: 600; overflow-wrap: anywhere; display: block }
svg { display: block; width: 100%; height: auto }
"""
_NAME_LETTERS = 40


def html_page(title: str, parts: Iterable[str]) -> str:
    """The whole page; `parts` are HTML already."""
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_COLORS}{_PICTURE_STYLE}{_PAGE_STYLE}</style></head>\n"
        "<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def facts(values: Iterable[tuple[str, object]]) -> str:
    """Names and values as a row of cards; those of None are left out."""
    shown = (
        f"<div><b>{escape(str(value))}</b><span>{escape(name)}</span></div>"
        for name, value in values
        if value is not None
    )
    return '<div class="facts">' + "".join(shown) + "</div>"


def short(name: str) -> str:
    """The end of a long name, escaped."""
    if len(name) > _NAME_LETTERS:
        name = "…" + name[1 - _NAME_LETTERS :]
    return escape(name)


def svg_file(picture: str) -> str:
    """A picture of a page as a file of its own: on white, in plain colours, as not every viewer
    knows variables."""
    style = _PICTURE_STYLE
    for name, color in re.findall(r"(--\w+): (#\w+)", _LIGHT):
        style = style.replace(f"var({name})", color)
    head, rest = picture.split(">", 1)
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{ground}{rest}\n'
