from tests.flows.conftest import server  # noqa: F401
