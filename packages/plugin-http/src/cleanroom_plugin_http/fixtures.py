"""The fixture `http_service`.

Nothing is imported here until a test asks: this module is loaded in every pytest run.
"""

from __future__ import annotations

from cleanroom_plugin_http._fixtures import http_fixtures

http_service = http_fixtures().service
