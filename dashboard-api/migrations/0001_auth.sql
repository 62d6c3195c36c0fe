-- Local users, their sessions, API keys, revocations and the audit log. The same statements run on SQLite and PostgreSQL.
-- Times are milliseconds since 1970 unless a name says otherwise; roles and claims are JSON as text. No password, token
-- or key is kept, only hashes.

CREATE TABLE auth_user (
  user_name TEXT NOT NULL PRIMARY KEY,
  password_hash TEXT NOT NULL,
  roles TEXT NOT NULL,
  claims TEXT NOT NULL,
  is_disabled BOOLEAN NOT NULL,
  created_at_ms BIGINT NOT NULL,
  changed_at_ms BIGINT NOT NULL
);

-- A sign-in: the family of the refresh tokens that follow from it.
CREATE TABLE auth_session (
  session_id TEXT NOT NULL PRIMARY KEY,
  user_name TEXT NOT NULL REFERENCES auth_user (user_name),
  created_at_ms BIGINT NOT NULL,
  ends_at_ms BIGINT NOT NULL,
  revoked_at_ms BIGINT,
  address TEXT NOT NULL
);

CREATE INDEX auth_session_of_user ON auth_session (user_name);
CREATE INDEX auth_session_revoked ON auth_session (revoked_at_ms);

-- Each token is used once. One that comes a second time has been stolen, from its owner or by its bearer.
CREATE TABLE auth_refresh_token (
  token_hash TEXT NOT NULL PRIMARY KEY,
  session_id TEXT NOT NULL REFERENCES auth_session (session_id),
  expires_at_ms BIGINT NOT NULL,
  used_at_ms BIGINT
);

CREATE INDEX auth_refresh_token_of_session ON auth_refresh_token (session_id);

CREATE TABLE auth_api_key (
  key_id TEXT NOT NULL PRIMARY KEY,
  secret_hash TEXT NOT NULL,
  key_name TEXT NOT NULL,
  roles TEXT NOT NULL,
  claims TEXT NOT NULL,
  created_at_ms BIGINT NOT NULL,
  expires_at_ms BIGINT,
  revoked_at_ms BIGINT
);

-- Tokens of other programs for this user are good only if issued later, in seconds since 1970.
CREATE TABLE auth_cutoff (
  user_name TEXT NOT NULL PRIMARY KEY,
  before_s BIGINT NOT NULL
);

-- The secret that signs access tokens, shared by all nodes.
CREATE TABLE auth_secret (
  secret_name TEXT NOT NULL PRIMARY KEY,
  secret TEXT NOT NULL
);

-- Grows with every change of the tables above that running nodes must know of.
CREATE TABLE auth_version (
  version_id INTEGER NOT NULL PRIMARY KEY,
  version BIGINT NOT NULL
);

INSERT INTO auth_version (version_id, version) VALUES (1, 1);

-- Append only, but for its bound. Ids are UUIDs in the order of time.
CREATE TABLE auth_audit (
  entry_id TEXT NOT NULL PRIMARY KEY,
  at_ms BIGINT NOT NULL,
  event TEXT NOT NULL,
  outcome TEXT NOT NULL,
  user_name TEXT NOT NULL,
  address TEXT NOT NULL,
  subject TEXT NOT NULL,
  detail TEXT NOT NULL
);

CREATE INDEX auth_audit_by_user ON auth_audit (user_name, entry_id);
CREATE INDEX auth_audit_by_time ON auth_audit (at_ms);
