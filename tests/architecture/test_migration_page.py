"""The page for those who come from TGI names everything that they may look for."""

from __future__ import annotations

from tests.architecture.imports import ROOT
from tgi_cli.runtime.config.resolved import RouterConfig
from tgi_cli.runtime.config.settings import SETTINGS
from tgi_cli.runtime.router.route_table import routes_of

PAGE = (ROOT / "docs/migrating-from-tgi.md").read_text(encoding="utf-8")


def test_every_option_has_its_place_on_the_page() -> None:
    names = {setting.flag if setting.has_flag else setting.variable for setting in SETTINGS}

    assert {name for name in names if f"`{name}" not in PAGE} == set()


def test_every_route_has_its_place_on_the_page() -> None:
    paths = {
        route.path.replace("{model:.+}", "{model}")
        for route in routes_of(RouterConfig(model_id="x"))
    }

    assert {path for path in paths if f"{path.removesuffix('/') or '/'}`" not in PAGE} == set()
