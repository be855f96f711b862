from tests.candidates.conftest import generator  # noqa: F401
