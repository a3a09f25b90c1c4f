"""Orders: in PostgreSQL, through a pool of connections that is kept open."""

from collections.abc import Mapping
from typing import Any

from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from shop.errors import NotFoundError, ShopError


class Orders:
    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def products(self) -> list[dict[str, Any]]:
        """Return all products, with what is left of them."""
        return self._rows("SELECT sku, name, price_cents, stock FROM products ORDER BY sku")

    def product(self, sku: str) -> dict[str, Any]:
        """Return one product. Raises NotFoundError."""
        rows = self._rows("SELECT sku, name, price_cents, stock FROM products WHERE sku = %s", sku)
        return _only(rows, f"there is no product {sku}")

    def place(self, customer: str, items: Mapping[str, int]) -> int:
        """Take what is ordered out of the stock, and return the order's number.

        Raises:
            ShopError: Nothing is ordered, or there are too few of a product; nothing is changed.
        """
        if not items:
            raise ShopError(f"the cart of {customer} is empty")
        with self._pool.connection() as connection:
            (number,) = connection.execute(
                "INSERT INTO orders (customer) VALUES (%s) RETURNING number", [customer]
            ).fetchone()
            # In the order of the SKUs, so that two orders never wait for each other in a circle.
            for sku in sorted(items):
                taken = connection.execute(
                    "UPDATE products SET stock = stock - %(quantity)s"
                    " WHERE sku = %(sku)s AND stock >= %(quantity)s RETURNING price_cents",
                    {"sku": sku, "quantity": items[sku]},
                ).fetchone()
                if taken is None:
                    raise ShopError(f"there are not {items[sku]} of {sku} left")
                connection.execute(
                    "INSERT INTO order_lines VALUES (%s, %s, %s, %s)",
                    [number, sku, items[sku], taken[0]],
                )
        return number

    def find(self, number: int) -> dict[str, Any]:
        """Return an order with its lines. Raises NotFoundError."""
        rows = self._rows("SELECT number, customer, status FROM orders WHERE number = %s", number)
        order = _only(rows, f"there is no order {number}")
        lines = self._rows(
            "SELECT sku, quantity, price_cents FROM order_lines"
            " WHERE order_number = %s ORDER BY sku",
            number,
        )
        total = sum(line["quantity"] * line["price_cents"] for line in lines)
        return {**order, "lines": lines, "total_cents": total}

    def cancel(self, number: int) -> None:
        """Put what was ordered back into the stock. Raises ShopError if that was done already."""
        with self._pool.connection() as connection:
            cancelled = connection.execute(
                "UPDATE orders SET status = 'cancelled' WHERE number = %s AND status = 'placed'",
                [number],
            )
            if cancelled.rowcount == 0:
                raise ShopError(f"there is no order {number} to cancel")
            connection.execute(
                "UPDATE products SET stock = stock + quantity FROM order_lines"
                " WHERE order_lines.sku = products.sku AND order_number = %s",
                [number],
            )

    def _rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        with self._pool.connection() as connection:
            return connection.cursor(row_factory=dict_row).execute(query, values).fetchall()


def _only(rows: list[dict[str, Any]], otherwise: str) -> dict[str, Any]:
    if not rows:
        raise NotFoundError(otherwise)
    return rows[0]
