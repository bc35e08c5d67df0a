"""The finished run of the tests of results, for those of reports."""

from tests.results.conftest import finished

__all__ = ["finished"]
