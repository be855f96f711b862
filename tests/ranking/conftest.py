from tests.sight.conftest import miniature  # noqa: F401
