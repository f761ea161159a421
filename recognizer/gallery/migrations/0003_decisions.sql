-- What decisions rest on: templates as directions from the centre of all faces, the likeness of each person to their
-- cohort, and faces that were said not to be somebody's. docs/adr/0007-decisions.md says why.

LOCK TABLE collections IN EXCLUSIVE MODE;  -- waits for enrolments under way

ALTER TABLE collections ADD COLUMN target_fpir double precision CHECK (target_fpir > 0 AND target_fpir < 1);

-- changes: how often a template of the space was made, remade or deleted. shift: by how much the people of the space
-- are more alike than those the rule's constants were learned from, as far as that is known.

ALTER TABLE spaces ADD COLUMN changes bigint NOT NULL DEFAULT 0;
ALTER TABLE spaces ADD COLUMN shift double precision NOT NULL DEFAULT 0;

-- A template is now evidence.template() of the person's faces, of length 1, and a little noise. Here it is their mean as
-- seen from the centre of all faces (the numbers are evidence.npz's of this version); a face that is not like the rest
-- counts less as soon as the person's faces change. The check keeps out replicas of the version before, whose templates
-- are something else.

DROP TABLE templates;

CREATE TABLE templates (
    person_id     uuid NOT NULL,
    space_id      bigint NOT NULL,
    collection_id bigint NOT NULL,
    embedding     halfvec(128) NOT NULL CHECK (abs(l2_norm(embedding) - 1) < 0.1),
    faces         integer NOT NULL CHECK (faces > 0),
    PRIMARY KEY (person_id, space_id),
    FOREIGN KEY (person_id, collection_id) REFERENCES people (id, collection_id) ON DELETE CASCADE,
    FOREIGN KEY (space_id, collection_id) REFERENCES spaces (id, collection_id) ON DELETE CASCADE
);

WITH seen_from AS (
    SELECT '[-0.097447, 0.08582, 0.050582, -0.039595, -0.091001, -0.021648, -0.012419, -0.10784, 0.1423, -0.065405,'
           '0.19413, -0.039068, -0.24109, -0.045289, -0.028826, 0.12833, -0.14951, -0.1195, -0.11978, -0.079776, 0.015295,'
           '0.03299, 0.029457, 0.017939, -0.12839, -0.30346, -0.073846, -0.094501, 0.052798, -0.082802, 0.0080984,'
           '0.048686, -0.1833, -0.057963, 0.025916, 0.065863, -0.050632, -0.066279, 0.20223, 0.0073075, -0.16886,'
           '0.0075544, 0.053212, 0.24405, 0.19798, 0.0089563, 0.019543, -0.072242, 0.1151, -0.25349, 0.044623, 0.13965,'
           '0.10822, 0.075323, 0.083006, -0.13929, 0.0255, 0.13421, -0.184, 0.067915, 0.070012, -0.08861, -0.038829,'
           '-0.037636, 0.17055, 0.08856, -0.092714, -0.13389, 0.16519, -0.14683, -0.038617, 0.074608, -0.092454, -0.16127,'
           '-0.26575, 0.031858, 0.38325, 0.12898, -0.1701, 0.014736, -0.076919, -0.022461, 0.045376, 0.039136, -0.073823,'
           '-0.039807, -0.096236, 0.022649, 0.19555, -0.02893, -0.018549, 0.21448, 0.0096054, -0.0038821, 0.03462,'
           '0.043027, -0.112, -0.014822, -0.1084, -0.019034, 0.048908, -0.10089, 0.0084081, 0.088442, -0.17016, 0.15495,'
           '-0.016894, -0.018793, -0.0065408, -0.017297, -0.07717, -0.0071831, 0.16748, -0.24321, 0.20591, 0.17216,'
           '-0.0037346, 0.12634, 0.058271, 0.063877, -0.008735, -0.0059078, -0.13694, -0.10251, 0.030883, -0.023201,'
           '0.027613, 0.035945]'::vector AS centre
)
INSERT INTO templates (person_id, space_id, collection_id, embedding, faces)
SELECT person_id, space_id, collection_id,
       (l2_normalize(direction) + (SELECT array_agg((random() - 0.5) * 0.006)
                                   FROM generate_series(1, 128 + 0 * faces))::vector)::halfvec(128),
       faces
FROM (
    SELECT face.person_id, space.id AS space_id, space.collection_id, count(*) AS faces,
           avg(l2_normalize(face.embedding - centre)) AS direction
    FROM seen_from CROSS JOIN faces AS face
    JOIN spaces AS space ON space.collection_id = face.collection_id AND face.model_id = ANY (space.model_ids)
    GROUP BY 1, 2, 3
) AS mean;

CREATE INDEX templates_space ON templates (space_id);

CREATE INDEX templates_embedding ON templates USING hnsw (embedding halfvec_l2_ops)
    WITH (m = 16, ef_construction = 128);

-- Beside templates, because what changes here must not touch their index. likeness: of the template to its cohort;
-- rival: what the nearest other person would score as a candidate for it; made, seen: spaces.changes when the template
-- was made and when both were reckoned (-1: not yet with the people of the gallery).

CREATE TABLE cohorts (
    person_id uuid NOT NULL,
    space_id  bigint NOT NULL,
    likeness  real,
    rival     real,
    made      bigint NOT NULL,
    seen      bigint NOT NULL,
    PRIMARY KEY (person_id, space_id),
    FOREIGN KEY (person_id, space_id) REFERENCES templates (person_id, space_id) ON DELETE CASCADE
);

INSERT INTO cohorts (person_id, space_id, made, seen) SELECT person_id, space_id, 0, -1 FROM templates;

CREATE INDEX cohorts_seen ON cohorts (space_id, seen);

-- "Not this person": a probe that is nearer to one of these than to the person's own faces is no match.

CREATE TABLE rejections (
    id            uuid PRIMARY KEY,
    person_id     uuid NOT NULL,
    collection_id bigint NOT NULL,
    embedding     vector(128) NOT NULL,
    model_id      text NOT NULL,
    space         text COLLATE "C" NOT NULL,  -- its model_id without the last part
    created_at    timestamptz NOT NULL DEFAULT now(),
    created_by    text NOT NULL,  -- the id of an API key, or "local"
    FOREIGN KEY (person_id, collection_id) REFERENCES people (id, collection_id) ON DELETE CASCADE
);

CREATE INDEX rejections_person ON rejections (person_id, created_at, id);
