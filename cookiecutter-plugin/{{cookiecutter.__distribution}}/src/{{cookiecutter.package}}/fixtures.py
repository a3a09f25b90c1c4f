"""The fixture `{{ cookiecutter.__snake }}_service`.

Nothing is imported here until a test asks: this module is loaded in every pytest run.
"""

from __future__ import annotations

from {{ cookiecutter.package }}._fixtures import {{ cookiecutter.__snake }}_fixtures

{{ cookiecutter.__snake }}_service = {{ cookiecutter.__snake }}_fixtures().service
