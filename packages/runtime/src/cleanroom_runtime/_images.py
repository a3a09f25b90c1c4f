"""Images of containers: there, or pulled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cleanroom import ContainerError
from cleanroom_runtime._asking import ask_engine, understood
from cleanroom_runtime._container_spec import ContainerSpec
from cleanroom_runtime._image import HINT_FOR_NAME
from cleanroom_runtime._warden._engine_api import reason_in

if TYPE_CHECKING:
    from cleanroom_runtime._engine import Engine
    from cleanroom_runtime._run import Run


def provide(run: Run, service_name: str, spec: ContainerSpec, engine: Engine) -> None:
    """Make sure that the engine has the image. How a pull goes on is logged to `cleanroom.pull`.

    Args:
        run: The run that the container will be part of.
        service_name: The service's name, for errors.
        spec: Says which image, when to pull it, and what to log in to its registry with.
        engine: Where.

    Raises:
        ContainerError: It is missing and could not, or must not, be pulled.
    """
    if spec.pull != "always" and _is_there(spec.image, engine, service_name):
        return
    if spec.pull == "never":
        raise ContainerError(
            f"the engine has no image {spec.image!r}, and pull='never' forbids to get it",
            service=service_name,
            backend="container",
            hint=f"docker pull {spec.image}, or pull='missing'",
        )
    from cleanroom_runtime._docker import pull
    from cleanroom_runtime._docker_errors import translated
    from cleanroom_runtime._tunnel import within_reach

    run.request("register", engine=engine.warden_record())  # with which its directory is there
    door = run.address.directory / f"{run.new_service_id().rpartition('-')[2]}.engine"
    with translated(service_name, spec, engine), within_reach(engine, door) as url:
        pull(engine, url, spec)


def _is_there(image: str, engine: Engine, service_name: str) -> bool:
    """Ask without docker's client, which takes long to import."""
    status, body = ask_engine(engine, "GET", f"/images/{image}/json", service_name)
    if status == 404:
        return False
    if status == 400:  # an older engine takes no word in upper case for a registry
        raise ContainerError(
            f"the engine knows no image by a name such as {image!r}: {reason_in(body)[:500]}",
            service=service_name,
            backend="container",
            hint=HINT_FOR_NAME,
        )
    understood(engine, status, body, service_name)
    return True
