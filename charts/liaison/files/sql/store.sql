-- The replica store: made once for a data directory, by the superuser. Can be run again after it was cut short.
--   liaison_sync  owns the database; it makes each partner's schemas and role, so it has CREATEROLE
-- PUBLIC does not connect: a partner's role is granted CONNECT when it is made.
SET log_min_error_statement = panic;
\getenv sync_password SYNC_PASSWORD
SELECT 'CREATE ROLE liaison_sync' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'liaison_sync') \gexec
ALTER ROLE liaison_sync LOGIN CREATEROLE PASSWORD :'sync_password';
SELECT 'CREATE DATABASE store OWNER liaison_sync' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'store') \gexec
REVOKE ALL ON DATABASE store, postgres, template1 FROM PUBLIC;
\connect store
-- Owned by pg_database_owner, so liaison_sync may use it; nobody else has a reason to.
REVOKE ALL ON SCHEMA public FROM PUBLIC;
