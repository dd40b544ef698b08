-- A database for indexes beside the control plane's own, for a role that sees nothing of that one: the nodes of Ray know its password.
-- The container's first start runs it; on a volume that is there already, run it once as docs/operations.md says.
\set ON_ERROR_STOP on
\getenv password INDEX_PASSWORD
CREATE ROLE tinyclip_indexes LOGIN PASSWORD :'password';
CREATE DATABASE indexes OWNER tinyclip_indexes ENCODING 'UTF8' TEMPLATE template0;
REVOKE CONNECT ON DATABASE :DBNAME FROM PUBLIC;
\connect indexes
CREATE EXTENSION vector;
