"""What the database itself refuses, and that tests may change even its tables."""

import psycopg
import pytest
from psycopg import errors

import orders


def broken_constraint(error: pytest.ExceptionInfo[psycopg.Error]) -> str | None:
    return error.value.diag.constraint_name


def test_two_customers_cannot_share_an_address(shop):
    with pytest.raises(errors.UniqueViolation) as error:
        orders.register_customer(shop, "ADA.ALBERS@example.com", "Another Ada")
    assert broken_constraint(error) == "customers_email_key"


@pytest.mark.parametrize("email", ["", "nobody", "two words@example.com"])
def test_an_address_must_be_plausible(shop, email):
    with pytest.raises(errors.CheckViolation) as error:
        orders.register_customer(shop, email, "Nobody")
    assert broken_constraint(error) == "customers_email_is_plausible"


def test_an_order_needs_a_customer_that_exists(shop):
    with pytest.raises(errors.ForeignKeyViolation) as error:
        orders.place_order(shop, 61, {"BLK-001": 1})
    assert broken_constraint(error) == "orders_customer_id_fkey"


def test_a_product_with_orders_cannot_be_deleted(shop):
    with pytest.raises(errors.ForeignKeyViolation) as error:
        shop.execute("DELETE FROM products WHERE sku = 'BLK-001'")
    assert broken_constraint(error) == "order_lines_product_id_fkey"


def test_stock_cannot_become_negative(shop):
    with pytest.raises(errors.CheckViolation) as error:
        shop.execute("UPDATE products SET stock = stock - 1000")
    assert broken_constraint(error) == "products_stock_is_not_negative"


def test_a_payment_is_booked_once(shop):
    order = orders.place_order(shop, 9, {"HRB-008": 2})
    orders.pay_order(shop, order.number, 100, "transfer", "BANK-77")
    with pytest.raises(errors.UniqueViolation) as error:
        orders.pay_order(shop, order.number, 100, "transfer", "BANK-77")
    assert broken_constraint(error) == "payments_reference_key"


def test_a_shipped_order_stays_shipped(shop):
    with pytest.raises(errors.CheckViolation, match="T-1004 is shipped") as error:
        orders.cancel_order(shop, "T-1004")
    assert broken_constraint(error) == "orders_end_states_are_final"
    assert orders.find_order(shop, "T-1004").status == "shipped"


def test_every_change_of_status_is_logged(shop):
    order = orders.place_order(shop, 10, {"GRN-010": 1})
    orders.cancel_order(shop, order.number)
    rows = shop.execute(
        "SELECT old_status, new_status FROM order_events WHERE order_id = %s ORDER BY id",
        (order.id,),
    ).fetchall()
    assert rows == [(None, "placed"), ("placed", "cancelled")]


def test_deleting_an_order_deletes_its_lines(shop):
    shop.execute("DELETE FROM payments WHERE order_id = 2")
    shop.execute("DELETE FROM orders WHERE id = 2")
    shop.commit()
    row = shop.execute("SELECT count(*) FROM order_lines").fetchone()
    assert row == (300 - 3,)


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_table_made_by_one_test_is_unknown_to_the_next(shop, attempt):
    shop.execute("CREATE TABLE vouchers (code text PRIMARY KEY)")
    shop.execute("INSERT INTO vouchers VALUES ('SPRING')")
    shop.execute("ALTER TABLE customers ADD COLUMN voucher text REFERENCES vouchers (code)")
    shop.commit()
    row = shop.execute("SELECT count(*) FROM vouchers").fetchone()
    assert row == (1,)
