-- Create a database for indexes, and a role without access to the control plane's database: Ray's nodes have its password.
-- The container's first start runs this file. For an existing volume, run it once as docs/operations.md describes.
\set ON_ERROR_STOP on
\getenv password INDEX_PASSWORD
CREATE ROLE tinyclip_indexes LOGIN PASSWORD :'password';
CREATE DATABASE indexes OWNER tinyclip_indexes ENCODING 'UTF8' TEMPLATE template0;
REVOKE CONNECT ON DATABASE :DBNAME FROM PUBLIC;
\connect indexes
CREATE EXTENSION vector;
