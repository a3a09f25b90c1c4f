CREATE TABLE order_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id bigint NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    old_status text,
    new_status text NOT NULL,
    happened_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE FUNCTION log_order_status() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO order_events (order_id, new_status) VALUES (NEW.id, NEW.status);
        RETURN NULL;
    END IF;
    IF OLD.status IN ('shipped', 'cancelled') THEN
        RAISE EXCEPTION 'order % is % and stays so', OLD.number, OLD.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'orders_end_states_are_final';
    END IF;
    INSERT INTO order_events (order_id, old_status, new_status)
    VALUES (NEW.id, OLD.status, NEW.status);
    RETURN NULL;
END;
$$;

CREATE TRIGGER orders_log_insert
AFTER INSERT ON orders
FOR EACH ROW EXECUTE FUNCTION log_order_status();

CREATE TRIGGER orders_log_update
AFTER UPDATE OF status ON orders
FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status)
EXECUTE FUNCTION log_order_status();
