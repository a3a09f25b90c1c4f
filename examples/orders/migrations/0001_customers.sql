CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL
        CONSTRAINT customers_email_is_plausible CHECK (email ~ '^[^@\s]+@[^@\s]+$'),
    name text NOT NULL
        CONSTRAINT customers_name_is_not_blank CHECK (btrim(name) <> ''),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Ada@example.com and ada@example.com are one customer.
CREATE UNIQUE INDEX customers_email_key ON customers (lower(email));
