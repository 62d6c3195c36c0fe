-- Alerts as they stand, and every step of their lives. The same statements run on SQLite and PostgreSQL.
-- Times are business time in milliseconds since 1970; ids are UUIDs as text; rows, keys and events are JSON as text.

CREATE TABLE alert (
  alert_id TEXT NOT NULL PRIMARY KEY,
  rule TEXT NOT NULL,
  instance_key TEXT NOT NULL,
  severity TEXT NOT NULL,
  owner TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('firing', 'resolved')),
  title TEXT NOT NULL,
  row_json TEXT NOT NULL,
  impact TEXT,
  priority DOUBLE PRECISION NOT NULL,
  fired_at_ms BIGINT NOT NULL,
  resolved_at_ms BIGINT,
  reason TEXT,
  epoch BIGINT NOT NULL,
  is_update_pending BOOLEAN NOT NULL
);

-- An instance has at most one open alert.
CREATE UNIQUE INDEX alert_open ON alert (rule, instance_key) WHERE state = 'firing';

-- Append only, but for `published`, which says whether the log has it.
CREATE TABLE alert_event (
  seq BIGINT NOT NULL PRIMARY KEY,
  event_id TEXT NOT NULL UNIQUE,
  alert_id TEXT NOT NULL REFERENCES alert (alert_id),
  rule TEXT NOT NULL,
  state TEXT NOT NULL,
  at_ms BIGINT NOT NULL,
  body TEXT NOT NULL,
  published BOOLEAN NOT NULL
);

CREATE INDEX alert_event_of_alert ON alert_event (alert_id, seq);
CREATE INDEX alert_event_unpublished ON alert_event (seq) WHERE NOT published;

-- How far each rule's topic has been read into the tables above.
CREATE TABLE alert_progress (
  rule TEXT NOT NULL PRIMARY KEY,
  next_offset BIGINT NOT NULL,
  as_of_ms BIGINT NOT NULL
);
