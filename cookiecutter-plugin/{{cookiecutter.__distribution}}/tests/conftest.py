"""What the tests share: a second server beside the run's."""

from __future__ import annotations

from {{ cookiecutter.package }} import (
    {{ cookiecutter.__class }}Plugin,
    {{ cookiecutter.__snake }}_fixtures,
)

second_{{ cookiecutter.__snake }} = {{ cookiecutter.__snake }}_fixtures(
    {{ cookiecutter.__class }}Plugin("second-{{ cookiecutter.service }}"),
).service
