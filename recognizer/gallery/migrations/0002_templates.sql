-- What the search for the nearest people works on: one template per person and space, in an index, and the size
-- of each space, by which the search chooses its way. docs/adr/0005-search.md says why.

-- A space is what a model's embeddings can be compared within: its id without the last part (the number of crops).
-- faces keep the whole id; model_ids are those seen in the space. people and faces steer the search: were they
-- wrong, it would be slower, or go the less exact way.

LOCK TABLE collections IN EXCLUSIVE MODE;  -- waits for enrolments under way, so that none of their faces is left out

CREATE TABLE spaces (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection_id bigint NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    name          text COLLATE "C" NOT NULL,
    model_ids     text[] NOT NULL,
    people        bigint NOT NULL DEFAULT 0,
    faces         bigint NOT NULL DEFAULT 0,
    UNIQUE (collection_id, name),
    UNIQUE (id, collection_id)  -- what templates refer to, so that a template is of its person's collection
);

-- Half precision: half the bytes to read, and the faces are ranked exactly afterwards.

CREATE TABLE templates (
    person_id     uuid NOT NULL,
    space_id      bigint NOT NULL,
    collection_id bigint NOT NULL,
    embedding     halfvec(128) NOT NULL,  -- the mean of the person's faces in the space, and a little noise
    faces         integer NOT NULL CHECK (faces > 0),
    PRIMARY KEY (person_id, space_id),
    FOREIGN KEY (person_id, collection_id) REFERENCES people (id, collection_id) ON DELETE CASCADE,
    FOREIGN KEY (space_id, collection_id) REFERENCES spaces (id, collection_id) ON DELETE CASCADE
);

INSERT INTO spaces (collection_id, name, model_ids, people, faces)
SELECT collection_id, regexp_replace(model_id, '/[^/]*$', ''), array_agg(DISTINCT model_id),
       count(DISTINCT person_id), count(*)
FROM faces
GROUP BY 1, 2;

-- The noise (0.01 of distance) keeps templates of one photo from being the same: HNSW loses people behind a crowd of
-- those. It refers to the row, so that each row gets its own.

INSERT INTO templates (person_id, space_id, collection_id, embedding, faces)
SELECT person_id, space_id, collection_id,
       (embedding + (SELECT array_agg((random() - 0.5) * 0.0035)
                     FROM generate_series(1, 128 + 0 * faces))::vector)::halfvec(128),
       faces
FROM (
    SELECT face.person_id, space.id AS space_id, space.collection_id, avg(face.embedding) AS embedding,
           count(*) AS faces
    FROM faces AS face
    JOIN spaces AS space ON space.collection_id = face.collection_id AND face.model_id = ANY (space.model_ids)
    GROUP BY 1, 2, 3
) AS mean;

CREATE INDEX templates_space ON templates (space_id);

CREATE INDEX templates_embedding ON templates USING hnsw (embedding halfvec_l2_ops)
    WITH (m = 16, ef_construction = 128);
