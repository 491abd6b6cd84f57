"""The product's Great Expectations suite, run on the engine that computed the features.

Importing this file imports Great Expectations (3 CPU seconds): only a validation job does. What its results mean is
decided in suite_checks.py.
"""

import logging
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clearway.contracts.errors import ConfigError
from clearway.contracts.verdict import Check
from clearway.product import Expectation
from clearway.validate.suite_checks import checks_of

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read once, on import; a validation job calls nobody
logging.getLogger("great_expectations").setLevel(logging.WARNING)  # it tells of 180 functions while it is imported
with warnings.catch_warnings():
    # Its own imports: a module name deprecated by Python, and pyspark's remark about pandas 3.
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    import great_expectations as gx
    from great_expectations.render.renderer import ValidationResultsPageRenderer  # type: ignore[attr-defined]
    from great_expectations.render.view import DefaultJinjaPageView  # type: ignore[attr-defined]

# The page as it comes loads scripts, styles and a logo from eight servers; a stored report must open without any.
_FOREIGN = re.compile(
    r"<script\b[^>]*\bsrc=[^>]*>\s*</script>|<link\b[^>]*>|<img\b[^>]*>"
    r"|<a\b[^>]*href=\"https?://[^>]*>.*?</a>|url\(['\"]?https?://[^)]*\)",
    re.S,
)
_STYLE = """<style>
body{font:14px/1.5 system-ui,sans-serif;margin:1.5rem auto;max-width:72rem;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;width:100%;margin:.5rem 0}
td,th{border:1px solid #d8dee4;padding:.35rem .6rem;text-align:left}
.navbar,footer,#ge-cta-footer,.modal,button{display:none}
.fa-check-circle::before{content:"\\2713"}.fa-times::before{content:"\\2717"}
.fa-exclamation-triangle::before{content:"!"}
.col-lg-2,.cooltip .top{display:none}
.badge-success,.text-success{color:#1a7f37}.badge-danger,.text-danger{color:#cf222e}
</style></head>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult:
    """Checks of one run, and the page people read."""

    checks: tuple[Check, ...]
    html: str


def run_suite(frame: Any, expectations: Sequence[Expectation], *, name: str) -> SuiteResult:
    """Evaluate every expectation on a Spark DataFrame.

    Raises: ConfigError for an expectation that does not exist or does not take its arguments.
    """
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    source = context.data_sources.add_spark("features", persist=False)
    batch = source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
    suite = gx.ExpectationSuite(name=name)
    for expectation in expectations:
        suite.add_expectation(build_expectation(expectation))
    suite = context.suites.add(suite)
    ids = [str(e.id) for e in suite.expectations]
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    result = definition.run(batch_parameters={"dataframe": frame})
    checks = checks_of(expectations, ids, [_plain(r) for r in result.results])
    return SuiteResult(checks=checks, html=_page(result))


def _plain(result: Any) -> dict[str, Any]:
    """The few facts we judge, out of a validation result."""
    return {
        "id": str(result.expectation_config.id),
        "success": result.success,
        "exceptions": list(_exceptions(result.exception_info)),
        "result": dict(result.result or {}),
    }


def _exceptions(info: Any) -> list[str]:
    """Exception texts; the info is one dict, or one per metric under the metric's name."""
    if not isinstance(info, dict):
        return []
    if "raised_exception" in info:
        return [str(info.get("exception_message") or "no message")] if info["raised_exception"] else []
    return [text for part in info.values() for text in _exceptions(part)]


def build_expectation(expectation: Expectation) -> Any:
    """The rule itself. Raises: ConfigError if it does not exist or does not take its arguments."""
    class_name = "Expect" + "".join(part.capitalize() for part in expectation.expect.split("_"))
    cls = getattr(gx.expectations, class_name, None)
    if cls is None:
        allowed = sorted(n for n in dir(gx.expectations) if n.startswith("Expect") and n != "Expectation")
        raise ConfigError(f"expectation {expectation.expect!r} does not exist; allowed, in snake_case: {allowed}")
    try:
        return cls(**expectation.args)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"expectation {expectation.expect!r} does not take {expectation.args}: {error}; correct product.yaml"
        ) from error


def _page(result: Any) -> str:
    html: str = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(result))  # type: ignore[no-untyped-call]
    return _FOREIGN.sub("", html).replace("</head>", _STYLE, 1)
