"""The shop's tables and its products, in the database of every test."""

from cleanroom_plugin_postgres import template

# Run once, in this order; every test starts from a database that looks like the result.
postgres_template = template(migrate="migrations/*.sql")
