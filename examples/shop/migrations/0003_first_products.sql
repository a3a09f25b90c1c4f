INSERT INTO products (sku, name, price_cents, stock) VALUES
    ('apples', 'Apples, 1 kg', 349, 40),
    ('bread', 'Rye bread', 420, 12),
    ('cheese', 'Mountain cheese, 200 g', 690, 8),
    ('honey', 'Honey, 500 g', 850, 3);
