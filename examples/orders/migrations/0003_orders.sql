CREATE SEQUENCE order_numbers START WITH 1001;

CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number text NOT NULL DEFAULT 'T-' || nextval('order_numbers')
        CONSTRAINT orders_number_key UNIQUE,
    customer_id bigint NOT NULL REFERENCES customers (id),
    status text NOT NULL DEFAULT 'placed'
        CONSTRAINT orders_status_is_known
        CHECK (status IN ('placed', 'paid', 'shipped', 'cancelled')),
    placed_at timestamptz NOT NULL DEFAULT now()
);

ALTER SEQUENCE order_numbers OWNED BY orders.number;

CREATE INDEX orders_customer_id_idx ON orders (customer_id);
