CREATE VIEW order_totals AS
SELECT
    orders.id AS order_id,
    orders.number,
    orders.status,
    coalesce(lines.total_cents, 0) AS total_cents,
    coalesce(paid.paid_cents, 0) AS paid_cents
FROM orders
LEFT JOIN (
    SELECT order_id, sum(quantity * unit_price_cents) AS total_cents
    FROM order_lines
    GROUP BY order_id
) AS lines ON lines.order_id = orders.id
LEFT JOIN (
    SELECT order_id, sum(amount_cents) AS paid_cents
    FROM payments
    GROUP BY order_id
) AS paid ON paid.order_id = orders.id;
