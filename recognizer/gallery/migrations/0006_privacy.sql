-- What a collection keeps, and for how long; and who did what. docs/adr/0015-privacy.md says why.

ALTER TABLE collections
    ADD COLUMN keep_photos    boolean NOT NULL DEFAULT false,  -- whether the photos of enrolments are stored, encrypted
    ADD COLUMN retention_days integer CHECK (retention_days > 0);  -- NULL: people stay until somebody erases them

-- The audit trail: each entry holds the hash of the one before, so that none can be changed, taken out or put in without
-- all after it being made anew; audit_head says which is the last. A person stands in it only as the SHA-256 of a random
-- id, which says nothing once the person is erased. No column holds a name of a person, a photo or an embedding.

CREATE TABLE audit (
    number     bigint PRIMARY KEY CHECK (number > 0),
    at         timestamptz NOT NULL,
    actor      text NOT NULL,  -- an API key's id, "local", or which command
    action     text COLLATE "C" NOT NULL,
    collection text,
    subject    bytea CHECK (octet_length(subject) = 32),
    detail     text NOT NULL,  -- a JSON object, exactly as it was hashed
    request_id text,
    hash       bytea NOT NULL CHECK (octet_length(hash) = 32)
);

CREATE INDEX audit_subject ON audit (subject, number) WHERE subject IS NOT NULL;

CREATE TABLE audit_head (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    number   bigint NOT NULL,
    hash     bytea NOT NULL
);

INSERT INTO audit_head (number, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

CREATE OR REPLACE FUNCTION keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is only ever added to';
END $$;

CREATE TRIGGER keep BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();
