-- A call's row counts for its environment, in the statement that inserts it.

CREATE TRIGGER executions_count AFTER INSERT ON executions BEGIN
    UPDATE environments SET execution_count = execution_count + 1, last_executed_at = NEW.started_at
    WHERE id = NEW.environment_id;
END;
