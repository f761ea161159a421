-- Listing people in the order in which they came.

CREATE INDEX people_created ON people (collection_id, created_at, id);
