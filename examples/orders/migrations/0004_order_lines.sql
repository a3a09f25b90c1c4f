-- The price is copied: a later price change leaves old orders as they were.
CREATE TABLE order_lines (
    order_id bigint NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    product_id bigint NOT NULL REFERENCES products (id),
    quantity integer NOT NULL
        CONSTRAINT order_lines_quantity_is_positive CHECK (quantity > 0),
    unit_price_cents integer NOT NULL
        CONSTRAINT order_lines_price_is_positive CHECK (unit_price_cents > 0),
    PRIMARY KEY (order_id, product_id)
);

CREATE INDEX order_lines_product_id_idx ON order_lines (product_id);
