-- API keys that end by themselves, can be given a new secret, and tell when they were last used.

ALTER TABLE api_keys
    ADD COLUMN expires_at   timestamptz,  -- NULL: never
    ADD COLUMN rotated_at   timestamptz,  -- when the secret was last changed
    ADD COLUMN last_used_at timestamptz;  -- to about a minute; each worker tells of many requests at once

-- The keys of a collection that is deleted are revoked and stay listed. If they went with it, the service might be left
-- without any key, which is open to this machine; a key without a collection is one to all of them, so it has to be
-- revoked in the same breath.

ALTER TABLE api_keys
    DROP CONSTRAINT api_keys_collection_id_fkey,
    ADD FOREIGN KEY (collection_id) REFERENCES collections (id) ON DELETE SET NULL;

CREATE OR REPLACE FUNCTION revoke_keys_of_collection() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE collection_id = OLD.id;
    RETURN OLD;
END $$;

CREATE TRIGGER revoke_keys BEFORE DELETE ON collections
    FOR EACH ROW EXECUTE FUNCTION revoke_keys_of_collection();
