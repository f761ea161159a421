-- Photos that are kept, and the chips their embeddings were made of, both encrypted. docs/adr/0015-privacy.md says why.

-- key_id is read out of what is stored, so it cannot be wrong; \x01 is the version of the encryption, and so nothing
-- that is not encrypted gets in here. EXTERNAL: ciphertext does not become smaller, and its first bytes can be read
-- without the rest.

CREATE TABLE photos (
    face_id       uuid PRIMARY KEY REFERENCES faces (id) ON DELETE CASCADE,
    person_id     uuid NOT NULL,
    collection_id bigint NOT NULL,
    media_type    text NOT NULL,
    photo         bytea NOT NULL CHECK (substring(photo FROM 1 FOR 1) = '\x01'),
    chip          bytea NOT NULL CHECK (substring(chip FROM 1 FOR 9) = substring(photo FROM 1 FOR 9)),
    key_id        text COLLATE "C" NOT NULL GENERATED ALWAYS AS (encode(substring(photo FROM 2 FOR 8), 'hex')) STORED,
    created_at    timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (person_id, collection_id) REFERENCES people (id, collection_id) ON DELETE CASCADE
);

ALTER TABLE photos
    ALTER COLUMN photo SET STORAGE EXTERNAL,
    ALTER COLUMN chip SET STORAGE EXTERNAL;

CREATE INDEX photos_person ON photos (person_id);
CREATE INDEX photos_collection ON photos (collection_id);
CREATE INDEX photos_key ON photos (key_id, face_id);
