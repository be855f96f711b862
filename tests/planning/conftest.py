from tests.inversion.conftest import folder, generator, settings, validated, workspace  # noqa: F401
