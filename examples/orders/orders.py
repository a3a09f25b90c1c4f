"""Orders of a small tea shop: plain functions over a psycopg connection.

Each function that writes does so in a transaction of its own, or in a savepoint where the caller
has a transaction open already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg


class OrderError(Exception):
    """An order, or what was asked of it, is not possible."""


class UnknownProductError(OrderError):
    """No product on sale has this SKU."""


class OutOfStockError(OrderError):
    """The shop has fewer of a product than were ordered."""


class UnknownOrderError(OrderError):
    """No order has this number."""


@dataclass(frozen=True)
class Order:
    """An order as the shop sees it; amounts are in cents."""

    id: int
    number: str
    status: str
    total_cents: int
    paid_cents: int

    @property
    def due_cents(self) -> int:
        """What is still to be paid, in cents."""
        return self.total_cents - self.paid_cents


def register_customer(connection: psycopg.Connection, email: str, name: str) -> int:
    """Add a customer and return its id."""
    with connection.transaction():
        row = connection.execute(
            "INSERT INTO customers (email, name) VALUES (%s, %s) RETURNING id", (email, name)
        ).fetchone()
    assert row is not None
    return int(row[0])


def place_order(
    connection: psycopg.Connection, customer_id: int, items: Mapping[str, int]
) -> Order:
    """Place an order for `items` (SKU to quantity), taking them out of the stock.

    Raises:
        UnknownProductError: if a SKU is not on sale.
        OutOfStockError: if there are too few of one; then nothing is ordered at all.
    """
    if not items:
        raise OrderError("an order needs at least one item")
    with connection.transaction():
        row = connection.execute(
            "INSERT INTO orders (customer_id) VALUES (%s) RETURNING id, number", (customer_id,)
        ).fetchone()
        assert row is not None
        order_id, number = row
        # In the order of the SKUs, so that two orders never wait for each other in a circle.
        for sku in sorted(items):
            _add_line(connection, order_id, sku, items[sku])
    return find_order(connection, number)


def pay_order(
    connection: psycopg.Connection, number: str, amount_cents: int, method: str, reference: str
) -> Order:
    """Book a payment; the order is `paid` once nothing is due."""
    with connection.transaction():
        order = find_order(connection, number, lock=True)
        if order.status != "placed":
            raise OrderError(f"order {number} is {order.status} and takes no payment")
        if amount_cents > order.due_cents:
            raise OrderError(f"order {number} has only {order.due_cents} cents due")
        connection.execute(
            "INSERT INTO payments (order_id, amount_cents, method, reference)"
            " VALUES (%s, %s, %s, %s)",
            (order.id, amount_cents, method, reference),
        )
        if amount_cents == order.due_cents:
            _set_status(connection, order.id, "paid")
    return find_order(connection, number)


def cancel_order(connection: psycopg.Connection, number: str) -> Order:
    """Cancel an order and put its items back into the stock."""
    with connection.transaction():
        order = find_order(connection, number, lock=True)
        _set_status(connection, order.id, "cancelled")
        connection.execute(
            "UPDATE products SET stock = stock + quantity FROM order_lines"
            " WHERE order_lines.product_id = products.id AND order_lines.order_id = %s",
            (order.id,),
        )
    return find_order(connection, number)


def find_order(connection: psycopg.Connection, number: str, *, lock: bool = False) -> Order:
    """Return the order with this number, locked against others if asked.

    Raises:
        UnknownOrderError: if there is none.
    """
    if lock:
        connection.execute("SELECT 1 FROM orders WHERE number = %s FOR UPDATE", (number,))
    row = connection.execute(
        "SELECT order_id, number, status, total_cents, paid_cents FROM order_totals"
        " WHERE number = %s",
        (number,),
    ).fetchone()
    if row is None:
        raise UnknownOrderError(f"there is no order {number}")
    order_id, found, status, total_cents, paid_cents = row
    return Order(order_id, found, status, int(total_cents), int(paid_cents))


def best_sellers(connection: psycopg.Connection, limit: int = 5) -> list[tuple[str, int]]:
    """Return the SKUs sold most, with the quantity; cancelled orders do not count."""
    rows = connection.execute(
        "SELECT products.sku, sum(order_lines.quantity) AS sold"
        " FROM order_lines"
        " JOIN products ON products.id = order_lines.product_id"
        " JOIN orders ON orders.id = order_lines.order_id AND orders.status <> 'cancelled'"
        " GROUP BY products.sku ORDER BY sold DESC, products.sku LIMIT %s",
        (limit,),
    ).fetchall()
    return [(sku, int(sold)) for sku, sold in rows]


def _add_line(connection: psycopg.Connection, order_id: int, sku: str, quantity: int) -> None:
    row = connection.execute(
        "SELECT id, price_cents, stock FROM products"
        " WHERE sku = %s AND discontinued_at IS NULL FOR UPDATE",
        (sku,),
    ).fetchone()
    if row is None:
        raise UnknownProductError(f"no product {sku} is on sale")
    product_id, price_cents, stock = row
    if stock < quantity:
        raise OutOfStockError(f"{quantity} of {sku} were ordered, {stock} are left")
    connection.execute(
        "INSERT INTO order_lines (order_id, product_id, quantity, unit_price_cents)"
        " VALUES (%s, %s, %s, %s)",
        (order_id, product_id, quantity, price_cents),
    )
    connection.execute(
        "UPDATE products SET stock = stock - %s WHERE id = %s", (quantity, product_id)
    )


def _set_status(connection: psycopg.Connection, order_id: int, status: str) -> None:
    connection.execute("UPDATE orders SET status = %s WHERE id = %s", (status, order_id))
