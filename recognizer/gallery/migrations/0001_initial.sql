-- Collections of people, their faces, API keys and idempotency keys.
-- Files in this folder are applied once, in order, and never change after they were released.

CREATE EXTENSION IF NOT EXISTS vector;

-- *_key columns hold a name as it is compared: casefolded, NFC, spaces collapsed (made in Python, so that
-- it does not depend on the server's locale); COLLATE "C" keeps their order the same on every server.

CREATE TABLE collections (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- never shown outside
    name       text NOT NULL CHECK (name <> ''),
    name_key   text COLLATE "C" NOT NULL UNIQUE,
    threshold  double precision CHECK (threshold > 0 AND threshold < 2),
    revision   bigint NOT NULL DEFAULT 0 CHECK (revision >= 0),  -- grows with every change of the people in it
    created_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO collections (name, name_key) VALUES ('default', 'default');

-- ids of people and faces are random (version 4, made in Python): nobody can guess one

CREATE TABLE people (
    id            uuid PRIMARY KEY,
    collection_id bigint NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    name          text NOT NULL CHECK (name <> ''),
    name_key      text COLLATE "C" NOT NULL,
    external_id   text COLLATE "C" CHECK (external_id <> ''),
    metadata      jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (collection_id, name_key),
    UNIQUE (collection_id, external_id),
    UNIQUE (id, collection_id)  -- what faces refer to, so that a face cannot be in another collection
);

CREATE TABLE faces (
    id             uuid PRIMARY KEY,
    person_id      uuid NOT NULL,
    collection_id  bigint NOT NULL,
    embedding      vector(128) NOT NULL,
    model_id       text NOT NULL,
    box_left       integer NOT NULL,
    box_top        integer NOT NULL,
    box_right      integer NOT NULL,
    box_bottom     integer NOT NULL,
    quality_score  double precision NOT NULL,
    quality_issues text[] NOT NULL DEFAULT '{}',
    photo_sha256   bytea NOT NULL CHECK (octet_length(photo_sha256) = 32),
    created_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (person_id, photo_sha256),
    FOREIGN KEY (person_id, collection_id) REFERENCES people (id, collection_id) ON DELETE CASCADE,
    CHECK (box_left < box_right AND box_top < box_bottom)
);

CREATE INDEX faces_collection ON faces (collection_id, model_id);

CREATE TABLE api_keys (
    id            text COLLATE "C" PRIMARY KEY,  -- the public part of the key
    secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
    label         text NOT NULL,
    scopes        text[] NOT NULL CHECK (scopes <@ ARRAY['recognize', 'enroll', 'admin'] AND scopes <> '{}'),
    collection_id bigint REFERENCES collections (id) ON DELETE CASCADE,  -- NULL: all collections
    created_at    timestamptz NOT NULL DEFAULT now(),
    revoked_at    timestamptz
);

-- What an enrolment with an idempotency key answered. It names the person, so it goes when the person goes.

CREATE TABLE idempotency_keys (
    collection_id  bigint NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    key_sha256     bytea NOT NULL CHECK (octet_length(key_sha256) = 32),
    request_digest bytea NOT NULL,
    person_id      uuid NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    response       jsonb NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (collection_id, key_sha256)
);

CREATE INDEX idempotency_keys_person ON idempotency_keys (person_id);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);
