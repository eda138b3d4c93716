"""The colours and fonts that reports, studies' reports and the web page share, as CSS variables, light and dark."""

from __future__ import annotations

CSS = """\
:root {
  color-scheme: light dark;
  --paper: #ffffff;
  --ink: #16202a;
  --soft: #4a5560;
  --faint: #66727e;
  --hair: #dfe3e7;
  --rule: #16202a;
  --wash: #f5f6f7;
  --good: #00664e;
  --good-wash: #eaf5f1;
  --bad: #a63a00;
  --bad-wash: #fcf0e8;
  --sans: -apple-system, "Segoe UI", "Inter", "Noto Sans", "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "Liberation Mono", "DejaVu Sans Mono", monospace;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #14181d;
    --ink: #e8ecf0;
    --soft: #b3bdc7;
    --faint: #8f9ba7;
    --hair: #2d353d;
    --rule: #e8ecf0;
    --wash: #1c2228;
    --good: #6fd3b0;
    --good-wash: #15271f;
    --bad: #ffa877;
    --bad-wash: #2d1e15;
  }
}
"""
