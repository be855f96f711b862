from tests.candidates.conftest import generator  # noqa: F401
from tests.sight.conftest import miniature  # noqa: F401
