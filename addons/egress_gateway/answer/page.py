"""A refusal as a page for a browser: one small file, nothing loaded from anywhere."""

from __future__ import annotations

from html import escape

from .told import Told

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 10vh auto; padding: 0 1.25rem }
h1 { font-size: 1.35rem; margin: 0 0 .25rem }
p { margin: 0 0 1.25rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1rem; margin: 0 0 1.5rem }
dt { opacity: .65 }
dd { margin: 0; overflow-wrap: anywhere }
code, pre { font: 14px/1.45 ui-monospace, monospace }
pre { padding: .9rem 1rem; border: 1px solid #8886; border-radius: .5rem; overflow-x: auto }
footer { opacity: .65; font-size: .85rem }
"""


def page(told: Told) -> str:
    """`told` as an HTML document."""
    rows = [
        ("Asked for", f"<code>{escape(told.target)}</code>" if told.target else ""),
        ("Reason", f"<code>{escape(told.reason)}</code>"),
        ("Detail", escape(told.detail)),
        (told.which_rule, f"<code>{escape(told.rule)}</code>" if told.rule else ""),
        ("Hint", escape(told.hint)),
    ]
    table = "\n".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows if value)
    rule = ""
    if told.smallest_rule:
        rule = f"<p>The smallest rule that would allow it:</p>\n<pre>{escape(told.smallest_rule)}</pre>\n"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{told.status} {escape(told.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{told.status} {escape(told.title)}</h1>\n<p>{escape(_sentence(told.sentence))}</p>\n"
        f"<dl>\n{table}\n</dl>\n{rule}"
        "<footer>This answer comes from the egress gateway, not from the site.</footer>\n</body>\n</html>\n"
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
