"""Carts: asked for over HTTP, looked up in Redis."""

import pytest


def put(api, customer, sku, quantity):
    return api.put(f"/carts/{customer}/{sku}", json={"quantity": quantity})


def test_a_cart_is_empty_at_first(http_service, redis_db):
    assert http_service.session.get("/carts/mira").json() == {}
    assert redis_db.client().keys() == []


def test_what_is_put_into_a_cart_is_in_redis(http_service, redis_db):
    assert put(http_service.session, "mira", "apples", 2).json() == {"apples": 2}
    assert put(http_service.session, "mira", "honey", 1).json() == {"apples": 2, "honey": 1}
    store = redis_db.client(decode_responses=True)
    assert store.hgetall("cart:mira") == {"apples": "2", "honey": "1"}
    assert 0 < store.ttl("cart:mira") <= 24 * 60 * 60


def test_a_cart_that_is_in_redis_is_shown(http_service, redis_db):
    redis_db.client().hset("cart:jan", mapping={"bread": 3})
    assert http_service.session.get("/carts/jan").json() == {"bread": 3}


def test_carts_are_of_one_customer_each(http_service):
    put(http_service.session, "mira", "apples", 2)
    assert http_service.session.get("/carts/jan").json() == {}


def test_a_quantity_of_none_takes_it_out(http_service, redis_db):
    put(http_service.session, "mira", "apples", 2)
    assert put(http_service.session, "mira", "apples", 0).json() == {}
    assert not redis_db.client().exists("cart:mira")


def test_an_unknown_product_is_refused(http_service, redis_db):
    response = put(http_service.session, "mira", "unicorn", 1)
    assert response.status_code == 404
    assert response.json() == {"error": "there is no product unicorn"}
    assert not redis_db.client().exists("cart:mira")


def test_a_customer_may_ask_twenty_times_a_minute(http_service):
    answers = [put(http_service.session, "mira", "apples", n) for n in range(1, 22)]
    assert [answer.status_code for answer in answers] == [200] * 20 + [429]
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    assert http_service.session.get("/carts/mira").json() == {"apples": 20}


def test_the_limit_is_of_one_customer_each(http_service, redis_db):
    redis_db.client().set("limit:mira", 20, ex=60)
    assert put(http_service.session, "mira", "apples", 1).status_code == 429
    assert put(http_service.session, "jan", "apples", 1).status_code == 200


@pytest.mark.parametrize("time", range(3))
def test_the_limit_starts_anew_in_every_test(http_service, redis_db, time):
    put(http_service.session, "mira", "apples", 1)
    assert redis_db.client().get("limit:mira") == b"1"
