ALTER TABLE products ADD COLUMN discontinued_at timestamptz;

CREATE INDEX products_on_sale_idx ON products (category_id) WHERE discontinued_at IS NULL;
