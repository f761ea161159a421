-- Listing people in the order in which they came, and collections that can be deleted.

CREATE INDEX people_created ON people (collection_id, created_at, id);

-- A key ends with its collection and is never deleted: the service is open on loopback only while there has never been a
-- key. former_collection: the name of the collection that a key ended with.

ALTER TABLE api_keys
    ADD COLUMN former_collection text,
    ADD CONSTRAINT api_keys_ended CHECK (former_collection IS NULL OR (collection_id IS NULL AND revoked_at IS NOT NULL)),
    DROP CONSTRAINT api_keys_collection_id_fkey,
    ADD CONSTRAINT api_keys_collection FOREIGN KEY (collection_id) REFERENCES collections (id);
