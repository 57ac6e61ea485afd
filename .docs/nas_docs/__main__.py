"""``python -m nas_docs --out build/docs``: build the documentation; exit 1 if a page or a link is broken."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nas_docs.site import build


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m nas_docs", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the HTML pages; replaced")
    out = parser.parse_args().out.resolve()
    problems = build(out)
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    if not problems:
        sys.stdout.write(f"{out / 'index.html'}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
