CREATE TABLE orders (
    number integer GENERATED ALWAYS AS IDENTITY (START WITH 1001) PRIMARY KEY,
    customer text NOT NULL CHECK (customer <> ''),
    status text NOT NULL DEFAULT 'placed' CHECK (status IN ('placed', 'cancelled')),
    placed_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE order_lines (
    order_number integer NOT NULL REFERENCES orders ON DELETE CASCADE,
    sku text NOT NULL REFERENCES products,
    quantity integer NOT NULL CHECK (quantity > 0),
    price_cents integer NOT NULL,
    PRIMARY KEY (order_number, sku)
);
