CREATE TABLE categories (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL CONSTRAINT categories_name_key UNIQUE
);

CREATE TABLE products (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    category_id bigint NOT NULL REFERENCES categories (id),
    sku text NOT NULL
        CONSTRAINT products_sku_key UNIQUE
        CONSTRAINT products_sku_has_the_form CHECK (sku ~ '^[A-Z]{3}-[0-9]{3}$'),
    name text NOT NULL,
    price_cents integer NOT NULL
        CONSTRAINT products_price_is_positive CHECK (price_cents > 0),
    stock integer NOT NULL DEFAULT 0
        CONSTRAINT products_stock_is_not_negative CHECK (stock >= 0)
);

CREATE INDEX products_category_id_idx ON products (category_id);
