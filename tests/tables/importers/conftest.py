"""Where imported tables go."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that NAS_GYM_DATA names."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("NAS_GYM_DATA", str(root))
    return root
