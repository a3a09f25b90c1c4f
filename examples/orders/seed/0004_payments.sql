-- One payment in full for every order that is paid or shipped.
INSERT INTO payments (order_id, amount_cents, method, reference, received_at)
SELECT
    orders.id,
    order_totals.total_cents,
    (ARRAY['card', 'transfer', 'cash'])[1 + orders.id % 3],
    'PAY-' || lpad(orders.id::text, 5, '0'),
    orders.placed_at + interval '10 minutes'
FROM orders
JOIN order_totals ON order_totals.order_id = orders.id
WHERE orders.status IN ('paid', 'shipped')
ORDER BY orders.id;
