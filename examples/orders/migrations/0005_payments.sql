CREATE TABLE payments (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id bigint NOT NULL REFERENCES orders (id),
    amount_cents integer NOT NULL
        CONSTRAINT payments_amount_is_positive CHECK (amount_cents > 0),
    method text NOT NULL
        CONSTRAINT payments_method_is_known CHECK (method IN ('card', 'transfer', 'cash')),
    -- The payment provider's own number: it must never be booked twice.
    reference text NOT NULL CONSTRAINT payments_reference_key UNIQUE,
    received_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX payments_order_id_idx ON payments (order_id);
