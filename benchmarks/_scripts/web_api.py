"""An API on a web framework, which does nothing but say that it is well."""

from flask import Flask


def create_app() -> Flask:
    """Return the application, for waitress to serve."""
    app = Flask(__name__)

    @app.get("/health")
    def health() -> str:
        return "OK"

    return app
