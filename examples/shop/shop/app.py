"""The shop's HTTP interface."""

import os

import redis
from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue
from psycopg_pool import ConnectionPool

from shop.carts import Carts
from shop.errors import ShopError
from shop.limits import RateLimit
from shop.orders import Orders


def create_app() -> Flask:
    """Make the application. Its connections are opened once, and kept."""
    app = Flask("shop")
    pool = ConnectionPool(
        os.environ["DATABASE_URL"],
        min_size=1,
        max_size=4,
        open=True,
        kwargs={"application_name": "shop"},
    )
    store = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    orders, carts = Orders(pool), Carts(store)
    limit = RateLimit(store, most=20, seconds=60)

    @app.get("/health")
    def health() -> ResponseReturnValue:
        with pool.connection() as connection:
            connection.execute("SELECT 1")
        store.ping()
        return "OK"

    @app.get("/products")
    def products() -> ResponseReturnValue:
        return jsonify(orders.products())

    @app.get("/carts/<customer>")
    def show_cart(customer: str) -> ResponseReturnValue:
        return jsonify(carts.items(customer))

    @app.put("/carts/<customer>/<sku>")
    def put_into_cart(customer: str, sku: str) -> ResponseReturnValue:
        limit.count(customer)
        orders.product(sku)  # it has to exist
        carts.put(customer, sku, int(request.get_json()["quantity"]))
        return jsonify(carts.items(customer))

    @app.post("/carts/<customer>/order")
    def place_order(customer: str) -> ResponseReturnValue:
        limit.count(customer)
        number = orders.place(customer, carts.items(customer))
        carts.clear(customer)
        return jsonify(orders.find(number)), 201

    @app.get("/orders/<int:number>")
    def show_order(number: int) -> ResponseReturnValue:
        return jsonify(orders.find(number))

    @app.post("/orders/<int:number>/cancel")
    def cancel_order(number: int) -> ResponseReturnValue:
        orders.cancel(number)
        return jsonify(orders.find(number))

    @app.errorhandler(ShopError)
    def refuse(error: ShopError) -> ResponseReturnValue:
        return jsonify(error=str(error)), error.status, error.headers

    return app
