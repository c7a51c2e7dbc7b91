-- The hub: made once for a data directory, by the superuser. Can be run again after it was cut short.
--   liaison_oms   owns the database: migrations, and whatever loads OMS's extract
--   liaison_sync  reads records and writes Liaison's own tables; its rights there come with the migrations
-- Nobody else connects. A login also needs a client certificate whose CN is the role (the image's pg_hba.conf).
-- Passwords must not be written to the server's log if a statement fails.
SET log_min_error_statement = panic;
\getenv oms_password OMS_PASSWORD
\getenv sync_password SYNC_PASSWORD
SELECT 'CREATE ROLE liaison_oms' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'liaison_oms') \gexec
SELECT 'CREATE ROLE liaison_sync' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'liaison_sync') \gexec
ALTER ROLE liaison_oms LOGIN PASSWORD :'oms_password';
ALTER ROLE liaison_sync LOGIN PASSWORD :'sync_password';
SELECT 'CREATE DATABASE hub OWNER liaison_oms' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'hub') \gexec
REVOKE ALL ON DATABASE hub, postgres, template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE hub TO liaison_sync;
