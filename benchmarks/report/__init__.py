"""Reports: one page of HTML, and the parts of a paper, made of the record of a run or of a suite.

`read` makes `Content` of a record, `page` makes HTML of it, `paper` makes LaTeX, PDF and BibTeX of it.
"""

from __future__ import annotations

from .content import Content
from .page import page, write_page
from .paper import write_paper
from .source import read

__all__ = ["Content", "page", "read", "write_page", "write_paper"]
