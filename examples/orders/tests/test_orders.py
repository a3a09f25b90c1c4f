"""What the shop does: every test inserts, commits and counts in its own database."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import sql

import orders

# What the seed data holds. Each test meets exactly this, whatever ran before it.
SEED = {
    "customers": 60,
    "categories": 4,
    "products": 40,
    "orders": 150,
    "order_lines": 300,
    "payments": 105,
    "order_events": 150,
}


def count(connection: psycopg.Connection, table: str) -> int:
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def counts(connection: psycopg.Connection) -> dict[str, int]:
    return {table: count(connection, table) for table in SEED}


def stock(connection: psycopg.Connection, sku: str) -> int:
    row = connection.execute("SELECT stock FROM products WHERE sku = %s", (sku,)).fetchone()
    assert row is not None
    return int(row[0])


def test_the_seed_data_is_there(shop):
    assert counts(shop) == SEED


def test_registering_a_customer(shop):
    customer_id = orders.register_customer(shop, "mira@example.com", "Mira Novak")
    shop.commit()
    assert customer_id == 61
    assert counts(shop) == SEED | {"customers": 61}


def test_placing_an_order_takes_the_stock(shop):
    order = orders.place_order(shop, 1, {"BLK-001": 2, "WAR-005": 1})
    shop.commit()
    assert order.number == "T-1151"
    assert order.status == "placed"
    assert order.due_cents == order.total_cents > 0
    assert stock(shop, "BLK-001") == 64
    assert counts(shop) == SEED | {"orders": 151, "order_lines": 302, "order_events": 151}


def test_the_next_order_number_is_the_same_in_every_test(shop):
    first = orders.place_order(shop, 2, {"GRN-003": 1})
    second = orders.place_order(shop, 2, {"GRN-004": 1})
    shop.commit()
    assert [first.number, second.number] == ["T-1151", "T-1152"]
    assert count(shop, "orders") == SEED["orders"] + 2


def test_paying_in_two_parts(shop):
    order = orders.place_order(shop, 3, {"HRB-002": 3})
    half = order.total_cents // 2
    order = orders.pay_order(shop, order.number, half, "card", "CARD-1")
    assert order.status == "placed"
    order = orders.pay_order(shop, order.number, order.due_cents, "cash", "CASH-1")
    shop.commit()
    assert (order.status, order.due_cents) == ("paid", 0)
    assert count(shop, "payments") == SEED["payments"] + 2


def test_paying_too_much_is_refused(shop):
    order = orders.place_order(shop, 3, {"HRB-002": 1})
    with pytest.raises(orders.OrderError, match="cents due"):
        orders.pay_order(shop, order.number, order.total_cents + 1, "card", "CARD-1")
    assert count(shop, "payments") == SEED["payments"]


def test_cancelling_puts_the_stock_back(shop):
    before = stock(shop, "WAR-002")
    order = orders.place_order(shop, 4, {"WAR-002": 5})
    shop.commit()
    assert stock(shop, "WAR-002") == before - 5
    assert orders.cancel_order(shop, order.number).status == "cancelled"
    shop.commit()
    assert stock(shop, "WAR-002") == before
    assert counts(shop) == SEED | {"orders": 151, "order_lines": 301, "order_events": 152}


def test_an_order_that_cannot_be_filled_leaves_nothing(shop):
    with pytest.raises(orders.OutOfStockError, match="BLK-003"):
        orders.place_order(shop, 5, {"BLK-001": 1, "BLK-003": 1000})
    shop.commit()
    assert counts(shop) == SEED
    assert stock(shop, "BLK-001") == 66


def test_a_discontinued_product_cannot_be_ordered(shop):
    shop.execute("UPDATE products SET discontinued_at = now() WHERE sku = 'GRN-009'")
    shop.commit()
    with pytest.raises(orders.UnknownProductError, match="GRN-009"):
        orders.place_order(shop, 6, {"GRN-009": 1})
    assert counts(shop) == SEED


def test_every_product_is_on_sale(shop):
    row = shop.execute("SELECT count(*) FROM products WHERE discontinued_at IS NULL").fetchone()
    assert row == (SEED["products"],)


def test_best_sellers_leave_cancelled_orders_out(shop):
    before = dict(orders.best_sellers(shop, limit=40))
    order = orders.place_order(shop, 7, {"WAR-010": 9})
    assert dict(orders.best_sellers(shop, limit=40))["WAR-010"] == before["WAR-010"] + 9
    orders.cancel_order(shop, order.number)
    assert dict(orders.best_sellers(shop, limit=40)) == before


def test_a_second_connection_sees_only_what_was_committed(postgres_db):
    with postgres_db.connect() as till, postgres_db.connect() as office:
        till.execute("SELECT 1")  # opens a transaction, which place_order then joins
        orders.place_order(till, 8, {"BLK-006": 1})
        assert counts(office) == SEED
        office.rollback()
        till.commit()
        assert count(office, "orders") == SEED["orders"] + 1


def test_the_last_items_are_sold_once(postgres_db):
    with postgres_db.connect() as office:
        office.execute("UPDATE products SET stock = 3 WHERE sku = 'WAR-007'")
        office.commit()

    def buy(customer_id: int) -> bool:
        with postgres_db.connect() as connection:
            try:
                orders.place_order(connection, customer_id, {"WAR-007": 1})
            except orders.OutOfStockError:
                return False
            return True

    with ThreadPoolExecutor(max_workers=5) as pool:
        assert sum(pool.map(buy, range(1, 6))) == 3
    with postgres_db.connect() as office:
        assert stock(office, "WAR-007") == 0
        assert count(office, "orders") == SEED["orders"] + 3


@pytest.mark.filterwarnings("ignore:.* was deleted while still open:ResourceWarning")
def test_a_connection_may_be_left_in_a_transaction(postgres_db):
    forgotten = postgres_db.connect()
    # Never committed, never closed: the next test does not notice.
    forgotten.execute("DELETE FROM payments")
    with postgres_db.connect() as office:
        assert counts(office) == SEED
