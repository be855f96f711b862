from tests.concepts.conftest import duck, params, photo  # noqa: F401
from tests.concepts.conftest import folder as concept_folder  # noqa: F401
from tests.inversion.conftest import folder, generator, one_thread, settings, validated, workspace  # noqa: F401
