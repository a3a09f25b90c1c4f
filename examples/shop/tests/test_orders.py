"""Orders: placed over HTTP, looked up in PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests


@pytest.fixture
def rows(postgres_db):
    """Returns what a query finds, over a connection of the test's own."""
    connection = postgres_db.connect(autocommit=True)

    def rows(query, *values):
        return connection.execute(query, values).fetchall()

    yield rows
    connection.close()


@pytest.fixture
def order(http_service, redis_db):
    """Orders what is put into a cart right in Redis."""

    def order(customer="mira", **items):
        redis_db.client().hset(f"cart:{customer}", mapping=items)
        return http_service.session.post(f"/carts/{customer}/order")

    return order


def test_the_products_are_those_of_the_migrations(http_service, rows):
    skus = [product["sku"] for product in http_service.session.get("/products").json()]
    assert skus == ["apples", "bread", "cheese", "honey"]
    assert rows("SELECT count(*), sum(stock) FROM products") == [(4, 63)]


def test_a_product_that_is_in_postgresql_is_on_sale(http_service, postgres_db):
    with postgres_db.connect() as connection:
        connection.execute("INSERT INTO products VALUES ('figs', 'Figs, 250 g', 310, 5)")
    skus = [product["sku"] for product in http_service.session.get("/products").json()]
    assert "figs" in skus


def test_an_order_takes_the_cart_and_the_stock(order, rows, redis_db):
    response = order(apples=2, honey=1)
    assert response.status_code == 201
    assert response.json() == {
        "number": 1001,
        "customer": "mira",
        "status": "placed",
        "lines": [
            {"sku": "apples", "quantity": 2, "price_cents": 349},
            {"sku": "honey", "quantity": 1, "price_cents": 850},
        ],
        "total_cents": 1548,
    }
    assert rows("SELECT number, customer FROM orders") == [(1001, "mira")]
    assert rows("SELECT stock FROM products WHERE sku = 'honey'") == [(2,)]
    assert not redis_db.client().exists("cart:mira")


def test_the_next_number_is_the_same_in_every_test(order):
    assert [order(bread=1).json()["number"] for _ in range(3)] == [1001, 1002, 1003]


def test_an_order_that_is_in_postgresql_is_shown(http_service, postgres_db):
    with postgres_db.connect() as connection:
        connection.execute("INSERT INTO orders (customer) VALUES ('jan')")
        connection.execute("INSERT INTO order_lines VALUES (1001, 'bread', 2, 400)")
    found = http_service.session.get("/orders/1001").json()
    assert (found["customer"], found["total_cents"]) == ("jan", 800)


def test_an_empty_cart_is_no_order(http_service, rows):
    response = http_service.session.post("/carts/mira/order")
    assert response.status_code == 409
    assert rows("SELECT * FROM orders") == []


def test_an_order_that_cannot_be_filled_changes_nothing(order, rows, redis_db):
    response = order(apples=1, honey=4)
    assert response.status_code == 409
    assert response.json() == {"error": "there are not 4 of honey left"}
    assert rows("SELECT * FROM orders") == []
    assert rows("SELECT stock FROM products WHERE sku = 'apples'") == [(40,)]
    assert redis_db.client().hlen("cart:mira") == 2


def test_the_last_pieces_are_sold_once(http_service, redis_db, rows):
    customers = [f"customer{n}" for n in range(6)]
    for customer in customers:
        redis_db.client().hset(f"cart:{customer}", "honey", 1)

    def buy(customer):
        return requests.post(f"{http_service.url}/carts/{customer}/order", timeout=30).status_code

    with ThreadPoolExecutor(max_workers=6) as threads:
        answers = sorted(threads.map(buy, customers))
    assert answers == [201, 201, 201, 409, 409, 409]
    assert rows("SELECT stock FROM products WHERE sku = 'honey'") == [(0,)]


def test_cancelling_puts_the_stock_back(order, http_service, rows):
    number = order(cheese=8).json()["number"]
    assert rows("SELECT stock FROM products WHERE sku = 'cheese'") == [(0,)]
    cancelled = http_service.session.post(f"/orders/{number}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert rows("SELECT stock FROM products WHERE sku = 'cheese'") == [(8,)]
    assert http_service.session.post(f"/orders/{number}/cancel").status_code == 409
    assert rows("SELECT stock FROM products WHERE sku = 'cheese'") == [(8,)]


def test_an_unknown_order(http_service):
    assert http_service.session.get("/orders/1001").status_code == 404


SHOPS = set()


@pytest.mark.parametrize("time", range(3))
def test_the_shop_keeps_its_connections(order, rows, time):
    """Whatever was undone between tests, the connections that the shop has opened stay open."""
    assert order(bread=1).status_code == 201
    found = rows(
        "SELECT pid FROM pg_stat_activity "
        "WHERE application_name = 'shop' AND datname = current_database()"
    )
    assert SHOPS <= set(found) != set()
    SHOPS.update(found)
