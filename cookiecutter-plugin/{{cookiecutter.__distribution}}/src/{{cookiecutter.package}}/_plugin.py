"""{{ cookiecutter.__title }} as a service: what runs, and what is asked of it."""

from __future__ import annotations

{% if cookiecutter.server %}
from collections.abc import Iterable, Mapping
{% else %}
from collections.abc import Mapping
{% endif %}
{% if cookiecutter.readiness == 'client' %}
from contextlib import closing
from importlib import import_module
{% endif %}
from typing import ClassVar
from urllib.parse import urlsplit

{% if cookiecutter.readiness == 'log' %}
from cleanroom import ServiceHandle
{% endif %}
{% if cookiecutter.server %}
from cleanroom_runtime import (
    BasePlugin,
    ContainerSpec,
    LocalServer,
    ProcessSpec,
    Workspace,
    installed_servers,
{% if cookiecutter.readiness != 'client' %}
    probes,
{% endif %}
)
{% elif cookiecutter.readiness == 'client' %}
from cleanroom_runtime import BasePlugin, ContainerSpec
{% else %}
from cleanroom_runtime import BasePlugin, ContainerSpec, probes
{% endif %}

IMAGE = {{ cookiecutter.image | literal }}
PORT = {{ cookiecutter.port | int }}
{% if cookiecutter.server and cookiecutter.server_configuration %}
CONFIGURATION = """{{ cookiecutter.server_configuration | text_block }}"""
{% endif %}


class {{ cookiecutter.__class }}Plugin(BasePlugin):
    """{{ cookiecutter.__title }}, with the arguments of `cleanroom_runtime.BasePlugin`."""

{% if cookiecutter.__class.startswith('Test') %}
    __test__: ClassVar[bool] = False  # pytest takes a class of this name for tests

{% endif %}
    plugin_type: ClassVar[str] = "{{ cookiecutter.service }}"
    default_image: ClassVar[str | None] = IMAGE
{% if cookiecutter.server %}
    official_image: str | None = {{ (cookiecutter.image.split('@') | first) | replace(':' + (cookiecutter.image.split('@') | first).split('/')[-1].split(':')[1:] | join(), '') | literal }}
{% endif %}
    url_schemes: ClassVar[tuple[str, ...]] = ("{{ 'http' if cookiecutter.readiness == 'http' else cookiecutter.service }}",)

    def container(self, image: str) -> ContainerSpec:
        """Return the container to run."""
        return ContainerSpec(image=image, port=PORT)

{% if cookiecutter.server %}
    def local_servers(self) -> Iterable[LocalServer]:
        """Find the servers that are installed on this machine."""
{% if cookiecutter.server_version == '--version' %}
        return installed_servers("{{ cookiecutter.server }}")
{% else %}
        return installed_servers("{{ cookiecutter.server }}", version=[{{ cookiecutter.server_version | words(True) | join(', ') }}])
{% endif %}

    def process(self, server: LocalServer, workspace: Workspace) -> ProcessSpec:
        """Return the server as a process on 127.0.0.1, at the port of its workspace."""
{% if cookiecutter.server_configuration %}
        text = CONFIGURATION.replace("{port}", str(workspace.port))
        text = text.replace("{directory}", str(workspace.directory))
        configuration = workspace.directory / "{{ cookiecutter.service }}.conf"
{% endif %}
{% set arguments = cookiecutter.server_arguments | words %}
        return ProcessSpec(
{% if arguments | join(', ') | length < 56 %}
            argv=[str(server.executable), {{ arguments | join(', ') }}],
{% else %}
            argv=[
                str(server.executable),
{% for argument in arguments %}
                {{ argument }},
{% endfor %}
            ],
{% endif %}
{% if cookiecutter.server_configuration %}
            files={configuration: text},
{% endif %}
        )

{% endif %}
    def attach(self, url: str, service_id: str) -> Mapping[str, str]:
        """Use a server that somebody else runs."""
        parts = urlsplit(url)
        return {"host": str(parts.hostname), "port": str(parts.port or PORT), "url": url}

    def describe(self, host: str, port: int) -> Mapping[str, str]:
        """Return the URL, and what else users need to know of a server at this address."""
        named = f"[{host}]" if ":" in host else host
        return {"url": f"{{ 'http' if cookiecutter.readiness == 'http' else cookiecutter.service }}://{named}:{port}"}

{% if cookiecutter.readiness == 'client' %}
    def warm_up(self) -> None:
        """Import the client library while the server starts."""
        import_module("{{ cookiecutter.client_opens | module_of }}")

{% endif %}
    def probe(self, endpoint: Mapping[str, str], timeout: float) -> None:
{% if cookiecutter.readiness == 'tcp' %}
        """Ask whether the port is listened on."""
        probes.ask_tcp(endpoint, timeout)
{% elif cookiecutter.readiness == 'http' %}
        """Ask for a path that a ready server answers."""
        probes.ask_http(
            endpoint,
            {{ cookiecutter.http_path | literal }},
            timeout,
        )
{% elif cookiecutter.readiness == 'command' %}
        """Ask by a command that succeeds once the server is ready."""
{% set command = cookiecutter.command | words(True) %}
{% if command | join(', ') | length < 80 %}
        command = [{{ command | join(', ') }}]
{% else %}
        command = [
{% for word in command %}
            {{ word }},
{% endfor %}
        ]
{% endif %}
        probes.ask_command(endpoint, command, timeout, port=PORT)
{% elif cookiecutter.readiness == 'log' %}
        """Ask whether the server has written that it is ready, and its port is listened on."""
        probes.ask_log(
            endpoint,
            {{ cookiecutter.log_line | literal }},
        )
        probes.ask_tcp(endpoint, timeout)

    def examine(self, handle: ServiceHandle, timeout: float) -> None:
        """Ask how it is later, which the log does not say."""
        probes.ask_tcp(handle.metadata, timeout)
{% else %}
        """Ask by the client library."""
        import {{ cookiecutter.client_opens | module_of }}

{% set uses = cookiecutter.client_opens %}
{% if 'host' in uses and 'port' in uses %}
        host, port = endpoint["host"], int(endpoint["port"])
{% elif 'host' in uses %}
        host = endpoint["host"]
{% elif 'port' in uses %}
        port = int(endpoint["port"])
{% endif %}
{% if 'url' in uses %}
        url = endpoint["url"]
{% endif %}
        with closing(
            {{ uses }},
        ) as client:
            {{ cookiecutter.client_asks }}
{% endif %}
