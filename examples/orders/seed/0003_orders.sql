-- A hundred and fifty orders with three hundred lines, spread evenly and always the same.
INSERT INTO orders (customer_id, status, placed_at)
SELECT
    1 + n * 7 % 60,
    CASE
        WHEN n % 10 = 0 THEN 'cancelled'
        WHEN n % 5 = 1 THEN 'placed'
        WHEN n % 5 IN (2, 3) THEN 'paid'
        ELSE 'shipped'
    END,
    timestamptz '2024-03-01 09:00+00' + n * interval '5 hours'
FROM generate_series(1, 150) AS n
ORDER BY n;

INSERT INTO order_lines (order_id, product_id, quantity, unit_price_cents)
SELECT orders.id, products.id, 1 + (orders.id + line) % 4, products.price_cents
FROM orders
CROSS JOIN generate_series(0, 2) AS line
JOIN products ON products.id = 1 + (orders.id * 3 + line * 11) % 40
WHERE line <= orders.id % 3
ORDER BY orders.id, line;
