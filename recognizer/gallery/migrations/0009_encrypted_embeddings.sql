-- Embeddings that are encrypted, in the collections that say so. docs/adr/0017-encrypted-embeddings.md says why and what
-- it costs. Replicas of the version before cannot search such a collection: it is switched on when all are of this one.

ALTER TABLE collections ADD COLUMN encrypt_embeddings boolean NOT NULL DEFAULT false;

-- sealed holds what embedding does elsewhere, encrypted for its row; \x01 is the version of the encryption, and so nothing
-- that is not encrypted gets in here. The index of the templates passes over those that are NULL.

ALTER TABLE faces
    ALTER COLUMN embedding DROP NOT NULL,
    ADD COLUMN sealed bytea CHECK (substring(sealed FROM 1 FOR 1) = '\x01'),
    ADD CONSTRAINT faces_plain_or_sealed CHECK (num_nonnulls(embedding, sealed) = 1);

-- revision: the collection's at which the template was made or remade. Who keeps the decrypted embeddings in memory asks
-- for those of later revisions than the one known; of others nobody asks.

ALTER TABLE templates
    ALTER COLUMN embedding DROP NOT NULL,
    ADD COLUMN sealed bytea CHECK (substring(sealed FROM 1 FOR 1) = '\x01'),
    ADD COLUMN revision bigint,
    ADD CONSTRAINT templates_plain_or_sealed CHECK (num_nonnulls(embedding, sealed) = 1),
    ADD CONSTRAINT templates_revision CHECK ((sealed IS NULL) = (revision IS NULL));

ALTER TABLE rejections
    ALTER COLUMN embedding DROP NOT NULL,
    ADD COLUMN sealed bytea CHECK (substring(sealed FROM 1 FOR 1) = '\x01'),
    ADD CONSTRAINT rejections_plain_or_sealed CHECK (num_nonnulls(embedding, sealed) = 1);

CREATE INDEX templates_changed ON templates (space_id, revision) WHERE sealed IS NOT NULL;

-- by the key's id, for telling which keys are still needed

CREATE INDEX faces_key ON faces (encode(substring(sealed FROM 2 FOR 8), 'hex'), id)
    WHERE encode(substring(sealed FROM 2 FOR 8), 'hex') IS NOT NULL;
CREATE INDEX templates_key ON templates (encode(substring(sealed FROM 2 FOR 8), 'hex'), person_id, space_id)
    WHERE encode(substring(sealed FROM 2 FOR 8), 'hex') IS NOT NULL;
CREATE INDEX rejections_key ON rejections (encode(substring(sealed FROM 2 FOR 8), 'hex'), id)
    WHERE encode(substring(sealed FROM 2 FOR 8), 'hex') IS NOT NULL;
